from __future__ import annotations

from pathlib import Path

import pytest

from runbook_lib.evidence.collector import Evidence
from runbook_lib.evidence.record import Ending, RunRecord, ScenarioRecord
from runbook_lib.evidence.summary import Reports, sentence
from tests.evidence.project import Project


def test_the_summary_holds_everything_that_was_kept(project: Project) -> None:
    project.scenario("Given last night's backup", "Then evidence is kept", tags="@scratch @weekly")
    assert project.run().ret == 0
    summary = project.summary
    assert summary["schema"] == 1
    assert summary["outcome"] == "proven"
    assert summary["began"].endswith("Z")
    assert summary["ended"] >= summary["began"]
    assert summary["environment"] == {"profile": "sandbox", "store": "http://me:***@127.0.0.1:1"}
    [scenario] = summary["scenarios"]
    assert scenario["feature"] == "Drill"
    assert scenario["scenario"] == "The only one"
    assert (scenario["file"], scenario["line"]) == ("features/drill.feature", 3)
    assert scenario["tags"] == ["scratch", "weekly"]
    assert [(step["keyword"], step["text"], step["outcome"]) for step in scenario["steps"]] == [
        ("Given", "last night's backup", "proven"),
        ("Then", "evidence is kept", "proven"),
    ]
    assert scenario["measures"] == {"rto_seconds": 9.25}
    assert scenario["findings"] == [
        {
            "check": "content.rows",
            "subject": "users",
            "says": "4 rows expected, 5 found",
            "outcome": "failed",
            "remedy": "look into it",
        }
    ]
    assert scenario["phases"][0]["target_seconds"] == 3600
    assert scenario["phases"][0]["phases"][1] == {
        "name": "restore",
        "began_seconds": 1,
        "ended_seconds": 9,
        "seconds": 8,
    }
    assert scenario["tables"][0]["rows"][0] == {"table": "users", "rows": 5}
    assert (project.path / "reports/rto-the-only-one.svg").read_text().startswith("<svg ")


def test_the_summary_for_people_says_the_verdict_first(project: Project) -> None:
    project.scenario("Given last night's backup", "Then evidence is kept")
    project.run()
    lines = project.markdown.splitlines()
    assert lines[0].startswith("# 🟢 Proven: 1 scenario, in ")
    assert "- profile: **sandbox**" in lines
    assert "- store: **http://me:***@127.0.0.1:1**" in lines
    assert any(line.startswith("| 🟢 proven | The only one | ") for line in lines)
    assert any(line.startswith("restore  ") and "█" in line for line in lines)
    assert "| 🔴 content.rows | users | 4 rows expected, 5 found. To fix this: look into it |" in lines
    assert "| rto_seconds | 9.25 |" in lines
    assert "| a\\|b | 6 | *** |" in lines
    assert lines.count("````text") == 1, "a text that holds a fence is fenced by a longer one"


@pytest.mark.parametrize(("rows", "told"), [([], "found: none"), ([{"a": 1}], "<summary>found (1 row)</summary>")])
def test_a_table_of_nothing_is_no_empty_table(tmp_path: Path, rows: list[dict[str, object]], told: str) -> None:
    scenario = ScenarioRecord("f", "s", {}, "features/f.feature", 3, ())
    scenario.ending = Ending.PROVEN
    Evidence(scenario).table("found", rows)
    Reports(tmp_path, RunRecord({}, [scenario])).write(ended=True)
    assert told in (tmp_path / "summary.md").read_text().splitlines()


def test_nothing_secret_is_told(project: Project) -> None:
    project.scenario("Given last night's backup", "Then evidence is kept", "Then the drill has a bug")
    result = project.run("--junitxml=reports/junit.xml")
    assert "hunter2" not in result.stdout.str()
    for path in (project.path / "reports").rglob("*"):
        assert "hunter2" not in path.read_text(), path


