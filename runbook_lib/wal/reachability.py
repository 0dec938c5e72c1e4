"""Which moments can be recovered?

That there are backups for thirty days is no answer: a moment can be recovered where a base backup ended before it,
where every segment from the base backup's first one on is there, and where one of them holds the end of a transaction
later than that moment. Without such an end PostgreSQL never learns that it has come far enough, and gives up (13 and
later). One segment that is missing takes away all that comes after it, up to the next base backup; one base backup
that is missing costs no moment, and hours of replay. So the map is laid out along the whole retention window, from
what the archive lists, before anybody needs it.

How exact its moments are. A stretch *begins* at the second in which its base backup ended, as the server's clock had
it. Where it *ends* no list can say: S3 knows when a segment was put, which is later than all that is in it by as much
as archiving lagged behind, an hour or a day after an outage of the store. The time of the segment before it is no
lower bound either, for the same reason. So of the last segment of each unbroken run the bytes are read, and the latest
end of a transaction in it is the end of the stretch: a moment before it can be recovered, that moment and any later
one is not called so, though it may be. Between the two ends nothing needs to be known but that nothing is missing.

What is not looked at is whether the segments between hold what their names say, see `runbook_lib.wal.continuity`, and
the tars of the base backups.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import pairwise

from runbook_lib.errors import DamagedArtefact
from runbook_lib.outcome import Check, Finding, Outcome
from runbook_lib.wal.archive import Listing, WalArchive
from runbook_lib.wal.base_backup import BaseBackup, BaseBackups
from runbook_lib.wal.segment import Fork, Segment, last_commit_at, lsn_text

BASE_BYTES_PER_SECOND = 278e6
"""How fast a base backup comes back: 1 TB an hour, the lowest figure that is published for whole restores (pgBackRest's
own; pg_basebackup and WAL-G reach 1.5 to 2 times that)."""
WAL_BYTES_PER_SECOND = 152e6
"""How fast WAL is replayed: measured over segments of 16 MB of which each took 50 ms to fetch. Replay is one process,
and from a local disk it made 245 MB a second."""
FIRST_BASE_BACKUP_WITHIN = timedelta(days=1)
"""How long a new cluster may live without a base backup."""

_LOOK_BACK_SEGMENTS = 16
"""How many segments are read at the end of a run, one after the other, to find the end of a transaction."""
_CUT_SHORT = "base_backup.incomplete"
"""No fault here: a base backup that is being taken looks the same."""
_AT_MOST_NAMED = 1
_TAKE_ONE_NOW = "take a base backup now: what is committed from then on can be recovered"

LastCommit = Callable[[Segment], datetime | None]
"""Reads a segment and returns the latest end of a transaction in it; raises `DamagedArtefact` where it cannot be
replayed."""


@dataclass(frozen=True)
class Rates:
    """How fast a recovery goes: what its time is predicted from."""

    base_bytes_per_second: float = BASE_BYTES_PER_SECOND
    """Fetching and unpacking the tar of a base backup."""
    wal_bytes_per_second: float = WAL_BYTES_PER_SECOND
    """Fetching and replaying WAL."""

    def seconds(self, base: BaseBackup, wal_bytes: int) -> float:
        """Return how long a recovery from a base backup takes. An estimate: no disk is asked, no cache is cold."""
        return base.tar_bytes / self.base_bytes_per_second + wal_bytes / self.wal_bytes_per_second


@dataclass(frozen=True)
class Stretch:
    """The moments that can be recovered from one base backup along one timeline."""

    base: BaseBackup
    """The base backup."""
    timeline: int
    """What ``recovery_target_timeline`` has to be."""
    living: bool
    """Whether that timeline is the newest, which is recovered along unless another one is named."""
    began_at: datetime
    """The first moment: when the base backup ended."""
    ended_at: datetime
    """The end: every moment before it can be recovered. It is the latest end of a transaction that is there, or the
    end of a later base backup: the moments between the two have that one's own content (``recovery_target =
    'immediate'``), as nothing was committed in them. The same as `began_at` where there is nothing else."""
    archived_at: datetime
    """When the last segment was archived, as S3 says: nothing that is in it is later."""
    first_segment: Segment
    """The first segment that a recovery needs."""
    last_segment: Segment
    """The last one before something is missing."""
    serves_until: datetime
    """The moment from which on a newer base backup is the better choice; `ended_at` where there is none."""
    wal_bytes: int
    """The WAL to replay to the last moment for which this base backup is the choice."""
    rto_seconds: float
    """The predicted time of that recovery, the longest one that begins from here."""
    rto_base_seconds: float
    """The predicted time of fetching the base backup alone."""

    def covers(self, moment: datetime) -> bool:
        """Whether a moment can be recovered from here."""
        return self.began_at <= moment < self.ended_at or moment == self.began_at


@dataclass(frozen=True)
class Hole:
    """Moments of the window that cannot be recovered."""

    began_at: datetime
    """From this moment on, which cannot be recovered either."""
    ended_at: datetime
    """To this one, which can."""
    why: str
    """What is missing."""
    excused: bool = False
    """Whether nobody could have had it: before the first base backup of a cluster that is younger than the window."""

    @property
    def seconds(self) -> float:
        """How long it is."""
        return (self.ended_at - self.began_at).total_seconds()


@dataclass(frozen=True)
class Demand:
    """What has to be recoverable."""

    now: datetime
    """The moment of the look."""
    retention: timedelta
    """How far back every moment has to be recoverable."""
    rpo: timedelta
    """How old the newest archived segment may be."""
    born_at: datetime | None = None
    """When the cluster was made: nothing before it can be demanded. None where nobody knows."""
    earlier_oldest: datetime | None = None
    """The oldest moment that could be recovered at an earlier look; None where there was none."""

    @property
    def since(self) -> datetime:
        """The beginning of the window."""
        since = self.now - self.retention
        return since if self.born_at is None else max(since, min(self.born_at, self.now))

    @property
    def grace(self) -> datetime:
        """The moment at which the oldest recoverable one has to be at the latest."""
        since = self.now - self.retention
        return since if self.born_at is None else max(since, self.born_at + FIRST_BASE_BACKUP_WITHIN)


@dataclass(frozen=True)
class Reachability:
    """The map of what can be recovered."""

    where: str
    """The archive."""
    demand: Demand
    """What was asked for."""
    stretches: tuple[Stretch, ...]
    """All stretches, by the moment they begin; those of dead branches as well."""
    holes: tuple[Hole, ...]
    """The moments of the window, up to `latest`, that cannot be recovered along the living timeline, in their order."""
    faults: tuple[Finding, ...]
    """What was found on the way: base backups that are worth nothing, histories that lead nowhere."""
    segments: int
    """How many segments there are."""

    @cached_property
    def living(self) -> tuple[Stretch, ...]:
        """The stretches along the living timeline."""
        return tuple(each for each in self.stretches if each.living)

    @property
    def oldest(self) -> datetime | None:
        """The oldest moment that can be recovered; None where none can be."""
        return min((each.began_at for each in self.living), default=None)

    @property
    def latest(self) -> datetime | None:
        """The end of what can be recovered; None where nothing can be."""
        return max((each.ended_at for each in self.living), default=None)

    def best(self, moment: datetime) -> Stretch | None:
        """Return the stretch that a moment is recovered from the fastest; None where it cannot be recovered."""
        return max((each for each in self.living if each.covers(moment)), key=lambda s: s.began_at, default=None)

    @property
    def slowest(self) -> Stretch | None:
        """The stretch with the longest predicted recovery into the window."""
        inside = [each for each in self.living if each.serves_until >= self.demand.since]
        return max(inside, key=lambda each: each.rto_seconds, default=None)

    @property
    def recoverable_seconds(self) -> float:
        """How much of the window, up to `latest`, can be recovered."""
        if self.oldest is None or self.latest is None:
            return 0.0
        lost = sum(hole.seconds for hole in self.holes if hole.began_at < self.latest)
        return max(0.0, (self.latest - self.demand.since).total_seconds() - lost)

    @property
    def recoverable(self) -> Check:
        """Whether every moment of the window can be recovered."""
        looked_at = f"{len({each.base.key for each in self.stretches})} base backups, {self.segments} segments"
        if self.oldest is not None and self.latest is not None:
            looked_at += f", from {_at(max(self.oldest, self.demand.since))} to {_at(self.latest)}"
        findings = (*self.faults, *self._of_the_window(), *self._of_holes())
        return Check("every moment of the window can be recovered", self.where, looked_at, findings)

    def in_time(self, *, maximum_seconds: float) -> Check:
        """Whether no recovery to any moment of the window is predicted to take longer."""
        findings = tuple(
            Finding(
                "reach.rto",
                each.base.key,
                f"a recovery to {_at(each.serves_until)} is predicted to take {each.rto_seconds:.0f} s,"
                f" {each.wal_bytes:,} bytes of WAL included; the maximum is {maximum_seconds:.0f} s",
                remedy="take base backups more often, so that there is less WAL to replay",
            )
            for each in self.living
            if each.serves_until >= self.demand.since and each.rto_seconds > maximum_seconds
        )
        if self.slowest is None:
            findings = (_nothing(self.where),)
            return Check("no recovery takes too long, as predicted", self.where, "nothing", findings)
        looked_at = f"the longest: {self.slowest.rto_seconds:.0f} s to {_at(self.slowest.serves_until)}"
        return Check("no recovery takes too long, as predicted", self.where, looked_at, findings)

    def _of_the_window(self) -> Iterator[Finding]:
        oldest, latest, demand = self.oldest, self.latest, self.demand
        if oldest is None or latest is None or latest < demand.since:
            yield _nothing(self.where)
            return
        if oldest > demand.grace:
            yield Finding(
                "reach.short",
                self.where,
                f"the oldest moment that can be recovered is {_at(oldest)}, and {_at(demand.since)} is demanded",
                remedy="nothing brings it back. Keep each base backup, and all WAL since it, until the one after it is "
                f"older than {demand.retention.days} days; look at the lifecycle rules of the bucket",
            )
        before = demand.earlier_oldest
        ours = before is not None and (demand.born_at is None or before >= demand.born_at)  # else another cluster's
        if before is not None and ours and oldest > max(before, demand.since):
            yield Finding(
                "reach.shrunk",
                self.where,
                f"the oldest moment that can be recovered was {_at(before)}, and is {_at(oldest)} now: what lies "
                "between is still within the window",
                remedy="find out who removed base backups or WAL; a versioned bucket may still have them",
            )
        newest = max(each.archived_at for each in self.living)
        if newest < demand.now - demand.rpo and not any(hole.ended_at > latest for hole in self.holes):
            yield Finding(
                "reach.end",
                self.where,
                f"the newest segment was archived at {_at(newest)}: whether anything was committed since, no list says",
                Outcome.UNPROVEN,
                "look at the archiver: SELECT * FROM pg_stat_archiver; set archive_timeout below the RPO",
            )

    def _of_holes(self) -> Iterator[Finding]:
        for hole in self.holes:
            if self.oldest is not None and hole.ended_at != self.oldest:  # the others are told already
                subject = f"{_at(hole.began_at)} to {_at(hole.ended_at)}"
                remedy = (
                    "look for what is missing in pg_wal of every server and among older versions in the bucket. "
                    + _TAKE_ONE_NOW
                )
                yield Finding("reach.hole", subject, f"cannot be recovered: {hole.why}", remedy=remedy)


def born_at(system_identifier: str) -> datetime | None:
    """Return when a cluster was made: the upper half of its identity is initdb's clock. None of what is no identity."""
    if not system_identifier.isdecimal():
        return None
    return datetime.fromtimestamp(int(system_identifier) >> 32, UTC)


