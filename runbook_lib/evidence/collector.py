"""Follows the scenarios as pytest-bdd runs them, and writes down what happens.

pytest-bdd's hooks leave gaps: ``pytest.skip()``, Ctrl-C and ``SystemExit`` inside a step end it without a word, and
the steps that were not reached are never mentioned. The gaps are filled here once, so that whoever listens is told of
every step's beginning and of its end.
"""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import pytest
from pytest_bdd.parser import Feature, Scenario, Step
from pytest_bdd.scenario import scenario_wrapper_template_registry

from runbook_lib.evidence import history
from runbook_lib.evidence.record import (
    Ending,
    Exhibit,
    RunRecord,
    ScenarioRecord,
    StepRecord,
    Table,
    Text,
    Timeline,
    Window,
)
from runbook_lib.evidence.redaction import redacted, redacted_value
from runbook_lib.evidence.verdict import Verdict, verdict_of
from runbook_lib.outcome import Finding
from runbook_lib.phases import Phase, Progress, Watcher

RECORD = pytest.StashKey[ScenarioRecord]()
"""Where an item keeps the record of its scenario; ordinary tests have none."""


class Listener:
    """Somebody who is told of each thing as it happens. Every method may be left out."""

    def scenario_began(self, scenario: ScenarioRecord, feature: Feature, text: Scenario) -> None:
        """A scenario's first step is about to begin."""

    def step_began(self, scenario: ScenarioRecord, record: StepRecord, step: Step) -> None:
        """A step is about to run."""

    def step_ended(self, scenario: ScenarioRecord, record: StepRecord, exception: BaseException | None) -> None:
        """A step has ended; ``exception`` is what it raised."""

    def scenario_stopped(self, scenario: ScenarioRecord, text: Scenario, reached: int) -> None:
        """The first ``reached`` steps of a scenario have been begun, and no more will be."""

    def scenario_ended(self, scenario: ScenarioRecord) -> None:
        """A scenario has ended and been cleaned up after."""

    def kept(self, scenario: ScenarioRecord, exhibit: Exhibit | Finding) -> None:
        """A step has kept something as evidence."""

    def watch(self, progress: Progress) -> None:
        """A phase has come so far. Called from any thread; must neither block nor raise."""


class Evidence:
    """What a step hands over to be kept: the fixture ``evidence``.

    Nothing of it changes a verdict; a step that finds something wrong asserts by itself.
    """

    def __init__(
        self,
        scenario: ScenarioRecord,
        listeners: Sequence[Listener] = (),
        earlier_runs: Callable[[str], Sequence[Mapping[str, object]]] = lambda _: (),
    ) -> None:
        self._scenario = scenario
        self._listeners = listeners
        self._earlier_runs = earlier_runs

    def earlier_runs(self, measure: str) -> Sequence[Mapping[str, object]]:
        """Return the numbers of earlier scenarios here that measured something of this name, the newest last."""
        return self._earlier_runs(measure)

    def table(self, title: str, rows: Sequence[Mapping[str, object]]) -> None:
        """Keep rows, each a mapping from column name to value."""
        shown = [
            {name: value if _is_plain(value) else redacted_value(name, value) for name, value in row.items()}
            for row in rows
        ]
        self._keep(Table(title, shown))

    def text(self, title: str, text: str) -> None:
        """Keep a text, such as the end of a program's output."""
        self._keep(Text(title, redacted(text)))

    def phases(
        self,
        title: str,
        phases: Sequence[Phase],
        *,
        target_seconds: float | None = None,
        maximum_seconds: float | None = None,
    ) -> None:
        """Keep what a procedure's time was spent on, beside the budget it has; shown as a chart."""
        self._keep(Timeline(title, tuple(phases), target_seconds, maximum_seconds))

    def window(self, shown: Window) -> None:
        """Keep which moments can be recovered; shown as a chart."""
        self._keep(replace(shown, gaps=[replace(gap, why=redacted(gap.why)) for gap in shown.gaps]))

    def measured(self, name: str, value: object) -> None:
        """Keep a number; its name carries its unit: ``evidence.measured("rto_seconds", 12.4)``."""
        self._scenario.measures[name] = value if _is_plain(value) else redacted_value(name, value)

    def findings(self, findings: Sequence[Finding]) -> None:
        """Keep what was found to be wrong, or could not be looked at; the same finding twice is kept once."""
        for finding in findings:
            shown = Finding(
                finding.check,
                redacted(finding.subject),
                redacted(finding.says),
                finding.outcome,
                redacted(finding.remedy),
            )
            if shown in self._scenario.findings:
                continue
            self._scenario.findings.append(shown)
            for listener in self._listeners:
                listener.kept(self._scenario, shown)

    @property
    def watch(self) -> Watcher:
        """Shows progress in the terminal: hand it to whatever takes a `Watcher`."""
        return self._watch

    def _watch(self, progress: Progress) -> None:
        for listener in self._listeners:
            listener.watch(progress)

    def _keep(self, exhibit: Exhibit) -> None:
        self._scenario.exhibits.append(exhibit)
        for listener in self._listeners:
            listener.kept(self._scenario, exhibit)


