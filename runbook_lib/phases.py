"""How long each part of a procedure took, and how far it is.

A restore's one number, its RTO, is only useful split into what it was spent on. Phases may overlap, because the
drill overlaps what can be overlapped; so each keeps its beginning and its end instead of a bare duration.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Phase:
    """One named stretch of time."""

    name: str
    """What was done: ``fetch``, ``restore data``."""
    began_seconds: float
    """Seconds from the beginning of the whole procedure to the beginning of this phase."""
    ended_seconds: float
    """Seconds from the beginning of the whole procedure to the end of this phase."""

    @property
    def seconds(self) -> float:
        """The length of this phase in seconds."""
        return self.ended_seconds - self.began_seconds


@dataclass(frozen=True)
class Progress:
    """How far a phase is, for whoever is watching."""

    phase: str
    """The phase this speaks of."""
    done: int
    """How much is done, in ``unit``."""
    total: int | None
    """How much there is, in ``unit``; None where nobody knows."""
    unit: str
    """``bytes``, ``rows``, ``tables``, ``indexes``."""
    detail: str = ""
    """What is being worked on right now, such as a table's name."""


Watcher = Callable[[Progress], None]
"""Somebody who is told how far a phase is. It is called from worker threads and must not block or raise."""


def nobody(_: Progress) -> None:
    """Watch nothing."""


class Stopwatch:
    """Collects the phases of one procedure, from any thread."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._phases: list[Phase] = []
        self._lock = threading.Lock()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time what happens inside; a phase that ends in an exception is kept too."""
        began = time.monotonic() - self._began
        try:
            yield
        finally:
            with self._lock:
                self._phases.append(Phase(name, began, time.monotonic() - self._began))

    @property
    def elapsed_seconds(self) -> float:
        """Seconds since the procedure began."""
        return time.monotonic() - self._began

    def note(self, name: str, began: float, ended: float) -> None:
        """Add a phase that somebody else timed, by two readings of ``time.monotonic``."""
        with self._lock:
            self._phases.append(Phase(name, began - self._began, ended - self._began))

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The phases so far, by their beginning."""
        with self._lock:
            return tuple(sorted(self._phases, key=lambda phase: phase.began_seconds))
