"""Tells the terminal each step as it begins and as it ends.

A restore may take an hour. Whoever watches one wants to know that it is alive and how far it is: on a terminal the
step's own line counts the seconds; in a log, where nothing can be rewritten, a line is added now and then.
"""

from __future__ import annotations

import threading
import time

from pytest_bdd.parser import Feature, Scenario, Step

from runbook_lib.evidence import wording
from runbook_lib.evidence.collector import Listener
from runbook_lib.evidence.console import Console
from runbook_lib.evidence.record import Ending, ScenarioRecord, StepRecord
from runbook_lib.phases import Progress

STYLES: dict[Ending, dict[str, bool]] = {
    Ending.PROVEN: {"green": True},
    Ending.FAILED: {"red": True, "bold": True},
    Ending.UNPROVEN: {"yellow": True},
    Ending.PLANNED: {"cyan": True},
    Ending.INTERRUPTED: {"yellow": True, "bold": True},
    Ending.NOT_RUN: {"light": True},
}
"""How each ending looks in the terminal."""

REASON_LINES = 3
"""How many lines of a reason stand under the step; the whole of it follows at the end of the run."""


def label(step: StepRecord) -> str:
    """Return a step as one line, the keywords of a scenario right-aligned beneath each other."""
    return f"    {step.keyword:>5} {step.text}"


class Narrator(Listener):
    """Writes the story of a run while it happens."""

    def __init__(self, console: Console, *, every_seconds: float = 1.0, line_every_seconds: float = 15.0) -> None:
        """Write to ``console``; refresh a terminal every second, add a line to a log every fifteen."""
        self._console = console
        self._every_seconds = every_seconds if console.is_terminal else line_every_seconds
        # Guards the open step against the ticking thread: without it a tick could write over a finished line.
        self._lock = threading.RLock()
        self._open: StepRecord | None = None
        self._began = 0.0
        self._on_its_line = False
        self._progress: Progress | None = None
        self._stop = threading.Event()
        self._ticking = threading.Thread(target=self._tick_until_stopped, name="narrator", daemon=True)

    def close(self) -> None:
        """Stop ticking."""
        self._stop.set()
        if self._ticking.is_alive():
            self._ticking.join(timeout=5)

    def scenario_began(self, scenario: ScenarioRecord, feature: Feature, text: Scenario) -> None:  # noqa: ARG002
        """Write the scenario's title and where it is written."""
        title = self._console.styled(f"{scenario.feature}: {scenario.name}", bold=True)
        self._console.write(f"\n{title}\n    {self._faint(f'{scenario.path}:{scenario.line}')}\n")

    def step_began(self, scenario: ScenarioRecord, record: StepRecord, step: Step) -> None:  # noqa: ARG002
        """Write the step, and stay on its line."""
        if not self._ticking.is_alive() and not self._stop.is_set():
            self._ticking.start()
        with self._lock:
            self._open, self._began, self._progress = record, time.monotonic(), None
            self._console.write(self._cut(label(record)))
            self._on_its_line = True

    def step_ended(self, scenario: ScenarioRecord, record: StepRecord, exception: BaseException | None) -> None:  # noqa: ARG002
        """Complete the step's line with its outcome and its seconds."""
        with self._lock:
            self._open = None
            line = self._line(record)
            if self._console.is_terminal:
                self._console.rewrite(line)
            elif self._on_its_line:
                self._console.write(line.removeprefix(self._cut(label(record))))
            else:
                self._console.write(line)
            self._console.write("\n")
        if record.reason:
            lines = record.reason.splitlines()
            shown = lines[:REASON_LINES] + (["..."] if len(lines) > REASON_LINES else [])
            self._console.write("".join(f"          {self._styled(line, record.ending)}\n" for line in shown))

    def scenario_stopped(self, scenario: ScenarioRecord, text: Scenario, reached: int) -> None:  # noqa: ARG002
        """Name the steps whose turn never came."""
        for record in scenario.steps[reached:]:
            self._console.write(self._line(record) + "\n")

    def scenario_ended(self, scenario: ScenarioRecord) -> None:
        """Write the scenario's outcome."""
        if scenario.steps and scenario.steps[0].ending is Ending.NOT_RUN:  # ended before its title was written
            title = self._console.styled(f"{scenario.feature}: {scenario.name}", bold=True)
            reason = scenario.reason.splitlines()[:1]
            self._console.write("".join([f"\n{title}\n", *(f"          {line}\n" for line in reason)]))
        outcome = self._styled(scenario.ending.word, scenario.ending)
        self._console.write(f"    {outcome} in {wording.duration(scenario.seconds)}\n")

    def interject(self, line: str) -> None:
        """Write a line between the others, from a signal handler."""
        newline = "\n" if self._open is not None and self._on_its_line else ""
        self._on_its_line = False
        self._console.interject(f"{newline}          {line}\n")

    def watch(self, progress: Progress) -> None:
        """Remember how far the step is; the ticking thread writes it."""
        self._progress = progress

    def _tick_until_stopped(self) -> None:
        while not self._stop.wait(self._every_seconds):
            with self._lock:
                if self._open is not None:
                    self._tick(self._open)

    def _tick(self, record: StepRecord) -> None:
        seconds = time.monotonic() - self._began
        if not self._console.is_terminal and seconds < self._every_seconds / 2:
            return  # the clock ticks whenever it does: a step that has only just begun is worth no line in a log
        taken = wording.duration(seconds)
        far = wording.progress(self._progress) if self._progress else ""
        if self._console.is_terminal:
            if far:
                # The line is too short for both; the step's own words give way to how far it is.
                room = max(20, self._console.width - len(far) - len(taken) - 4)
                text = f"{_shortened(label(record), room)}  {far}"
            else:
                text = self._cut(label(record))
            self._console.rewrite(f"{_shortened(text, self._console.width - 10)}  {self._faint(taken)}")
        else:
            newline = "\n" if self._on_its_line else ""
            self._on_its_line = False
            self._console.write(f"{newline}          {far or 'still at it'}, after {taken}\n")

    def _line(self, record: StepRecord) -> str:
        """Return a finished step as one line, its outcome and seconds aligned at the right."""
        told = "" if record.ending is Ending.PROVEN else f"{record.ending.word} "
        seconds = "" if record.ending is Ending.NOT_RUN else wording.duration(record.seconds)
        text = self._cut(label(record))
        dots = "." * max(2, self._console.width - len(text) - len(told) - max(len(seconds), 8) - 2)
        return f"{text} {self._faint(dots)} {self._styled(f'{told}{seconds:>8}'.rstrip(), record.ending)}"

    def _cut(self, text: str) -> str:
        return _shortened(text, self._console.width - 24)

    def _styled(self, text: str, ending: Ending) -> str:
        return self._console.styled(text, **STYLES[ending])

    def _faint(self, text: str) -> str:
        return self._console.styled(text, light=True)


def _shortened(text: str, width: int) -> str:
    """Return a text cut to a width, with a mark where something is missing."""
    return text if len(text) <= width else f"{text[: width - 1]}…"
