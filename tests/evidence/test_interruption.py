from __future__ import annotations

import json
import signal
from xml.etree import ElementTree

import pytest

from tests.evidence.project import Project

USES_SCRATCH = """
import pytest

@pytest.fixture(autouse=True)
def needed_by_all(scratch):
    return scratch
"""


def stopped(project: Project, *steps: str) -> pytest.RunResult:
    project.write(
        "features/drill.feature",
        "\n".join(
            [
                "@scratch",
                "Feature: Drill",
                "  Scenario: Before",
                "    When nothing much happens",
                "  Scenario: Stopped",
                "    Given last night's backup",
                *(f"    {step}" for step in steps),
                "    Then there are 5 rows",
                "  Scenario: After",
                "    When nothing much happens",
            ]
        ),
    )
    return project.run_apart("--junitxml=reports/junit.xml", "--alluredir=reports/allure")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_cleans_up_and_leaves_nothing_green(project: Project, name: str) -> None:
    result = stopped(project, f"When {name} arrives")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert project.something_ran
    assert not (project.path / "left-behind").exists()
    result.stdout.fnmatch_lines([f"*{name}: stopping, and cleaning up", "*interrupted*", "Interrupted after *"])

    assert project.summary["outcome"] == "interrupted"
    assert [scenario["outcome"] for scenario in project.summary["scenarios"]] == ["proven", "interrupted", "not run"]
    assert [step["outcome"] for step in project.summary["scenarios"][1]["steps"]] == [
        "proven",
        "interrupted",
        "not run",
    ]
    assert project.markdown.startswith("# 🟠 Interrupted")

    assert project.junit == {"before": [], "stopped": ["failure"], "after": ["skipped"]}
    [suite] = ElementTree.parse(project.path / "reports/junit.xml").getroot()
    assert suite.attrib["failures"] == "1"

    results = [json.loads(path.read_text()) for path in (project.path / "reports/allure").glob("*-result.json")]
    assert {result["name"]: result["status"] for result in results} == {"Before": "passed", "Stopped": "broken"}


def test_a_signal_before_the_first_step_leaves_nothing_green_either(project: Project) -> None:
    steps = (project.path / "drill_steps.py").read_text()
    slow_start = 'Path("left-behind").touch()\n    os.kill(os.getpid(), signal.SIGTERM)'
    project.write("drill_steps.py", steps.replace('Path("left-behind").touch()', slow_start))
    project.write("conftest.py", (project.path / "conftest.py").read_text() + USES_SCRATCH)
    result = stopped(project)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert [scenario["outcome"] for scenario in project.summary["scenarios"]] == ["interrupted", "not run", "not run"]
    assert project.junit == {"before": ["failure"], "stopped": ["skipped"], "after": ["skipped"]}
    [written] = [json.loads(path.read_text()) for path in (project.path / "reports/allure").glob("*-result.json")]
    assert written["status"] == "broken"


def test_a_second_signal_does_not_interrupt_the_clean_up(project: Project) -> None:
    result = stopped(project, "When the clean-up is interrupted as well", "And SIGTERM arrives")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert not (project.path / "left-behind").exists()
    result.stdout.fnmatch_lines(["*SIGTERM: stopping, and cleaning up", "*SIGTERM: cleaning up first, then stopping"])
    assert project.summary["outcome"] == "interrupted"


def test_a_signal_during_an_ordinary_clean_up_stops_the_run_after_it(project: Project) -> None:
    result = stopped(project, "When the clean-up is interrupted as well")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert not (project.path / "left-behind").exists()
    assert [scenario["outcome"] for scenario in project.summary["scenarios"]] == ["proven", "proven", "not run"]
    assert project.summary["outcome"] == "interrupted"
    assert project.junit["after"] == ["skipped"]


def test_the_third_signal_is_obeyed_at_once(project: Project) -> None:
    steps = (project.path / "drill_steps.py").read_text()
    twice = "os.kill(os.getpid(), signal.SIGTERM)\n        os.kill(os.getpid(), signal.SIGTERM)"
    project.write("drill_steps.py", steps.replace("os.kill(os.getpid(), signal.SIGTERM)", twice))
    result = stopped(project, "When the clean-up is interrupted as well", "And SIGTERM arrives")
    result.stdout.fnmatch_lines(["*SIGTERM again: giving up*"])
    assert result.ret != 0
    assert (project.path / "left-behind").exists()


def test_a_run_under_nohup_outlives_its_terminal(project: Project) -> None:
    conftest = "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    project.write("conftest.py", (project.path / "conftest.py").read_text() + conftest)
    steps = (project.path / "drill_steps.py").read_text()
    project.write("drill_steps.py", steps.replace("time.sleep(5)", ""))
    assert stopped(project, "When SIGHUP arrives").ret == 0
    assert project.summary["outcome"] == "proven"


def test_the_signals_are_given_back(project: Project) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    project.scenario("When nothing much happens")
    assert project.run().ret == 0
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
