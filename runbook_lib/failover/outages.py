"""When nobody could write, and how well that is known.

Measured from the last acknowledgement before to the first one after, whoever got them: that is what an application
notices. The server's own outage is not seen, only bounded: it could still write when the last acknowledged attempt was
sent, and could again when the next one was answered; between, it is certain only from the first attempt that failed to
the last. The two bounds are as far apart as attempts are, and are told with the figure.

Two things that look like an outage are told apart from one. A single failed attempt is an error, and is counted as one:
two moments at least must have been seen, or an answer been waited for. And a stretch in which nobody asked (a
prober that was not running itself) is *blind*: it proves nothing, neither an outage nor its absence.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf

from runbook_lib.failover.history import Attempt, History
from runbook_lib.reach.writing import Acknowledger, WriteOutcome

SECOND_NS = 1_000_000_000
STALL_SECONDS = 1.0
"""How long nothing may be acknowledged, although nothing failed, until that counts as an outage."""
_LEAST_INTERVALS = 2
"""How many times the distance of attempts a gap must have to be told from their distance."""
_LEAST_FAILED = 2
"""How many attempts of witnesses must have failed in a gap: one by itself is an error."""
_BLIND_INTERVALS = 5
_BLIND_SECONDS = 0.5
"""For how long, at least, nobody must have asked for a stretch to count as blind."""


@dataclass(frozen=True)
class Outage:
    """One stretch in which no write was acknowledged."""

    began_ns: int
    """When the last acknowledgement before it came, on the monotonic clock."""
    ended_ns: int | None
    """When the first one after it came; None where none came until the end of the history."""
    seconds: float
    """From acknowledgement to acknowledgement; to the end of the history where none came."""
    at_least_seconds: float
    """From the first attempt that failed in it to the last: so long, at least, it was."""
    at_most_seconds: float | None
    """From when the last acknowledged attempt before it was sent to the first acknowledgement after it; None where
    none came: nothing bounds it."""
    refused: int
    """How many attempts sent in it were refused."""
    indeterminate: int
    """How many attempts sent in it have no answer that can be relied on."""
    errors: tuple[str, ...]
    """How they failed, the most frequent first."""
    before: Acknowledger
    """Who acknowledged last before it."""
    after: Acknowledger | None
    """Who acknowledged first after it; None where nobody did."""

    @property
    def recovered(self) -> bool:
        """Whether a write was acknowledged again."""
        return self.ended_ns is not None


@dataclass(frozen=True)
class Blind:
    """One stretch in which no attempt was under way."""

    began_ns: int
    """When it began, on the monotonic clock."""
    ended_ns: int
    """When it ended."""

    @property
    def seconds(self) -> float:
        """How long it was."""
        return (self.ended_ns - self.began_ns) / SECOND_NS


def outages(
    attempts: Sequence[Attempt],
    *,
    witnesses: Collection[str],
    sampling_seconds: float,
    ended_ns: int,
    stall_seconds: float = STALL_SECONDS,
) -> tuple[Outage, ...]:
    """Return every outage that these attempts saw, by the time it began.

    :param attempts: of all clients, or of one
    :param witnesses: the clients without whose failure a gap is no outage: those who try most often. A pool that
        hands out a broken connection while others write is an error of its own
    :param sampling_seconds: how far apart the attempts of each of these are due
    :param ended_ns: the last moment that the history speaks of
    :param stall_seconds: having waited as long as this is an outage although nothing failed
    """
    acknowledged = sorted((each for each in attempts if each.acknowledged), key=lambda each: each.ended_ns)
    failed = sorted((each for each in attempts if each.failed), key=lambda each: each.sent_ns)
    sent = sorted(each.sent_ns for each in acknowledged)
    found = []
    position = 0
    for before, after in [*pairwise(acknowledged), *((last, None) for last in acknowledged[-1:])]:
        until_ns = after.ended_ns if after is not None else ended_ns
        while position < len(failed) and failed[position].sent_ns < before.ended_ns:
            position += 1
        last = position
        while last < len(failed) and failed[last].sent_ns < until_ns:
            last += 1
        inside = failed[position:last]
        seconds = (until_ns - before.ended_ns) / SECOND_NS
        least = sampling_seconds * _LEAST_INTERVALS
        seen = sum(each.client in witnesses for each in inside) >= _LEAST_FAILED
        stalled = after is not None and (until_ns - _first_sent(sent, before.ended_ns)) >= stall_seconds * SECOND_NS
        if seconds >= least and (seen or stalled):
            found.append(_outage(before, after, inside, seconds))
    return tuple(found)


def blind(history: History) -> tuple[Blind, ...]:
    """Return every stretch in which nobody asked anything, from the beginning of a history to its end."""
    least_seconds = max(_BLIND_SECONDS, _BLIND_INTERVALS * history.sampling_seconds)
    return tuple(each for each in _idle(history) if each.seconds >= least_seconds)


def _idle(history: History) -> Iterator[Blind]:
    # Whoever tries rarely and waits long would make up for a prober that slept.
    sent = (each for each in history.attempts if each.outcome is not WriteOutcome.UNSENT)
    asked = sorted((each for each in sent if each.client in history.witnesses), key=lambda each: each.sent_ns)
    if not asked:
        return
    covered_ns = asked[0].ended_ns
    for each in asked[1:]:
        if each.sent_ns > covered_ns:
            yield Blind(covered_ns, each.sent_ns)
        covered_ns = max(covered_ns, each.ended_ns)
    if history.ended_ns > covered_ns:
        yield Blind(covered_ns, history.ended_ns)


def _first_sent(sent: Sequence[int], after_ns: int) -> float:
    """Return when the first attempt was sent from this moment on: before that, nobody waited."""
    position = bisect_left(sent, after_ns)
    return sent[position] if position < len(sent) else inf


def _outage(before: Attempt, after: Attempt | None, inside: Sequence[Attempt], seconds: float) -> Outage:
    assert before.acknowledger is not None, "it was acknowledged"
    counted: dict[str, int] = {}
    for each in inside:
        counted[each.error] = counted.get(each.error, 0) + 1
    refused = sum(each.outcome is WriteOutcome.REFUSED for each in inside)
    return Outage(
        began_ns=before.ended_ns,
        ended_ns=None if after is None else after.ended_ns,
        seconds=seconds,
        at_least_seconds=(inside[-1].sent_ns - inside[0].sent_ns) / SECOND_NS if inside else 0.0,
        at_most_seconds=None if after is None else (after.ended_ns - before.sent_ns) / SECOND_NS,
        refused=refused,
        indeterminate=len(inside) - refused,
        errors=tuple(sorted(counted, key=lambda error: (-counted[error], error))),
        before=before.acknowledger,
        after=None if after is None else after.acknowledger,
    )
