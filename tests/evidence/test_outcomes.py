"""What a step raises, what is told of it, and with which status the run ends."""

from __future__ import annotations

import pytest

from tests.evidence.project import Project

GIVEN = "Given last night's backup"

ENDINGS = {
    # the last step: outcome, exit status, exit status with --allow-unproven, what the reason says
    "Then there are 5 rows": ("proven", 0, 0, ""),
    "Then there are 6 rows": ("failed", 1, 1, "6 rows expected, 5 found"),
    "Then pytest.fail is called": ("failed", 1, 1, "it does not hold"),
    "Then the bytes are damaged": ("failed", 1, 1, "sha256 differs"),
    "Then a tool is missing": ("unproven", 5, 0, "pg_dump 17, /usr/lib/postgresql: not to be had"),
    "Then the step is skipped": ("unproven", 5, 0, "no Docker here"),
    "Then the drill has a bug": ("unproven", 5, 0, "KeyError: 'password=***'"),
    "When no server comes up": ("unproven", 5, 0, "postgres 17"),
    "When the clean-up will fail": ("failed", 1, 1, "could not be cleaned up after: OSError: the database is still"),
}


@pytest.mark.parametrize("step", ENDINGS)
def test_an_ending_is_told_alike_everywhere(project: Project, step: str) -> None:
    outcome, status, status_allowed, reason = ENDINGS[step]
    project.scenario(
        GIVEN, step, "And nothing much happens" if step.startswith("When") else "When nothing much happens"
    )
    result = project.run("--junitxml=reports/junit.xml")
    assert result.ret == status
    assert project.summary["outcome"] == outcome
    [scenario] = project.summary["scenarios"]
    assert scenario["outcome"] == outcome
    assert reason in scenario["reason"]
    mark = {"proven": "🟢", "failed": "🔴", "unproven": "🟡"}[outcome]
    assert project.markdown.startswith(f"# {mark} ")
    assert f"| {mark} {outcome.upper() if outcome == 'failed' else outcome} | The only one |" in project.markdown
    kinds = {"proven": [], "failed": ["failure"], "unproven": ["skipped"]}[outcome]
    assert project.junit["the_only_one"] == (["error"] if "clean-up" in step else kinds)
    assert not (project.path / "left-behind").exists()
    assert project.run("--allow-unproven").ret == status_allowed


def test_what_could_not_be_carried_out_is_told_with_its_reason_and_no_traceback(project: Project) -> None:
    project.scenario(GIVEN, "Then a tool is missing", "Then there are 5 rows")
    result = project.run()
    result.stdout.fnmatch_lines(
        [
            "*Then a tool is missing ...* unproven * s",
            "*pg_dump 17, /usr/lib/postgresql: not to be had: no such file. To fix this: install it",
            "*Then there are 5 rows ...* not run",
            "    unproven in * s",
            "*= unproven: could not be carried out =*",
            "Unproven: 1 of 1 scenario could not be carried out.",
            "*1 unproven*",
        ]
    )
    assert "drill_steps.py:" not in result.stdout.str()
    assert "passed" not in result.stdout.str()


def test_a_bug_in_the_drill_shows_its_traceback_and_no_machinery(project: Project) -> None:
    project.scenario(GIVEN, "Then the drill has a bug")
    shown = project.run().stdout.str()
    assert "drill_steps.py:" in shown
    assert "site-packages" not in shown


def test_a_failure_is_shown_as_the_scenario_with_its_steps(project: Project) -> None:
    project.scenario(GIVEN, "Then there are 6 rows", "When nothing much happens")
    result = project.run()
    result.stdout.fnmatch_lines(
        [
            "*_ Drill: The only one _*",
            "features/drill.feature:3",
            "    Given last night's backup  ok *",
            "     Then there are 6 rows  FAILED *",
            "          6 rows expected, 5 found",
            "          at drill_steps.py:*: assert backup == rows*",
            "     When nothing much happens  not run",
            "captured in the step",
            "FAILED features/drill.feature::the_only_one - 6 rows expected, 5 found*",
        ]
    )
    assert "site-packages" not in result.stdout.str()


