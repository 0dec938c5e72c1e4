"""What the tests of this folder really found, told at the end of the run.

The nearest tool to this project, given 48 mutations of a restored database, found 13, and raised one false alarm on an
untouched one; that is the mark to beat, so it stands beside.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

_NEAREST_PEER = "nearest peer: 13 of 48, 1 false alarm"


@dataclass
class Scoreboard:
    """Counts that the tests keep, each before it asserts anything."""

    mutations: int = 0
    """Mutations that were carried out."""
    found: int = 0
    """Those of them that were found under the right name."""
    false_alarms: int = 0
    """Findings that nothing explains, on mutated copies and on healthy twins."""
    healthy_twins: int = 0
    """Copies that nothing was done to."""
    damaged: dict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))
    """Compression of damaged dumps with a manifest; of each case, whether it was refused before pg_restore ran."""
    decoded: dict[tuple[str, str], list[bool]] = field(default_factory=lambda: defaultdict(list))
    """Compression and kind of damage of dumps without a manifest; of each case, whether decoding alone found it."""

    def lines(self) -> Iterator[str]:
        """Yield what is to be told; nothing of what did not run."""
        if self.mutations or self.healthy_twins:
            alarms = f"{self.false_alarms} false alarm{'s' * (self.false_alarms != 1)}"
            yield (
                f"detection: {self.found} of {self.mutations} mutations found, {alarms} in {self.healthy_twins} healthy"
                f" twins ({_NEAREST_PEER})"
            )
        if self.damaged:
            cases = [refused for ways in self.damaged.values() for refused in ways]
            ways = ", ".join(f"{way} {len(refused)}" for way, refused in self.damaged.items())
            yield f"damaged dumps: {sum(cases)} of {len(cases)} refused before pg_restore saw a byte ({ways})"
        if any(self.decoded.values()):
            yield "damaged dumps without a manifest, found by decoding alone (none of the others is called proven):"
        for (compression, kind), caught in self.decoded.items():
            yield f"  {compression:<5} {kind:<12} {sum(caught):>3} of {len(caught):>3}"
