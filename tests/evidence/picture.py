"""The picture of what can be recovered that the README shows: of a month with two holes and a night without a backup.

``python -m tests.evidence.picture`` draws it anew; a test sees that it is what would be drawn.
"""

from __future__ import annotations

from pathlib import Path

from runbook_lib.evidence import window_chart
from steps.reachability import shown
from tests.wal.world import at, quiet

PICTURE = Path(__file__).parents[2] / ".github" / "what-can-be-recovered.svg"
_DAYS = 31
_LOST = (700, *range(1100, 1104))
"""Segments that are not in the archive."""
_NO_BASE_BACKUP = 18
"""A night on which none was taken."""


def drawn() -> str:
    """Return the picture as it is drawn now."""
    world = quiet(days=_DAYS)
    for number in _LOST:
        del world.segments[1][number]
    del world.bases[_NO_BASE_BACKUP]
    found = world.map(now=at(_DAYS * 86_400 + 300))
    return window_chart.svg(shown(found, target_seconds=60, maximum_seconds=200))


if __name__ == "__main__":
    PICTURE.write_text(drawn(), encoding="utf-8")
