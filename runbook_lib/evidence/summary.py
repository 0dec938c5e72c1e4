"""``summary.json`` for programs and ``summary.md`` for people.

They need nothing to be read, unlike an Allure report, and they are there from the run's first second: a file that a
run leaves half way says "running", never the outcome of an earlier run. Each is replaced as a whole, so that nobody
ever reads half of one.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from runbook_lib.evidence import chart, window_chart, wording
from runbook_lib.evidence.record import (
    Ending,
    RunRecord,
    ScenarioRecord,
    Span,
    StepRecord,
    Table,
    Text,
    Timeline,
    Window,
)
from runbook_lib.outcome import Finding

SCHEMA = 1
"""Raised whenever a reader of ``summary.json`` would have to change."""

ROWS_SHOWN = 20
"""How many rows of a table ``summary.md`` shows; ``summary.json`` has them all."""

_MARKS = {
    Ending.PROVEN: "🟢",
    Ending.FAILED: "🔴",
    Ending.UNPROVEN: "🟡",
    Ending.PLANNED: "🔵",
    Ending.INTERRUPTED: "🟠",
    Ending.NOT_RUN: "⚪",
}


def sentence(run: RunRecord) -> str:
    """Return the verdict over a run as one sentence."""
    counts = run.counts
    total = len(run.scenarios)
    scenarios = "scenario" if total == 1 else "scenarios"
    taken = wording.duration(run.seconds)
    others = ", ".join(
        f"{counts[ending]} {ending.value}" for ending in Ending if counts[ending] and ending is not run.ending
    )
    match run.ending:
        case Ending.PROVEN:
            return f"Proven: {'all ' if total > 1 else ''}{total} {scenarios}, in {taken}."
        case Ending.FAILED:
            return f"FAILED: {counts[Ending.FAILED]} of {total} {scenarios}{f' ({others})' if others else ''}."
        case Ending.INTERRUPTED:
            return f"Interrupted after {taken}: nothing follows from this run{f' ({others})' if others else ''}."
        case Ending.PLANNED:
            planned = counts[Ending.PLANNED]
            told = "1 scenario was" if planned == 1 else f"{planned} scenarios were"
            return f"Planned: {told} told and not carried out{f' ({others})' if others else ''}."
        case _ if run.broken:
            return f"Unproven: pytest itself broke after {taken}{f' ({others})' if others else ''}."
        case _ if not total:
            return "Unproven: not a single scenario was run."
        case _:
            unproven = counts[Ending.UNPROVEN] + counts[Ending.NOT_RUN]
            rest = (Ending.PROVEN, Ending.PLANNED)
            told = ", ".join(f"{counts[ending]} {ending.value}" for ending in rest if counts[ending])
            others = f" ({told})" if told else ""
            return f"Unproven: {unproven} of {total} {scenarios} could not be carried out{others}."


_FINDINGS_SHOWN = 10
"""How many findings of a scenario stand in the terminal; all of them are in the summary."""


class Reports:
    """The files in the folder ``reports/`` that this run writes."""

    def __init__(self, folder: Path, run: RunRecord) -> None:
        self._folder = folder
        self._run = run

    def write(self, *, ended: bool = False) -> None:
        """Write what is known so far; with ``ended`` the run's outcome as well."""
        if ended:
            self._run.ended = datetime.now(UTC)
        self._folder.mkdir(parents=True, exist_ok=True)
        pictures = dict(self._pictures())
        if ended:
            for old in (*self._folder.glob("rto-*.svg"), *self._folder.glob("window-*.svg")):
                if old.name not in pictures:
                    old.unlink()
            for name, shown in pictures.items():
                _replace(self._folder / name, _drawn(shown))
        _replace(self._folder / "summary.json", json.dumps(as_json(self._run), indent=2, ensure_ascii=False) + "\n")
        _replace(self._folder / "summary.md", "\n".join(as_markdown(self._run)) + "\n")

    def in_the_terminal(self) -> Iterator[str]:
        """Yield the lines that end a run in the terminal: timelines, the verdict, and where the rest is."""
        for scenario in self._run.scenarios:
            pictures = [exhibit for exhibit in scenario.exhibits if isinstance(exhibit, Timeline | Window)]
            if pictures or scenario.findings:
                yield scenario.name
                for picture in pictures:
                    yield from (f"    {line}" for line in _as_text(picture))
                for finding in scenario.findings[:_FINDINGS_SHOWN]:
                    yield f"    finding ({finding.outcome.value}): {finding}"
                if len(scenario.findings) > _FINDINGS_SHOWN:
                    yield f"    and {len(scenario.findings) - _FINDINGS_SHOWN} findings more: see the whole story"
                yield ""
        yield sentence(self._run)
        yield f"the whole story: {os.path.relpath(self._folder / 'summary.md')}"

    def _pictures(self) -> Iterator[tuple[str, Timeline | Window]]:
        taken: Counter[str] = Counter()
        for scenario in self._run.scenarios:
            for exhibit in scenario.exhibits:
                if isinstance(exhibit, Timeline | Window):
                    kind = "rto" if isinstance(exhibit, Timeline) else "window"
                    slug = re.sub(r"[^a-z0-9]+", "-", scenario.name.lower().replace("'", ""))[:60].strip("-")
                    taken[kind + slug] += 1
                    which = f"-{taken[kind + slug]}" if taken[kind + slug] > 1 else ""
                    yield f"{kind}-{slug}{which}.svg", exhibit


