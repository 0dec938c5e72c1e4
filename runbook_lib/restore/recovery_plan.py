"""Can this moment be recovered, from what, and where exactly will it stop?

PostgreSQL answers the first of these at the very end: after the base backup has been fetched and all WAL replayed it
says "recovery ended before configured recovery target was reached". And a target before the end of the base backup it
used to pass over in silence. Both can be known beforehand, from the records of the base backups and from the WAL
itself; so a recovery begins with a plan, which names the record that it will stop at. What the server then does is
compared with that: two witnesses, of whom neither has asked the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from runbook_lib.errors import DamagedArtefact, NotRecoverable
from runbook_lib.reach import binaries
from runbook_lib.reach.workspace import Workspace
from runbook_lib.restore.prediction import Work
from runbook_lib.restore.recovery_target import RecoveryTarget, TargetKind, time_text
from runbook_lib.restore.timeline_path import TimelinePath
from runbook_lib.restore.wal_endings import WalEnding, WalEndings
from runbook_lib.wal.archive import Listing, WalArchive
from runbook_lib.wal.base_backup import BaseBackup, BaseBackups
from runbook_lib.wal.segment import Segment, lsn_text

_CLOCKS_DIFFER = timedelta(minutes=15)
"""By how much S3's clock may differ from the server's, where a segment's age says that it needs no reading."""
_LOOK_AHEAD_SEGMENTS = 16
"""How far beyond the end it is looked for a transaction that must not be there."""


@dataclass(frozen=True)
class Boundary:
    """Where a recovery stops: between two records."""

    last_lsn: int
    """Where the last record begins that is replayed."""
    next_lsn: int | None
    """Where the first one begins that is not; None where the archive ends there."""
    last_ending: WalEnding | None
    """The last transaction that ended before it, committed or not, and whose time the server notes: where it stops
    behind a position, it does so before it notes the time. None where none did since the base backup."""
    last_commit: WalEnding | None
    """The last one that is there."""
    next_commit: WalEnding | None
    """The first one that is not; None where none follows in the archive."""

    def holds(self, replayed_lsn: int) -> bool:
        """Return whether a server whose replay came to this position stopped here: not a record more or less."""
        return self.last_lsn < replayed_lsn and (self.next_lsn is None or replayed_lsn <= self.next_lsn)

    def __str__(self) -> str:
        """Return both sides of it."""
        there = self.last_commit or f"the record at {lsn_text(self.last_lsn)}"
        return (
            f"{there} is the last that is there, {self.next_commit or 'nothing that is archived'} the first that is not"
        )


@dataclass(frozen=True)
class RecoveryPlan:
    """What a recovery will be done from, and what it will come to."""

    target: RecoveryTarget
    """The moment."""
    path: TimelinePath
    """The timeline that is followed, and its ancestors."""
    backup: BaseBackup
    """The base backup that it begins from."""
    segments: tuple[Segment, ...]
    """The segments that it reads; all of them are in the archive."""
    boundary: Boundary
    """Where it stops."""
    next_timeline: int
    """The timeline that a promotion begins."""

    @property
    def timeline(self) -> int:
        """The timeline that is followed."""
        return self.path.timeline

    @property
    def wal_bytes(self) -> int:
        """How much WAL is fetched and replayed."""
        return len(self.segments) * self.backup.segment_bytes

    @property
    def fetch_bytes(self) -> int:
        """How much is fetched altogether."""
        return self.backup.tar_bytes + self.wal_bytes

    @property
    def work(self) -> Work:
        """What has to be done, for the prediction of how long it takes."""
        return Work.of_point_in_time(
            f"{self.backup.key} to {self.target}",
            base_backup_bytes=self.backup.tar_bytes,
            wal_bytes=self.wal_bytes,
            room_bytes=self.backup.data_bytes,
        )

    @property
    def disk_bytes(self) -> int:
        """How much room it needs: the tar and the files at the same time, and the WAL that is kept of it."""
        return self.backup.tar_bytes + self.backup.data_bytes + self.wal_bytes

    def __str__(self) -> str:
        """Return it in words, for a report."""
        return (
            f"to {self.target} on timeline {self.timeline}, from {self.backup} and {len(self.segments)} segments"
            f" ({self.fetch_bytes:,} bytes to fetch): {self.boundary}"
        )