@pytest.mark.parametrize("option", ["--full-trace", "-vv"])
def test_the_whole_traceback_is_there_for_whoever_asks(project: Project, option: str) -> None:
    project.scenario(GIVEN, "Then there are 6 rows")
    assert "def _(backup, rows):" in project.run(option).stdout.str()


def test_a_failure_outweighs_what_is_unproven(project: Project) -> None:
    project.scenario(GIVEN, "Then a tool is missing")
    project.write(
        "features/other.feature", "@reads\nFeature: Other\n  Scenario: Fails\n    Then pytest.fail is called\n"
    )
    project.write(
        "features/third.feature", "@reads\nFeature: Third\n  Scenario: Holds\n    When nothing much happens\n"
    )
    assert project.run().ret == 1
    assert project.summary["outcome"] == "failed"
    assert project.summary["counts"] == {
        "proven": 1,
        "failed": 1,
        "unproven": 1,
        "planned": 0,
        "interrupted": 0,
        "not_run": 0,
        "other_tests": {},
    }


def test_a_failure_that_is_marked_as_expected_is_a_failure_all_the_same(project: Project) -> None:
    project.write(
        "pyproject.toml", (project.path / "pyproject.toml").read_text().replace('["weekly', '["xfail: x", "weekly')
    )
    project.scenario(GIVEN, "Then there are 6 rows", tags="@scratch @xfail")
    assert project.run().ret == 1
    assert project.summary["outcome"] == "failed"


def test_a_scenario_that_is_marked_to_be_skipped_is_unproven(project: Project) -> None:
    project.write(
        "pyproject.toml", (project.path / "pyproject.toml").read_text().replace('["weekly', '["skip: x", "weekly')
    )
    project.scenario(GIVEN, tags="@scratch @skip")
    assert project.run().ret == 5
    assert not project.something_ran
    assert project.summary["outcome"] == "unproven"


def test_stopping_at_the_first_failure_leaves_the_rest_not_run(project: Project) -> None:
    project.scenario(GIVEN, "Then there are 6 rows")
    project.write(
        "features/other.feature", "@reads\nFeature: Other\n  Scenario: Later\n    When nothing much happens\n"
    )
    assert project.run("-x").ret == 1
    assert [scenario["outcome"] for scenario in project.summary["scenarios"]] == ["failed", "not run"]


def test_ordinary_tests_keep_the_meaning_that_pytest_gives_them(project: Project) -> None:
    project.write(
        "tests/test_ordinary.py", "import pytest\ndef test_a(): pass\ndef test_b(): pytest.skip('not here')\n"
    )
    result = project.run("tests")
    assert result.ret == 0
    result.assert_outcomes(passed=1, skipped=1)
    assert not (project.path / "reports").exists()
    project.scenario(GIVEN)
    assert project.run().ret == 0
    assert project.summary["counts"]["other_tests"] == {"passed": 1, "skipped": 1}
    project.write("tests/test_ordinary.py", "def test_a(): assert 1 == 2\n")
    result = project.run()
    assert result.ret == 1
    assert "def test_a(): assert 1 == 2" in result.stdout.str()


def test_a_fixture_of_a_step_can_be_used_by_an_ordinary_test(project: Project) -> None:
    project.write("tests/test_ordinary.py", "def test_a(evidence): evidence.measured('rto_seconds', 1)\n")
    assert project.run("tests").ret == 0


def test_listing_the_scenarios_is_no_run(project: Project) -> None:
    project.scenario(GIVEN)
    assert project.run("--collect-only").ret == 0
    assert not (project.path / "reports").exists()


def test_quiet_runs_show_letters_and_the_unproven_one_has_its_own(project: Project) -> None:
    project.scenario(GIVEN, "Then a tool is missing")
    project.write(
        "features/other.feature", "@reads\nFeature: Other\n  Scenario: Holds\n    When nothing much happens\n"
    )
    assert project.run("-q").stdout.str().splitlines()[0].startswith("U.")
