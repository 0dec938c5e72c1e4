"""What a cluster's server can be told to do wrong, so that whoever talks to it can be seen to notice."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """One way of going wrong."""

    SLOW = "slow"
    """The answer comes after ``seconds``."""
    DRIP = "drip"
    """The answer begins at once, and goes on a byte every tenth of a second for ``seconds``."""
    GARBAGE = "garbage"
    """200, and a page of HTML, as a wrongly set proxy answers."""
    STATUS = "status"
    """The answer is ``status``, with ``retry_after`` where that is not 0."""
    FORBID = "forbid"
    """The permission is missing: 403, and access reviews say so too."""
    CONFLICT = "conflict"
    """409 to a write, because something else wrote a moment earlier; nothing but the version changes."""
    OTHER_HAND = "other hand"
    """Somebody else scales the deployment to ``value`` a moment before the request is looked at."""
    ANSWER_LOST = "answer lost"
    """The request is obeyed, and answered with 503."""
    CUT = "cut"
    """The connection is closed without an answer; of a stream, after ``bytes`` of output."""
    NO_STATUS = "no status"
    """A command's stream is closed in good order, without saying how the command ended."""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong, for the requests that it is meant for."""

    kind: Kind
    """What goes wrong."""
    verb: str = "*"
    """``get``, ``list``, ``watch``, ``create``, ``update``, ``patch``, ``delete``; ``*`` for all."""
    resource: str = "*"
    """In the plural, with its subresource: ``deployments/scale``; ``version`` for that; ``*`` for all."""
    times: int = -1
    """How many requests it is for; for all where it is negative."""
    seconds: float = 0.0
    """See `Kind`."""
    status: int = 0
    """See `Kind`."""
    retry_after: int = 0
    """In seconds; see `Kind`."""
    value: int = 0
    """See `Kind`."""
    bytes: int = 0
    """See `Kind`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", Kind(self.kind))

    def means(self, verb: str, resource: str) -> bool:
        """Say whether it is meant for such a request."""
        return self.verb in {"*", verb} and self.resource in {"*", resource}


class Faults:
    """The faults that are set."""

    def __init__(self) -> None:
        self._left: list[tuple[Fault, int]] = []

    def set(self, fault: Fault) -> None:
        """Set one more."""
        self._left.append((fault, fault.times))

    def clear(self) -> None:
        """Let all go well again."""
        self._left.clear()

    def take(self, verb: str, resource: str, *kinds: Kind) -> Fault | None:
        """Return the first fault of these kinds that is meant for such a request, and count it as used."""
        for index, (fault, times) in enumerate(self._left):
            if times != 0 and fault.kind in kinds and fault.means(verb, resource):
                self._left[index] = (fault, times - 1)
                return fault
        return None

    def forbids(self, verb: str, resource: str) -> bool:
        """Say whether a permission is missing; asking does not use it up."""
        return any(
            times != 0 and fault.kind is Kind.FORBID and fault.means(verb, resource) for fault, times in self._left
        )
