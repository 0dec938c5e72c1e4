"""The pytest plugin that tells of a run, and says with which status it ends.

It ties the parts of this package together and holds none of their work: `collector` follows the scenarios, `verdict`
translates what they raised, `narrator`, `allure_gherkin` and `summary` tell of it, `interruption` keeps a signal from
leaving things behind. List this module in ``pytest_plugins`` of the root ``conftest.py``.
"""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from pathlib import Path

import pytest

from runbook_lib.evidence import history, summary
from runbook_lib.evidence.allure_gherkin import AllureGherkin
from runbook_lib.evidence.collector import RECORD, Collector, Listener
from runbook_lib.evidence.console import Console
from runbook_lib.evidence.discretion import Discretion
from runbook_lib.evidence.environment import RUN, SAY
from runbook_lib.evidence.interruption import Interruption
from runbook_lib.evidence.narrator import STYLES, Narrator
from runbook_lib.evidence.record import Ending, RunRecord, ScenarioRecord
from runbook_lib.evidence.story import Story, story
from runbook_lib.evidence.verdict import exit_status, verdict_of


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that concern what is told of a run."""
    group = parser.getgroup("runbook", "the runbook")
    group.addoption(
        "--allow-unproven",
        action="store_true",
        help="end with 0 although scenarios could not be carried out (without it, the run ends with 5)",
    )
    group.addoption(
        "--reports",
        type=Path,
        default=Path("reports"),
        metavar="DIR",
        help="where summary.md, summary.json and pictures go (default: reports, beside pyproject.toml)",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Begin the record of the run, before the root ``conftest.py`` describes what it acts on."""
    config.stash[RUN] = RunRecord()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Register whoever writes the record or tells of it; the terminal is there now, and is not captured."""
    config, run = session.config, session.config.stash[RUN]
    listeners: list[Listener] = []

    def register(plugin: object) -> None:
        config.pluginmanager.register(plugin)
        if isinstance(plugin, Listener):
            listeners.append(plugin)

    # pytest asks the last one first. So the narrator's opinion of how a report is shown goes before all others; and
    # of the wrappers around a report the innermost, the collector's, has concluded the scenario before it is read.
    register(Discretion(config))
    register(_Outcomes(config, run))
    folder = config.rootpath / config.getoption("reports")
    register(Collector(run, listeners, partial(history.latest_measure, folder, run)))
    if config.getoption("allure_report_dir", None):
        register(AllureGherkin(Path(config.getoption("allure_report_dir")), run))
    interruption = Interruption(session)
    register(interruption)
    if config.pluginmanager.has_plugin("terminalreporter"):
        console = Console.of(config)
        config.add_cleanup(console.close)
        interruption.say = lambda line: console.interject(f"\n{line}\n")
        if config.get_verbosity() >= 0:
            config.stash[SAY] = console.write
            narration = _Narration(config, console)
            register(narration)
            interruption.say = narration.interject


_NOT_CARRIED_OUT = {Ending.UNPROVEN: "could not be carried out", Ending.PLANNED: "nothing was done"}
"""The endings of scenarios that neither passed nor failed, which pytest has no word for; and a title for each."""


class _Narration(Narrator):
    """The narrator, taking turns with pytest's own lines in the terminal."""

    def __init__(self, config: pytest.Config, console: Console) -> None:
        super().__init__(console)
        self._reporter = config.pluginmanager.getplugin("terminalreporter")

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Keep pytest from writing the feature file's name before each scenario: the narrator writes it."""
        if RECORD not in item.stash:
            return (yield)
        self._reporter.showfspath = False
        try:
            return (yield)
        finally:
            self._reporter.showfspath = None

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logstart(self) -> None:
        """End the line that pytest has begun, and have it written before the narrator's own."""
        if self._reporter.showfspath is False:
            self._reporter.ensure_newline()
            self._reporter.flush()

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """Write neither letter nor word for a scenario: the narrator has written it.

        Without ``-v`` pytest shows no words, and needs one to count the scenario in its percentage.
        """
        ending = getattr(report, "runbook_ending", None)
        if ending is None or (report.failed and report.when != "call") or hasattr(report, "wasxfail"):
            return None
        category = str(ending.value) if ending in _NOT_CARRIED_OUT else report.outcome
        return category, "", "" if self._reporter.showlongtestinfo else ending.word

    def pytest_unconfigure(self) -> None:
        """Stop ticking."""
        self.close()


