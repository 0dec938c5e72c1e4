"""A scenario's text with what became of each step: what a reader needs of a failure, and no more.

pytest would show the frames of pytest-bdd and of the wrappers between it and the step, some sixty lines in which the
one that matters is hard to find. The traceback is still there with ``-vv`` or ``--full-trace``, and without asking
where the drill itself broke in a way that nobody foresaw.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from _pytest._code.code import ReprFileLocation, TerminalRepr, Traceback
from _pytest._io import TerminalWriter

from runbook_lib.errors import RunbookError
from runbook_lib.evidence import wording
from runbook_lib.evidence.discretion import without_values
from runbook_lib.evidence.narrator import STYLES, label
from runbook_lib.evidence.record import Ending, ScenarioRecord


class Story(TerminalRepr):
    """A scenario that did not end well, as it is shown in the terminal, in JUnit and in Allure."""

    def __init__(self, scenario: ScenarioRecord, *, crash: ReprFileLocation, source: str, traceback: str) -> None:
        """Take the scenario's record, the place where it ended and the source there, and a traceback or ``""``."""
        self.scenario = scenario
        self.reprcrash = crash
        self.source = source
        self.traceback = traceback

    def toterminal(self, tw: TerminalWriter) -> None:
        """Write the story."""
        scenario = self.scenario
        tw.line(f"{scenario.path}:{scenario.line}", light=True)
        if not any(step.reason for step in scenario.steps):  # it ended before the first step, or after the last
            self._reason(tw, scenario.reason, scenario.ending)
        for step in scenario.steps:
            told = step.ending.word if step.ending is not Ending.PROVEN else "ok"
            tw.write(f"{label(step)}  ")
            tw.write(told, **STYLES[step.ending])
            tw.line("" if step.ending is Ending.NOT_RUN else f" {wording.duration(step.seconds)}")
            if step.reason:
                self._reason(tw, step.reason, step.ending)
        if self.traceback:
            tw.line()
            tw.line(self.traceback)

    def _reason(self, tw: TerminalWriter, reason: str, ending: Ending) -> None:
        for line in reason.splitlines():
            tw.line(f"          {line}", **STYLES[ending])
        if self.source:
            tw.line(f"          at {self.reprcrash.path}:{self.reprcrash.lineno}: {self.source}", light=True)


def story(
    item: pytest.Item, excinfo: pytest.ExceptionInfo[BaseException], scenario: ScenarioRecord, *, foreseen: bool
) -> Story:
    """Return the story of a scenario that ended in an exception.

    :param foreseen: whether the exception's own words tell everything; if not, the traceback is shown
    """
    ours = [entry for entry in excinfo.traceback if _is_ours(entry.path, item.config.rootpath)]
    place = ours[-1] if ours else excinfo.traceback[-1]
    crash = ReprFileLocation(_shown(place.path, item.config.rootpath), place.lineno + 1, scenario.reason)
    asked = item.config.get_verbosity() > 1 or item.config.getoption("fulltrace", default=False)
    traceback = ""
    if asked:
        traceback = without_values(item.repr_failure(excinfo))
    elif not foreseen:
        # What comes before the first line of our own is pytest, and pytest-bdd on the way to the step.
        first = next((number for number, entry in enumerate(excinfo.traceback) if entry in ours), 0)
        traceback = without_values(
            excinfo.getrepr(style="short", tbfilter=lambda _: Traceback(excinfo.traceback[first:]))
        )
    says_it_all = scenario.ending in (Ending.UNPROVEN, Ending.PLANNED) or isinstance(excinfo.value, RunbookError)
    source = "" if ours == [] or says_it_all else str(place.statement).strip().splitlines()[0]
    return Story(scenario, crash=crash, source=source, traceback=traceback)


def _is_ours(path: Path | str, root: Path) -> bool:
    return Path(path).is_relative_to(root) and "site-packages" not in Path(path).parts


def _shown(path: Path | str, root: Path) -> str:
    return str(Path(path).relative_to(root)) if _is_ours(path, root) else str(path)
