"""One way in which a restored database can be wrong, as data.

A catalogue of these is what the comparison is held against: each must be found by name, and nothing may be found
beside it that it does not explain. The twin that nothing was done to must give no finding at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from runbook_lib.outcome import Finding, Outcome


@dataclass(frozen=True)
class Mutation:
    """One thing done to a copy of a restored database."""

    name: str
    """What was done, as a reader of the report would say it."""
    row: int
    """Its row in the catalogue of bad backups."""
    sql: str
    """How it is done; ``{database}`` stands for the copy's name."""
    finds: tuple[str, ...]
    """What must be found, each as ``check subject``; a star stands for anything."""
    also: tuple[str, ...] = ()
    """What may be found besides, because the same act causes it."""
    undo: str = ""
    """How it is undone, where it outlives the copy: roles belong to the cluster."""
    outcome: Outcome = Outcome.FAILED
    """What the findings must amount to."""

    def missed(self, findings: Iterable[Finding]) -> list[str]:
        """Return what should have been found, and was not."""
        found = [_named(finding) for finding in findings if finding.outcome is self.outcome]
        return [wanted for wanted in self.finds if not any(fnmatchcase(name, wanted) for name in found)]

    def explains(self, finding: Finding) -> bool:
        """Return whether what was found comes from what was done."""
        return any(fnmatchcase(_named(finding), known) for known in (*self.finds, *self.also))


def mutation(
    row: int,
    name: str,
    sql: str,
    *finds: str,
    also: Iterable[str] = (),
    undo: str = "",
    outcome: Outcome = Outcome.FAILED,
) -> Mutation:
    """Write a mutation down in one line of a catalogue."""
    return Mutation(name, row, sql, finds, tuple(also), undo, outcome)


def _named(finding: Finding) -> str:
    return f"{finding.check} {finding.subject}"
