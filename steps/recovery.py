"""Sentences about recovering the cluster to a moment (runbook section 2.2)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from pytest_bdd import given, parsers, then, when

from runbook_lib.backup import audit_chain
from runbook_lib.environment import Environment
from runbook_lib.evidence.collector import Evidence
from runbook_lib.restore import integrity, recovered_audit, scratch
from runbook_lib.restore.point_in_time import RecoveredDatabase, RecoveredTable, Recovery
from runbook_lib.restore.prediction import Prediction
from runbook_lib.restore.recovery_plan import RecoveryPlan
from steps.proof import predicted_of, prove, prove_prediction


@pytest.fixture
def recovering() -> Iterator[ExitStack]:
    """What holds the recovered instance; at the scenario's end it is gone."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def recovered(recovery: Recovery, environment: Environment) -> RecoveredDatabase:
    """This database, as it was at the moment."""
    return environment.recovered_database(recovery)


@given("a moment that can be recovered", target_fixture="plan")
def a_moment_that_can_be_recovered(
    moment: tuple[str, int | None], place: scratch.Scratch, environment: Environment, evidence: Evidence
) -> RecoveryPlan:
    plan = environment.recovery_plan(moment[0], place, timeline=moment[1])
    evidence.text("the recovery", str(plan))
    return plan


@then("what its recovery takes is predicted", target_fixture="predicted")
def time_and_room_of_a_recovery_are_predicted(plan: RecoveryPlan, evidence: Evidence) -> Prediction:
    return predicted_of(plan.work, evidence)


@when("the cluster is recovered to it", target_fixture="recovery")
def the_cluster_is_recovered_to_it(
    plan: RecoveryPlan, place: scratch.Scratch, recovering: ExitStack, environment: Environment, evidence: Evidence
) -> Recovery:
    return recovering.enter_context(environment.recover_to(plan, place, watch=evidence.watch))


@then("it pauses exactly there")
def it_pauses_exactly_there(recovery: Recovery, evidence: Evidence) -> None:
    prove(recovery.is_paused(), evidence)
    prove(recovery.stopped_where_planned(), evidence)


@then("it archives nothing and listens to nobody")
def it_is_apart(recovery: Recovery, evidence: Evidence) -> None:
    prove(recovery.is_apart(), evidence)


@then("the recovered audit chain is unbroken")
def the_recovered_audit_chain(recovered: RecoveredDatabase, environment: Environment, evidence: Evidence) -> None:
    with recovered.session() as session:
        prove(audit_chain.is_unbroken(session, exists=environment.settings.database.audit_log), evidence)


@then("it ends where it ended at that moment")
def it_ends_where_it_ended(
    recovery: Recovery, recovered: RecoveredDatabase, environment: Environment, evidence: Evidence
) -> None:
    exists = environment.settings.database.audit_log
    with environment.database() as living:
        prove(recovered_audit.ends_at_the_moment(recovery, recovered, living, exists=exists), evidence)


@when("it is promoted")
def it_is_promoted(recovery: Recovery) -> None:
    recovery.promote()


@then("it takes writes on a timeline of its own")
def it_takes_writes(recovery: Recovery, evidence: Evidence) -> None:
    prove(recovery.is_promoted(), evidence)


@then("the recovered heap and indexes are sound")
def recovered_heap_and_indexes_are_sound(recovered: RecoveredDatabase, evidence: Evidence) -> None:
    with recovered.stopwatch.phase("amcheck"):
        check = integrity.heap_and_indexes_are_sound(recovered.dsn, watch=evidence.watch)
    prove(check, evidence)


@then("the recovery took as long as predicted")
def the_recovery_took_as_long_as_predicted(predicted: Prediction, recovery: Recovery, evidence: Evidence) -> None:
    evidence.phases("the recovery", recovery.phases)
    prove_prediction(predicted, recovery.recovered_seconds, recovery.room_bytes, evidence)


@then("nothing is left of the recovered instance")
def it_is_gone(recovery: Recovery, recovering: ExitStack) -> None:
    recovering.close()
    assert recovery.is_gone


@when(parsers.parse("{table} is taken from it"), target_fixture="restored_table")
def a_table_is_taken_from_it(table: str, recovery: Recovery, environment: Environment) -> RecoveredTable:
    return environment.recovered_table(recovery, table)
