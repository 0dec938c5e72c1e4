"""What a run leaves behind, as plain values.

Everything that tells of a run (the narrator, Allure, the summary) reads these records, so that all of them tell the
same story. `collector` alone writes them.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum

from runbook_lib.outcome import Finding
from runbook_lib.phases import Phase


class Ending(Enum):
    """How a scenario, a step or a whole run ended: the three outcomes of a check, and three that only a run has."""

    PROVEN = "proven"
    """It was carried out, and what it checked holds."""
    FAILED = "failed"
    """It was carried out, and what it checked does not hold."""
    UNPROVEN = "unproven"
    """It could not be carried out."""
    PLANNED = "planned"
    """It was only said what would be done."""
    INTERRUPTED = "interrupted"
    """Somebody stopped it half way."""
    NOT_RUN = "not run"
    """Its turn never came."""

    @property
    def word(self) -> str:
        """The word for people; the one they must not overlook is in capitals."""
        word = str(self.value)
        return word.upper() if self is Ending.FAILED else word


SEVERITY = (Ending.INTERRUPTED, Ending.FAILED, Ending.UNPROVEN, Ending.PLANNED, Ending.NOT_RUN, Ending.PROVEN)
"""The endings, the one that decides over a whole run first."""


@dataclass(frozen=True)
class Table:
    """Rows that a step keeps as evidence."""

    title: str
    """What the rows are."""
    rows: Sequence[Mapping[str, object]]
    """The rows, each from column name to value; the first row's columns come first."""

    @property
    def columns(self) -> list[str]:
        """All columns, in the order of their first appearance."""
        return list(dict.fromkeys(name for row in self.rows for name in row))


@dataclass(frozen=True)
class Text:
    """A text that a step keeps as evidence."""

    title: str
    """What the text is."""
    text: str
    """The text itself."""


@dataclass(frozen=True)
class Timeline:
    """What a procedure's time was spent on, against its budget."""

    title: str
    """What was timed: ``RTO of the weekly restore``."""
    phases: Sequence[Phase]
    """Its phases, which may overlap."""
    target_seconds: float | None
    """The time it should take, in seconds from its beginning; None without such a budget."""
    maximum_seconds: float | None
    """The time it must not exceed, in seconds from its beginning; None without such a budget."""

    @property
    def seconds(self) -> float:
        """The end of the last phase, in seconds from the beginning of the procedure."""
        return max((phase.ended_seconds for phase in self.phases), default=0.0)


@dataclass(frozen=True)
class Span:
    """Moments that are recovered from one base backup."""

    began: datetime
    """The first moment, in UTC: when the base backup ended."""
    ended: datetime
    """The moment that they end before: a newer base backup serves from there, or nothing does."""
    rto_began_seconds: float
    """The predicted time of a recovery to the first moment."""
    rto_ended_seconds: float
    """The predicted time of a recovery to the last one, all WAL between included."""


@dataclass(frozen=True)
class Gap:
    """Moments that cannot be recovered."""

    began: datetime
    """From here on, in UTC."""
    ended: datetime
    """To here."""
    why: str
    """What is missing."""
    excused: bool = False
    """Whether nobody could have had it."""


@dataclass(frozen=True)
class Window:
    """Which moments can be recovered, along the time for which every one should be."""

    title: str
    """What is shown: ``what can be recovered``."""
    began: datetime
    """The beginning of the time, in UTC."""
    ended: datetime
    """Its end: the moment of the look."""
    spans: Sequence[Span]
    """What can be recovered, in the order of time."""
    gaps: Sequence[Gap]
    """What cannot be; what neither a span nor a gap covers at the end is not archived yet."""
    left: Mapping[str, Sequence[Span]]
    """What can be recovered along timelines that were left, by a name for each."""
    target_seconds: float | None
    """The time that a recovery should take; None without such a budget."""
    maximum_seconds: float | None
    """The time that it must not exceed; None without such a budget."""


