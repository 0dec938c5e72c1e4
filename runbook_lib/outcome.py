"""The three things a check can say, and nothing else.

A restore drill that could not look has proven nothing, and an exit code of 0 is only a claim. So every check of this
project ends as *proven* (looked, and it holds), *failed* (looked, and it does not hold) or *unproven* (could not
look). Two of them alone would force "could not look" into one of the others, and it always ends up as a pass.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from runbook_lib.errors import Unproven


class Outcome(Enum):
    """What a check found out."""

    PROVEN = "proven"
    """It was checked and holds."""
    FAILED = "failed"
    """It was checked and does not hold."""
    UNPROVEN = "unproven"
    """It could not be checked: a tool, a permission, an extension or a precondition is missing."""

    @classmethod
    def worst(cls, outcomes: Iterable[Outcome]) -> Outcome:
        """Return the one outcome of many: a failure outweighs an unproven check, which outweighs any proof.

        Nothing at all is unproven: an empty list of checks has proven nothing.
        """
        found = set(outcomes)
        if cls.FAILED in found:
            return cls.FAILED
        if cls.UNPROVEN in found or not found:
            return cls.UNPROVEN
        return cls.PROVEN


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or one thing that could not be looked at."""

    check: str
    """The stable name of the check that speaks, such as ``content.rows`` or ``grants.table``."""
    subject: str
    """What it speaks of, as a person would type it: ``public.training_clients``."""
    says: str
    """One readable line: what was expected and what was found."""
    outcome: Outcome = Outcome.FAILED
    """FAILED for a fault, UNPROVEN for something that could not be checked. Never PROVEN."""
    remedy: str = ""
    """What to do about it, with the reader's own names in it; empty where nothing general can be said."""

    def __str__(self) -> str:
        """Return the finding as one line, ``check subject: says``."""
        return f"{self.check} {self.subject}: {self.says}"


@dataclass(frozen=True)
class Check:
    """One question that was asked, and everything that speaks against it."""

    question: str
    """What was asked, as a statement that holds or does not: ``row counts match``."""
    where: str
    """What it was asked of."""
    looked_at: str
    """What was looked at to answer it: ``23 tables, 214271 rows``."""
    findings: tuple[Finding, ...] = ()
    """What was found, faults and what could not be checked; nothing where it holds."""

    @property
    def outcome(self) -> Outcome:
        """Proven, failed or unproven."""
        return Outcome.worst([finding.outcome for finding in self.findings] or [Outcome.PROVEN])

    def holds(self) -> bool:
        """Return whether it was checked and holds; raise `Unproven` if that could not be checked."""
        if self.outcome is Outcome.UNPROVEN:
            raise Unproven(
                self.question, where=self.where, why=self._listed(), remedy=next(f.remedy for f in self.findings)
            )
        return self.outcome is Outcome.PROVEN

    def explain(self) -> str:
        """Return what was asked, what was looked at and every finding, a line each."""
        return f"{self.question}: {self.outcome.value} of {self.where} ({self.looked_at})\n{self._listed()}"

    def _listed(self, at_most: int = 25) -> str:
        lines = [f"  {finding}" for finding in self.findings[:at_most]]
        if len(self.findings) > at_most:
            lines.append(f"  ... and {len(self.findings) - at_most} more")
        return "\n".join(lines)
