"""Sentences about getting rows of one table back (runbook section 2.3)."""

from __future__ import annotations

from pytest_bdd import given, parsers, then, when

from runbook_lib.backup import catalog
from runbook_lib.backup.content import Content
from runbook_lib.environment import Environment
from runbook_lib.evidence.collector import Evidence
from runbook_lib.restore import scratch
from runbook_lib.restore.merge import TakeMergeBack
from runbook_lib.restore.prediction import Prediction, Work, room_of
from runbook_lib.restore.restored import HeldTable
from runbook_lib.restore.staging import Mark
from runbook_lib.restore.table import DoneMerge, is_as_it_was
from runbook_lib.restore.table_backup import RestoredTable
from steps.proof import predicted_of, prove, prove_prediction


@then(parsers.parse("the time and room that {table} takes are predicted"), target_fixture="predicted")
def time_and_room_of_a_table_are_predicted(
    table: str, backup: catalog.Backup, environment: Environment, evidence: Evidence
) -> Prediction:
    return predicted_of(Work.of_table_restore(environment.table_backup(backup, table)), evidence)


@when(parsers.parse("{table} is restored from it to scratch"), target_fixture="restored_table")
def it_is_restored_to_scratch(
    table: str, backup: catalog.Backup, place: scratch.Scratch, environment: Environment, evidence: Evidence
) -> RestoredTable:
    held = environment.table_backup(backup, table)
    restored = environment.restore_table_into_scratch(held, "tensafe_table", place, watch=evidence.watch)
    prove(restored.database.restored, evidence)
    return restored


@then("it is what its manifest says")
def it_is_what_its_manifest_says(restored_table: RestoredTable, environment: Environment, evidence: Evidence) -> None:
    for check in restored_table.compare(workers=environment.settings.restore.jobs, watch=evidence.watch).checks:
        prove(check, evidence)


@when("the rows that are missing are merged into the living table", target_fixture="done")
def missing_rows_are_merged(restored_table: HeldTable, environment: Environment, evidence: Evidence) -> DoneMerge:
    found = environment.review(restored_table)
    evidence.text("the living table beside the backup", str(found))
    done = environment.merge(found, restored_table)
    evidence.text("the merge", str(done.merged))
    return done


@then("no row of the backup is missing")
def no_row_is_missing(restored_table: HeldTable, environment: Environment, evidence: Evidence) -> None:
    prove(environment.review(restored_table).nothing_is_missing, evidence)
    evidence.phases("restoring the table", restored_table.database.phases)


@then("every foreign key holds")
def every_foreign_key_holds(done: DoneMerge, environment: Environment, evidence: Evidence) -> None:
    prove(environment.foreign_keys_hold(done.mark.table), evidence)


@then("the table is still the same one")
def the_table_is_the_same(done: DoneMerge, environment: Environment, evidence: Evidence) -> None:
    with environment.database() as session:
        prove(done.table_is_the_same(session), evidence)


@then("the table took as long as predicted")
def the_table_took_as_long_as_predicted(
    predicted: Prediction, restored_table: RestoredTable, evidence: Evidence
) -> None:
    with restored_table.database.session() as session:
        prove_prediction(predicted, restored_table.database.took_seconds, room_of(session), evidence)


@given("a table that rows were merged into", target_fixture="mark")
def a_table_that_was_merged(environment: Environment, evidence: Evidence) -> Mark:
    mark = environment.merged_last()
    evidence.text("the merge", f"{mark.table} at {mark.at}, kept until {mark.until}: {dict(mark.merged)}")
    return mark


@when("the merge is taken back", target_fixture="expected_content")
def the_merge_is_taken_back(mark: Mark, environment: Environment) -> Content:
    return environment.take_merge_back(mark)


@then("the table is as it was before the merge")
def the_table_is_as_it_was(mark: Mark, expected_content: Content, environment: Environment, evidence: Evidence) -> None:
    with environment.database() as session:
        prove(is_as_it_was(session, TakeMergeBack.of(mark), expected_content), evidence)


@then("every foreign key of it holds")
def every_foreign_key_of_it_holds(mark: Mark, environment: Environment, evidence: Evidence) -> None:
    prove(environment.foreign_keys_hold(mark.table), evidence)