def look(
    archive: WalArchive,
    base_backups: BaseBackups,
    *,
    now: datetime,
    retention: timedelta,
    rpo: timedelta,
    earlier_oldest: datetime | None = None,
    rates: Rates | None = None,
) -> Reachability:
    """Lay out which moments can be recovered.

    :param rpo: how old the newest archived segment may be
    :param earlier_oldest: `Reachability.oldest` of an earlier look, where that is known: that the window shrinks shows
        in no list
    :param rates: of earlier recoveries; by default what is published and was measured elsewhere

    Cost: one request for a thousand objects, one for each base backup's record and each history, and the bytes of the
    last segment before each hole and at the end. Raise what the bucket raises where it cannot be asked.
    """
    bases = base_backups.listing()
    archive = _of_the_size(archive, bases.backups)
    listing = archive.listing()
    histories, faults = _histories(archive, listing)
    usable: list[BaseBackup] = []
    for each in bases.backups:
        if why := _foreign(archive, each):
            faults.append(Finding("reach.base", each.key, why, remedy="move it away; each cluster has its own prefix"))
        else:
            usable.append(each)
    identifier = archive.system_identifier or next((each.system_identifier for each in usable), "")
    return of(
        listing,
        histories,
        usable,
        Demand(now, retention, rpo, born_at(identifier), earlier_oldest),
        segment_bytes=archive.segment_bytes,
        last_commit=lambda segment: last_commit_at(archive.read(segment.name)),
        rates=rates or Rates(),
        where=archive.where,
        faults=[*(each for each in bases.findings if each.check != _CUT_SHORT), *faults],
    )


