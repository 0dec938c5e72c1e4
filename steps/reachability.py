"""Sentences about which moments can be recovered (runbook section 2.2)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from pytest_bdd import given, parsers, then

from runbook_lib.environment import Environment
from runbook_lib.evidence.collector import Evidence
from runbook_lib.evidence.record import Gap, Span, Window
from runbook_lib.wal.reachability import Reachability, Stretch
from steps.proof import prove

OLDEST = "oldest_recoverable_unix_seconds"
"""The measure that tells the next run whether the window has shrunk."""


@given("the WAL archive and its base backups", target_fixture="reachable")
def the_wal_archive_and_its_base_backups(environment: Environment, evidence: Evidence) -> Reachability:
    found = environment.reachability(earlier_oldest=oldest_of(evidence.earlier_runs(OLDEST)))
    evidence.window(shown(found, **environment.settings.restore.limits))
    return found


@then("every moment of the retention window can be recovered")
def every_moment_can_be_recovered(reachable: Reachability, evidence: Evidence) -> None:
    if reachable.oldest is not None:
        evidence.measured(OLDEST, math.ceil(reachable.oldest.timestamp()))
    evidence.measured("recoverable_seconds", round(reachable.recoverable_seconds))
    prove(reachable.recoverable, evidence)


@then(parsers.parse("no recovery takes longer than {hours:d} hours, as predicted"))
def no_recovery_takes_longer(hours: int, reachable: Reachability, evidence: Evidence) -> None:
    if reachable.slowest is not None:
        evidence.measured("predicted_rto_seconds", round(reachable.slowest.rto_seconds, 3))
    prove(reachable.in_time(maximum_seconds=hours * 3600), evidence)


def oldest_of(earlier: Sequence[Mapping[str, object]]) -> datetime | None:
    """Return the oldest moment that could be recovered when it was looked at last; None where nobody did."""
    told = earlier[-1][OLDEST] if earlier else None
    return datetime.fromtimestamp(told, UTC) if isinstance(told, int | float) else None


def shown(found: Reachability, *, target_seconds: float, maximum_seconds: float) -> Window:
    """Return the map as it is drawn."""
    left: dict[str, list[Span]] = {}
    for stretch in found.stretches:
        if not stretch.living:
            left.setdefault(f"timeline {stretch.timeline}", []).append(_span(stretch))
    living = [_span(stretch) for stretch in found.living]
    gaps = [Gap(hole.began_at, hole.ended_at, hole.why, hole.excused) for hole in found.holes]
    demand = found.demand
    return Window(
        "What can be recovered", demand.since, demand.now, living, gaps, left, target_seconds, maximum_seconds
    )


def _span(stretch: Stretch) -> Span:
    return Span(stretch.began_at, stretch.serves_until, stretch.rto_base_seconds, stretch.rto_seconds)
