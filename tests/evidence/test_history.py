"""What earlier runs measured is handed on to those who predict, and nothing that was not measured here."""

from __future__ import annotations

import json
from pathlib import Path

from runbook_lib.evidence import history
from tests.evidence.project import STEPS, Project


def test_earlier_measures(tmp_path: Path) -> None:
    here = {"environment": "here", "ending": "proven", "seconds": 9.0}
    lines: list[object] = [
        {**here, "measures": {"rto_seconds": 1.0}},
        {**here, "measures": {"rto_seconds": 2.0, "x_seconds": 7.0}},
        {**here, "ending": "failed", "measures": {"x_seconds": 8.0}},
        {**here, "environment": "elsewhere", "measures": {"x_seconds": 1.0}},
        {**here, "measures": "none"},
        here,
        ["no row"],
    ]
    assert history.earlier_runs(tmp_path, "here", "x_seconds") == []
    (tmp_path / history.FILE).write_text("{damaged\n" + "".join(json.dumps(each) + "\n" for each in lines))
    found = history.earlier_runs(tmp_path, "here", "x_seconds")
    assert [each["x_seconds"] for each in found] == [7.0, 8.0]
    many = "".join(json.dumps({**here, "measures": {"y_seconds": n}}) + "\n" for n in range(25))
    (tmp_path / history.FILE).write_text(many)
    assert [each["y_seconds"] for each in history.earlier_runs(tmp_path, "here", "y_seconds")] == list(range(15, 25))


def test_a_step_is_told_what_earlier_runs_measured(project: Project) -> None:
    project.write(
        "drill_steps.py",
        STEPS
        + """

@then("it is measured once more")
def _(evidence):
    earlier = evidence.earlier_runs("so_far_runs")
    evidence.measured("so_far_runs", len(earlier) + 1)
    assert [each["so_far_runs"] for each in earlier] == list(range(1, len(earlier) + 1))
    assert len(earlier) != 1, "the second one fails, and counts all the same"
""",
    )
    project.scenario("Given last night's backup", "Then it is measured once more")
    found = []
    for _ in range(3):
        project.run_apart()
        (scenario,) = project.summary["scenarios"]
        found.append((scenario["outcome"], scenario["measures"]["so_far_runs"]))
    assert found == [("proven", 1), ("failed", 2), ("proven", 3)]
