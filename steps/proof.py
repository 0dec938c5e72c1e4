"""How a step proves something: by keeping what a check looked at, and asserting that it holds."""

from __future__ import annotations

from runbook_lib.evidence.collector import Evidence
from runbook_lib.outcome import Check
from runbook_lib.restore.prediction import Prediction, Work, predict


def prove(check: Check, evidence: Evidence) -> None:
    """Keep what a check looked at and found, and assert that it holds; raise `Unproven` where it could not look."""
    evidence.table(check.question, [{"outcome": check.outcome.value, "looked at": check.looked_at}])
    evidence.findings(check.findings)
    assert check.holds(), check.explain()


def predicted_of(work: Work, evidence: Evidence) -> Prediction:
    """Predict what a restore will take from what earlier ones took here, and keep that it was said beforehand."""
    found = predict(work, evidence.earlier_runs(work.measure))
    evidence.text("what it will take", str(found))
    return found


def prove_prediction(predicted: Prediction, seconds: float, room_bytes: int, evidence: Evidence) -> None:
    """Keep what a restore took, for later predictions, and assert that it was predicted."""
    for name, value in predicted.measures(seconds=seconds, room_bytes=room_bytes).items():
        evidence.measured(name, value)
    prove(predicted.compare(seconds=seconds, room_bytes=room_bytes, where=predicted.work.of), evidence)
