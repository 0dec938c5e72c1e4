"""The results that allure-pytest writes; each run has a process of its own, because Allure's hooks are global."""

from __future__ import annotations

import json
from typing import Any

from tests.evidence.project import Project

FEATURE = """
@scratch
Feature: Drill
  What the drill is for.

  Scenario: Holds
    Given last night's backup
    When a table follows
      | a | b |
      | 1 | 2 |
    Then evidence is kept

  Scenario Outline: Rows are counted
    Given last night's backup
    Then there are <rows> rows
    When nothing much happens
    Examples:
      | rows |
      | 6    |

  Scenario: Damage
    Then the bytes are damaged

  Scenario: Missing
    Then a tool is missing

  Scenario: Bug
    Then the drill has a bug

  Scenario: Skipped
    Then the step is skipped
    When nothing much happens

  Scenario: Untidy
    When the clean-up will fail
"""


def results(project: Project) -> dict[str, dict[str, Any]]:
    project.write("features/drill.feature", FEATURE)
    project.run_apart("--alluredir=reports/allure", "--clean-alluredir")
    read = [json.loads(path.read_text()) for path in (project.path / "reports/allure").glob("*-result.json")]
    return {result["name"]: result for result in read}


def steps(result: dict[str, Any]) -> list[tuple[str, str]]:
    return [(step["status"], step["name"]) for step in result["steps"]]


def test_scenarios_appear_as_they_are_written(project: Project) -> None:
    found = results(project)
    assert {name: result["status"] for name, result in found.items()} == {
        "Holds": "passed",
        "Rows are counted [6]": "failed",
        "Damage": "failed",
        "Missing": "broken",
        "Bug": "broken",
        "Skipped": "skipped",
        "Untidy": "failed",
    }
    assert found["Holds"]["description"] == "What the drill is for."
    assert {"name": "feature", "value": "Drill"} in found["Holds"]["labels"]
    assert steps(found["Holds"]) == [
        ("passed", "Given last night's backup"),
        ("passed", "When a table follows"),
        ("passed", "Then evidence is kept"),
    ]
    assert steps(found["Rows are counted [6]"]) == [
        ("passed", "Given last night's backup"),
        ("failed", "Then there are 6 rows"),
        ("skipped", "When nothing much happens"),
    ]
    assert steps(found["Damage"]) == [("failed", "Then the bytes are damaged")]
    assert steps(found["Skipped"]) == [
        ("skipped", "Then the step is skipped"),
        ("skipped", "When nothing much happens"),
    ]
    assert "To fix this: install it" in found["Missing"]["statusDetails"]["message"]
    shown = [
        parameter for parameter in found["Rows are counted [6]"]["parameters"] if parameter.get("mode") != "hidden"
    ]
    assert shown == [{"name": "rows", "value": "'6'"}]

    folder = project.path / "reports/allure"
    attached = {entry["name"]: entry for step in found["Holds"]["steps"] for entry in step.get("attachments", [])}
    assert {name: entry["type"] for name, entry in attached.items()} == {
        "table": "text/csv",
        "row counts": "text/csv",
        "pg_restore.log": "text/plain",
        "RTO of the drill": "image/svg+xml",
        "finding: content.rows users": "text/plain",
    }
    assert (folder / attached["table"]["source"]).read_text().split() == ["a,b", "1,2"]
    assert (folder / "environment.properties").read_text().splitlines()[0] == "profile=sandbox"
    for path in folder.iterdir():
        assert "hunter2" not in path.read_text(), path
        if path.name.endswith("-container.json"):
            assert "pytestbdd" not in path.read_text()


def test_nothing_of_allure_is_needed(project: Project) -> None:
    project.scenario("Given last night's backup", "Then evidence is kept")
    assert project.run_apart().ret == 0
    assert not (project.path / "reports/allure").exists()
