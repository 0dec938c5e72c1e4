"""Which moments can be recovered, as a picture along the retention window.

People ask two things on the day it matters: can we go back to that moment, and how long would it take? So two pictures
share one axis of time. Above, what can be recovered is a band, what cannot be is cut out of it in red, and never
thinner than can be seen: one missing segment of a minute may be the minute. Below, the predicted time of a recovery
climbs from each base backup to the next, for that is what WAL costs.

One SVG without references to anything outside, which turns dark where its reader's page does; and the same as text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from html import escape

from runbook_lib.evidence import wording
from runbook_lib.evidence.chart import STYLE
from runbook_lib.evidence.record import Gap, Span, Window

_WIDTH = 760
_MARGIN = 28
_LEFT = 112
"""Where the axis begins, in px: the names of the lanes stand before it."""
_RIGHT = _WIDTH - _MARGIN
_BAND = 26
_LANE = 12
_PANEL = 92
_THINNEST = 3.0
"""How thin what cannot be recovered is drawn at the least, in px."""
_GAPS_NAMED = 5
_LINE_LETTERS = 106
_FAR_ABOVE = 3.0
"""A budget that is so many times what is needed is told and not drawn: the picture would be empty below it."""

_OWN_STYLE = """
.gap { fill: #d1434b } .gap-word { fill: #b42a33; font-weight: 600 }
.left { fill: #8f7fc9 }
.rto { fill: #4c8dd6; fill-opacity: .28 } .rto-line { stroke: #3576bf; stroke-width: 1.5; fill: none }
.base { stroke: #ffffff; stroke-width: 1.2 }
.axis { stroke: #b6bec7 }
.budget { stroke-width: 1.3; stroke-dasharray: 5 4 }
.budget.target { stroke: #b8860b } .budget.maximum { stroke: #d1434b }
.hatch { stroke: #a3adb8; stroke-width: 1.8 }
@media (prefers-color-scheme: dark) {
  .gap { fill: #e5626a } .gap-word { fill: #f2868d }
  .left { fill: #9d8fd6 }
  .rto { fill: #5b9be6; fill-opacity: .3 } .rto-line { stroke: #79b1f0 }
  .base { stroke: #0d1117 }
  .axis { stroke: #484f58 }
  .hatch { stroke: #5d6670 }
}
""".strip()

_STEPS = (
    *(timedelta(seconds=seconds) for seconds in (1, 2, 5, 10, 15, 30)),
    *(timedelta(minutes=minutes) for minutes in (1, 2, 5, 10, 15, 30)),
    *(timedelta(hours=hours) for hours in (1, 2, 3, 6, 12)),
    *(timedelta(days=days) for days in (1, 2, 5, 10, 30, 90, 365)),
)
_TICKS = 8
_EPOCH = datetime(2000, 1, 3, tzinfo=UTC)


def length(seconds: float) -> str:
    """Return a length of time, in days where there are some: ``29 d 21 h``."""
    if seconds < 48 * 3600 - 30:
        return wording.duration(seconds)
    days, hours = divmod(round(seconds / 3600), 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def standing(window: Window) -> tuple[str, str]:
    """Return how much of the window can be recovered, and what is to be said of the rest."""
    lost = [gap for gap in window.gaps if not gap.excused]
    spans = _merged(window)
    if not spans:
        return "nothing", "can be recovered"
    covered = sum((ended - began).total_seconds() for began, ended in spans)
    whole = length(covered)
    if not lost and covered < 1:
        return "one moment", f"alone can be recovered: {_moment(spans[0][0])} UTC, when a base backup ended"
    if not lost:
        return whole, f"every moment from {_moment(spans[0][0])} to {_moment(spans[-1][1])} UTC can be recovered"
    holes = "1 hole" if len(lost) == 1 else f"{len(lost)} holes"
    return whole, f"of {length((window.ended - window.began).total_seconds())} can be recovered; {holes}"


def slowest(window: Window) -> float | None:
    """Return the longest predicted recovery into the window; None where nothing can be recovered."""
    inside = [span.rto_ended_seconds for span in window.spans if span.ended >= window.began]
    return max(inside, default=None)


def svg(window: Window) -> str:
    """Return the picture as an SVG document."""
    return _Picture(window).document()


def text(window: Window, *, width: int = 60) -> list[str]:
    """Return the picture as lines of text, the band ``width`` characters wide."""
    how_much, rest = standing(window)
    lines = [f"{window.title}: {rest if rest.startswith('every') else f'{how_much} {rest}'}"]
    began, ended = _label(window.began, window), _label(window.ended, window)
    names = {"": window.spans, **window.left}
    longest = max(map(len, names))
    for name, spans in names.items():
        cells = "".join(_cells(window, spans, window.gaps if not name else (), width))
        lines.append(f"{name:<{longest}}  {cells}".lstrip() if not longest else f"{name:<{longest}}  {cells}")
    indent = " " * (longest + 2 if longest else 0)
    lines.append(f"{indent}{began}{ended:>{max(1, width - len(began))}}")
    first = "  - before the first base backup" if any(gap.excused for gap in window.gaps) else ""
    lines.append(f"{indent}█ can be recovered  ! cannot{first}  · not archived yet")
    for gap in window.gaps[:_GAPS_NAMED]:
        lines.append(f"{indent}{'-' if gap.excused else '!'} {_told(gap)}")
    if len(window.gaps) > _GAPS_NAMED:
        lines.append(f"{indent}  and {len(window.gaps) - _GAPS_NAMED} more")
    if (longest_seconds := slowest(window)) is not None:
        lines.append(
            f"{indent}the longest recovery: {wording.duration(longest_seconds)}, as predicted{_budget(window)}"
        )
    return lines


def _cells(window: Window, spans: Sequence[Span], gaps: Sequence[Gap], width: int) -> Iterator[str]:
    """Yield a character for each piece of the window; one that holds anything that is lost is lost."""
    step = (window.ended - window.began) / width
    for number in range(width):
        begins, ends = window.began + number * step, window.began + (number + 1) * step
        touched = [gap for gap in gaps if gap.began < ends and gap.ended > begins]
        if any(not gap.excused for gap in touched):
            yield "!"
        elif any(span.began < ends and span.ended > begins for span in spans):
            yield "█"
        else:
            yield "-" if touched else "·" if gaps is window.gaps or spans is window.spans else " "


class _Picture:
    """Draws one window from top to bottom."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.parts: list[str] = []
        self.y = 0.0
        self.seconds = max((window.ended - window.began).total_seconds(), 1e-6)

    def document(self) -> str:
        self._headline()
        top = self.y
        grid = len(self.parts)
        self._band()
        self._lanes()
        self._recovery_times()
        self._axis(top, grid)
        self._legend()
        self._gaps()
        height = round(self.y)
        how_much, rest = standing(self.window)
        described = escape(f"{self.window.title}: {how_much} {rest}")
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}"'
                f' height="{height}" role="img" aria-label="{described}">',
                f"<title>{described}</title>",
                f"<style>{STYLE}\n{_OWN_STYLE}</style>",
                '<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse"'
                ' patternTransform="rotate(45)"><path class="hatch" d="M0 0V6"/></pattern></defs>',
                f'<rect class="page" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{height - 1}" rx="8"/>',
                *self.parts,
                "</svg>",
                "",
            ]
        )

    def _headline(self) -> None:
        self._text(_MARGIN, 34, self.window.title, "title")
        how_much, rest = map(escape, standing(self.window))
        self.parts.append(
            f'<text x="{_MARGIN}" y="68"><tspan class="big">{how_much}</tspan>'
            f'<tspan class="faint" dx="12">{rest}</tspan></text>'
        )
        self.y = 92

    def _band(self) -> None:
        """What can be recovered along the living timeline; what cannot be lies on top, so that nothing hides it."""
        self._text(_MARGIN, self.y + 17.5, "recoverable")
        self._rect("track", _LEFT, self.y, _RIGHT - _LEFT, _BAND, 4)
        for began, ended in _merged(self.window):
            self._bar("within", began, ended, self.y, _BAND)
        for span in self.window.spans:
            x = self._x(span.began)
            if _LEFT + 1 < x < _RIGHT - 1:
                self.parts.append(f'<path class="base" d="M{x:.1f} {self.y:.1f}v{_BAND}"/>')
        for gap in self.window.gaps:
            if gap.excused:
                self._bar("", gap.began, gap.ended, self.y, _BAND, fill="url(#hatch)")
            else:
                self._bar("gap", gap.began, gap.ended, self.y, _BAND)
        self.y += _BAND + 10

    def _lanes(self) -> None:
        for name, spans in self.window.left.items():
            self._text(_MARGIN, self.y + 10, name, "faint")
            self._rect("track", _LEFT, self.y, _RIGHT - _LEFT, _LANE, 3)
            for span in spans:
                self._bar("left", span.began, span.ended, self.y, _LANE)
            self.y += _LANE + 8
        self.y += 12

    def _recovery_times(self) -> None:
        """The predicted time of a recovery, along the same axis."""
        longest = slowest(self.window)
        if longest is None:
            return
        budgets = [
            (seconds, name)
            for seconds, name in ((self.window.target_seconds, "target"), (self.window.maximum_seconds, "maximum"))
            if seconds is not None
        ]
        drawn = [(seconds, name) for seconds, name in budgets if seconds <= longest * _FAR_ABOVE]
        highest = 1.12 * max([longest, *(seconds for seconds, _ in drawn)]) or 1.0
        bottom = self.y + _PANEL

        def height(seconds: float) -> float:
            return bottom - seconds / highest * _PANEL

        self._text(_MARGIN, self.y + 12, "recovery")
        self._text(_MARGIN, self.y + 27, "takes, as", "faint")
        self._text(_MARGIN, self.y + 41, "predicted", "faint")
        for span in self.window.spans:
            if span.ended < self.window.began:
                continue
            left, right = self._x(span.began), max(self._x(span.ended), self._x(span.began) + 1)
            first, last = height(self._rto(span, span.began)), height(span.rto_ended_seconds)
            line = f"M{left:.1f} {first:.1f}L{right:.1f} {last:.1f}"
            self.parts.append(f'<path class="rto" d="{line}V{bottom:.1f}H{left:.1f}Z"/>')
            self.parts.append(f'<path class="rto-line" d="{line}"/>')
        for seconds, name in drawn:
            y = height(seconds)
            self.parts.append(f'<path class="budget {name}" d="M{_LEFT} {y:.1f}H{_RIGHT}"/>')
            self._text(_RIGHT, y - 5, f"{name} {wording.duration(seconds)}", "faint", "end")
        inside = [span for span in self.window.spans if span.ended >= self.window.began]
        x = self._x(max(inside, key=lambda span: span.rto_ended_seconds).ended)
        told = f"at most {wording.duration(longest)}{_budget(self.window) if not drawn else ''}"
        anchor = "end" if x > _WIDTH / 2 else "start"
        # The budgets' own names stand at the right.
        near = x > _RIGHT - 130 and any(abs(height(longest) - height(seconds)) < 13 for seconds, _ in drawn)
        self._text(x, height(longest) - (19 if near else 5), told, "faint", anchor)
        self.y = bottom

    def _rto(self, span: Span, moment: datetime) -> float:
        """Return the predicted time at a moment; a span that began before the window is cut by its beginning."""
        at = max(moment, self.window.began)
        whole = (span.ended - span.began).total_seconds()
        share = (at - span.began).total_seconds() / whole if whole > 0 else 1.0
        return span.rto_began_seconds + (span.rto_ended_seconds - span.rto_began_seconds) * share

    def _axis(self, top: float, grid: int) -> None:
        bottom = self.y
        self.parts.append(f'<path class="axis" d="M{_LEFT} {bottom + 0.5:.1f}H{_RIGHT}"/>')
        lines: list[str] = []
        for tick in _ticks(self.window):
            x = self._x(tick)
            if x > _RIGHT - 2:
                break
            lines.append(f'<path class="grid" d="M{x:.1f} {top:.1f}V{bottom:.1f}"/>')
            if _LEFT + 12 <= x <= _RIGHT - 12:
                self._text(x, bottom + 17, _label(tick, self.window), "faint", "middle")
        self.parts[grid:grid] = lines  # behind the bars
        self._text(_LEFT, bottom + 34, f"{self.window.began:%Y-%m-%d %H:%M} UTC", "faint")
        self._text(_RIGHT, bottom + 34, f"looked at {self.window.ended:%Y-%m-%d %H:%M:%S} UTC", "faint", "end")
        self.y = bottom + 52

    def _legend(self) -> None:
        entries: list[tuple[str, str, str]] = [("within", "", "can be recovered")]
        if any(not gap.excused for gap in self.window.gaps):
            entries.append(("gap", "", "cannot be recovered"))
        if any(gap.excused for gap in self.window.gaps):
            entries.append(("", "url(#hatch)", "before the first base backup"))
        if self._has_a_tail():
            entries.append(("track", "", "not archived yet"))
        if self.window.left:
            entries.append(("left", "", "on a timeline that was left"))
        x = float(_LEFT)
        for style, fill, told in entries:
            if fill:
                self._rect("track", x, self.y - 9, 12, 10, 2)
            self._rect(style, x, self.y - 9, 12, 10, 2, fill=fill)
            self._text(x + 17, self.y, told, "faint")
            x += 17 + len(told) * 5.9 + 16
        self.parts.append(f'<path class="mark" d="M{x + 4:.1f} {self.y - 9:.1f}v10"/>')
        self._text(x + 12, self.y, "base backup", "faint")
        self.y += 20

    def _gaps(self) -> None:
        for gap in self.window.gaps[:_GAPS_NAMED]:
            style = "faint" if gap.excused else "gap-word"
            told = _told(gap).replace(" UTC", "", 1)  # as the axis says
            self.y += 4
            self._text(_MARGIN, self.y + 4, "–" if gap.excused else "!", style)
            shortened = told if len(told) <= _LINE_LETTERS else f"{told[: _LINE_LETTERS - 1]}…"
            self._text(_MARGIN + 14, self.y + 4, shortened, "faint")
            self.y += 14
        if len(self.window.gaps) > _GAPS_NAMED:
            self._text(_MARGIN + 14, self.y + 8, f"and {len(self.window.gaps) - _GAPS_NAMED} more", "faint")
            self.y += 18
        self.y += 8

    def _has_a_tail(self) -> bool:
        ends = [*(span.ended for span in self.window.spans), *(gap.ended for gap in self.window.gaps)]
        return bool(ends) and self._x(max(ends)) < _RIGHT - 2

    def _x(self, moment: datetime) -> float:
        share = (moment - self.window.began).total_seconds() / self.seconds
        return _LEFT + min(1.0, max(0.0, share)) * (_RIGHT - _LEFT)

    def _bar(self, style: str, began: datetime, ended: datetime, y: float, height: float, *, fill: str = "") -> None:
        left, right = self._x(began), self._x(ended)
        if ended <= self.window.began or began >= self.window.ended:
            return
        if right - left < _THINNEST:
            left = min(max(_LEFT, (left + right - _THINNEST) / 2), _RIGHT - _THINNEST)
            right = left + _THINNEST
        self._rect(style, left, y, right - left, height, min(3.0, (right - left) / 2), fill=fill)

    def _text(self, x: float, y: float, told: str, style: str = "", anchor: str = "start") -> None:
        if told:
            named = f' class="{style}"' if style else ""
            self.parts.append(f'<text{named} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(told)}</text>')

    def _rect(
        self, style: str, x: float, y: float, width: float, height: float, radius: float, *, fill: str = ""
    ) -> None:
        looks = f'class="{style}"' if style else f'fill="{fill}"'
        self.parts.append(
            f'<rect {looks} x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:g}" rx="{radius:.1f}"/>'
        )


def _merged(window: Window) -> list[tuple[datetime, datetime]]:
    """Return the spans, cut by the window, those that touch as one."""
    merged: list[tuple[datetime, datetime]] = []
    for span in sorted(window.spans, key=lambda each: each.began):
        began, ended = max(span.began, window.began), min(span.ended, window.ended)
        if ended < began:
            continue
        if merged and began <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], ended))
        else:
            merged.append((began, ended))
    return merged


def _step(window: Window) -> timedelta:
    whole = window.ended - window.began
    return next((step for step in _STEPS if whole / step <= _TICKS), _STEPS[-1])


def _ticks(window: Window) -> Iterator[datetime]:
    step = _step(window)
    tick = _EPOCH + ((window.began - _EPOCH) // step + 1) * step
    while tick <= window.ended:
        yield tick
        tick += step


def _label(moment: datetime, window: Window) -> str:
    step = _step(window)
    if step >= timedelta(days=1):
        return f"{moment:%b} {moment.day}"
    return f"{moment:%H:%M}" if step >= timedelta(minutes=1) else f"{moment:%H:%M:%S}"


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def _told(gap: Gap) -> str:
    lasts = length((gap.ended - gap.began).total_seconds())
    return f"{_moment(gap.began)} to {_moment(gap.ended)} UTC ({lasts}): {gap.why}"


def _budget(window: Window) -> str:
    longest = slowest(window) or 0.0
    if window.maximum_seconds is not None and longest > window.maximum_seconds:
        return f"; over the maximum of {wording.duration(window.maximum_seconds)}"
    if window.target_seconds is not None and longest > window.target_seconds:
        return f"; over the target of {wording.duration(window.target_seconds)}"
    if window.target_seconds is not None:
        return f"; the target is {wording.duration(window.target_seconds)}"
    return "" if window.maximum_seconds is None else f"; the maximum is {wording.duration(window.maximum_seconds)}"