def plan_recovery(
    target: RecoveryTarget | None,
    *,
    archive: WalArchive,
    base_backups: BaseBackups,
    workspace: Workspace,
    now: datetime,
    timeline: int | None = None,
    tools_directory: Path | None = None,
) -> RecoveryPlan:
    """Say what recovering to a moment consists of, before anything is restored.

    :param target: None for the newest moment that can be recovered: the last transaction that is archived
    :param workspace: where WAL lies while it is read
    :param timeline: the timeline to follow; by default the newest

    Raise `NotRecoverable`, with the nearest moments that can be, where nothing leads there; `DamagedArtefact` where
    WAL is missing or damaged on the way.
    """
    if target is not None and target.kind is TargetKind.TIME and target.moment > now:
        raise NotRecoverable(
            f"the moment {target}",
            where=archive.where,
            why=f"it is in the future: it is {time_text(now)} now",
            remedy="name a moment that has been; mind the offset",
        )
    listed = base_backups.listing().backups
    ours = [each for each in listed if archive.system_identifier in (None, each.system_identifier)]
    if not ours:
        raise NotRecoverable(
            f"the moment {target or 'that is the newest'}",
            where=base_backups.where,
            why=f"there is no base backup of this cluster among {len(listed)}",
            remedy="take one now: without a base backup the WAL alone brings nothing back",
        )
    newest = ours[0]
    same = [each for each in ours if each.system_identifier == newest.system_identifier]
    archive = WalArchive(
        archive.bucket,
        archive.prefix,
        system_identifier=newest.system_identifier,
        segment_bytes=newest.segment_bytes,
        accept_without_digest=not archive.digest_is_needed,
    )
    path = TimelinePath.to(timeline, archive)
    usable = [each for each in same if not path.why_not(each)]
    if not usable:
        raise NotRecoverable(
            f"the moment {target or 'that is the newest'} on timeline {path.timeline}",
            where=base_backups.where,
            why="; ".join(f"{each.key}: {path.why_not(each)}" for each in same),
            remedy=f"take a base backup on timeline {path.timeline}, or name the timeline that one of these is of",
        )
    endings = WalEndings(archive, path, binaries.find(newest.major, directory=tools_directory), workspace)
    return _Planning(archive, path, usable, endings).plan(target)


