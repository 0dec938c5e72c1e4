"""May this be changed?

Whatever alters a target takes a `Permit` as an argument, so that there is no path around it: a procedure that was
given none cannot be called. Who grants one is decided where a run's settings are read, and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass

from runbook_lib.errors import Unproven


@dataclass(frozen=True)
class Permit:
    """The permission to alter one target, or the reason why there is none."""

    target: str
    """What may be altered, as the profile names it."""
    granted: bool
    """Whether it may."""
    reason: str
    """Why it was granted, or what to type to have it granted."""

    def require(self, act: str) -> None:
        """Return if the act is permitted.

        :param act: what is about to be done, as an infinitive: "add a backup to s3://..."

        Raise `Unproven` otherwise: what may not be done has not been proven, and has not failed either.
        """
        if not self.granted:
            raise Unproven(
                f"permission to {act}", where=self.target, why="this run may change nothing there", remedy=self.reason
            )
