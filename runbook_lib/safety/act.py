"""One thing that alters a target and can be taken back.

A compensation that is a closure dies with its process, which is exactly when it is needed. So an act is data: its kind
and its arguments are written to the journal before it is done, together with what was there before, and any later
process can build it again from that and take it back. Taking back begins with another look: what was never done, was
taken back already, or was changed by another hand since must not be "restored" blindly.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from runbook_lib.safety.systems import Systems

Before = Mapping[str, Any]
"""What was there before an act, as far as taking it back needs it: plain values that JSON keeps."""


@dataclass(frozen=True)
class Undoable(ABC):
    """One alteration of a target that can be taken back. Its fields are its arguments: plain values that JSON keeps."""

    kind: ClassVar[str]
    """What the journal calls it; never changed once released, for old journals must stay readable."""

    @abstractmethod
    def look(self, systems: Systems) -> Before:
        """Read what is there now, and what taking back will need. Changes nothing; raises where it cannot be done."""

    @abstractmethod
    def describe(self, before: Before) -> str:
        """Say what is done to what, as an infinitive: ``scale tensafe-api from 3 replicas to 0``."""

    @abstractmethod
    def describe_undoing(self, before: Before) -> str:
        """Say how it is taken back, as an infinitive: ``scale tensafe-api back to 3 replicas``."""

    @abstractmethod
    def undo(self, systems: Systems, before: Before) -> str:
        """Look again, take back what is still to be taken back, see that it is, and say what was found and done.

        It may be called twice, and for an act that was written down and never done.
        """

    @property
    def arguments(self) -> dict[str, Any]:
        """The fields by name, as the journal keeps them."""
        return asdict(self)


@dataclass(frozen=True)
class Act(Undoable):
    """One alteration of a target that is done in one go."""

    @abstractmethod
    def do(self, systems: Systems, before: Before) -> None:
        """Do it, and see that it is done: a claim of success is not enough."""