class _Planning:
    """Looks for the base backup, the segments and the boundary along one path."""

    def __init__(
        self, archive: WalArchive, path: TimelinePath, backups: Sequence[BaseBackup], endings: WalEndings
    ) -> None:
        self._archive = archive
        self._path = path
        self._backups = backups
        """Those on the path, newest first."""
        self._endings = endings
        self._listing: Listing = archive.listing()
        self._size = archive.segment_bytes

    def plan(self, target: RecoveryTarget | None) -> RecoveryPlan:
        if target is None:
            target = self._newest()
        backup, stop, after = self._stop(target)
        notes_its_time = target.kind is not TargetKind.LSN
        boundary = self._boundary(backup, stop, after=after, notes_its_time=notes_its_time)
        first, until = backup.first_segment.number, (stop[0] + stop[2] - 1) // self._size
        segments = tuple(self._path.segment(number) for number in range(first, until + 1))
        return RecoveryPlan(target, self._path, backup, segments, boundary, self._next_timeline())

    def _newest(self) -> RecoveryTarget:
        backup = self._backups[0]
        last, hole = self._reaches(backup)
        if hole is not None:
            raise self._hole("the newest moment", backup, last, hole)
        ending = self._endings.last_of(backup.first_segment.number, last) if self._has_any(backup, last) else None
        if ending is None or ending.lsn < backup.stop_lsn:
            raise NotRecoverable(
                "the newest moment",
                where=self._archive.where,
                why=f"no transaction is archived that ended after {backup}",
                remedy="wait until a segment is archived (archive_timeout), or have it switched: pg_switch_wal()",
            )
        return RecoveryTarget(TargetKind.LSN, ending.lsn)

    def _stop(self, target: RecoveryTarget) -> tuple[BaseBackup, tuple[int, int, int], bool]:
        """Return the base backup, the record that is stopped at, and whether that is replayed itself."""
        candidates = [each for each in self._backups if self._may_serve(each, target)]
        if not candidates:
            raise self._too_early(target)
        names = target.kind is TargetKind.NAME
        found: list[WalEnding] = []
        upper: int | None = None
        for backup in candidates:
            last, hole = self._reaches(backup)
            until = last if upper is None else min(last, upper)
            if target.kind is TargetKind.LSN:
                if (at := self._position(target, backup, last, hole)) is not None:
                    return backup, at, target.inclusive
                continue
            first = backup.first_segment.number
            begin = self._from_where(target, first, until) if target.kind is TargetKind.TIME else first
            hits = self._hits(target, begin, until)
            if names:
                found = list({each.lsn: each for each in (*hits, *found)}.values())
            elif hits:
                found = hits
            if len(found) > 1:
                raise self._ambiguous(target, found)
            if found and found[0].lsn >= backup.stop_lsn:
                stop = found[0]
                after = target.inclusive and target.kind is not TargetKind.TIME
                return backup, (stop.lsn, stop.previous_lsn, stop.bytes), after
            if not found and hole is not None:
                raise self._hole(f"the moment {target}", backup, last, hole)
            if not found and target.kind is TargetKind.TIME:
                raise self._too_late(target, backup, last)
            upper = first
        if found or target.kind is TargetKind.LSN:
            raise self._too_early(target)
        raise self._unknown(target)

    def _may_serve(self, backup: BaseBackup, target: RecoveryTarget) -> bool:
        if target.kind is TargetKind.TIME:
            return backup.stopped_at < target.moment
        return target.kind is not TargetKind.LSN or backup.stop_lsn < target.number

    def _hits(self, target: RecoveryTarget, first: int, last: int) -> list[WalEnding]:
        named = target.kind is TargetKind.NAME
        hits: list[WalEnding] = []
        for each in self._endings.between(first, last, names=named):
            if _stops_at(each, target):
                hits.append(each)
                if not named:  # two restore points of one name are two moments
                    break
        return hits

    def _from_where(self, target: RecoveryTarget, first: int, last: int) -> int:
        """Return the first segment that can hold a transaction which ended after a time: none archived before it."""
        for number in range(first, last + 1):
            segment = self._path.segment(number)
            archived = self._listing.segments[segment.timeline][number].modified
            if archived > target.moment - _CLOCKS_DIFFER:
                return number
        return last

    def _position(
        self, target: RecoveryTarget, backup: BaseBackup, last: int, hole: int | None
    ) -> tuple[int, int, int] | None:
        records: list[tuple[int, int, int]] = []
        if self._has_any(backup, last) and target.number // self._size <= last:
            records = self._endings.records_from(target.number, 1, last=last)
        if not records:
            if hole is not None:
                raise self._hole(f"the moment {target}", backup, last, hole)
            raise self._too_late(target, backup, last)
        return records[0] if records[0][0] >= backup.stop_lsn else None

    def _boundary(
        self, backup: BaseBackup, stop: tuple[int, int, int], *, after: bool, notes_its_time: bool
    ) -> Boundary:
        last, _ = self._reaches(backup)
        lsn, previous, _ = stop
        if after:
            following = [each for each in self._endings.records_from(lsn, 2, last=last) if each[0] > lsn]
            last_lsn, next_lsn = lsn, following[0][0] if following else None
        else:
            last_lsn, next_lsn = previous, lsn
        first, number = backup.first_segment.number, lsn // self._size
        # What is in the first segment before the base backup began is not replayed.
        before = [each for each in self._before(first, min(number + 1, last), last_lsn) if each.lsn >= backup.start_lsn]
        return Boundary(
            last_lsn,
            next_lsn,
            next((each for each in reversed(before) if each.lsn < lsn or notes_its_time), None),
            next((each for each in reversed(before) if each.committed), None),
            self._next_commit(number, min(number + _LOOK_AHEAD_SEGMENTS, last), last_lsn),
        )

    def _before(self, first: int, last: int, lsn: int) -> Iterator[WalEnding]:
        """Yield the endings up to a record, from as few segments as hold a commit."""
        begin, step = last, 2
        while True:
            begin = max(first, begin - step)
            found = [each for each in self._endings.between(begin, last) if each.lsn <= lsn]
            if begin == first or any(each.committed for each in found):
                yield from found
                return
            step *= 2

    def _next_commit(self, first: int, last: int, lsn: int) -> WalEnding | None:
        return next((each for each in self._endings.between(first, last) if each.lsn > lsn and each.committed), None)

    def _reaches(self, backup: BaseBackup) -> tuple[int, int | None]:
        """Return the last segment that can be read from a base backup on, and the missing one before further ones."""
        number = backup.first_segment.number
        along = [
            each for numbers in self._listing.segments.values() for each in numbers if self._is_on_path(each, numbers)
        ]
        newest = max(along, default=number - 1)
        while number <= newest:
            segment = self._path.segment(number)
            stored = self._listing.segments.get(segment.timeline, {}).get(number)
            if stored is None:
                return number - 1, number
            if stored.bytes != self._size:
                raise DamagedArtefact(
                    f"{segment.name}, which every recovery from {backup} to a later moment reads",
                    where=stored.url,
                    why=f"it has {stored.bytes:,} bytes, and a segment has {self._size:,}",
                    remedy=f"look for {segment.name} in pg_wal of every server and in older versions of the bucket;"
                    f" without it recover to a moment before {lsn_text(segment.start_lsn)}",
                )
            number += 1
        return newest, None

    def _is_on_path(self, number: int, numbers: object) -> bool:
        return self._listing.segments.get(self._path.segment(number).timeline) is numbers

    def _has_any(self, backup: BaseBackup, last: int) -> bool:
        return last >= backup.first_segment.number

    def _next_timeline(self) -> int:
        """Return the timeline that a promotion begins: the first after its own that has no history yet."""
        following = self._path.timeline + 1
        while following in self._listing.histories:
            following += 1
        return following

    def _moments(self, backup: BaseBackup, last: int) -> str:
        """Say between which moments everything can be recovered."""
        oldest = self._backups[-1]
        ending = self._endings.last_of(backup.first_segment.number, last) if self._has_any(backup, last) else None
        since = f"after {time_text(oldest.stopped_at)} ({lsn_text(oldest.stop_lsn)}, the end of {oldest.key})"
        if ending is None or ending.at is None:
            return since
        return (
            f"{since}, up to {time_text(ending.at)} (the last transaction that is archived, xid {ending.xid}: write"
            f" {lsn_text(ending.lsn)}, or just before {time_text(ending.at)})"
        )

    def _too_early(self, target: RecoveryTarget) -> NotRecoverable:
        oldest = self._backups[-1]
        inside = oldest.started_at <= target.moment if target.kind is TargetKind.TIME else False
        if target.kind is TargetKind.LSN:
            inside = target.number >= oldest.start_lsn
        last, _ = self._reaches(oldest)
        return NotRecoverable(
            f"the moment {target}",
            where=self._archive.where,
            why=f"it lies {'inside' if inside else 'before'} the oldest base backup on timeline {self._path}, {oldest}:"
            " what a base backup holds is whole only from its end on",
            remedy=f"what can be recovered lies {self._moments(oldest, last)}",
        )

    def _too_late(self, target: RecoveryTarget, backup: BaseBackup, last: int) -> NotRecoverable:
        return NotRecoverable(
            f"the moment {target}",
            where=self._archive.where,
            why="no record is archived at which a recovery would stop there: after the whole restore PostgreSQL would"
            " say that recovery ended before the target was reached",
            remedy=f"what can be recovered lies {self._moments(backup, last)}; if it is a moment of today, wait until"
            " its segment is archived (archive_timeout), or have it switched: pg_switch_wal()",
        )

    def _unknown(self, target: RecoveryTarget) -> NotRecoverable:
        oldest, newest = self._backups[-1], self._backups[0]
        last, _ = self._reaches(newest)
        return NotRecoverable(
            f"the moment {target}",
            where=self._archive.where,
            why=f"there is no such {'restore point' if target.kind is TargetKind.NAME else 'transaction'} in the WAL"
            f" from {oldest.first_segment.name} on, along timeline {self._path}",
            remedy=f"what can be recovered lies {self._moments(newest, last)}",
        )

    def _ambiguous(self, target: RecoveryTarget, found: Sequence[WalEnding]) -> NotRecoverable:
        return NotRecoverable(
            f"the moment {target}",
            where=self._archive.where,
            why=f"there are {len(found)} restore points of that name",
            remedy="name the one that is meant by its position: " + ", ".join(lsn_text(each.lsn) for each in found),
        )

    def _hole(self, sought: str, backup: BaseBackup, last: int, hole: int) -> DamagedArtefact:
        missing = self._path.segment(hole)
        return DamagedArtefact(
            sought,
            where=f"{self._archive.where}{missing.name}",
            why="it is not there, and later WAL is: the archive has a hole",
            remedy=f"look for {missing.name} in pg_wal of every server and in older versions of the bucket, and put it"
            f" there; without it what can be recovered lies {self._moments(backup, last)}, or after a later backup",
        )


def _stops_at(ending: WalEnding, target: RecoveryTarget) -> bool:
    """Say whether this is where PostgreSQL stops, behind it or just before it."""
    if target.kind is TargetKind.NAME:
        return ending.name == target.value
    if target.kind is TargetKind.XID:
        return ending.xid == target.value
    if ending.at is None:
        return False
    return ending.at > target.moment or (ending.at == target.moment and not target.inclusive)