Exhibit = Table | Text | Timeline | Window
"""Whatever a step can keep beside numbers and findings."""


@dataclass
class StepRecord:
    """One step of one scenario."""

    keyword: str
    """``Given``, ``When``, ``Then``, ``And`` or ``But``, or the feature's own language's word for it."""
    text: str
    """The step as the feature file has it, placeholders filled in."""
    line: int
    """Its line in the feature file, from 1."""
    ending: Ending = Ending.NOT_RUN
    """How it ended; a step that is running has not ended yet, and counts as not run."""
    reason: str = ""
    """Why it ended so; empty for a proven step."""
    seconds: float = 0.0
    """How long it took, in seconds."""


@dataclass
class ScenarioRecord:
    """One scenario, one row of examples each."""

    feature: str
    """The feature's title."""
    title: str
    """The scenario's title, placeholders filled in."""
    example: Mapping[str, str]
    """The row of examples it was run with; empty for a scenario without."""
    path: str
    """The feature file, relative to the root of the project."""
    line: int
    """The scenario's line in it, from 1."""
    tags: Sequence[str]
    """Its tags and those it inherits, without the ``@``, sorted."""
    steps: list[StepRecord] = field(default_factory=list)
    """Its steps, those of the background first."""
    ending: Ending = Ending.NOT_RUN
    """How it ended."""
    reason: str = ""
    """Why it ended so; empty for a proven scenario."""
    seconds: float = 0.0
    """How long it took in seconds, setting up and cleaning up included."""
    measures: dict[str, object] = field(default_factory=dict)
    """Numbers by name; the name carries the unit (``rto_seconds``)."""
    findings: list[Finding] = field(default_factory=list)
    """What was found to be wrong, or could not be looked at."""
    exhibits: list[Exhibit] = field(default_factory=list)
    """Tables, texts and timelines, in the order they were kept."""

    @property
    def name(self) -> str:
        """The title, with the row of examples where the title alone does not tell the rows apart."""
        said = set(self.title.split())
        told = all(word in said for value in self.example.values() for word in value.split())
        return self.title if told else f"{self.title} [{', '.join(self.example.values())}]"


@dataclass
class RunRecord:
    """One run of pytest, as far as it concerns the runbook."""

    environment: dict[str, str] = field(default_factory=dict)
    """What the run acted on, by name: profile, server version, store. Nothing secret."""
    scenarios: list[ScenarioRecord] = field(default_factory=list)
    """The scenarios that were selected, in their order."""
    other_tests: Counter[str] = field(default_factory=Counter)
    """How many ordinary tests passed, failed or were skipped in the same run."""
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    """When the run began."""
    ended: datetime | None = None
    """When it ended; None while it is running."""
    began_monotonic: float = field(default_factory=time.monotonic)
    """When it began, on the clock that nobody sets."""
    aside_seconds: float = 0.0
    """How much of the time went into what belongs to no scenario, such as building a sandbox."""
    interrupted: bool = False
    """Whether somebody stopped it."""
    broken: bool = False
    """Whether pytest itself broke, so that nothing it says of the scenarios can be relied upon."""

    @property
    def seconds(self) -> float:
        """How long the run took, or has taken so far."""
        return (self.ended - self.began).total_seconds() if self.ended else time.monotonic() - self.began_monotonic

    @property
    def counts(self) -> Counter[Ending]:
        """How many scenarios ended in each way."""
        return Counter(scenario.ending for scenario in self.scenarios)

    @property
    def ending(self) -> Ending:
        """The run's own ending: its worst scenario's, where "not run" and "nothing selected" have proven nothing."""
        if self.interrupted:
            return Ending.INTERRUPTED
        worst = next((ending for ending in SEVERITY if self.counts[ending]), Ending.NOT_RUN)
        return Ending.UNPROVEN if worst is Ending.NOT_RUN or (worst is Ending.PROVEN and self.broken) else worst
