"""What earlier runs took, so that the next one can be predicted.

A file of lines in the reports folder, one for each scenario that ran to its end. It only ever tells: a missing or a
damaged history predicts nothing, and changes no verdict.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runbook_lib.evidence import wording
from runbook_lib.evidence.record import Ending, RunRecord, ScenarioRecord

FILE = "history.jsonl"
_RECENT = 10
"""How many earlier runs a prediction looks at."""


def append(folder: Path, run: RunRecord) -> None:
    """Add the scenarios of a run that came to their end."""
    environment = run.environment.get("environment", "")
    lines = [
        json.dumps(
            {
                "at": run.began.isoformat(timespec="seconds"),
                "environment": environment,
                "feature": scenario.feature,
                "scenario": scenario.name,
                "ending": scenario.ending.value,
                "seconds": round(scenario.seconds, 3),
                "measures": scenario.measures,
            },
            ensure_ascii=False,
            default=str,
        )
        for scenario in run.scenarios
        if scenario.ending in (Ending.PROVEN, Ending.FAILED)
    ]
    if lines:
        with (folder / FILE).open("a", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in lines))


def prediction(folder: Path, run: RunRecord, scenario: ScenarioRecord) -> str:
    """Return a sentence on how long a scenario is likely to take in this environment."""
    environment = run.environment.get("environment", "")
    seconds = [
        told["seconds"]
        for told in _read(folder)
        if (told.get("environment"), told.get("feature"), told.get("scenario"))
        == (environment, scenario.feature, scenario.name)
        and told.get("ending") == Ending.PROVEN.value
    ][-_RECENT:]
    if not seconds:
        return "How long it takes nobody knows yet: no run of it is in the history of this environment."
    times = "the one time" if len(seconds) == 1 else f"the median of the last {len(seconds)} times"
    spread = f", {wording.duration(min(seconds))} to {wording.duration(max(seconds))}" if len(seconds) > 1 else ""
    return f"It took {wording.duration(statistics.median(seconds))} ({times} it was proven here{spread})."


def earlier_runs(folder: Path, environment: str, measure: str) -> list[dict[str, object]]:
    """Return the numbers of the last scenarios in this environment that measured something, the newest last.

    Those that failed are among them: they measured it all the same.

    :param measure: the name of the number that was measured
    """
    return [
        told["measures"]
        for told in _read(folder)
        if told.get("environment") == environment
        and isinstance(told.get("measures"), dict)
        and measure in told["measures"]
    ][-_RECENT:]


def _read(folder: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = (folder / FILE).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        try:
            told = json.loads(line)
        except ValueError:
            continue
        if isinstance(told, dict) and isinstance(told.get("seconds"), int | float):
            yield told
