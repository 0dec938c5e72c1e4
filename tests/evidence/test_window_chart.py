from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

import pytest

from runbook_lib.evidence import window_chart
from runbook_lib.evidence.record import Gap, Span, Window

SVG = "{http://www.w3.org/2000/svg}"
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def day(number: float) -> datetime:
    return BEGAN + number * DAY


def window(
    *, gaps: Sequence[Gap] = (), spans: Sequence[Span] | None = None, days: float = 10, target: float | None = 3600
) -> Window:
    shown = [Span(day(n), day(n + 1), 60, 600) for n in range(10)] if spans is None else spans
    return Window("what can be recovered", BEGAN, day(days), shown, gaps, {}, target, 14_400)


HOLED = window(
    spans=[Span(day(-1), day(3), 60, 600), Span(day(5), day(9), 60, 900)],
    gaps=[Gap(day(3), day(5), "0000000100000000000002BC <is> missing & gone")],
)


def bars(shown: Window, style: str) -> list[tuple[float, float]]:
    """Return the left edge and the width of each bar of a style that is no legend, in px."""
    rects = list(ElementTree.fromstring(window_chart.svg(shown)).iter(f"{SVG}rect"))
    found = [rect for rect in rects if rect.get("class") == style and rect.get("width") != "12.0"]
    return [(float(rect.get("x", "")), float(rect.get("width", ""))) for rect in found]


def test_bars_stand_where_their_moments_are() -> None:
    [(left, whole)] = bars(HOLED, "track")
    first, second = bars(HOLED, "within")
    [(gap, wide)] = bars(HOLED, "gap")
    assert first == pytest.approx((left, 0.3 * whole), abs=0.2)
    assert second == pytest.approx((left + 0.5 * whole, 0.4 * whole), abs=0.2)
    assert (gap, wide) == pytest.approx((left + 0.3 * whole, 0.2 * whole), abs=0.2)


def test_spans_that_touch_are_one_band() -> None:
    assert len(bars(window(), "within")) == 1
    assert not bars(window(), "gap")


def test_a_hole_of_a_second_in_a_year_is_seen() -> None:
    second = Gap(day(100), day(100) + timedelta(seconds=1), "missing")
    shown = window(days=365, gaps=[second], spans=[Span(day(0), day(100), 1, 2), Span(second.ended, day(365), 1, 2)])
    [(_, width)] = bars(shown, "gap")
    assert width >= 3
    assert "!" in window_chart.text(shown)[1]
    assert "1 hole" in window_chart.text(shown)[0]


def test_the_headline_says_what_is_lost_and_what_is_not() -> None:
    assert window_chart.standing(HOLED) == ("7 d", "of 10 d can be recovered; 1 hole")
    assert window_chart.standing(window())[1].startswith("every moment from 2026-01-01 00:00:00 to 2026-01-11")
    assert window_chart.standing(window(spans=[])) == ("nothing", "can be recovered")
    assert window_chart.standing(window(spans=[Span(day(1), day(1), 1, 1)]))[0] == "one moment"
    young = window(spans=[Span(day(1), day(9), 1, 2)], gaps=[Gap(day(0), day(1), "no base backup", excused=True)])
    assert window_chart.standing(young) == (
        "8 d",
        "every moment from 2026-01-02 00:00:00 to 2026-01-10 00:00:00 UTC can be recovered",
    )


def test_as_text_it_says_the_same() -> None:
    title, band, axis, _, hole, longest = window_chart.text(HOLED, width=20)
    assert title == "what can be recovered: 7 d of 10 d can be recovered; 1 hole"
    assert band == "██████!!!!████████··"
    assert axis.split() == ["Jan", "1", "Jan", "11"]
    assert (
        hole == "! 2026-01-04 00:00:00 to 2026-01-06 00:00:00 UTC (2 d): 0000000100000000000002BC <is> missing & gone"
    )
    assert longest == "the longest recovery: 15 min, as predicted; the target is 1 h"


@pytest.mark.parametrize(
    ("longest", "says"),
    [(600, "the target is 1 h"), (4000, "over the target of 1 h"), (15_000, "over the maximum of 4 h")],
)
def test_the_longest_recovery_stands_against_its_budget(longest: float, says: str) -> None:
    shown = window(spans=[Span(day(0), day(10), 1, longest)])
    assert window_chart.text(shown)[-1].endswith(says)


def test_what_was_left_has_a_lane_of_its_own() -> None:
    shown = Window(
        "w", BEGAN, day(10), [Span(day(0), day(10), 1, 2)], [], {"timeline 1": [Span(day(0), day(5), 1, 2)]}, None, None
    )
    [(_, living)], [(_, left)] = bars(shown, "within"), bars(shown, "left")
    assert left == pytest.approx(living / 2, abs=0.2)
    assert "timeline 1" in window_chart.svg(shown)
    assert window_chart.text(shown, width=10)[2] == "timeline 1  █████     "


def test_it_needs_nothing_from_outside_and_escapes_what_it_shows() -> None:
    picture = window_chart.svg(HOLED)
    assert "&lt;is&gt; missing &amp; gone" in picture
    assert re.findall(r"(?:href|src|@import)[^>]*|url\((?!#hatch)", picture) == []
    assert picture.count("http") == 1, "the namespace alone"
    assert picture.count("prefers-color-scheme: dark") == 2


@pytest.mark.parametrize("days", [0.0, 1e-5, 0.01, 1, 30, 4000])
@pytest.mark.parametrize(
    "spans", [[], [Span(day(-3), day(-2), 1, 2)], [Span(day(0), day(0), 0, 0)], [Span(day(-9), day(9999), 1, 1e9)]]
)
def test_nothing_is_drawn_outside_the_picture(days: float, spans: list[Span]) -> None:
    shown = window(days=days, spans=spans, gaps=[Gap(day(-1), day(5000), "x" * 300)] * 9)
    root = ElementTree.fromstring(window_chart.svg(shown))
    width, height = float(root.get("width", "")), float(root.get("height", ""))
    for rect in root.iter(f"{SVG}rect"):
        assert 0 <= float(rect.get("x", "")) <= float(rect.get("x", "")) + float(rect.get("width", "")) <= width
    for each in root.iter(f"{SVG}text"):
        assert 0 <= float(each.get("x", "")) <= width
        assert 0 <= float(each.get("y", "")) <= height
    assert len(window_chart.text(shown)) >= 9
