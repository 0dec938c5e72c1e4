from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from runbook_lib.evidence import chart
from runbook_lib.evidence.record import Timeline
from runbook_lib.phases import Phase

OVERLAPPING = [Phase("fetch", 0, 4), Phase("verify", 0, 5), Phase("restore <data> & indexes", 3, 10)]
SVG = "{http://www.w3.org/2000/svg}"


def drawn(timeline: Timeline) -> ElementTree.Element:
    return ElementTree.fromstring(chart.svg(timeline))


def bars(timeline: Timeline, style: str) -> list[tuple[float, float]]:
    """Return the left edge and the width of each bar of a style, in px."""
    rects = [rect for rect in drawn(timeline).iter(f"{SVG}rect") if rect.get("class") == style]
    return [(float(rect.get("x", "")), float(rect.get("width", ""))) for rect in rects]


def test_bars_are_as_long_as_their_phases_and_stand_where_they_began() -> None:
    fetch, verify, restore = bars(Timeline("RTO", OVERLAPPING, 3600, 14400), "phase")
    scale = fetch[1] / 4
    assert verify == pytest.approx((fetch[0], 5 * scale), abs=0.2)
    assert restore == pytest.approx((fetch[0] + 3 * scale, 7 * scale), abs=0.2)


@pytest.mark.parametrize(
    ("target", "maximum", "style", "says"),
    [
        (11, 20, "within", "within the target of 11.0 s"),
        (9, 20, "over", "over the target of 9.0 s, within the maximum of 20.0 s"),
        (5, 9, "beyond", "over the maximum of 9.0 s"),
        (11, None, "within", "within the target of 11.0 s"),
        (None, 20, "within", "within the maximum of 20.0 s"),
        (9, None, "over", "over the target of 9.0 s"),
    ],
)
def test_the_budget_is_filled_as_far_as_it_was_used(
    target: float | None, maximum: float | None, style: str, says: str
) -> None:
    timeline = Timeline("RTO", OVERLAPPING, target, maximum)
    [(left, used)] = bars(timeline, style)
    [(track_left, whole)] = bars(timeline, "track")
    assert left == track_left
    assert used / whole == pytest.approx(10 / max(10, target or 0, maximum or 0), abs=0.01)
    assert chart.standing(timeline) == says
    assert says in chart.svg(timeline)


def test_the_picture_needs_nothing_from_outside_and_escapes_what_it_shows() -> None:
    picture = chart.svg(Timeline('the "RTO" & <more>', OVERLAPPING, 3600, 14400))
    assert "restore &lt;data&gt; &amp; indexes" in picture
    assert re.findall(r"(?:href|src|url|@import)[^>]*", picture) == []
    assert picture.count("http") == 1, "the namespace alone"
    assert "prefers-color-scheme: dark" in picture


@pytest.mark.parametrize("phases", [[], [Phase("nothing", 0, 0)], [Phase("x" * 300, 0, 100_000)]])
@pytest.mark.parametrize("budget", [None, 0.0, 3600.0])
def test_odd_timelines_are_drawn_too(phases: list[Phase], budget: float | None) -> None:
    timeline = Timeline("RTO", phases, budget, budget)
    drawn(timeline)
    assert len(chart.text(timeline)) == 1 + len(phases)


def test_nothing_is_drawn_outside_the_picture() -> None:
    timeline = Timeline("RTO", [*OVERLAPPING, Phase("last", 9.99, 10)], 3600, 14400)
    root = drawn(timeline)
    width = float(root.get("width", ""))
    for rect in root.iter(f"{SVG}rect"):
        assert 0 <= float(rect.get("x", "")) <= float(rect.get("x", "")) + float(rect.get("width", "")) <= width


def test_as_text_bars_overlap_as_the_phases_do() -> None:
    title, fetch, verify, restore = chart.text(Timeline("RTO", OVERLAPPING, 3600, 14400), width=20)
    assert title == "RTO: 10.0 s, within the target of 1 h"
    assert fetch.split() == ["fetch", "████████", "4.0", "s"]
    assert verify.split() == ["verify", "██████████", "5.0", "s"]
    assert restore.index("█") == fetch.index("█") + 6
    assert len({len(line) for line in (fetch, verify, restore)}) == 1
