"""Scenarios and steps in the Allure results that ``allure-pytest`` writes.

``allure-pytest`` knows nothing of pytest-bdd: a scenario appears under a Python name, without its steps, with one
"set up" entry for each step *definition*. Its sister for pytest-bdd cannot be installed beside it, and copies the
value of every fixture, secrets included, into the report. So this listener adds what is missing through Allure's
public hooks, and corrects two things in what is about to be written: the internal fixtures of pytest-bdd, and the
status, which after Ctrl-C would be "passed".
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import allure
import allure_commons
import pytest
from allure_commons.model2 import ExecutableItem, Status, StatusDetails, TestResult, TestResultContainer
from allure_commons.types import AttachmentType, ParameterMode
from pytest_bdd.parser import Feature, Scenario, Step

from runbook_lib.errors import DamagedArtefact
from runbook_lib.evidence import chart, window_chart
from runbook_lib.evidence.collector import RECORD, Listener
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
from runbook_lib.evidence.redaction import redacted
from runbook_lib.outcome import Finding

_INTERNAL = ("pytestbdd_step", "_pytest_bdd_example")
_dynamic: Any = allure.dynamic  # Allure ships without types


class AllureGherkin(Listener):
    """The pytest plugin, and listener, that is registered when results are written for Allure."""

    def __init__(self, folder: Path, run: RunRecord) -> None:
        """Take the folder of ``--alluredir``."""
        self._folder = folder
        self._run = run
        self._corrections = _Corrections()
        self._open: Any = None

    def pytest_configure(self) -> None:
        """Correct results from now on."""
        allure_commons.plugin_manager.register(self._corrections)

    def pytest_unconfigure(self) -> None:
        """Stop correcting results."""
        allure_commons.plugin_manager.unregister(self._corrections)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Say which scenario the next result is of, and hide the row of examples that would be shown as a raw dict."""
        self._corrections.scenario = item.stash.get(RECORD, None)
        if self._corrections.scenario is not None and self._corrections.scenario.example:
            _dynamic.parameter("_pytest_bdd_example", "", excluded=True, mode=ParameterMode.HIDDEN)

    def scenario_began(self, scenario: ScenarioRecord, feature: Feature, text: Scenario) -> None:
        """Give the result the scenario's own names."""
        _dynamic.title(scenario.name)
        _dynamic.feature(scenario.feature)
        if text.rule is not None:
            _dynamic.story(text.rule.name)
        _dynamic.description((text.description or feature.description).strip())
        for name, value in scenario.example.items():
            _dynamic.parameter(name, value)

    def step_began(self, scenario: ScenarioRecord, record: StepRecord, step: Step) -> None:  # noqa: ARG002
        """Open the step, and show its table and its text."""
        self._open = allure.step(redacted(f"{record.keyword} {record.text}"))
        self._open.__enter__()
        if step.docstring is not None:
            allure.attach(redacted(step.docstring), "text", AttachmentType.TEXT)
        if step.datatable is not None:
            allure.attach(_csv(step.datatable.raw()), "table", AttachmentType.CSV)

    def step_ended(self, scenario: ScenarioRecord, record: StepRecord, exception: BaseException | None) -> None:  # noqa: ARG002
        """Close the step."""
        step, self._open = self._open, None
        if step is None:
            return
        if isinstance(exception, DamagedArtefact):
            # Allure calls "failed" what asserts, and everything else "broken"; damage is a finding.
            exception = AssertionError(record.reason).with_traceback(exception.__traceback__)
        step.__exit__(type(exception) if exception else None, exception, exception.__traceback__ if exception else None)

    def scenario_stopped(self, scenario: ScenarioRecord, text: Scenario, reached: int) -> None:
        """Show the steps whose turn never came as skipped."""
        for record, step in zip(scenario.steps[reached:], text.steps[reached:], strict=True):
            self.step_began(scenario, record, step)
            self.step_ended(scenario, record, pytest.skip.Exception("not run: an earlier step ended the scenario"))

    def kept(self, scenario: ScenarioRecord, exhibit: Exhibit | Finding) -> None:  # noqa: ARG002
        """Attach what a step keeps to that step."""
        match exhibit:
            case Table(title=title):
                rows = [[row.get(name, "") for name in exhibit.columns] for row in exhibit.rows]
                allure.attach(_csv([exhibit.columns, *rows]), title, AttachmentType.CSV)
            case Text(title=title, text=text):
                allure.attach(text, title, AttachmentType.TEXT)
            case Timeline(title=title):
                allure.attach(chart.svg(exhibit), title, AttachmentType.SVG)
            case Window(title=title):
                allure.attach(window_chart.svg(exhibit), title, AttachmentType.SVG)
            case Finding():
                remedy = f"\nTo fix this: {exhibit.remedy}" if exhibit.remedy else ""
                allure.attach(f"{exhibit}{remedy}", f"finding: {exhibit.check} {exhibit.subject}", AttachmentType.TEXT)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        """Write what the run acted on where Allure looks for it."""
        if self._run.environment and self._folder.is_dir():
            lines = [f"{_key(name)}={_value(value)}\n" for name, value in self._run.environment.items()]
            (self._folder / "environment.properties").write_text("".join(lines), encoding="utf-8")


class _Corrections:
    """Corrects what allure-pytest is about to write."""

    def __init__(self) -> None:
        self.scenario: ScenarioRecord | None = None

    @allure_commons.hookimpl(tryfirst=True)
    def report_result(self, result: TestResult) -> None:
        """Give a scenario's result the status that its record has."""
        scenario, self.scenario = self.scenario, None
        _redact(result)
        if scenario is None:
            return
        skipped = any(step.status == Status.SKIPPED and step.statusDetails for step in result.steps)
        broken = any(step.status == Status.BROKEN for step in result.steps)
        result.status = {
            Ending.PROVEN: Status.PASSED,
            Ending.FAILED: Status.FAILED,
            Ending.PLANNED: Status.SKIPPED,
            Ending.UNPROVEN: Status.SKIPPED if skipped and not broken else Status.BROKEN,
        }.get(scenario.ending, Status.BROKEN)
        if scenario.reason:
            trace = result.statusDetails.trace if result.statusDetails else None
            result.statusDetails = StatusDetails(message=scenario.reason, trace=trace)

    @allure_commons.hookimpl(tryfirst=True)
    def report_container(self, container: TestResultContainer) -> None:
        """Leave pytest-bdd's internal fixtures out."""
        container.befores[:] = [entry for entry in container.befores if not entry.name.startswith(_INTERNAL)]
        container.afters[:] = [entry for entry in container.afters if not entry.name.startswith(_INTERNAL)]
        for entry in (*container.befores, *container.afters):
            _redact(entry)


def _redact(result: ExecutableItem) -> None:
    """Hide what an exception may have told of secrets, in a result and in each of its steps."""
    if result.statusDetails is not None:
        result.statusDetails.message = redacted(result.statusDetails.message or "")
        result.statusDetails.trace = redacted(result.statusDetails.trace or "")
    for step in result.steps:
        _redact(step)


def _csv(rows: Iterable[Sequence[object]]) -> str:
    told = io.StringIO()
    csv.writer(told).writerows(rows)
    return redacted(told.getvalue())


def _key(name: str) -> str:
    return "".join(f"\\{letter}" if letter in " =:#!\\" else letter for letter in name)


def _value(value: str) -> str:
    return " ".join(value.split()).replace("\\", "\\\\")
