"""From an exception to one of the three outcomes, and from the outcomes to the exit status.

This module translates and decides nothing: a step has asserted, a library has raised, and here is written down what
that means, in one place for the terminal, the reports and the exit status.

==========================================  ==========  ===========================================================
raised in a scenario                        means       why
==========================================  ==========  ===========================================================
nothing                                     proven      every step was carried out and no check objected
``AssertionError``, ``pytest.fail()``       failed      a check looked, and what it looked for does not hold
`DamagedArtefact`                           failed      damaged bytes are the very finding a drill is made for
`Planned`                                   planned     only what would be done was asked for; nothing was done
any other `RunbookError`, ``pytest.skip``   unproven    a precondition is missing; its sentence says which
any other exception                         unproven    the drill itself broke; its traceback is shown
``KeyboardInterrupt``, ``pytest.exit()``    interrupted
==========================================  ==========  ===========================================================
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from runbook_lib.errors import DamagedArtefact, Planned, RunbookError
from runbook_lib.evidence.record import SEVERITY, Ending, RunRecord
from runbook_lib.evidence.redaction import redacted


@dataclass(frozen=True)
class Verdict:
    """What an exception, or its absence, says of a step or a scenario."""

    ending: Ending
    """How it ended."""
    reason: str = ""
    """Why, in the exception's own words; empty when proven."""
    foreseen: bool = True
    """Whether the reason tells the whole story; if not, a reader needs the traceback."""


def verdict_of(exception: BaseException | None) -> Verdict:
    """Return what ``exception`` says of the step or scenario that raised it; None stands for no exception."""
    match exception:
        case None:
            return Verdict(Ending.PROVEN)
        case KeyboardInterrupt() | pytest.exit.Exception():
            return Verdict(Ending.INTERRUPTED, "stopped from outside before it came to its end")
        case BaseExceptionGroup():
            verdicts = [verdict_of(member) for member in exception.exceptions]
            worst = min(verdicts, key=lambda verdict: SEVERITY.index(verdict.ending))
            reason = "\n".join(verdict.reason for verdict in verdicts if verdict.ending is worst.ending)
            return Verdict(worst.ending, reason, all(verdict.foreseen for verdict in verdicts))
        case pytest.skip.Exception():
            return Verdict(Ending.UNPROVEN, redacted(str(exception.msg or "skipped without a reason")))
        case AssertionError() | pytest.fail.Exception():
            return Verdict(Ending.FAILED, redacted(str(exception)) or "a check does not hold, and says no more")
        case DamagedArtefact():
            return Verdict(Ending.FAILED, redacted(str(exception)))
        case Planned():
            return Verdict(Ending.PLANNED, redacted(str(exception)))
        case RunbookError():
            return Verdict(Ending.UNPROVEN, redacted(str(exception)))
        case pytest.FixtureLookupError():
            return Verdict(Ending.UNPROVEN, f"nothing gives {exception.argname!r}: no step before this one, no fixture")
        case _:
            reason = f"{type(exception).__name__}: {exception}".strip(": ")
            return Verdict(Ending.UNPROVEN, redacted(reason), foreseen=False)


def exit_status(status: int, run: RunRecord, *, allow_unproven: bool) -> int:
    """Return the exit status of a run, given the ``status`` that pytest itself would end with.

    A failed scenario makes it 1. A scenario that was selected and is not proven, for whatever reason, makes it 5, the
    number by which pytest says "nothing was tested"; with ``allow_unproven`` such scenarios are tolerated, all of
    them if need be. Interruptions and errors of usage keep pytest's number, and so does a run without scenarios.
    """
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) or not run.scenarios:
        return status
    if status == pytest.ExitCode.TESTS_FAILED or run.counts[Ending.FAILED]:
        return int(pytest.ExitCode.TESTS_FAILED)
    if run.ending is not Ending.PROVEN and not allow_unproven:
        return int(pytest.ExitCode.NO_TESTS_COLLECTED)
    return int(pytest.ExitCode.OK)
