"""A procedure's phases as a picture: what the time went into, and what is left of the budget.

A weekly restore of seconds stands against a budget of hours; on one scale one of the two is invisible. So the budget
has a bar of its own, and the phases beneath it share a scale that ends where the procedure ended. The picture is one
SVG without references to anything outside, and turns dark where its reader's page does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from runbook_lib.evidence import wording
from runbook_lib.evidence.record import Timeline
from runbook_lib.phases import Phase

_WIDTH = 760
_MARGIN = 28
_ROW = 28
_BAR = 14
_LETTER = 6.6
"""The mean width of a letter of 12.5 px, in px: an SVG cannot be asked how wide a text will be."""

STYLE = """
text { font: 12.5px system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif; fill: #24292f }
.title { font-size: 14px; font-weight: 600 }
.big { font-size: 26px; font-weight: 600 }
.faint { fill: #656d76; font-size: 11.5px }
.page { fill: #ffffff; stroke: #d8dee4 }
.track { fill: #eaeef2 }
.grid { stroke: #eaeef2 }
.mark { stroke: #57606a; stroke-width: 1.5 }
.phase { fill: #4c8dd6 }
.within { fill: #2da563 } .over { fill: #d29922 } .beyond { fill: #d1434b }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .faint { fill: #8d96a0 }
  .page { fill: #0d1117; stroke: #30363d }
  .track { fill: #21262d }
  .grid { stroke: #21262d }
  .mark { stroke: #8d96a0 }
  .phase { fill: #5b9be6 }
  .within { fill: #3fb97a } .over { fill: #d9a62e } .beyond { fill: #e5626a }
}
""".strip()


def standing(timeline: Timeline) -> str:
    """Return how a procedure stands against its budget, as half a sentence: ``within the target of 1 h``."""
    target, maximum, seconds = timeline.target_seconds, timeline.maximum_seconds, timeline.seconds
    if maximum is not None and seconds > maximum:
        return f"over the maximum of {wording.duration(maximum)}"
    if target is not None and seconds > target:
        within = f", within the maximum of {wording.duration(maximum)}" if maximum is not None else ""
        return f"over the target of {wording.duration(target)}{within}"
    if target is not None:
        return f"within the target of {wording.duration(target)}"
    return f"within the maximum of {wording.duration(maximum)}" if maximum is not None else ""


def svg(timeline: Timeline) -> str:
    """Return the picture of a timeline as an SVG document."""
    return _Picture(timeline).document()


def text(timeline: Timeline, *, width: int = 44) -> list[str]:
    """Return the picture of a timeline as lines of text, the bars ``width`` characters wide."""
    stands = standing(timeline)
    lines = [f"{timeline.title}: {wording.duration(timeline.seconds)}" + (f", {stands}" if stands else "")]
    phases = _by_beginning(timeline.phases)
    longest = max((len(phase.name) for phase in phases), default=0)
    for phase in phases:
        bar = _text_bar(phase, timeline.seconds, width)
        lines.append(f"{phase.name:<{longest}}  {bar}  {wording.duration(phase.seconds):>10}")
    return lines


class _Picture:
    """Draws one timeline from top to bottom."""

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self.parts: list[str] = []
        self.y = 0.0

    def document(self) -> str:
        self._headline()
        self._budget()
        self._phases()
        height = round(self.y)
        described = escape(f"{self.timeline.title}: {wording.duration(self.timeline.seconds)}")
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}"'
                f' height="{height}" role="img" aria-label="{described}">',
                f"<title>{described}</title>",
                f"<style>{STYLE}</style>",
                f'<rect class="page" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{height - 1}" rx="8"/>',
                *self.parts,
                "</svg>",
                "",
            ]
        )

    def _headline(self) -> None:
        self._text(_MARGIN, 34, self.timeline.title, "title")
        taken, stands = wording.duration(self.timeline.seconds), escape(standing(self.timeline))
        self.parts.append(
            f'<text x="{_MARGIN}" y="68"><tspan class="big">{taken}</tspan>'
            f'<tspan class="faint" dx="12">{stands}</tspan></text>'
        )
        self.y = 84

    def _budget(self) -> None:
        """The whole budget as one bar, filled as far as it was used."""
        marks = [
            (seconds, name)
            for seconds, name in ((self.timeline.target_seconds, "target"), (self.timeline.maximum_seconds, "maximum"))
            if seconds is not None
        ]
        if not marks:
            return
        whole = max(self.timeline.seconds, *(seconds for seconds, _ in marks)) or 1.0
        length = _WIDTH - 2 * _MARGIN
        used = max(3.0, self.timeline.seconds / whole * length)
        self._rect("track", _MARGIN, self.y, length, 8, 4)
        self._rect(self._colour(), _MARGIN, self.y, used, 8, min(4.0, used / 2))
        for seconds, name in marks:
            x = _MARGIN + seconds / whole * length
            anchor = "end" if x > _WIDTH / 2 else "start" if x < _MARGIN + 60 else "middle"
            self.parts.append(f'<path class="mark" d="M{x:.1f} {self.y - 4:.1f}v16"/>')
            self._text(x, self.y + 27, f"{name} {wording.duration(seconds)}", "faint", anchor)
        self.y += 52

    def _phases(self) -> None:
        """One bar for each phase, on a common scale with a few round seconds marked."""
        phases = _by_beginning(self.timeline.phases)
        if not phases:
            return
        left = _MARGIN + min(220.0, max(len(phase.name) for phase in phases) * _LETTER + 16)
        right = _WIDTH - _MARGIN - 84  # a bar's seconds stand at its end
        whole = self.timeline.seconds or 1.0
        scale = (right - left) / whole
        bottom = self.y + len(phases) * _ROW
        for seconds in _round_seconds(whole):
            x = left + seconds * scale
            self.parts.append(f'<path class="grid" d="M{x:.1f} {self.y:.1f}V{bottom:.1f}"/>')
            told = wording.duration(seconds) if seconds >= 60 else f"{seconds:g} s"
            self._text(x, bottom + 17, told if seconds else "0", "faint", "middle")
        for phase in phases:
            x, length = left + phase.began_seconds * scale, max(2.0, phase.seconds * scale)
            middle = self.y + _ROW / 2
            self._text(_MARGIN, middle + 4.5, _shortened(phase.name, int((left - _MARGIN) / _LETTER)))
            self._rect("phase", x, middle - _BAR / 2, length, _BAR, min(3.0, length / 2))
            self._text(x + length + 7, middle + 4, wording.duration(phase.seconds), "faint")
            self.y += _ROW
        self.y += 36

    def _colour(self) -> str:
        target, maximum, seconds = self.timeline.target_seconds, self.timeline.maximum_seconds, self.timeline.seconds
        if maximum is not None and seconds > maximum:
            return "beyond"
        return "over" if target is not None and seconds > target else "within"

    def _text(self, x: float, y: float, told: str, style: str = "", anchor: str = "start") -> None:
        if told:
            named = f' class="{style}"' if style else ""
            self.parts.append(f'<text{named} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(told)}</text>')

    def _rect(self, style: str, x: float, y: float, width: float, height: float, radius: float) -> None:
        self.parts.append(
            f'<rect class="{style}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:g}" rx="{radius:.1f}"/>'
        )


def _by_beginning(phases: Sequence[Phase]) -> list[Phase]:
    return sorted(phases, key=lambda phase: (phase.began_seconds, phase.ended_seconds))


def _round_seconds(whole: float) -> list[float]:
    """Return a few round numbers from 0 up to ``whole``, at even distances."""
    units = [unit * 10.0**power for power in range(-3, 2) for unit in (1, 2, 5)]
    units += [60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200, 86400]
    step = next((unit for unit in sorted(units) if unit < 60 or unit % 60 == 0 if whole / unit <= 7), whole / 5)
    return [round(step * number, 6) for number in range(math.floor(whole / step) + 1)]


_EIGHTHS = " ▏▎▍▌▋▊▉"


def _text_bar(phase: Phase, whole: float, width: int) -> str:
    """Return a phase as blocks; its beginning falls on a character, its end on an eighth of one."""
    if whole <= 0:
        return "▏".ljust(width)
    begins = min(width - 1, math.floor(phase.began_seconds / whole * width))
    eighths = max(1, round((phase.ended_seconds / whole * width - begins) * 8))
    bar = "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
    return f"{' ' * begins}{bar}"[:width].ljust(width)


def _shortened(name: str, letters: int) -> str:
    return name if len(name) <= letters else f"{name[: letters - 1]}…"