def _drawn(shown: Timeline | Window) -> str:
    return chart.svg(shown) if isinstance(shown, Timeline) else window_chart.svg(shown)


def _as_text(shown: Timeline | Window) -> list[str]:
    return chart.text(shown) if isinstance(shown, Timeline) else window_chart.text(shown)


def as_json(run: RunRecord) -> dict[str, object]:
    """Return a run as ``summary.json`` has it; ``outcome`` is ``running`` until the run has ended."""
    return {
        "schema": SCHEMA,
        "outcome": run.ending.value if run.ended else "running",
        "began": _iso(run.began),
        "ended": _iso(run.ended) if run.ended else None,
        "seconds": round(run.seconds, 3),
        "environment": run.environment,
        "counts": {
            **{ending.value.replace(" ", "_"): run.counts[ending] for ending in Ending},
            "other_tests": dict(run.other_tests),
        },
        "scenarios": [_scenario_as_json(scenario) for scenario in run.scenarios],
    }


def as_markdown(run: RunRecord) -> Iterator[str]:
    """Yield a run as the lines of ``summary.md``, the verdict first."""
    if not run.ended:
        yield "# ⏳ Running"
        yield ""
        yield f"Began {_minute(run.began)}. If nothing is running any more, this run was killed and has proven nothing."
        return
    yield f"# {_MARKS[run.ending]} {sentence(run)}"
    yield ""
    yield f"{_minute(run.began)}, {wording.duration(run.seconds)}"
    if run.environment:
        yield ""
        yield from (f"- {_inline(name)}: **{_inline(value)}**" for name, value in run.environment.items())
    if run.scenarios:
        yield ""
        yield "| Outcome | Scenario | Took | Where |"
        yield "|---|---|--:|---|"
        for scenario in run.scenarios:
            yield (
                f"| {_MARKS[scenario.ending]} {scenario.ending.word} | {_inline(scenario.name)}"
                f" | {wording.duration(scenario.seconds)} | `{scenario.path}:{scenario.line}` |"
            )
    for scenario in run.scenarios:
        yield from _scenario_as_markdown(scenario)
    if run.other_tests:
        yield ""
        told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(run.other_tests.items()))
        yield f"Beside the runbook, ordinary tests: {told}."


def _scenario_as_json(scenario: ScenarioRecord) -> dict[str, object]:
    exhibits = scenario.exhibits
    return {
        "feature": scenario.feature,
        "scenario": scenario.name,
        "file": scenario.path,
        "line": scenario.line,
        "tags": list(scenario.tags),
        "outcome": scenario.ending.value,
        "reason": scenario.reason,
        "seconds": round(scenario.seconds, 3),
        "steps": [_step_as_json(step) for step in scenario.steps],
        "measures": scenario.measures,
        "findings": [{**asdict(finding), "outcome": finding.outcome.value} for finding in scenario.findings],
        "phases": [_timeline_as_json(exhibit) for exhibit in exhibits if isinstance(exhibit, Timeline)],
        "windows": [_window_as_json(exhibit) for exhibit in exhibits if isinstance(exhibit, Window)],
        "tables": [
            {"title": exhibit.title, "rows": [dict(row) for row in exhibit.rows]}
            for exhibit in exhibits
            if isinstance(exhibit, Table)
        ],
        "texts": [asdict(exhibit) for exhibit in exhibits if isinstance(exhibit, Text)],
    }


def _step_as_json(step: StepRecord) -> dict[str, object]:
    return {
        "keyword": step.keyword,
        "text": step.text,
        "outcome": step.ending.value,
        "seconds": round(step.seconds, 3),
        "reason": step.reason,
    }


def _timeline_as_json(timeline: Timeline) -> dict[str, object]:
    return {
        "title": timeline.title,
        "seconds": round(timeline.seconds, 3),
        "target_seconds": timeline.target_seconds,
        "maximum_seconds": timeline.maximum_seconds,
        "phases": [
            {
                "name": phase.name,
                "began_seconds": round(phase.began_seconds, 3),
                "ended_seconds": round(phase.ended_seconds, 3),
                "seconds": round(phase.seconds, 3),
            }
            for phase in timeline.phases
        ],
    }


