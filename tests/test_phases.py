"""What the time was spent on."""

from __future__ import annotations

import threading
import time

import pytest

from runbook_lib.phases import Phase, Stopwatch


def test_a_phase_knows_its_length() -> None:
    assert Phase("fetch", 1.5, 4.0).seconds == 2.5


def test_phases_are_in_the_order_in_which_they_began() -> None:
    stopwatch = Stopwatch()
    with stopwatch.phase("all"), stopwatch.phase("part"):
        pass
    assert [phase.name for phase in stopwatch.phases] == ["all", "part"]
    whole, part = stopwatch.phases
    assert 0 <= whole.began_seconds <= part.began_seconds <= part.ended_seconds <= whole.ended_seconds


def test_a_phase_that_fails_is_kept() -> None:
    stopwatch = Stopwatch()
    with pytest.raises(ZeroDivisionError), stopwatch.phase("restore data"):
        raise ZeroDivisionError
    assert [phase.name for phase in stopwatch.phases] == ["restore data"]


def test_a_phase_that_somebody_else_timed_is_told_from_the_beginning() -> None:
    before = time.monotonic()
    stopwatch = Stopwatch()
    after = time.monotonic()
    stopwatch.note("restore indexes", after + 1, after + 3)
    (phase,) = stopwatch.phases
    assert phase.seconds == pytest.approx(2)
    assert 1 <= phase.began_seconds <= 1 + after - before + 1e-9


def test_phases_come_from_any_thread() -> None:
    stopwatch = Stopwatch()

    def work(name: str) -> None:
        for _ in range(100):
            with stopwatch.phase(name):
                pass

    threads = [threading.Thread(target=work, args=(str(number),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stopwatch.phases) == 400
