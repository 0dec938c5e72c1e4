"""A window that a step keeps is drawn, told and counted; and what it measured is found again by the next run."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from runbook_lib.evidence.collector import Evidence
from runbook_lib.evidence.record import Ending, Gap, RunRecord, ScenarioRecord, Span, Window
from runbook_lib.evidence.summary import Reports
from steps.reachability import OLDEST, oldest_of, shown
from tests.evidence.picture import PICTURE, drawn
from tests.wal.world import at, quiet

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
WINDOW = Window(
    "What can be recovered",
    BEGAN,
    BEGAN + timedelta(days=4),
    [Span(BEGAN, BEGAN + timedelta(days=2), 1, 2)],
    [Gap(BEGAN + timedelta(days=2), BEGAN + timedelta(days=4), "lost at postgres://me:hunter2@host/db")],
    {"timeline 1": [Span(BEGAN, BEGAN + timedelta(days=1), 1, 2)]},
    3600,
    14_400,
)


def ran(environment: str = "production", name: str = "Every moment") -> tuple[RunRecord, ScenarioRecord]:
    scenario = ScenarioRecord("f", name, {}, "features/f.feature", 3, ())
    run = RunRecord({"environment": environment}, [scenario])
    scenario.ending = Ending.PROVEN
    return run, scenario


def test_it_is_in_every_report(tmp_path: Path) -> None:
    run, scenario = ran()
    Evidence(scenario).window(WINDOW)
    (tmp_path / "window-of-an-earlier-run.svg").touch()
    reports = Reports(tmp_path, run)
    reports.write(ended=True)
    (picture,) = tmp_path.glob("window-*.svg")
    assert picture.name == "window-every-moment.svg"
    (told,) = json.loads((tmp_path / "summary.json").read_text())["scenarios"][0]["windows"]
    assert (told["began"], told["gaps"][0]["ended"]) == ("2026-01-01T00:00:00Z", "2026-01-05T00:00:00Z")
    assert told["left"]["timeline 1"][0]["rto_ended_seconds"] == 2
    terminal = list(reports.in_the_terminal())
    assert any("2 d of 4 d can be recovered; 1 hole" in line for line in terminal)
    everything = picture.read_text() + (tmp_path / "summary.md").read_text() + "\n".join([*terminal, str(told)])
    assert "2 d of 4 d can be recovered; 1 hole" in (tmp_path / "summary.md").read_text()
    assert "hunter2" not in everything
    assert "lost at" in everything


def test_the_readme_shows_what_is_drawn() -> None:
    assert PICTURE.read_text(encoding="utf-8") == drawn(), "draw it anew: python -m tests.evidence.picture"


def test_what_was_measured_last_is_found() -> None:
    assert oldest_of([]) is None
    assert oldest_of([{OLDEST: 42}, {OLDEST: 43}]) == datetime(1970, 1, 1, 0, 0, 43, tzinfo=UTC)
    assert oldest_of([{OLDEST: "soon"}]) is None


def test_the_map_is_drawn_as_it_is() -> None:
    world = quiet(days=5)
    del world.segments[1][100]
    found = world.map(now=at(5 * 86400), born_at=at(0))
    drawn = shown(found, target_seconds=1, maximum_seconds=2)
    assert [(gap.began, gap.ended, gap.excused) for gap in drawn.gaps] == [
        (hole.began_at, hole.ended_at, hole.excused) for hole in found.holes
    ]
    assert len(drawn.spans) == len(found.living) == 5
    for span in drawn.spans:
        assert found.best(span.began) is not None
        assert found.best(span.began + (span.ended - span.began) / 2) is not None
