from __future__ import annotations

import pytest

from runbook_lib.errors import DamagedArtefact, NoRoom, NotFound, Planned
from runbook_lib.evidence.record import Ending, RunRecord, ScenarioRecord
from runbook_lib.evidence.verdict import exit_status, verdict_of

SAID = {"where": "here", "why": "because", "remedy": "do something"}


@pytest.mark.parametrize(
    ("exception", "ending"),
    [
        (None, Ending.PROVEN),
        (AssertionError("no"), Ending.FAILED),
        (AssertionError(), Ending.FAILED),
        (DamagedArtefact("a dump", **SAID), Ending.FAILED),
        (NotFound("a dump", **SAID), Ending.UNPROVEN),
        (NoRoom("a dump", **SAID), Ending.UNPROVEN),
        (Planned("a dump", **SAID), Ending.PLANNED),
        (OSError("disk"), Ending.UNPROVEN),
        (SystemExit(0), Ending.UNPROVEN),
        (KeyboardInterrupt(), Ending.INTERRUPTED),
        (ExceptionGroup("two", [OSError("disk"), AssertionError("no")]), Ending.FAILED),
        (ExceptionGroup("two", [OSError("disk"), NotFound("a dump", **SAID)]), Ending.UNPROVEN),
        (BaseExceptionGroup("two", [AssertionError("no"), KeyboardInterrupt()]), Ending.INTERRUPTED),
    ],
)
def test_an_exception_has_one_meaning(exception: BaseException | None, ending: Ending) -> None:
    verdict = verdict_of(exception)
    assert verdict.ending is ending
    assert bool(verdict.reason) == (exception is not None)


def run_of(*endings: Ending) -> RunRecord:
    return RunRecord(scenarios=[ScenarioRecord("f", "s", {}, "p", 1, (), ending=ending) for ending in endings])


@pytest.mark.parametrize(
    ("status", "endings", "expected", "expected_allowed"),
    [
        (0, [], 0, 0),
        (0, [Ending.PROVEN], 0, 0),
        (0, [Ending.PROVEN, Ending.UNPROVEN], 5, 0),
        (0, [Ending.PROVEN, Ending.NOT_RUN], 5, 0),
        (0, [Ending.UNPROVEN], 5, 0),
        (0, [Ending.PLANNED], 5, 0),
        (0, [Ending.PROVEN, Ending.PLANNED], 5, 0),
        (0, [Ending.FAILED, Ending.UNPROVEN], 1, 1),
        (1, [Ending.PROVEN], 1, 1),
        (1, [Ending.UNPROVEN], 1, 1),
        (2, [Ending.PROVEN, Ending.INTERRUPTED], 2, 2),
        (3, [Ending.PROVEN], 3, 3),
        (4, [Ending.PROVEN], 4, 4),
        (5, [], 5, 5),
    ],
)
def test_the_exit_status_follows_from_the_endings(
    status: int, endings: list[Ending], expected: int, expected_allowed: int
) -> None:
    assert exit_status(status, run_of(*endings), allow_unproven=False) == expected
    assert exit_status(status, run_of(*endings), allow_unproven=True) == expected_allowed


def test_a_run_is_as_good_as_its_worst_scenario_and_no_scenario_proves_nothing() -> None:
    assert run_of(Ending.PROVEN, Ending.PROVEN).ending is Ending.PROVEN
    assert run_of(Ending.PROVEN, Ending.UNPROVEN, Ending.FAILED).ending is Ending.FAILED
    assert run_of(Ending.PROVEN, Ending.NOT_RUN).ending is Ending.UNPROVEN
    assert run_of().ending is Ending.UNPROVEN