class _Outcomes(Listener):
    """Gives pytest's reports the three outcomes, and the run its exit status."""

    def __init__(self, config: pytest.Config, run: RunRecord) -> None:
        self._config = config
        self._run = run
        self._folder = config.rootpath / config.getoption("reports")
        self._reports = summary.Reports(self._folder, run)
        self._not_carried_out: list[tuple[ScenarioRecord, Story]] = []
        self._feature_files_seen = False
        self._tells = False

    def pytest_report_header(self) -> list[str]:
        """Name what the run acts on."""
        return [f"{name}: {value}" for name, value in self._run.environment.items()]

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Remember whether the runbook was asked for at all."""
        self._feature_files_seen |= report.nodeid.split("::")[0].endswith(".feature")

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Replace the summary of an earlier run, so that it cannot be taken for this one's.

        A run of ordinary tests leaves it alone.
        """
        asked_for = bool(self._run.scenarios) or (self._feature_files_seen and not session.items)
        self._tells = asked_for and not self._config.option.collectonly
        if self._tells:
            self._reports.write()

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Make of a scenario that could not be carried out a report of its own kind, and show a story for a failure."""
        report = yield
        scenario = item.stash.get(RECORD, None)
        if scenario is None or (call.excinfo is None and call.when != "call"):
            return report
        report.runbook_ending = scenario.ending  # type: ignore[attr-defined]
        if call.excinfo is None:
            if scenario.ending is not Ending.PROVEN:
                report.outcome = "skipped"
                report.longrepr = (scenario.path, scenario.line, scenario.reason)
            return report
        verdict = verdict_of(call.excinfo.value)
        if verdict.ending is Ending.PLANNED:
            predicted = history.prediction(self._folder, self._run, scenario)
            scenario.reason += f"\n{predicted}"
            for step in scenario.steps:
                if step.ending is Ending.PLANNED:
                    step.reason += f"\n{predicted}"
        told = story(item, call.excinfo, scenario, foreseen=verdict.foreseen and call.when != "teardown")
        report.location = (*report.location[:2], f"{scenario.feature}: {scenario.name}")
        if verdict.ending in _NOT_CARRIED_OUT and call.when != "teardown":
            report.outcome = "skipped"
            report.longrepr = (scenario.path, scenario.line, scenario.reason)
            self._not_carried_out.append((scenario, told))
        else:
            report.outcome = "failed"
            report.longrepr = told
        return report

    def pytest_report_teststatus(
        self, report: pytest.TestReport
    ) -> tuple[str, str, tuple[str, dict[str, bool]]] | None:
        """Tell a scenario that could not be carried out from one that was skipped or passed."""
        ending = getattr(report, "runbook_ending", None)
        if ending in _NOT_CARRIED_OUT and report.skipped:
            word = str(ending.value)
            return word, word[0].upper(), (word.upper(), dict(STYLES[ending]))
        if getattr(report, "runbook_untold", False):
            return ("interrupted" if report.failed else "not run"), "", ("", {})
        return None

    def scenario_ended(self, scenario: ScenarioRecord) -> None:  # noqa: ARG002
        """Write down what is known so far: a run that is killed leaves at least that."""
        if self._tells:
            self._reports.write()

    def pytest_keyboard_interrupt(self) -> None:
        """Tell every reporter of the scenarios that pytest itself now says nothing of.

        JUnit would list the interrupted one as a test case without a fault, and leave the others out.
        """
        self._run.interrupted = True
        for scenario, item in self._selected():
            if scenario.ending not in (Ending.INTERRUPTED, Ending.NOT_RUN):
                continue
            interrupted = scenario.ending is Ending.INTERRUPTED
            scenario.reason = scenario.reason or "the run was stopped before its turn came"
            report = pytest.TestReport(
                nodeid=item.nodeid,
                location=item.location,
                keywords={},
                outcome="failed" if interrupted else "skipped",
                longrepr=scenario.reason if interrupted else (scenario.path, scenario.line, scenario.reason),
                when="call",
            )
            report.runbook_untold = True  # type: ignore[attr-defined]
            self._config.hook.pytest_runtest_logreport(report=report)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> Generator[None, object, object]:
        """Say with which status the run ends, and write the reports, once the last fixture has been torn down."""
        try:
            return (yield)
        finally:
            self._run.broken = exitstatus == pytest.ExitCode.INTERNAL_ERROR
            if self._tells:
                allowed = self._config.getoption("allow_unproven")
                session.exitstatus = exit_status(exitstatus, self._run, allow_unproven=allowed)
                self._reports.write(ended=True)
                history.append(self._folder, self._run)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show what could not be carried out and why, and the verdict."""
        for ending, title in _NOT_CARRIED_OUT.items():
            theirs = [(scenario, told) for scenario, told in self._not_carried_out if scenario.ending is ending]
            if theirs:
                terminalreporter.write_sep("=", f"{ending.value}: {title}", **STYLES[ending], bold=True)
            for scenario, told in theirs:
                terminalreporter.write_sep("_", f"{scenario.feature}: {scenario.name}", **STYLES[ending])
                told.toterminal(terminalreporter._tw)
        if self._tells:
            terminalreporter.write_sep("=", "the runbook")
            for line in self._reports.in_the_terminal():
                terminalreporter.write_line(line)

    def _selected(self) -> list[tuple[ScenarioRecord, pytest.Item]]:
        session = self._config.pluginmanager.getplugin("session")
        return [(item.stash[RECORD], item) for item in session.items if RECORD in item.stash]
