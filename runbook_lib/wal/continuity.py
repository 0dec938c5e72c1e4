"""Is the WAL archive whole?

A hole in the archive is found on the day somebody recovers, unless it is looked for before: everything that was
archived after it is worth nothing until the next base backup. What lies in the bucket is compared with what must lie
there: the segments of each timeline one after the other, each of one size and of one cluster; the histories that tie
timelines together, and the segments at which they are tied; digests, without which no fetch can be believed.

All of it is read from lists and metadata, so that a whole retention window costs a request for each file and no
bytes. Asked for more, every byte is fetched and compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import pairwise
from typing import TypeVar

from runbook_lib.errors import DamagedArtefact
from runbook_lib.outcome import Check, Finding, Outcome
from runbook_lib.reach.objects import StoredObject
from runbook_lib.wal.archive import SHA256, SYSTEM_IDENTIFIER, Listing, WalArchive
from runbook_lib.wal.segment import Fork, Segment, WalName, lsn_text

Found = TypeVar("Found")
_AT_ONCE = 8
_LOOK_FOR_IT = (
    "look for it in pg_wal of every server and among older versions in the bucket; what was written after it can be "
    "recovered from base backups that are later still: take one now"
)


def archive_is_continuous(
    archive: WalArchive, *, since: datetime | None = None, through: str | None = None, deep: bool = False
) -> Check:
    """Look whether everything between the first and the last file of the archive is there and can be believed.

    :param since: how far back to look, such as the beginning of the retention window; by default to the first file
    :param through: a segment that must be there, such as ``last_archived_wal`` of ``pg_stat_archiver``: that the last
        files are missing shows in no list
    :param deep: whether every file is fetched and its bytes compared with its digest

    Cost: one request for a thousand files, and one for each.
    """
    whole = archive.listing()
    listing = _since(whole, since)
    histories, findings = _histories(archive, listing)
    findings += _foreign(listing)
    findings += _holes(archive, listing)
    findings += _ties(archive, whole, histories, since)
    findings += _sizes(archive, listing)
    findings += _metadata(archive, listing)
    if through is not None and not archive.bucket.objects(archive.key(through)):
        says = "the primary counts it as archived, and it is not there"
        findings.append(Finding("wal.through", through, says, remedy=_LOOK_FOR_IT))
    if not listing.segments:
        remedy = "name the bucket and the prefix that the primary archives to; set archive_mode and archive_command"
        findings.append(Finding("wal.empty", archive.where, "there is no segment at all", remedy=remedy))
    files = _files(listing)
    if deep:
        findings += [finding for finding in _each(files, lambda each: _bytes(archive, each)) if finding is not None]
    count = sum(map(len, listing.segments.values()))
    looked_at = f"{count} segments, {len(listing.histories)} histories, {len(listing.timelines)} timelines"
    looked_at += f", {sum(each.bytes for each in files)} bytes {'compared' if deep else 'by their metadata'}"
    return Check("the WAL archive is continuous", archive.where, looked_at, tuple(findings))


def _since(listing: Listing, since: datetime | None) -> Listing:
    """Leave out what lies before the window: the segments before the first one that was archived in it."""
    if since is None:
        return listing

    def later(of_timelines: Mapping[int, Mapping[int, StoredObject]]) -> dict[int, dict[int, StoredObject]]:
        kept: dict[int, dict[int, StoredObject]] = {}
        for timeline, segments in of_timelines.items():
            first = min((number for number, stored in segments.items() if stored.modified >= since), default=None)
            if first is not None:
                kept[timeline] = {number: stored for number, stored in segments.items() if number >= first}
        return kept

    return Listing(later(listing.segments), later(listing.partials), listing.histories, listing.labels, listing.foreign)


def _histories(archive: WalArchive, listing: Listing) -> tuple[dict[int, tuple[Fork, ...]], list[Finding]]:
    histories: dict[int, tuple[Fork, ...]] = {1: ()}
    findings: list[Finding] = []
    for timeline, stored in listing.histories.items():
        try:
            histories[timeline] = archive.history(timeline)
        except DamagedArtefact as damaged:
            findings.append(Finding("wal.history", stored.url, damaged.why, remedy=damaged.remedy))
    return histories, findings


def _foreign(listing: Listing) -> Iterator[Finding]:
    for stored in listing.foreign:
        says = "PostgreSQL gives no file such a name"
        yield Finding("wal.foreign", stored.url, says, remedy="find out who put it there, and move it elsewhere")


def _holes(archive: WalArchive, listing: Listing) -> Iterator[Finding]:
    for timeline, segments in sorted(listing.segments.items()):
        there = sorted(segments)
        for before, after in pairwise(there):
            if after - before > 1:
                yield _hole(archive, timeline, before + 1, after - 1)


def _hole(archive: WalArchive, timeline: int, first: int, last: int) -> Finding:
    begins, ends = (Segment(timeline, number, archive.segment_bytes) for number in (first, last))
    subject = begins.name if first == last else f"{begins.name} to {ends.name}"
    says = (
        f"{last - first + 1} segments are missing: nothing between {lsn_text(begins.start_lsn)} and "
        f"{lsn_text(ends.end_lsn)} of timeline {timeline} can be recovered, nor what follows"
    )
    return Finding("wal.hole", subject, says, remedy=_LOOK_FOR_IT)


def _ties(
    archive: WalArchive, listing: Listing, histories: Mapping[int, tuple[Fork, ...]], since: datetime | None
) -> Iterator[Finding]:
    """Look whether each timeline is tied to the one it comes from, and whether anybody went on along that one."""
    for timeline in listing.timelines:
        if timeline not in histories:
            if timeline not in listing.histories:
                yield Finding(
                    "wal.history",
                    f"{timeline:08X}.history",
                    f"there is WAL of timeline {timeline}, and not its history: no recovery finds the way to it",
                    remedy="copy it from pg_wal of a server of that timeline",
                )
            continue
        forks = histories[timeline]
        if not forks:
            continue
        fork = forks[-1]
        before = histories.get(fork.parent)
        if before is not None and [(f.parent, f.lsn) for f in forks[:-1]] != [(f.parent, f.lsn) for f in before]:
            yield Finding(
                "wal.history",
                f"{timeline:08X}.history",
                f"it tells another past of timeline {fork.parent} than {fork.parent:08X}.history",
                remedy="find out which of the two servers wrote each; one of them is of another cluster or copy",
            )
        if since is None or listing.histories[timeline].modified >= since:
            yield from _tie(archive, listing, timeline, fork)
        yield from _two_writers(archive, listing, timeline, fork)
    for timeline, partials in listing.partials.items():
        left_at = {forks[-1].lsn // archive.segment_bytes for forks in histories.values() if _from(forks, timeline)}
        for number, stored in partials.items():
            if number not in listing.segments.get(timeline, {}) and number not in left_at:
                yield Finding(
                    "wal.partial",
                    stored.url,
                    "it is there under this name alone, which PostgreSQL never asks for, and no timeline goes on from",
                    remedy="if its server is gone, copy it to its name without .partial before recovering",
                )


def _from(forks: tuple[Fork, ...], timeline: int) -> bool:
    return bool(forks) and forks[-1].parent == timeline


def _tie(archive: WalArchive, listing: Listing, timeline: int, fork: Fork) -> Iterator[Finding]:
    at = fork.lsn // archive.segment_bytes
    ours, parents = listing.segments.get(timeline, {}), listing.segments.get(fork.parent, {})
    if not parents and min(ours, default=at + 1) > at:
        return  # what lies before it was removed with its retention
    if ours and min(ours) > at + 1 and at not in ours:
        yield _hole(archive, timeline, at, min(ours) - 1)
    elif at not in ours and at not in parents:
        yield Finding(
            "wal.fork",
            Segment(timeline, at, archive.segment_bytes).name,
            f"timeline {timeline} leaves {fork.parent} in it, at {lsn_text(fork.lsn)}, and it is there of neither",
            remedy=_LOOK_FOR_IT,
        )
    if parents and max(parents) < at - 1:
        yield _hole(archive, fork.parent, max(parents) + 1, at - 1)


def _two_writers(archive: WalArchive, listing: Listing, timeline: int, fork: Fork) -> Iterator[Finding]:
    at, parents = fork.lsn // archive.segment_bytes, listing.segments.get(fork.parent, {})
    history = listing.histories[timeline]
    went_on = [number for number, stored in parents.items() if number > at and stored.modified > history.modified]
    if went_on:
        first, last = (
            Segment(fork.parent, number, archive.segment_bytes).name for number in (min(went_on), max(went_on))
        )
        yield Finding(
            "wal.two_writers",
            f"{timeline:08X}.history",
            f"timeline {timeline} left {fork.parent} at {lsn_text(fork.lsn)}, and {fork.parent} was archived further "
            f"since then, {first} to {last}: a recovery to the latest timeline loses that",
            remedy=f"find out which server still writes timeline {fork.parent}. Was {timeline} a test restore with "
            f"archive_mode on? Then remove {timeline:08X}.history and its segments. Until then name the timeline to "
            "recover along: recovery_target_timeline",
        )


def _sizes(archive: WalArchive, listing: Listing) -> Iterator[Finding]:
    for of_timelines in (listing.segments, listing.partials):
        for segments in of_timelines.values():
            for stored in segments.values():
                if stored.bytes != archive.segment_bytes:
                    says = f"it has {stored.bytes} bytes, and a segment has {archive.segment_bytes}"
                    yield Finding("wal.size", stored.url, says, remedy=_LOOK_FOR_IT)


def _metadata(archive: WalArchive, listing: Listing) -> Iterator[Finding]:
    files = _files(listing)
    told = dict(zip(files, _each(files, lambda each: archive.bucket.head(each.key)[1]), strict=True))
    whose = Counter(metadata[SYSTEM_IDENTIFIER] for metadata in told.values() if SYSTEM_IDENTIFIER in metadata)
    ours = archive.system_identifier or next((each for each, _ in whose.most_common(1)), None)
    without: list[StoredObject] = []
    for stored, metadata in told.items():
        name = WalName.parse(stored.key.removeprefix(archive.prefix))
        assert name is not None
        if SHA256 not in metadata:
            without.append(stored)
        if metadata.get(SYSTEM_IDENTIFIER, ours) != ours:
            says = f"it is of the cluster {metadata[SYSTEM_IDENTIFIER]}; the others are of {ours}"
            remedy = "two clusters archive to one place: give each its own, and stop whoever came second"
            yield Finding("wal.system_identifier", stored.url, says, remedy=remedy)
        elif why := archive.why_not_said(name, stored, metadata):
            yield Finding("wal.object", stored.url, why, remedy=_LOOK_FOR_IT)
    if without:
        yield Finding(
            "wal.digest",
            f"{without[0].key} to {without[-1].key}",
            f"{len(without)} files were archived without a digest, by another tool: whether their bytes are the ones "
            "that were archived cannot be said",
            Outcome.UNPROVEN,
            "archive with runbook_lib.wal.service, which writes one; take a base backup then",
        )


def _bytes(archive: WalArchive, stored: StoredObject) -> Finding | None:
    try:
        archive.verify(stored.key.removeprefix(archive.prefix))
    except DamagedArtefact as damaged:
        return Finding("wal.bytes", stored.url, damaged.why, remedy=_LOOK_FOR_IT)
    return None


def _files(listing: Listing) -> list[StoredObject]:
    of_timelines = [*listing.segments.values(), *listing.partials.values()]
    return [*listing.histories.values(), *(stored for segments in of_timelines for stored in segments.values())]


def _each(files: Iterable[StoredObject], look: Callable[[StoredObject], Found]) -> list[Found]:
    with ThreadPoolExecutor(max_workers=_AT_ONCE, thread_name_prefix="wal-check") as pool:
        return list(pool.map(look, files))
