"""Whether two servers took writes at the same time, and for how long.

A role label is a claim, and so is what each server says of itself when it is asked one after the other. An
acknowledgement is not: whoever gives one was writable at some moment between the sending of that attempt and its
answer. Two servers whose acknowledgements cannot be put one behind the other, however those moments are chosen, were
both writable at once; what was written to one of them is going to be lost, or already is.

Between two acknowledgements that follow each other closely a server is taken to have been writable all the time;
across a longer silence it is not, so that a primary that was frozen and wakes up counts from when it woke.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from runbook_lib.failover.history import Attempt
from runbook_lib.failover.outages import SECOND_NS
from runbook_lib.reach.writing import Acknowledger

JOINED_WITHIN_SECONDS = 1.0
"""How long a server may acknowledge nothing and still be taken to have been writable all the time."""


@dataclass(frozen=True)
class Writable:
    """One stretch in which one server acknowledged writes, again and again."""

    server: Acknowledger
    """Which."""
    from_ns: int
    """It was writable at this moment or before: when its first acknowledgement came."""
    until_ns: int
    """It was writable at this moment or after: when the last attempt that it acknowledged was sent. Before
    ``from_ns`` where there is but one."""
    first_sent_ns: int
    """Before this moment nothing speaks for it: when the first attempt was sent."""
    last_ended_ns: int
    """After this moment nothing speaks for it: when the last acknowledgement came."""
    acknowledged: int
    """How many attempts it acknowledged."""


@dataclass(frozen=True)
class TwoPrimaries:
    """Two servers that were certainly writable at once."""

    first: Writable
    """The one that acknowledged first."""
    second: Writable
    """The other one."""

    @property
    def began_ns(self) -> int:
        """From when on both certainly were, on the monotonic clock."""
        return max(self.first.from_ns, self.second.from_ns)

    @property
    def ended_ns(self) -> int:
        """Until when both certainly were; not before `began_ns`."""
        return max(self.began_ns, min(self.first.until_ns, self.second.until_ns))

    @property
    def seconds(self) -> float:
        """For how long, at least. 0 is possible: both were, and one of them for a single acknowledgement."""
        return (self.ended_ns - self.began_ns) / SECOND_NS

    @property
    def at_most_seconds(self) -> float:
        """For how long both may have been, as far as acknowledgements speak for it."""
        began = max(self.first.first_sent_ns, self.second.first_sent_ns)
        return (min(self.first.last_ended_ns, self.second.last_ended_ns) - began) / SECOND_NS


def writable(
    attempts: Sequence[Attempt], *, joined_within_seconds: float = JOINED_WITHIN_SECONDS
) -> tuple[Writable, ...]:
    """Return the stretches in which each server acknowledged writes, by their beginning."""
    servers: dict[Acknowledger, list[Attempt]] = {}
    for each in attempts:
        if each.acknowledger is not None:
            servers.setdefault(each.acknowledger, []).append(each)
    found = []
    for server, acknowledged in servers.items():
        acknowledged.sort(key=lambda each: each.sent_ns)
        together: list[Attempt] = []
        reached_ns = 0
        for each in acknowledged:
            if together and each.sent_ns - reached_ns > joined_within_seconds * SECOND_NS:
                found.append(_stretch(server, together))
                together = []
            reached_ns = max(reached_ns, each.ended_ns) if together else each.ended_ns
            together.append(each)
        found.append(_stretch(server, together))
    return tuple(sorted(found, key=lambda stretch: stretch.from_ns))


def two_primaries(stretches: Sequence[Writable]) -> tuple[TwoPrimaries, ...]:
    """Return every pair of stretches of two servers that cannot have been one behind the other."""
    return tuple(
        TwoPrimaries(a, b)
        for a, b in combinations(sorted(stretches, key=lambda stretch: stretch.from_ns), 2)
        if a.server != b.server and a.from_ns <= b.until_ns and b.from_ns <= a.until_ns
    )


def seconds_of(pairs: Sequence[TwoPrimaries]) -> float:
    """Return for how long, in all, at least two servers certainly were writable; no moment counts twice."""
    total, reached = 0, 0
    for pair in sorted(pairs, key=lambda pair: pair.began_ns):
        began = max(pair.began_ns, reached)
        if pair.ended_ns > began:
            total += pair.ended_ns - began
            reached = pair.ended_ns
    return total / SECOND_NS


def _stretch(server: Acknowledger, together: Sequence[Attempt]) -> Writable:
    return Writable(
        server=server,
        from_ns=min(each.ended_ns for each in together),
        until_ns=max(each.sent_ns for each in together),
        first_sent_ns=together[0].sent_ns,
        last_ended_ns=max(each.ended_ns for each in together),
        acknowledged=len(together),
    )
