"""Archives that were made up: transactions at moments that are known, segments that hold them, base backups between.

What the map says of such an archive is compared, moment by moment, with an oracle that walks from segment to segment
as PostgreSQL does, and knows every transaction.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from runbook_lib.errors import DamagedArtefact
from runbook_lib.reach.objects import StoredObject
from runbook_lib.wal import reachability
from runbook_lib.wal.archive import Listing
from runbook_lib.wal.base_backup import BaseBackup
from runbook_lib.wal.reachability import Demand, Rates, Reachability
from runbook_lib.wal.segment import Fork, Segment

SIZE = 1 << 20
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
RATES = Rates(1e6, 1e6)
DAY = timedelta(days=1)


def at(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


@dataclass
class World:
    """What is in an archive, and what was really done."""

    segments: dict[int, dict[int, StoredObject]] = field(default_factory=dict)
    commits: dict[tuple[int, int], list[datetime]] = field(default_factory=dict)
    """Timeline and number of a segment to the transactions that ended in it."""
    histories: dict[int, tuple[Fork, ...]] = field(default_factory=lambda: {1: ()})
    bases: list[BaseBackup] = field(default_factory=list)
    damaged: set[tuple[int, int]] = field(default_factory=set)
    reads: list[Segment] = field(default_factory=list)
    """Every segment whose bytes were asked for."""

    def add(self, line: int, number: int, commits: Sequence[datetime], archived: datetime, size: int = SIZE) -> None:
        name = Segment(line, number, SIZE).name
        self.segments.setdefault(line, {})[number] = StoredObject("b", f"wal/{name}", "", size, archived)
        self.commits[line, number] = sorted(commits)

    def base(self, line: int, start_lsn: int, stop_lsn: int, stopped: datetime, tar_bytes: int = 10_000_000) -> None:
        key = f"base/{len(self.bases):04}.tar"
        began = stopped - timedelta(seconds=1)
        place = (line, start_lsn, stop_lsn, began, stopped)
        self.bases.append(BaseBackup(key, "", tar_bytes, "", "1", 170000, *place, tar_bytes, SIZE))

    def last_commit(self, segment: Segment) -> datetime | None:
        self.reads.append(segment)
        if (segment.timeline, segment.number) in self.damaged:
            raise DamagedArtefact(segment.name, where="here", why="its bytes changed", remedy="look for it")
        return max(self.commits[segment.timeline, segment.number], default=None)

    def map(self, now: datetime, *, retention: timedelta = 30 * DAY, **demanded: datetime | timedelta) -> Reachability:
        told = {
            line: StoredObject("b", f"wal/{line:08X}.history", "", 50, BEGAN) for line in self.histories if line > 1
        }
        listing = Listing(self.segments, {}, told, (), ())
        rpo = demanded.pop("rpo", timedelta(days=1000))
        return reachability.of(
            listing,
            self.histories,
            self.bases,
            Demand(now, retention, rpo, **demanded),  # type: ignore[arg-type]
            segment_bytes=SIZE,
            last_commit=self.last_commit,
            rates=RATES,
            where="s3://b/wal/",
        )

    def can_be_recovered(self, moment: datetime, line: int, bases: Sequence[BaseBackup] | None = None) -> bool:
        """Say whether a moment can be recovered along a timeline, by walking, a segment at a time."""
        return any(self._from(base, moment, line) for base in (self.bases if bases is None else bases))

    def _from(self, base: BaseBackup, moment: datetime, line: int) -> bool:
        if base.stopped_at > moment or not self._is_ancestor(base, line):
            return False
        consistent, number = False, base.start_lsn // SIZE
        while self._replays(line, number):
            through = (number + 1) * SIZE
            consistent = consistent or base.stop_lsn <= through
            if consistent and base.stopped_at == moment:
                return True
            if consistent and any(ended > moment for ended in self.commits[self._line_of(line, number), number]):
                return True
            others = (each for each in self.bases if each.stop_lsn <= through and self._is_whole(each, line))
            if consistent and any(other.stopped_at >= moment for other in others):
                return True
            number += 1
        return False

    def _is_whole(self, base: BaseBackup, line: int) -> bool:
        needed = range(base.start_lsn // SIZE, (base.stop_lsn - 1) // SIZE + 1)
        return self._is_ancestor(base, line) and all(self._replays(line, number) for number in needed)

    def _is_ancestor(self, base: BaseBackup, line: int) -> bool:
        left = {fork.parent: fork.lsn for fork in self.histories.get(line, ())}
        return base.timeline == line or (base.timeline in left and base.stop_lsn <= left[base.timeline])

    def _line_of(self, line: int, number: int) -> int:
        for fork in self.histories.get(line, ()):
            if (number + 1) * SIZE <= fork.lsn - fork.lsn % SIZE:
                return fork.parent
        return line

    def _replays(self, line: int, number: int) -> bool:
        of = self._line_of(line, number)
        stored = self.segments.get(of, {}).get(number)
        return stored is not None and stored.bytes == SIZE and (of, number) not in self.damaged


def quiet(
    *, days: float = 30, every_seconds: int = 1800, bases_at: Sequence[float] | None = None, line: int = 1
) -> World:
    """A month of a cluster that archives every half hour, with a base backup a day, whole."""
    world = World()
    count = int(days * 86400 / every_seconds)
    for number in range(count):
        began = number * every_seconds
        commits = [at(began + share * every_seconds) for share in (0.2, 0.5, 0.9)]
        world.add(line, number + 1, commits, at(began + every_seconds + 2))
    for hours in bases_at if bases_at is not None else [24 * day + 2 for day in range(int(days))]:
        lsn = int(hours * 3600 / every_seconds * SIZE) + SIZE
        world.base(line, lsn + 40, lsn + 4000, at(hours * 3600 + 5))
    return world


def any_world(seed: int) -> tuple[World, list[int]]:
    """A world of one to three timelines in which anything may be missing; returns it and its timelines."""
    chance = random.Random(seed)
    world = World()
    lines = [1]
    clock: dict[int, Callable[[int], float]] = {}
    length = chance.randint(4, 25)
    _line(world, chance, 1, 1, length, 0.0, clock)
    for line in range(2, chance.choice([2, 2, 3, 4])):
        parent = chance.choice(lines)
        begins = world.histories[parent][-1].lsn // SIZE if parent != 1 else 1
        at_number = chance.randint(begins, max(world.segments.get(parent, ()), default=begins))
        lsn = at_number * SIZE + chance.choice([0, 256, SIZE // 2])
        earlier = [fork for fork in world.histories[parent] if fork.lsn <= lsn]
        if earlier != list(world.histories[parent]):
            continue
        world.histories[line] = (*world.histories[parent], Fork(parent, lsn, ""))
        began = clock[parent](lsn)
        inherited = [c for c in world.commits.get((parent, at_number), []) if c <= at(began)]
        _line(world, chance, line, at_number, chance.randint(0, 12), began, clock, inherited)
        lines.append(line)
    _spoil(world, chance)
    return world, lines


def _line(
    world: World,
    chance: random.Random,
    line: int,
    first: int,
    count: int,
    began: float,
    clock: dict[int, Callable[[int], float]],
    inherited: Sequence[datetime] = (),
) -> None:
    """Write a timeline: every segment takes a while, is archived late, and holds any number of transactions."""
    ends = [began]
    archived = began
    for number in range(first, first + count):
        ends.append(ends[-1] + chance.randint(1, 40))
        commits = [at(chance.uniform(ends[-2], ends[-1])) for _ in range(chance.choice([0, 0, 1, 3]))]
        archived = max(archived, ends[-1]) + chance.choice([0, 1, 100])
        world.add(line, number, [*commits, *(inherited if number == first else ())], at(archived))

    def clock_of(lsn: int) -> float:
        which, share = divmod(lsn / SIZE - first, 1)
        which = min(max(int(which), 0), len(ends) - 2) if len(ends) > 1 else 0
        return ends[0] if len(ends) == 1 else ends[which] + share * (ends[which + 1] - ends[which])

    clock[line] = clock_of
    for _ in range(chance.choice([0, 1, 2, 4]) if count else 0):
        # The first segment's own positions may be an ancestor's.
        start = chance.randint(first * SIZE + SIZE // 2 + 300, (first + count) * SIZE - 10)
        stop = min(start + chance.choice([200, SIZE // 3, 2 * SIZE]), (first + count) * SIZE)
        world.base(line, start, stop, at(clock_of(stop)), chance.randint(1, 100) * 100_000)


def _spoil(world: World, chance: random.Random) -> None:
    for line, segments in world.segments.items():
        for number in list(segments):
            fate = chance.random()
            if fate < 0.06:
                del segments[number]
            elif fate < 0.09:
                world.add(line, number, world.commits[line, number], segments[number].modified, size=SIZE - 1)


def moments(world: World) -> list[datetime]:
    """Every moment at which anything may change, and those just before and after."""
    known = [base.stopped_at for base in world.bases] + [c for each in world.commits.values() for c in each]
    step = timedelta(microseconds=1)
    return sorted({each + by for each in known for by in (-step, timedelta(0), step)})