def of(
    listing: Listing,
    histories: Mapping[int, Sequence[Fork]],
    backups: Sequence[BaseBackup],
    demand: Demand,
    *,
    segment_bytes: int,
    last_commit: LastCommit,
    rates: Rates,
    where: str,
    faults: Sequence[Finding] = (),
) -> Reachability:
    """Lay out the map of what is known already; see `look`.

    :param histories: the ancestors of every timeline whose way is known, none of those of timeline 1
    """
    newest = max((line for line in listing.timelines if line in histories), default=1)
    found = list(faults)
    ends = _Ends(last_commit, found)
    lines = [newest, *(line for line in sorted(histories) if line != newest and listing.segments.get(line))]
    paths = [_Path(line, listing, histories, segment_bytes, ends) for line in lines]
    living = paths[0]
    stretches = list(living.stretches(backups, rates, living=True))
    for path in paths[1:]:
        leaves = _leaves(path, living)
        stretches += (s for s in path.stretches(backups, rates, living=False) if s.last_segment.number >= leaves)
    reached = {each.base.key for each in stretches}
    for each in backups:
        if each.key not in reached and demand.since <= each.stopped_at <= demand.now:
            found.append(_worthless(each, paths))
    stretches.sort(key=lambda each: (each.began_at, each.timeline))
    holes = tuple(_holes([each for each in stretches if each.living], living, demand))
    segments = sum(map(len, listing.segments.values()))
    return Reachability(where, demand, tuple(stretches), holes, tuple(dict.fromkeys(found)), segments)