def test_measures_are_properties_in_junit(project: Project) -> None:
    project.scenario("Given last night's backup", "Then evidence is kept")
    project.run("--junitxml=reports/junit.xml")
    assert '<property name="rto_seconds" value="9.25"' in (project.path / "reports/junit.xml").read_text()


def test_the_header_says_what_is_acted_on(project: Project) -> None:
    project.scenario("Given last night's backup")
    project.run().stdout.fnmatch_lines(["profile: sandbox", "store: http://me:***@127.0.0.1:1"])


@pytest.mark.parametrize("how", ["text", "selection", "killed"])
def test_a_green_summary_does_not_outlive_a_run_that_proves_nothing(project: Project, how: str) -> None:
    project.scenario("Given last night's backup", "Then evidence is kept")
    assert project.run().ret == 0
    assert project.summary["outcome"] == "proven"
    if how == "text":
        project.scenario("Given nobody wrote this")
        assert project.run().ret == 4
    elif how == "selection":
        assert project.run("-k", "nothing_of_this_name").ret == 5
    else:
        steps = (project.path / "drill_steps.py").read_text()
        project.write("drill_steps.py", steps.replace('"""Nothing."""', "os.kill(os.getpid(), signal.SIGKILL)"))
        project.scenario("When nothing much happens")
        assert project.run_apart().ret != 0
    assert project.summary["outcome"] == ("running" if how == "killed" else "unproven")
    assert "🟢" not in project.markdown
    if how != "killed":
        assert not list((project.path / "reports").glob("*.svg"))


def test_a_run_in_which_pytest_breaks_is_not_proven(project: Project) -> None:
    project.scenario("Given last night's backup")
    breaks = "def pytest_runtest_logfinish(): raise RuntimeError('out of order')\n"
    project.write("conftest.py", (project.path / "conftest.py").read_text() + breaks)
    assert project.run_apart().ret == 3
    assert project.summary["outcome"] == "unproven"
    assert "pytest itself broke" in project.markdown


def test_a_run_of_ordinary_tests_leaves_the_summary_alone(project: Project) -> None:
    project.scenario("Given last night's backup")
    project.write("tests/test_a.py", "def test_a(): pass\n")
    project.run()
    before = (project.path / "reports/summary.json").read_bytes()
    assert project.run("tests").ret == 0
    assert project.run("-k", "test_a").ret == 0
    assert (project.path / "reports/summary.json").read_bytes() == before


def test_reports_go_where_they_are_asked_for(project: Project) -> None:
    project.scenario("Given last night's backup")
    project.run("--reports", str(project.path / "elsewhere"))
    assert (project.path / "elsewhere/summary.md").exists()
    assert not (project.path / "reports").exists()


def test_nobody_ever_reads_half_a_file(tmp_path: Path) -> None:
    reports = Reports(tmp_path, RunRecord())
    reports.write()
    first = (tmp_path / "summary.json").stat().st_ino
    reports.write(ended=True)
    assert (tmp_path / "summary.json").stat().st_ino != first
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("endings", "says"),
    [
        ([Ending.PROVEN] * 3, "Proven: all 3 scenarios, in"),
        ([Ending.PROVEN], "Proven: 1 scenario, in"),
        ([Ending.FAILED, Ending.PROVEN, Ending.UNPROVEN], "FAILED: 1 of 3 scenarios (1 proven, 1 unproven)."),
        ([Ending.UNPROVEN, Ending.PROVEN], "Unproven: 1 of 2 scenarios could not be carried out (1 proven)."),
        ([Ending.NOT_RUN], "Unproven: 1 of 1 scenario could not be carried out."),
        ([], "Unproven: not a single scenario was run."),
    ],
)
def test_the_verdict_is_one_sentence(endings: list[Ending], says: str) -> None:
    run = RunRecord(scenarios=[ScenarioRecord("f", "s", {}, "p", 1, (), ending=ending) for ending in endings])
    assert sentence(run).startswith(says)
