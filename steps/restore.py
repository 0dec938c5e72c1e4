"""Sentences about getting the living database back (runbook section 2)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pytest_bdd import given, parsers, then, when

from runbook_lib.backup import audit_chain, catalog
from runbook_lib.environment import Environment
from runbook_lib.evidence.collector import Evidence
from runbook_lib.phases import Stopwatch
from runbook_lib.restore.full_restore import FullRestore, PutBack, application_writes
from runbook_lib.restore.prediction import Prediction, Work, room_of
from runbook_lib.restore.restored import RestoredDatabase
from runbook_lib.restore.swap import KeptDatabase
from runbook_lib.safety.act import Before
from runbook_lib.safety.permit import Procedure
from steps.proof import predicted_of, prove, prove_prediction


@pytest.fixture
def full_restore(environment: Environment, backup: catalog.Backup) -> FullRestore:
    """What replacing the database by the backup consists of here."""
    return environment.full_restore(backup)


@pytest.fixture
def replacing(environment: Environment, full_restore: FullRestore) -> Iterator[Procedure]:
    """The procedure of replacing it; what is not kept is taken back at the scenario's end, whatever happens."""
    with environment.procedure("replace the database by a backup of it", full_restore.acts) as begun:
        yield begun


@pytest.fixture
def outage() -> Stopwatch:
    """How long nobody could write: it begins when a step asks for it first."""
    return Stopwatch()


@then("there is room for a copy of it")
def there_is_room(environment: Environment, backup: catalog.Backup, evidence: Evidence) -> None:
    prove(environment.room_for_a_copy(backup), evidence)


@then("its time and room are predicted", target_fixture="predicted")
def time_and_room_are_predicted(backup: catalog.Backup, evidence: Evidence) -> Prediction:
    return predicted_of(Work.of_full_restore(backup), evidence)


@when("it is restored beside the database", target_fixture="restored")
def it_is_restored_beside(
    replacing: Procedure,
    full_restore: FullRestore,
    backup: catalog.Backup,
    environment: Environment,
    evidence: Evidence,
) -> RestoredDatabase:
    replacing.do(full_restore.make)
    restored = environment.restore_beside(backup, full_restore.make.database, watch=evidence.watch)
    evidence.findings(restored.restored.findings)
    assert restored.restored.holds(), restored.restored.explain()
    return restored


@when("the application is out of service and the database is shut", target_fixture="fenced_before")
def nobody_writes(replacing: Procedure, full_restore: FullRestore, outage: Stopwatch) -> Before:
    with outage.phase("take the application out"):
        replacing.do(full_restore.application)
    with outage.phase("shut the database"):
        return replacing.do(full_restore.fence)


@when("it takes the database's place")
def it_takes_its_place(replacing: Procedure, full_restore: FullRestore, outage: Stopwatch) -> None:
    with outage.phase("swap"):
        replacing.do(full_restore.swap)
        replacing.keep(*full_restore.to_stay)
    with outage.phase("bring the application back"):
        problems = replacing.take_back()
    assert not problems, "\n".join(map(str, problems))


@then("the application answers writes")
def the_application_answers_writes(environment: Environment, evidence: Evidence) -> None:
    told = environment.settings.kubernetes.region("primary")
    with environment.database() as session, environment.kubernetes() as cluster:
        prove(application_writes(session, cluster, told.api_deployment, within_seconds=30), evidence)


@then("the database that it replaced is kept, and shut")
def what_it_replaced_is_kept(
    full_restore: FullRestore, fenced_before: Before, environment: Environment, evidence: Evidence
) -> None:
    with environment.beside_the_database() as session:
        prove(full_restore.replaced_is_kept(session, fenced_before["oid"]), evidence)


@then(parsers.parse("writes were refused for less than {minutes:d} minutes"))
def writes_were_refused_for(minutes: int, outage: Stopwatch, evidence: Evidence) -> None:
    seconds = max(phase.ended_seconds for phase in outage.phases)
    evidence.phases("writes were refused", outage.phases, target_seconds=minutes * 60)
    evidence.measured("writes_refused_seconds", round(seconds, 3))
    assert seconds < minutes * 60


@then("it took as long as predicted")
def it_took_as_long_as_predicted(
    predicted: Prediction, restored: RestoredDatabase, environment: Environment, evidence: Evidence
) -> None:
    with environment.database() as session:  # it has taken the database's place
        prove_prediction(predicted, restored.took_seconds, room_of(session), evidence)


@given("a database that was replaced", target_fixture="replaced")
def a_database_that_was_replaced(environment: Environment, evidence: Evidence) -> KeptDatabase:
    found = environment.replaced_last()
    evidence.text("the database that was replaced", f"{found.name}, kept until {found.until}")
    return found


@when("it is put back in its place")
def it_is_put_back(environment: Environment, replaced: KeptDatabase) -> None:
    acts: PutBack = environment.put_back(replaced)
    with environment.procedure("put a database back that was replaced", acts.acts) as procedure:
        for act in (acts.application, acts.fence, acts.swap):
            procedure.do(act)
        procedure.keep(*acts.to_stay)


@then("the audit chain of the database is unbroken")
def the_audit_chain_of_the_database(environment: Environment, evidence: Evidence) -> None:
    with environment.database() as session:
        prove(audit_chain.is_unbroken(session, exists=environment.settings.database.audit_log), evidence)


@then("the audit chain of the database leads on from the backup's")
def the_audit_chain_leads_on(environment: Environment, backup: catalog.Backup, evidence: Evidence) -> None:
    noted, exists = backup.audit_head, environment.settings.database.audit_log
    with environment.database() as session:
        prove(audit_chain.leads_on_from(session, noted, exists=exists), evidence)
