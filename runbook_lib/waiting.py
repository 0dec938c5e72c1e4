"""The one bounded wait.

Every wait of this project goes through here, so that none lasts for ever and each, when it gives up, says what it
saw last: "the server did not come up" helps nobody, "connection refused after 30 s, 212 looks" does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from runbook_lib.errors import WaitTimedOut

T = TypeVar("T")


def wait_for(
    what: str,
    look: Callable[[], T],
    *,
    where: str,
    within_seconds: float,
    until: Callable[[T], bool] = bool,
    every_seconds: float = 0.05,
    ignoring: tuple[type[Exception], ...] = (),
    remedy: str = "look at what was seen last; allow more time if it was under way",
) -> T:
    """Look again and again until what is seen satisfies ``until``, and return it.

    :param what: what is waited for, as the subject of a sentence: "PostgreSQL to accept connections"
    :param look: takes one look; whatever it returns or raises is remembered as "seen last"
    :param where: the place that is looked at, for the error
    :param within_seconds: the deadline, on a monotonic clock
    :param until: says of what was seen whether the wait is over
    :param every_seconds: the pause between two looks
    :param ignoring: exceptions of ``look`` that mean "not yet"; any other is raised at once

    Raise `WaitTimedOut` when the deadline has passed. At least one look is always taken.
    """
    began = time.monotonic()
    looks = 0
    while True:
        looks += 1
        try:
            seen = look()
            if until(seen):
                return seen
            last = repr(seen)
        except ignoring as not_yet:
            last = f"{type(not_yet).__name__}: {str(not_yet).strip()}"
        waited = time.monotonic() - began
        if waited + every_seconds > within_seconds:
            why = f"seen last after {waited:.1f} s and {looks} looks: {last}"
            raise WaitTimedOut(what, where=where, why=why, remedy=remedy)
        time.sleep(every_seconds)