class Collector:
    """The pytest plugin that writes the records of a run."""

    def __init__(self, run: RunRecord, listeners: Sequence[Listener]) -> None:
        self._run = run
        self._listeners = listeners
        self._reached = 0
        self._open: StepRecord | None = None
        self._step_began = 0.0

    @pytest.fixture
    def evidence(self, request: pytest.FixtureRequest) -> Evidence:
        """Where a step puts tables, texts, numbers, findings and timelines; see `Evidence`."""
        scenario = request.node.stash.get(RECORD, None)
        if scenario is None:  # an ordinary test: taken, and told to nobody
            return Evidence(ScenarioRecord("", request.node.name, {}, "", 0, ()))
        environment = self._run.environment.get("environment", "")
        folder = request.config.rootpath / request.config.getoption("reports")
        return Evidence(scenario, self._listeners, partial(history.earlier_runs, folder, environment))

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Begin the record of every scenario that was selected, so that one whose turn never comes has one too."""
        for item in session.items:
            record = _record_of(item)
            if record is not None:
                item.stash[RECORD] = record
                self._run.scenarios.append(record)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Time a scenario as a whole, and see it end whatever ends it."""
        scenario = item.stash.get(RECORD, None)
        if scenario is None:
            return (yield)
        self._reached, self._open = 0, None
        with self._timed(scenario):
            return (yield)

    @contextmanager
    def _timed(self, scenario: ScenarioRecord) -> Iterator[None]:
        began, aside = time.monotonic(), self._run.aside_seconds
        try:
            yield
        except BaseException as stopped:
            _conclude(scenario, verdict_of(stopped))
            raise
        finally:
            scenario.seconds = time.monotonic() - began - (self._run.aside_seconds - aside)
            for listener in self._listeners:
                listener.scenario_ended(scenario)

    @pytest.hookimpl(trylast=True)
    def pytest_bdd_before_scenario(self, request: pytest.FixtureRequest, feature: Feature, scenario: Scenario) -> None:
        """Tell of the scenario's beginning."""
        for listener in self._listeners:
            listener.scenario_began(request.node.stash[RECORD], feature, scenario)

    @pytest.hookimpl(tryfirst=True)
    def pytest_bdd_before_step(self, request: pytest.FixtureRequest, step: Step) -> None:
        """Tell of the step's beginning."""
        self._begin(request, step)

    @pytest.hookimpl(tryfirst=True)
    def pytest_bdd_after_step(self, request: pytest.FixtureRequest) -> None:
        """Tell of the step's end."""
        self._end(request, None)

    @pytest.hookimpl(tryfirst=True)
    def pytest_bdd_step_error(self, request: pytest.FixtureRequest, exception: BaseException) -> None:
        """Tell of the step's end; pytest-bdd calls this for ordinary exceptions and for ``pytest.fail`` alone."""
        self._end(request, exception)

    @pytest.hookimpl(tryfirst=True)
    def pytest_bdd_step_func_lookup_error(
        self, request: pytest.FixtureRequest, step: Step, exception: BaseException
    ) -> None:
        """Tell of a step that nobody wrote, as of one that began and ended."""
        self._begin(request, step)
        self._end(request, exception)

    @pytest.hookimpl(tryfirst=True)
    def pytest_bdd_after_scenario(self, request: pytest.FixtureRequest, scenario: Scenario) -> None:
        """End the step that nobody ended: pytest-bdd says nothing of ``pytest.skip()`` and Ctrl-C inside one."""
        if self._open is not None:
            self._end(request, sys.exc_info()[1])
        for listener in self._listeners:
            listener.scenario_stopped(request.node.stash[RECORD], scenario, self._reached)

    def _begin(self, request: pytest.FixtureRequest, step: Step) -> None:
        scenario = request.node.stash[RECORD]
        self._open = scenario.steps[self._reached]
        self._reached += 1
        for listener in self._listeners:
            listener.step_began(scenario, self._open, step)
        self._step_began = time.monotonic()

    def _end(self, request: pytest.FixtureRequest, exception: BaseException | None) -> None:
        record, self._open = self._open, None
        if record is None:
            return
        verdict = verdict_of(exception)
        record.seconds = time.monotonic() - self._step_began
        record.ending, record.reason = verdict.ending, verdict.reason
        for listener in self._listeners:
            listener.step_ended(request.node.stash[RECORD], record, exception)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Conclude the scenario from what its setting up, its steps or its cleaning up raised."""
        report = yield
        scenario = item.stash.get(RECORD, None)
        if scenario is None:
            _count(self._run, report)
        elif call.excinfo is not None and call.when == "teardown":
            # A drill that leaves something behind has not kept its word, whatever it found out before.
            why = f"it could not be cleaned up after: {verdict_of(call.excinfo.value).reason}"
            _conclude(scenario, Verdict(Ending.FAILED, why))
        elif call.excinfo is not None:
            _conclude(scenario, verdict_of(call.excinfo.value))
        elif call.when == "call":
            ran = bool(scenario.steps) and all(step.ending is Ending.PROVEN for step in scenario.steps)
            _conclude(scenario, Verdict(Ending.PROVEN) if ran else Verdict(Ending.UNPROVEN, "not a single step ran"))
        if scenario is not None and call.when == "call":
            item.user_properties.extend(scenario.measures.items())  # JUnit lists them as the test case's properties
        return report


def _conclude(scenario: ScenarioRecord, verdict: Verdict) -> None:
    """Write a scenario's ending down; what is known of it already is added to, never taken back."""
    if scenario.ending in (Ending.FAILED, Ending.UNPROVEN, Ending.PLANNED) and verdict.reason:
        scenario.reason = f"{scenario.reason}\n{verdict.reason}"
    else:
        scenario.reason = verdict.reason
    if scenario.ending is not Ending.FAILED:
        scenario.ending = verdict.ending


def _record_of(item: pytest.Item) -> ScenarioRecord | None:
    """Return a new record for an item that is a scenario, and None for an ordinary test."""
    function = getattr(item, "obj", None)
    template = scenario_wrapper_template_registry.get(function) if inspect.isfunction(function) else None
    if template is None:
        return None
    example = getattr(getattr(item, "callspec", None), "params", {}).get("_pytest_bdd_example", {})
    scenario = template.render(example)
    inherited = scenario.feature.tags | (scenario.rule.tags if scenario.rule else set())
    return ScenarioRecord(
        feature=scenario.feature.name,
        title=scenario.name,
        example=example,
        path=item.nodeid.split("::")[0],
        line=scenario.line_number,
        tags=sorted(scenario.tags | inherited),
        steps=[StepRecord(step.keyword.strip(), step.name, step.line_number) for step in scenario.steps],
    )


def _count(run: RunRecord, report: pytest.TestReport) -> None:
    """Count an ordinary test once, by what pytest itself made of it."""
    if report.when == "call" or not report.passed:
        run.other_tests[report.outcome] += 1


def _is_plain(value: object) -> bool:
    """Whether a value goes into JSON as it is, and can hide nothing."""
    return value is None or isinstance(value, bool | int | float)
