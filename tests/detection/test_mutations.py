"""Every mutation of a restored database is found by name, with nothing beside it; an untouched twin is silent."""

from __future__ import annotations

import pytest

from runbook_lib.backup import dump
from runbook_lib.restore import integrity
from runbook_lib.restore.restored import RestoredDatabase
from tests.detection import catalogue, small
from tests.detection.catalogue import Batch
from tests.detection.place import PERMIT, Place, findings_of, mutated, twin
from tests.detection.scoreboard import Scoreboard


@pytest.mark.parametrize("batch", [pytest.param(b, id=f"{n}") for n, b in enumerate(catalogue.batches())])
def test_what_was_done_is_found_and_nothing_else(
    batch: Batch, restored: RestoredDatabase, scoreboard: Scoreboard
) -> None:
    with twin(restored, "twin") as copy, mutated(copy, batch):
        findings = findings_of(copy)

    missed = {mutation.name: lacks for mutation in batch if (lacks := mutation.missed(findings))}
    unexplained = [finding for finding in findings if not any(mutation.explains(finding) for mutation in batch)]
    scoreboard.healthy_twins += not batch
    scoreboard.mutations += len(batch)
    scoreboard.found += len(batch) - len(missed)
    scoreboard.false_alarms += len(unexplained)
    assert not missed, [str(finding) for finding in findings]
    assert not unexplained, (catalogue.name_of(batch), [str(finding) for finding in unexplained])


def test_a_comparison_leaves_the_copy_as_it_was(restored: RestoredDatabase) -> None:
    with twin(restored, "twin") as copy, mutated(copy, ()):
        assert findings_of(copy) == []
        assert findings_of(copy) == []


def test_a_source_that_brought_its_own_amcheck_along(place: Place) -> None:
    archive = place.archive("amcheck")
    dsn = small.ledger(place, "checked", "CREATE EXTENSION amcheck SCHEMA public")
    restored = place.restore(dump.take(dsn, archive, permit=PERMIT).backup, archive)
    assert findings_of(restored, has_audit_log=False) == []
    assert integrity.heap_and_indexes_are_sound(restored.dsn, deep=True).holds()
    assert findings_of(restored, has_audit_log=False) == []
    restored.remove()


def test_no_two_mutations_have_one_name() -> None:
    names = [mutation.name for mutation in catalogue.MUTATIONS]
    assert len(names) == len(set(names))
