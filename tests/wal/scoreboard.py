"""What became of recoveries that were tampered with, told at the end of the run.

Stock PostgreSQL with the usual restore command ends its recovery at the first request that fails, says so nowhere and
takes writes; that is the outcome that must not be in this table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Row:
    """One recovery."""

    fault: str
    """What was done to it."""
    target: str
    """Where it was to end."""
    outcome: str
    """How it ended."""
    rows_lost: int | None
    """How many rows it lost without saying so; None where it came to no end."""
    ours: bool = True
    """Whether it was our restore command that it recovered by."""


@dataclass
class Scoreboard:
    """Rows that the tests add, each before it asserts anything."""

    rows: list[Row] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """Yield the table; nothing where nothing ran."""
        if not self.rows:
            return
        ours = [row for row in self.rows if row.ours]
        silent = sum(1 for row in ours if row.rows_lost)
        yield f"recoveries that were tampered with: {len(ours)}, silent promotions with rows lost: {silent}"
        yield f"  {'fault':<64} {'to':<14} {'outcome':<34} rows lost"
        for row in self.rows:
            lost = "-" if row.rows_lost is None else str(row.rows_lost)
            yield f"  {row.fault:<64} {row.target:<14} {row.outcome:<34} {lost:>9}"