def _window_as_json(window: Window) -> dict[str, object]:
    def spans(of: Sequence[Span]) -> list[dict[str, object]]:
        return [
            {
                "began": _iso(span.began),
                "ended": _iso(span.ended),
                "rto_began_seconds": round(span.rto_began_seconds, 3),
                "rto_ended_seconds": round(span.rto_ended_seconds, 3),
            }
            for span in of
        ]

    return {
        "title": window.title,
        "began": _iso(window.began),
        "ended": _iso(window.ended),
        "spans": spans(window.spans),
        "gaps": [
            {"began": _iso(gap.began), "ended": _iso(gap.ended), "why": gap.why, "excused": gap.excused}
            for gap in window.gaps
        ],
        "left": {name: spans(of) for name, of in window.left.items()},
        "target_seconds": window.target_seconds,
        "maximum_seconds": window.maximum_seconds,
    }


def _scenario_as_markdown(scenario: ScenarioRecord) -> Iterator[str]:
    """Yield what there is to say of one scenario beyond its row; a scenario that just holds has its steps alone."""
    yield ""
    yield f"## {_MARKS[scenario.ending]} {_inline(scenario.name)}"
    yield ""
    yield f"{_inline(scenario.feature)} {' '.join(f'`@{tag}`' for tag in scenario.tags)}".strip()
    if scenario.reason:
        yield ""
        yield from (f"> {_inline(line)}" if line else ">" for line in _fold(scenario.reason))
    if scenario.findings:
        yield ""
        yield "| Finding | Subject | What |"
        yield "|---|---|---|"
        yield from (_finding_as_markdown(finding) for finding in scenario.findings)
    for exhibit in scenario.exhibits:
        if isinstance(exhibit, Timeline | Window):
            yield from ("", "```text", *_as_text(exhibit), "```")
    if scenario.measures:
        yield ""
        yield "| Measured | |"
        yield "|---|--:|"
        yield from (f"| {_inline(name)} | {_inline(value)} |" for name, value in scenario.measures.items())
    for exhibit in scenario.exhibits:
        if isinstance(exhibit, Table):
            yield from _table_as_markdown(exhibit)
    yield from _details("Steps", list(_steps_as_text(scenario)))
    for exhibit in scenario.exhibits:
        if isinstance(exhibit, Text):
            yield from _details(exhibit.title, _fold(exhibit.text, lines=200))


def _finding_as_markdown(finding: Finding) -> str:
    says = f"{finding.says.rstrip('. ')}. To fix this: {finding.remedy}" if finding.remedy else finding.says
    mark = _MARKS[Ending(finding.outcome.value)]
    return f"| {mark} {_inline(finding.check)} | {_inline(finding.subject)} | {_inline(says)} |"


def _table_as_markdown(table: Table) -> Iterator[str]:
    if not table.rows:
        yield from ("", f"{_inline(table.title)}: none")
        return
    columns = table.columns
    lines = [
        f"| {' | '.join(map(_inline, columns))} |",
        f"|{'---|' * len(columns)}",
        *(f"| {' | '.join(_inline(row.get(name, '')) for name in columns)} |" for row in table.rows[:ROWS_SHOWN]),
    ]
    more = len(table.rows) - ROWS_SHOWN
    told = f"{table.title} ({len(table.rows)} {'row' if len(table.rows) == 1 else 'rows'})"
    yield from ("", "<details>", f"<summary>{_inline(told)}</summary>", "", *lines)
    if more > 0:
        yield from ("", f"... and {more} more in `summary.json`")
    yield from ("", "</details>")


def _steps_as_text(scenario: ScenarioRecord) -> Iterator[str]:
    width = max((len(step.text) for step in scenario.steps), default=0)
    for step in scenario.steps:
        told = "" if step.ending is Ending.PROVEN else f"  {step.ending.word}"
        seconds = "" if step.ending is Ending.NOT_RUN else f"{wording.duration(step.seconds):>12}"
        yield f"{step.keyword:>5} {step.text:<{width}}{seconds}{told}".rstrip()


def _details(title: str, lines: list[str]) -> Iterator[str]:
    # A fence longer than any inside, so that no text can end it.
    fence = "`" * max([3, *(len(run) + 1 for line in lines for run in re.findall("`+", line))])
    yield from ("", "<details>", f"<summary>{_inline(title)}</summary>", "", f"{fence}text", *lines, fence, "")
    yield "</details>"


def _fold(reason: str, lines: int = 30) -> list[str]:
    told = reason.splitlines()
    return told if len(told) <= lines else [*told[:lines], f"... and {len(told) - lines} more lines in `summary.json`"]


def _inline(value: object) -> str:
    """Return a value so that it stays within its cell and its line."""
    shown = f"{value:,.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
    return " ".join(shown.split()).replace("|", "\\|").replace("<", "&lt;")


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _minute(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _replace(path: Path, content: str) -> None:
    """Put a file in the place of another one as a whole."""
    half = path.with_name(f".{path.name}.half")
    half.write_text(content, encoding="utf-8")
    half.replace(path)
