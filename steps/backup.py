"""Sentences about taking backups, finding them, and proving them by a restore (runbook sections 1.1 to 1.3)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pytest_bdd import given, parsers, then, when

from runbook_lib.backup import audit_chain, catalog, comparison, dump, retention, sequences
from runbook_lib.environment import Environment
from runbook_lib.evidence.collector import Evidence
from runbook_lib.gherkin.tables import records
from runbook_lib.restore import scratch
from runbook_lib.restore.restored import RestoredDatabase
from runbook_lib.wal import archiver
from steps.proof import prove


@pytest.fixture
def place(environment: Environment) -> Iterator[scratch.Scratch]:
    """A private place to restore to, gone at the end of the scenario."""
    with environment.scratch() as opened:
        yield opened


@pytest.fixture
def compared(restored: RestoredDatabase, environment: Environment, evidence: Evidence) -> comparison.Comparison:
    """The restored database beside what its backup is said to hold."""
    found = restored.compare(workers=environment.settings.restore.jobs, watch=evidence.watch)
    evidence.findings(found.findings)
    return found


@given("last night's backup", target_fixture="backup")
def last_nights_backup(environment: Environment, evidence: Evidence) -> catalog.Backup:
    found = environment.last_nights_backup()
    evidence.text("the backup", str(found))
    return found


@given(parsers.parse("the newest backup that others put into {folder}"), target_fixture="backup")
def newest_backup_of_others(environment: Environment, folder: str, evidence: Evidence) -> catalog.Backup:
    found = environment.archive.newest(
        since=environment.settings.backups.schedule.last_due(environment.now), kind=folder
    )
    evidence.text("the backup", str(found))
    return found


@given("the daily backups", target_fixture="listing")
def daily_backups(environment: Environment) -> catalog.Listing:
    return environment.archive.listing("daily")


@given("the database", target_fixture="identity")
def the_database(environment: Environment) -> object:
    return environment.identity()


@when("a manual backup is taken", target_fixture="backup")
def manual_backup(environment: Environment, evidence: Evidence) -> catalog.Backup:
    taken = environment.take_backup("manual", watch=evidence.watch)
    evidence.phases("taking the backup", taken.phases)
    return taken.backup


@when("a backup of these tables is taken:", target_fixture="backup")
def backup_of_tables(environment: Environment, evidence: Evidence, datatable: list[list[str]]) -> catalog.Backup:
    tables = [row["table"] for row in records(datatable)]
    taken = environment.take_backup("tables", tables=tables, watch=evidence.watch)
    evidence.phases("taking the backup", taken.phases)
    return taken.backup


@when(parsers.parse("restored to {name}"), target_fixture="restored")
def restored_to(
    name: str, backup: catalog.Backup, place: scratch.Scratch, environment: Environment, evidence: Evidence
) -> RestoredDatabase:
    restored = environment.restore_into_scratch(backup, name, place, watch=evidence.watch)
    evidence.findings(restored.restored.findings)
    assert restored.restored.holds(), restored.restored.explain()
    return restored


@then("it is whole")
def it_is_whole(environment: Environment, backup: catalog.Backup, evidence: Evidence) -> None:
    prove(retention.is_whole(environment.archive, backup), evidence)


@then("it is of this database")
def it_is_of_this_database(environment: Environment, backup: catalog.Backup, evidence: Evidence) -> None:
    prove(retention.is_of(backup, environment.identity()), evidence)


@then("it is of its usual size")
def it_is_of_its_usual_size(environment: Environment, backup: catalog.Backup, evidence: Evidence) -> None:
    prove(retention.is_of_usual_size(backup, environment.archive.listing("daily")), evidence)


@then(parsers.parse("each of the last {days:d} nights has one"))
def each_night_has_one(environment: Environment, listing: catalog.Listing, days: int, evidence: Evidence) -> None:
    schedule, where = environment.settings.backups.schedule, environment.archive.where
    prove(retention.every_night_has_one(listing, schedule, environment.now, days=days, where=where), evidence)


@then("none was overwritten or removed")
def none_was_overwritten(environment: Environment, listing: catalog.Listing, evidence: Evidence) -> None:
    prove(retention.nothing_was_overwritten(environment.archive, listing), evidence)


@then("WAL archiving is alive")
def wal_archiving_is_alive(environment: Environment, evidence: Evidence) -> None:
    with environment.database() as session:
        check = archiver.archiving_is_alive(session, rpo_seconds=environment.settings.archiving.rpo_seconds)
    prove(check, evidence)


@then("it is in the archive with its manifest")
def it_is_in_the_archive(environment: Environment, backup: catalog.Backup) -> None:
    kept = environment.archive.read_again(backup)
    assert kept.manifest == backup.manifest


@then("the source hides nothing from it")
def the_source_hides_nothing(backup: catalog.Backup, evidence: Evidence) -> None:
    prove(dump.source_is_dumped_whole(backup), evidence)


@then("it says what it cannot bring back alone")
def it_says_what_is_missing(backup: catalog.Backup, evidence: Evidence) -> None:
    assert backup.manifest is not None
    evidence.table(
        "foreign keys to tables that are not in it", [{"foreign key": n} for n in backup.manifest.open_references]
    )
    assert backup.manifest.open_references


@then("row counts match")
def row_counts_match(compared: comparison.Comparison, evidence: Evidence) -> None:
    prove(compared.rows, evidence)


@then("contents match")
def contents_match(compared: comparison.Comparison, evidence: Evidence) -> None:
    prove(compared.contents, evidence)


@then("the catalog matches")
def the_catalog_matches(compared: comparison.Comparison, evidence: Evidence) -> None:
    prove(compared.catalog, evidence)


@then("sequences will not collide")
def sequences_will_not_collide(compared: comparison.Comparison, restored: RestoredDatabase, evidence: Evidence) -> None:
    prove(compared.sequences, evidence)
    with restored.session() as session:
        prove(sequences.will_not_collide(session), evidence)


@then("the audit chain is unbroken")
def the_audit_chain_is_unbroken(restored: RestoredDatabase, environment: Environment, evidence: Evidence) -> None:
    with restored.session() as session:
        prove(audit_chain.is_unbroken(session, exists=environment.settings.database.audit_log), evidence)


@then("the audit chain ends where it ended when the backup was taken")
def the_audit_chain_ends_there(
    restored: RestoredDatabase, backup: catalog.Backup, environment: Environment, evidence: Evidence
) -> None:
    noted, exists = backup.audit_head, environment.settings.database.audit_log
    with restored.session() as session:
        prove(audit_chain.ends_where_noted(session, noted, exists=exists), evidence)


@then("heap and indexes are sound")
def heap_and_indexes_are_sound(restored: RestoredDatabase, evidence: Evidence) -> None:
    prove(restored.integrity(watch=evidence.watch), evidence)


@then("heap and indexes are sound in depth")
def heap_and_indexes_are_sound_in_depth(restored: RestoredDatabase, evidence: Evidence) -> None:
    prove(restored.integrity(deep=True, watch=evidence.watch), evidence)


@then("the restore was within its time budget")
def the_restore_was_within_its_budget(restored: RestoredDatabase, environment: Environment, evidence: Evidence) -> None:
    evidence.measured("rto_seconds", round(restored.rto_seconds, 3))
    evidence.measured("rto_target_seconds", environment.settings.restore.rto_target_seconds)
    assert restored.rto_seconds <= environment.settings.restore.rto_target_seconds


@then("it holds tables with rows")
def it_holds_tables_with_rows(restored: RestoredDatabase, compared: comparison.Comparison, evidence: Evidence) -> None:
    found = restored.inventory()
    evidence.table("what came back", [{"table": each.table, "rows": each.rows} for each in found.tables])
    evidence.findings(compared.findings)
    assert found.rows > 0


@then("no sequence collides")
def no_sequence_collides(restored: RestoredDatabase, evidence: Evidence) -> None:
    with restored.session() as session:
        prove(sequences.will_not_collide(session), evidence)


@then(parsers.parse("{name} is gone afterwards"))
def it_is_gone_afterwards(name: str, restored: RestoredDatabase, environment: Environment, evidence: Evidence) -> None:
    assert restored.name == name
    restored.remove()
    budget = environment.settings.restore
    evidence.phases("the drill", restored.phases, **budget.limits)
    assert restored.is_gone