@dataclass(frozen=True)
class _Run:
    """Segments of a path without anything missing between them."""

    first: int
    last: int
    committed_at: datetime | None
    """The latest end of a transaction in its last segments."""


class _Ends:
    """Reads the ends of runs, each segment once: several paths may go through one."""

    def __init__(self, last_commit: LastCommit, found: list[Finding]) -> None:
        self._last_commit = last_commit
        self._found = found
        self._read: dict[Segment, datetime | None] = {}
        self.damaged: set[Segment] = set()

    def __call__(self, segment: Segment) -> datetime | None:
        """Return the latest end of a transaction; None where there is none, or the segment is damaged."""
        if segment not in self._read:
            self._read[segment] = None
            try:
                self._read[segment] = self._last_commit(segment)
            except DamagedArtefact as damaged:
                self.damaged.add(segment)
                self._found.append(Finding("reach.segment", segment.name, damaged.why, remedy=damaged.remedy))
        return self._read[segment]


class _Path:
    """The way to the end of one timeline, through those that it comes from, and what of it is there.

    At the segment in which a timeline was left PostgreSQL takes the file of the later one, which begins with a copy;
    the earlier one's goes on with what the later one never saw. So that file alone will do.
    """

    def __init__(
        self,
        timeline: int,
        listing: Listing,
        histories: Mapping[int, Sequence[Fork]],
        segment_bytes: int,
        ends: _Ends,
    ) -> None:
        self.timeline = timeline
        self.forks = tuple(histories[timeline]) if timeline in histories else ()
        self.segment_bytes = segment_bytes
        self._listing = listing
        self._ends = ends

    @cached_property
    def there(self) -> list[int]:
        """The numbers of all segments of the path that are listed, whole or not, ascending."""
        lines = [*(fork.parent for fork in self.forks), self.timeline]
        bounds = [0, *(fork.lsn // self.segment_bytes for fork in self.forks)]
        numbers: list[int] = []
        for line, begins, ends in zip(lines, bounds, [*bounds[1:], None], strict=True):
            of_line = self._listing.segments.get(line, {})
            numbers += sorted(number for number in of_line if number >= begins and (ends is None or number < ends))
        return numbers

    def segment(self, number: int) -> Segment:
        """Return the segment of this number that belongs to the path."""
        line = next((f.parent for f in self.forks if number < f.lsn // self.segment_bytes), self.timeline)
        return Segment(line, number, self.segment_bytes)

    def archived_at(self, number: int) -> datetime:
        """Return when it was archived."""
        return self._listing.segments[self.segment(number).timeline][number].modified

    def begins_here(self, base: BaseBackup) -> bool:
        """Whether a base backup was taken on this path, before its timeline was left."""
        left = {fork.parent: fork.lsn for fork in self.forks}
        return base.timeline == self.timeline or base.stop_lsn <= left.get(base.timeline, -1)

    def why_not(self, number: int) -> str:
        """Say why a segment cannot be replayed; nothing where nothing is known against it."""
        segment = self.segment(number)
        stored = self._listing.segments.get(segment.timeline, {}).get(number)
        if stored is None:
            return f"{segment.name} is missing"
        if stored.bytes != self.segment_bytes:
            return f"{segment.name} has {stored.bytes} bytes instead of {self.segment_bytes}"
        return f"{segment.name} is damaged" if segment in self._ends.damaged else ""

    def first_wrong(self, after: int) -> str:
        """Say what is wrong behind a number, up to the next segment that is right; nothing at the end of the path."""
        at = bisect_right(self.there, after)
        if at == len(self.there):
            return ""
        following = next((number for number in self.there[at:] if not self.why_not(number)), self.there[-1] + 1)
        named = [self.why_not(n) for n in range(after + 1, min(following, after + 1 + _AT_MOST_NAMED))]
        more = following - after - 1 - len(named)
        return ", ".join(named) + (f", and {more} more" if more else "")

    def stretches(self, backups: Sequence[BaseBackup], rates: Rates, *, living: bool) -> Iterator[Stretch]:
        """Yield what can be recovered along the path."""
        ours = sorted(filter(self.begins_here, backups), key=lambda base: (base.stop_lsn, base.stopped_at))
        groups: dict[int, tuple[_Run, list[BaseBackup]]] = {}
        for base in ours:
            bounds = self._around(base)
            if bounds is not None:
                run = groups[bounds[0]][0] if bounds[0] in groups else self._read(*bounds)
                groups.setdefault(bounds[0], (run, []))[1].append(base)
        for run, bases in groups.values():
            bases = [base for base in bases if self.needs(base)[1] <= run.last]
            ends = max(filter(None, (run.committed_at, *(base.stopped_at for base in bases))), default=None)
            for base, following in zip(bases, [*bases[1:], None], strict=True):
                assert ends is not None
                through = following.stop_lsn if following else (run.last + 1) * self.segment_bytes
                wal_bytes = max(0, through - base.start_lsn)
                yield Stretch(
                    base,
                    self.timeline,
                    living,
                    began_at=base.stopped_at,
                    ended_at=max(ends, base.stopped_at),
                    archived_at=self.archived_at(run.last),
                    first_segment=self.segment(self.needs(base)[0]),
                    last_segment=self.segment(run.last),
                    serves_until=following.stopped_at if following else max(ends, base.stopped_at),
                    wal_bytes=wal_bytes,
                    rto_seconds=rates.seconds(base, wal_bytes),
                    rto_base_seconds=rates.seconds(base, 0),
                )

    def needs(self, base: BaseBackup) -> tuple[int, int]:
        """Return the numbers of the first and the last segment without which a base backup is none."""
        return base.start_lsn // self.segment_bytes, max(base.start_lsn, base.stop_lsn - 1) // self.segment_bytes

    @cached_property
    def _runs(self) -> list[tuple[int, int]]:
        """The first and the last number of each run, by what is listed, ascending."""
        runs: list[tuple[int, int]] = []
        for number in self.there:
            if self.why_not(number):
                continue
            if runs and runs[-1][1] == number - 1:
                runs[-1] = (runs[-1][0], number)
            else:
                runs.append((number, number))
        return runs

    def _around(self, base: BaseBackup) -> tuple[int, int] | None:
        """Return the run that a base backup's own WAL lies in; None where something of it is missing."""
        first, last = self.needs(base)
        at = bisect_right(self._runs, (first, last)) - 1
        for begins, ends in self._runs[max(at, 0) : at + 2]:
            if begins <= first and last <= ends:
                return begins, ends
        return None

    def _read(self, first: int, last: int) -> _Run:
        """Read the end of a run, back to the first end of a transaction; what cannot be replayed ends it earlier."""
        number = last
        while number >= first and last - number < _LOOK_BACK_SEGMENTS:
            committed = self._ends(self.segment(number))
            if self.segment(number) in self._ends.damaged:
                last = number - 1
            if committed is not None:
                return _Run(first, last, committed)
            number -= 1
        return _Run(first, last, None)


def _leaves(path: _Path, living: _Path) -> int:
    """Return the number of the segment from which on a path is another one than the living one."""
    left: int | None = None
    for ours, theirs in zip(
        [*((fork.parent, fork.lsn) for fork in path.forks), (path.timeline, None)],
        [*((fork.parent, fork.lsn) for fork in living.forks), (living.timeline, None)],
        strict=False,
    ):
        if ours != theirs:
            return min(lsn for lsn in (ours[1], theirs[1], left) if lsn is not None) // path.segment_bytes
        left = ours[1]
    return 0


def _holes(living: Sequence[Stretch], path: _Path, demand: Demand) -> Iterator[Hole]:
    """Yield what lies between the stretches of the living timeline, which are in the order they begin."""
    since = demand.since
    if not living:
        if demand.now > since:
            yield Hole(since, demand.now, "there is no base backup that could be used")
        return
    if living[0].began_at > since:
        excused = living[0].began_at <= demand.grace
        yield Hole(since, living[0].began_at, "no base backup that could be used is older", excused=excused)
    reached = living[0]
    for _, following in pairwise(living):
        if following.began_at > max(reached.ended_at, since):
            began = max(reached.ended_at, since)
            yield Hole(began, following.began_at, path.first_wrong(reached.last_segment.number))
        if following.ended_at >= reached.ended_at:
            reached = following
    if wrong := path.first_wrong(reached.last_segment.number):
        newest = max(path.archived_at(number) for number in path.there if number > reached.last_segment.number)
        ends = max(newest, reached.ended_at)
        if ends > since:
            yield Hole(max(reached.ended_at, since), ends, f"{wrong}, and there is no base backup since")


def _of_the_size(archive: WalArchive, backups: Sequence[BaseBackup]) -> WalArchive:
    """Return the archive, its segments as large as the newest base backup says that the cluster's are."""
    ours = (each for each in backups if archive.system_identifier in (None, each.system_identifier))
    newest = next(ours, None)
    if newest is None or newest.segment_bytes == archive.segment_bytes:
        return archive
    return WalArchive(
        archive.bucket,
        archive.prefix,
        system_identifier=archive.system_identifier,
        segment_bytes=newest.segment_bytes,
        accept_without_digest=not archive.digest_is_needed,
    )


def _histories(archive: WalArchive, listing: Listing) -> tuple[dict[int, tuple[Fork, ...]], list[Finding]]:
    histories: dict[int, tuple[Fork, ...]] = {1: ()}
    faults: list[Finding] = []
    for timeline in listing.timelines:
        if timeline == 1:
            continue
        name = f"{timeline:08X}.history"
        if timeline not in listing.histories:
            says = f"there is WAL of timeline {timeline}, and not its history: no recovery finds the way to it"
            remedy = "copy it from pg_wal of a server of that timeline"
            faults.append(Finding("reach.history", name, says, remedy=remedy))
            continue
        try:
            histories[timeline] = archive.history(timeline)
        except DamagedArtefact as damaged:
            faults.append(Finding("reach.history", name, damaged.why, remedy=damaged.remedy))
    return histories, faults


def _foreign(archive: WalArchive, base: BaseBackup) -> str:
    if archive.system_identifier not in (None, base.system_identifier):
        return f"it is of the cluster {base.system_identifier}, and the archive is of {archive.system_identifier}"
    if base.segment_bytes != archive.segment_bytes:
        return f"its segments have {base.segment_bytes} bytes, and the archive's {archive.segment_bytes}"
    return ""


def _worthless(base: BaseBackup, paths: Iterable[_Path]) -> Finding:
    path = next((path for path in paths if path.begins_here(base)), None)
    needed = [] if path is None else range(path.needs(base)[0], path.needs(base)[1] + 1)
    wrong = [] if path is None else [why for number in needed if (why := path.why_not(number))]
    if path is None:
        says = f"the way to timeline {base.timeline} is not known, or was left before {lsn_text(base.stop_lsn)}"
    else:
        says = ", ".join(wrong[:_AT_MOST_NAMED]) + (f", and {len(wrong) - 1} more" if len(wrong) > 1 else "")
    remedy = f"nothing can be recovered from it; look for what is missing in pg_wal of the server. {_TAKE_ONE_NOW}"
    return Finding("reach.base", base.key, f"the WAL that was written while it was taken: {says}", remedy=remedy)


def _nothing(where: str) -> Finding:
    says = "no moment of the window can be recovered: there is no base backup with the WAL that it needs"
    return Finding("reach.nothing", where, says, remedy=_TAKE_ONE_NOW)


def _at(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
