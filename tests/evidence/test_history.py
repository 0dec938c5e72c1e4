"""What earlier runs measured is handed on to those who predict, and nothing that was not measured here."""

from __future__ import annotations

import json
from pathlib import Path

from runbook_lib.evidence import history


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
    assert history.earlier(tmp_path, "here", "x_seconds") == []
    (tmp_path / history.FILE).write_text("{damaged\n" + "".join(json.dumps(each) + "\n" for each in lines))
    found = history.earlier(tmp_path, "here", "x_seconds")
    assert [each["x_seconds"] for each in found] == [7.0, 8.0]
    many = "".join(json.dumps({**here, "measures": {"y_seconds": n}}) + "\n" for n in range(25))
    (tmp_path / history.FILE).write_text(many)
    assert [each["y_seconds"] for each in history.earlier(tmp_path, "here", "y_seconds")] == list(range(15, 25))
