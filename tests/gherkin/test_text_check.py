"""Each fault is planted in a text that is sound otherwise; the sound text itself, beside them all, is let through."""

from __future__ import annotations

import pytest

from tests.evidence.project import STEPS, Project

SOUND = """
@weekly
Feature: Drill

  Background:
    Given last night's backup

  @scratch
  Scenario: First
    When nothing much happens
    And a table follows
      | a | b |
      | 1 | 2 |

  Rule: A rule
    @reads
    Scenario Outline: Second
      Then there are <rows> rows
      Examples:
        | rows |
        | 5    |
"""

FAULTS = {
    "undefined step": (("When nothing much happens", "When nothing much happened"), 9, "nobody wrote the step"),
    "undefined in one row": (("| 5    |", "| five |"), 17, "nobody wrote the step 'Then there are five rows'"),
    "ambiguous step": (("When nothing much happens", "When SIGTERM arrives"), 9, "2 definitions match"),
    "async step": (("When nothing much happens", "When time passes"), 9, "async function"),
    "async generator": (("When nothing much happens", "When time flies"), 9, "async function"),
    "two of one name": (("Outline: Second", "Outline: First"), 16, "a second scenario is called 'First'"),
    "no effect": (("  @scratch\n", "\n"), 8, "bears none"),
    "two effects": (("@weekly", "@weekly @changes"), 8, "bears @scratch and @changes"),
    "effects of the rows": (("      Examples:", "      @changes\n      Examples:"), 16, "bears @reads and @changes"),
    "unknown tag": (("@weekly", "@weeklly"), 8, "did you mean 'weekly'"),
    "needs what nobody gives": (("    Given last night's backup\n", "    When nothing much happens\n"), 17, "'backup'"),
    "needs a table": (("      | a | b |\n      | 1 | 2 |\n", ""), 10, "needs a datatable"),
    "row twice": (("        | 5    |", "        | 5    |\n        | 5    |"), 18, "stands there twice"),
    "no rows": (("        | 5    |\n", ""), 16, "have no row"),
    "not Gherkin": (("    And a table", "    Und a table"), 10, "not Gherkin"),
    "no feature": ((SOUND, "# nothing yet\n"), 1, "there is no feature"),
    "no scenario": ((SOUND, "Feature: Empty\n"), 1, "without a scenario"),
    "a scenario of nothing": ((SOUND, "@reads\nFeature: F\n  Scenario: Empty\n"), 3, "has no step"),
}

MORE_STEPS = (
    STEPS
    + """
@when("SIGTERM arrives")
def _(): pass

@when("time passes")
async def _(): pass

@when("time flies")
async def _(): yield
"""
)


def test_a_sound_text_is_let_through(project: Project) -> None:
    project.write("drill_steps.py", MORE_STEPS)
    project.write("features/drill.feature", SOUND)
    result = project.run()
    result.assert_outcomes(passed=2)
    assert result.ret == 0


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_text_is_told_before_anything_runs(project: Project, fault: str) -> None:
    (old, new), line, says = FAULTS[fault]
    assert SOUND.count(old) == 1
    project.write("drill_steps.py", MORE_STEPS)
    project.write("features/sound.feature", SOUND)
    project.write("features/drill.feature", SOUND.replace(old, new))
    result = project.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    told = result.stderr.str()
    assert f"ERROR: features/drill.feature:{line}: " in told
    assert says in told
    assert "To fix this: " in told
    assert "sound.feature" not in told
    assert not project.something_ran


def test_all_problems_of_all_files_are_listed_at_once(project: Project) -> None:
    project.write("features/a.feature", SOUND.replace("much", "such").replace("@scratch", "@changes @scratch"))
    project.write("features/b.feature", SOUND.replace("much", "such"))
    told = project.run().stderr.str()
    assert told.count("ERROR: ") == 3
    assert "did you mean 'nothing much happens'?" in told


def test_of_two_scenarios_of_one_name_both_are_looked_at(project: Project) -> None:
    project.write("features/a.feature", SOUND.replace("much", "such").replace("Second", "First"))
    told = project.run().stderr.str()
    assert "a.feature:16: a second scenario" in told
    assert "a.feature:9: nobody wrote the step" in told


def test_a_node_id_in_a_file_that_cannot_be_read_is_told_the_real_reason(project: Project) -> None:
    project.write("features/a.feature", SOUND.replace("    And a table", "    Und a table"))
    result = project.run("features/a.feature::first")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "a.feature:10: this is not Gherkin" in result.stderr.str()
    assert "not found" not in result.stderr.str()


def test_a_node_id_that_does_not_exist_is_still_not_found(project: Project) -> None:
    project.write("features/a.feature", SOUND)
    result = project.run("features/a.feature::third")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "not found" in result.stderr.str()


def test_a_text_that_is_not_utf_8_is_told_so(project: Project) -> None:
    (project.path / "latin.feature").write_bytes("@reads\nFeature: Prüfung\n".encode("latin-1"))
    result = project.run("latin.feature")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "not UTF-8" in result.stderr.str()
