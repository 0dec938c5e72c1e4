"""How a step proves something: by keeping what a check looked at, and asserting that it holds."""

from __future__ import annotations

from runbook_lib.evidence.collector import Evidence
from runbook_lib.outcome import Check


def prove(check: Check, evidence: Evidence) -> None:
    """Keep what a check looked at and found, and assert that it holds; raise `Unproven` where it could not look."""
    evidence.table(check.question, [{"outcome": check.outcome.value, "looked at": check.looked_at}])
    evidence.findings(check.findings)
    assert check.holds(), check.explain()
