from __future__ import annotations

import pytest

from runbook_lib.evidence import wording
from runbook_lib.phases import Progress


@pytest.mark.parametrize(
    ("seconds", "says"),
    [
        (0, "0.0 s"),
        (12.34, "12.3 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min"),
        (61, "1 min 01 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h"),
        (3900, "1 h 05 min"),
        (14400, "4 h"),
        (100_000, "27 h 47 min"),
    ],
)
def test_a_length_of_time_is_told_in_the_units_that_matter(seconds: float, says: str) -> None:
    assert wording.duration(seconds) == says


@pytest.mark.parametrize(
    ("count", "says"),
    [(0, "0 bytes"), (999, "999 bytes"), (1_000, "1.0 kB"), (999_600, "1.0 MB"), (340_000_000, "340 MB")],
)
def test_a_size_is_told_in_decimal_units(count: int, says: str) -> None:
    assert wording.size(count) == says


@pytest.mark.parametrize(
    ("seen", "says"),
    [
        (Progress("fetch", 1_000_000, 4_000_000, "bytes"), "fetch: 1.0 MB of 4.0 MB (25 %)"),
        (Progress("compare", 1200, 5000, "rows", "users"), "compare: 1,200 of 5,000 rows (24 %), users"),
        (Progress("compare", 1200, None, "rows"), "compare: 1,200 rows"),
        (Progress("fetch", 5, 4, "tables"), "fetch: 5 of 4 tables (100 %)"),
    ],
)
def test_progress_is_told_as_far_as_it_is_known(seen: Progress, says: str) -> None:
    assert wording.progress(seen) == says
