"""The map of what can be recovered says no more and no less than what a recovery would find."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from datetime import timedelta

import pytest

from runbook_lib.outcome import Outcome
from runbook_lib.wal import reachability
from runbook_lib.wal.reachability import Reachability
from runbook_lib.wal.segment import Fork, Segment
from tests.wal.world import DAY, SIZE, World, any_world, at, moments, quiet

WORLDS = 400
HOUR = timedelta(hours=1)
NOW = at(30 * 86400)
"""The end of a quiet month."""


def told(found: Reachability) -> dict[str, str]:
    return {finding.check: finding.says for finding in found.recoverable.findings}


def test_the_map_agrees_with_walking_moment_by_moment() -> None:
    for seed in range(WORLDS):
        world, lines = any_world(seed)
        found = world.map(now=at(100_000))
        for moment in moments(world):
            said = found.best(moment) is not None
            assert said == world.can_be_recovered(moment, max(lines)), (seed, moment)
            for dead in (stretch for stretch in found.stretches if not stretch.living):
                if dead.covers(moment):
                    assert world.can_be_recovered(moment, dead.timeline, [dead.base]), (seed, moment)


def test_holes_are_exactly_what_no_stretch_covers() -> None:
    for seed in range(WORLDS):
        found = any_world(seed)[0].map(now=at(100_000))
        for hole in found.holes:
            assert hole.why, seed
            for share in (0.001, 0.5, 0.999):
                assert found.best(hole.began_at + share * (hole.ended_at - hole.began_at)) is None, (seed, hole)
        edges = sorted({stretch.began_at for stretch in found.living} | {stretch.ended_at for stretch in found.living})
        for before, after in itertools.pairwise(edges):
            between = before + (after - before) / 2
            in_a_hole = any(hole.began_at <= between < hole.ended_at for hole in found.holes)
            assert in_a_hole == (found.best(between) is None), (seed, between)


def test_the_worlds_are_of_every_kind() -> None:
    """The agreement above is of worlds with holes, with dead branches, with nothing, and whole."""
    maps = [any_world(seed)[0].map(now=at(100_000)) for seed in range(WORLDS)]
    assert sum(bool(found.living) for found in maps) > 100
    assert sum(not found.living for found in maps) > 50
    assert sum(len(found.holes) > 2 for found in maps) > 10
    assert sum(any(not stretch.living for stretch in found.stretches) for found in maps) > 50
    assert sum(len({stretch.last_segment for stretch in found.living}) > 1 for found in maps) > 20
    assert sum(not found.recoverable.findings for found in maps) < len(maps) / 2


def test_a_whole_month_can_be_recovered_and_costs_one_segment() -> None:
    world = quiet(days=31)
    found = world.map(now=at(31 * 86400))
    assert found.recoverable.outcome is Outcome.PROVEN, found.recoverable.explain()
    assert found.in_time(maximum_seconds=14_400).outcome is Outcome.PROVEN
    assert not found.holes
    assert len(world.reads) == 1
    assert found.latest == max(world.commits[1, max(world.segments[1])])
    assert found.recoverable_seconds == pytest.approx(30 * 86400, abs=200)


def _lose(world: World, *numbers: int) -> None:
    for number in numbers:
        del world.segments[1][number]


def _shorten(world: World) -> None:
    world.add(1, 700, world.commits[1, 700], at(0), size=SIZE - 1)


def _without_bases(world: World, keep: Callable[[int], bool]) -> None:
    world.bases[:] = [base for number, base in enumerate(world.bases) if keep(number)]


FAULTS: dict[str, tuple[Callable[[World], object], str, str]] = {
    "a segment is missing": (lambda w: _lose(w, 700), "reach.hole", f"{Segment(1, 700, SIZE).name} is missing"),
    "many are missing": (lambda w: _lose(w, *range(700, 720)), "reach.hole", "and 19 more"),
    "one is of a wrong size": (_shorten, "reach.hole", "has 1048575 bytes instead of 1048576"),
    "no base backup at all": (lambda w: _without_bases(w, lambda _: False), "reach.nothing", "no moment"),
    "the oldest base backups are gone": (
        lambda w: _without_bases(w, lambda number: number > 8),
        "reach.short",
        "2026-01-10 02:00:05 UTC, and 2026-01-02 00:00:00 UTC is demanded",
    ),
    "the WAL under a base backup is gone": (lambda w: _lose(w, 48 * 20 + 5), "reach.base", "is missing"),
    "the last ones are lost, and others are there": (lambda w: _lose(w, 1480), "reach.hole", "no base backup since"),
    "the end is damaged": (lambda w: w.damaged.add((1, 1488)), "reach.segment", "its bytes changed"),
}


@pytest.mark.parametrize("what", FAULTS)
def test_what_is_wrong_is_told(what: str) -> None:
    plant, check, says = FAULTS[what]
    world = quiet(days=31)
    plant(world)
    found = world.map(now=at(31 * 86400)).recoverable
    assert found.outcome is Outcome.FAILED
    assert any(says in finding.says for finding in found.findings if finding.check == check), found.explain()
    assert all(finding.remedy for finding in found.findings)


def test_a_base_backup_whose_last_segment_is_damaged_is_worth_nothing() -> None:
    world = quiet(days=31)
    world.base(1, 1488 * SIZE + 40, 1488 * SIZE + 4000, at(31 * 86400 - 600))
    assert world.map(now=at(31 * 86400)).best(world.bases[-1].stopped_at) is not None
    world.damaged.add((1, 1488))
    found = world.map(now=at(31 * 86400))
    assert found.best(world.bases[-1].stopped_at) is None
    assert "reach.base" in told(found)
    assert found.latest == max(world.commits[1, 1487])


def test_a_hole_ends_with_the_next_base_backup_that_is_later() -> None:
    world = quiet(days=31)
    _lose(world, 700)
    found = world.map(now=at(31 * 86400))
    (hole,) = found.holes
    assert hole.began_at == max(world.commits[1, 699])
    assert hole.ended_at == min(base.stopped_at for base in world.bases if base.start_lsn // SIZE > 700)
    assert told(found).keys() == {"reach.hole"}


def test_a_missing_base_backup_costs_time_and_no_moment() -> None:
    whole, without = quiet(days=31), quiet(days=31)
    _without_bases(without, lambda number: number not in (10, 11, 12))
    found, known = without.map(now=at(31 * 86400)), whole.map(now=at(31 * 86400))
    assert found.recoverable.outcome is Outcome.PROVEN
    assert known.slowest is not None
    assert found.slowest is not None
    assert known.slowest.rto_seconds == pytest.approx((10_000_000 + 48 * SIZE) / 1e6, rel=0.02)
    assert found.slowest.rto_seconds == pytest.approx((10_000_000 + 4 * 48 * SIZE) / 1e6, rel=0.02)
    limit = known.slowest.rto_seconds + 1
    assert known.in_time(maximum_seconds=limit).outcome is Outcome.PROVEN
    late = found.in_time(maximum_seconds=limit)
    assert [(each.check, each.subject) for each in late.findings] == [("reach.rto", "base/0009.tar")]


def test_nothing_recoverable_is_in_time_for_nothing() -> None:
    assert World().map(now=NOW).in_time(maximum_seconds=1e9).outcome is Outcome.FAILED


def test_the_window_of_a_young_cluster_begins_with_its_birth() -> None:
    """It cannot have thirty days; and its first base backup has a day to come."""
    world = quiet(days=3, bases_at=[5, 29, 53])
    born = at(-60)
    found = world.map(now=at(3 * 86400), born_at=born)
    assert found.recoverable.outcome is Outcome.PROVEN, found.recoverable.explain()
    (hole,) = found.holes
    assert (hole.began_at, hole.ended_at, hole.excused) == (born, world.bases[0].stopped_at, True)
    late = quiet(days=3, bases_at=[29, 53]).map(now=at(3 * 86400), born_at=born)
    assert told(late).keys() == {"reach.short"}
    nothing = quiet(days=0.1, bases_at=[]).map(now=at(8640), born_at=born)
    assert told(nothing).keys() == {"reach.nothing"}


def test_the_window_must_not_shrink() -> None:
    world = quiet(days=10)
    born, now = at(0), at(10 * 86400)
    oldest = world.map(now=now, born_at=born).oldest
    assert oldest is not None
    assert "reach.shrunk" not in told(world.map(now=now, born_at=born, earlier_oldest=oldest))
    _without_bases(world, lambda number: number > 0)
    assert "reach.shrunk" in told(world.map(now=now, born_at=born, earlier_oldest=oldest))
    another = world.map(now=now, born_at=born, earlier_oldest=at(-500))
    assert "reach.shrunk" not in told(another), "that was another cluster of the same name"
    expired = world.map(now=now, retention=8 * DAY, born_at=born, earlier_oldest=oldest)
    assert not told(expired), "what lies before the window may go"


def test_an_old_base_backup_whose_wal_has_expired_is_no_fault() -> None:
    world = quiet(days=40)
    _lose(world, *range(1, 9 * 48 + 4))
    found = world.map(now=at(40 * 86400))
    assert not told(found)


def test_an_archive_that_fell_silent_is_unproven() -> None:
    world = quiet(days=31)
    assert not told(world.map(now=at(31 * 86400 + 60), rpo=timedelta(minutes=15)))
    silent = world.map(now=at(31 * 86400 + 3600), rpo=timedelta(minutes=15)).recoverable
    assert [(each.check, each.outcome) for each in silent.findings] == [("reach.end", Outcome.UNPROVEN)]


def test_a_lagging_archive_promises_nothing_that_was_not_in_it() -> None:
    """The store was down for a day: everything was put at one moment, and says nothing of when it was written."""
    world = quiet(days=2)
    for number, stored in world.segments[1].items():
        world.add(1, number, world.commits[1, number], at(5 * 86400))
        assert world.segments[1][number].modified > stored.modified
    found = world.map(now=at(5 * 86400), born_at=at(0))
    assert found.latest == max(world.commits[1, 96])


def test_an_end_without_transactions_is_looked_for_further_back() -> None:
    world = quiet(days=3)
    last = max(world.segments[1])
    for number in range(last - 3, last + 1):
        world.commits[1, number] = []
    found = world.map(now=at(3 * 86400), born_at=at(0))
    assert found.latest == max(world.commits[1, last - 4])
    assert len(world.reads) == 5


def _forked() -> World:
    """A failover in the third day, after which the old primary lived on for six hours."""
    world = quiet(days=5)
    at_number = 48 * 2 + 20
    lsn = at_number * SIZE + 500
    world.histories[2] = (Fork(1, lsn, "no recovery target specified"),)
    for number in [each for each in world.segments[1] if each >= at_number]:
        world.add(2, number, world.commits[1, number], world.segments[1][number].modified)
        if number > at_number + 12:
            _lose(world, number)
    world.bases[:] = [base for base in world.bases if base.stop_lsn < lsn]
    world.base(2, 48 * 4 * SIZE, 48 * 4 * SIZE + 900, at(4 * 86400))
    return world


def test_a_branch_that_was_left_is_marked_and_named() -> None:
    found = _forked().map(now=at(5 * 86400), born_at=at(0))
    assert not told(found)
    dead = [stretch for stretch in found.stretches if not stretch.living]
    assert {stretch.timeline for stretch in dead} == {1}
    assert {stretch.timeline for stretch in found.living} == {2}
    assert {stretch.base.timeline for stretch in found.living} == {1, 2}
    assert max(stretch.ended_at for stretch in dead) < max(stretch.ended_at for stretch in found.living)


def test_the_segment_of_a_fork_has_to_be_the_later_timelines_own() -> None:
    world = _forked()
    del world.segments[2][48 * 2 + 20]
    found = world.map(now=at(5 * 86400), born_at=at(0))
    (hole,) = [each for each in found.holes if not each.excused]
    assert Segment(2, 48 * 2 + 20, SIZE).name in hole.why
    assert hole.ended_at == at(4 * 86400)


def test_a_fork_without_dead_end_shows_none() -> None:
    world = _forked()
    for number in [each for each in world.segments[1] if each >= 48 * 2 + 20]:
        _lose(world, number)
    assert all(stretch.living for stretch in world.map(now=at(5 * 86400), born_at=at(0)).stretches)


def test_a_busy_month_is_mapped_in_a_moment() -> None:
    world = quiet(days=30, every_seconds=60)
    began = time.process_time()
    found = world.map(now=NOW)
    assert time.process_time() - began < 5
    assert found.segments == 30 * 24 * 60
    assert len(world.reads) == 1


def test_a_cluster_tells_its_birth() -> None:
    assert reachability.born_at("7711744133576122902") is not None
    born = reachability.born_at(str((int(at(0).timestamp()) << 32) + 12345))
    assert born == at(0)
    assert reachability.born_at("") is None
