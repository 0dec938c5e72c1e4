from __future__ import annotations

import io
import re

import pytest
from pytest_bdd.parser import Feature, Scenario, Step

from runbook_lib.evidence.console import Console
from runbook_lib.evidence.narrator import Narrator
from runbook_lib.evidence.record import Ending, ScenarioRecord, StepRecord
from runbook_lib.phases import Progress
from runbook_lib.waiting import wait_for
from tests.evidence.project import Project


class Terminal(io.StringIO):
    def __init__(self, *, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


def plain(text: str, **style: bool) -> str:
    return text


STEP = StepRecord("When", "restored to tensafe_verify", 4)
SCENARIO = ScenarioRecord("Backup verification", "It restores", {}, "f.feature", 3, (), steps=[STEP])
TEXT = Step("restored to tensafe_verify", "when", 4, 4, "When")
PROGRESS = Progress("restore data", 1_200_000_000, 3_400_000_000, "bytes", "public.audit_logs")


def told(terminal: Terminal, *, until: str, every_seconds: float = 0.02) -> str:
    """Let one step run until ``until`` has been written, end it, and return everything that was written."""
    narrator = Narrator(Console(terminal, plain), every_seconds=every_seconds, line_every_seconds=every_seconds)
    try:
        narrator.step_began(SCENARIO, STEP, TEXT)
        assert "When restored to tensafe_verify" in terminal.getvalue(), "a step is told when it starts"
        narrator.watch(PROGRESS)
        wait_for(
            f"{until!r} to be told",
            terminal.getvalue,
            where="the terminal",
            within_seconds=5,
            until=lambda seen: until in seen,
        )
        STEP.ending, STEP.seconds = Ending.PROVEN, 75.0
        narrator.step_ended(SCENARIO, STEP, None)
    finally:
        narrator.close()
    return terminal.getvalue()


def test_in_a_log_progress_takes_a_line_now_and_then_and_the_step_is_repeated_when_it_ends() -> None:
    lines = told(Terminal(is_terminal=False), until="public.audit_logs").splitlines()
    assert lines[0] == "     When restored to tensafe_verify"
    assert re.fullmatch(r" +restore data: 1\.2 GB of 3\.4 GB \(35 %\), public\.audit_logs, after 0\.\d s", lines[1])
    assert re.fullmatch(r"     When restored to tensafe_verify \.+ 1 min 15 s", lines[-1])
    assert not any("\r" in line or "\x1b" in line for line in lines)


def test_on_a_terminal_the_line_is_rewritten_in_place() -> None:
    shown = told(Terminal(is_terminal=True), until="1.2 GB of 3.4 GB")
    assert shown.count("\n") == 1
    drawn = shown.rstrip("\n").split("\r\x1b[K")
    assert len(drawn) >= 3
    assert all(len(line) < 100 for line in drawn)
    assert drawn[-1].endswith("1 min 15 s")


def test_a_short_step_takes_one_line_in_a_log() -> None:
    terminal = Terminal(is_terminal=False)
    assert told(terminal, until="When", every_seconds=60).count("\n") == 1


def test_steps_are_told_without_being_asked_for(project: Project) -> None:
    project.scenario("Given last night's backup", "Then there are 5 rows", "When nothing much happens")
    project.run().stdout.fnmatch_lines(
        [
            "Drill: The only one",
            "    features/drill.feature:3",
            "    Given last night's backup ...* s",
            "     Then there are 5 rows ...* s",
            "     When nothing much happens ...* s",
            "    proven in * s",
        ]
    )


def test_a_step_is_told_when_it_starts_although_output_is_captured(project: Project) -> None:
    """The process is killed within a step: what was written before is all there is."""
    steps = (project.path / "drill_steps.py").read_text()
    project.write("drill_steps.py", steps.replace('"""Nothing."""', "os.kill(os.getpid(), signal.SIGKILL)"))
    project.scenario("Given last night's backup", "When nothing much happens")
    result = project.run_apart()
    result.stdout.fnmatch_lines(["    Given last night's backup ...* s", "     When nothing much happens"])
    assert project.summary["outcome"] == "running"


@pytest.mark.parametrize("arguments", [[], ["-v"], ["-s"], ["--capture=sys"], ["-vv"]])
def test_ordinary_tests_and_scenarios_share_the_terminal(project: Project, arguments: list[str]) -> None:
    project.scenario("Given last night's backup")
    project.write("a_first/test_a.py", "def test_a(): pass\n")
    project.write("z_last/test_z.py", "def test_z(): pass\n")
    lines = project.run("a_first", "features", "z_last", *arguments).stdout.lines
    assert any(line.startswith("Drill: The only one") for line in lines)
    assert any(line.startswith("    Given last night's backup ...") for line in lines)
    assert any(line.startswith("a_first/test_a.py") for line in lines)
    assert any(line.startswith("z_last/test_z.py") for line in lines)


def test_a_scenario_whose_fixtures_fail_is_named(project: Project) -> None:
    project.scenario("When nothing much happens")
    conftest = (project.path / "conftest.py").read_text()
    project.write("conftest.py", conftest + "\nimport pytest\n@pytest.fixture(autouse=True)\ndef f(no_server): pass\n")
    result = project.run()
    assert result.ret == 5
    result.stdout.fnmatch_lines(["Drill: The only one", "*postgres 17*not to be had*", "    unproven in * s"])


def test_a_scenario_begins_with_its_title() -> None:
    terminal = Terminal(is_terminal=False)
    narrator = Narrator(Console(terminal, plain))
    feature = Feature({}, "", "", "en", "Feature", "F", set(), None, 1, "")  # type: ignore[arg-type]
    narrator.scenario_began(SCENARIO, feature, Scenario(feature, "Scenario", "S", 3, [], ""))
    narrator.close()
    assert "Backup verification: It restores" in terminal.getvalue()
