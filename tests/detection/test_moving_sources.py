"""The source lives on while it is dumped: that is no fault of the backup, and what could not be compared is named."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from runbook_lib.backup import dump
from runbook_lib.backup.catalog import Archive, Backup
from runbook_lib.outcome import Finding, Outcome
from runbook_lib.phases import Progress
from runbook_lib.reach import postgres
from runbook_lib.restore.restored import RestoredDatabase
from runbook_lib.waiting import wait_for
from tests.detection import small
from tests.detection.place import PERMIT, Place


@contextmanager
def writing(dsn: str, statement: str) -> Iterator[None]:
    """Execute a statement again and again, from before the block until after it."""
    over = threading.Event()
    done = 0
    failed: list[BaseException] = []

    def write() -> None:
        nonlocal done
        try:
            with postgres.session(dsn, read_only=False) as session:
                while not over.is_set():
                    session.execute(statement)
                    done += 1
        except BaseException as error:  # noqa: BLE001  (shown to the test, which runs in another thread)
            failed.append(error)

    def more_than(count: int) -> None:
        wait_for("the writer", lambda: failed or done > count, where="the source", within_seconds=20)

    thread = threading.Thread(target=write, name="writer")
    thread.start()
    try:
        more_than(10)
        yield
        more_than(done + 10)
    finally:
        over.set()
        thread.join(timeout=20)
    assert not failed


def found(restored: RestoredDatabase) -> list[Finding]:
    findings = [*restored.restored.findings, *(f for check in restored.compare().checks for f in check.findings)]
    restored.remove()
    return findings


_SESSIONS = "SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE application_name = 'runbook/backup'"


def taken_while(place: Place, dsn: str, archive: Archive, *statements: str) -> Backup:
    """Take a backup; when its inventory is complete and pg_dump still at work, execute statements on the source."""
    left = list(statements)

    def meanwhile(progress: Progress) -> None:
        if progress.phase == "dump" and left:
            with postgres.session(dsn, read_only=False) as session:
                wait_for(
                    "the inventory to be complete",
                    lambda: session.value(_SESSIONS),
                    where="the source",
                    within_seconds=20,
                    until=lambda sessions: sessions == 1,  # the one that holds the snapshot
                )
                while left:
                    session.execute(left.pop(0))

    backup = dump.take(dsn, archive, permit=PERMIT, watch=meanwhile).backup
    assert not left
    return backup


def test_sequences_that_move(place: Place) -> None:
    dsn, archive = small.ledger(place, "counting"), place.archive("counting")
    with writing(dsn, "SELECT pg_catalog.nextval('public.ledger_id_seq')"):
        backup = dump.take(dsn, archive, permit=PERMIT).backup
    assert backup.manifest is not None
    assert backup.manifest.inventory.sequences != backup.manifest.sequences_after
    assert found(place.restore(backup, archive)) == []


def test_rows_that_are_written(place: Place) -> None:
    dsn, archive = small.ledger(place, "growing"), place.archive("growing")
    with (
        writing(dsn, "INSERT INTO public.ledger (says, amount) VALUES ('meanwhile', 1)"),
        writing(dsn, "UPDATE public.holders SET name = name || '.' WHERE id = 7"),
        writing(dsn, "DELETE FROM public.ledger WHERE id = (SELECT min(id) FROM public.ledger)"),
    ):
        backup = dump.take(dsn, archive, permit=PERMIT).backup
    assert found(place.restore(backup, archive)) == []


def test_definitions_that_change(place: Place) -> None:
    dsn, archive = small.ledger(place, "changing"), place.archive("changing")
    backup = taken_while(
        place, dsn, archive,
        "CREATE OR REPLACE FUNCTION public.twice(integer) RETURNS integer LANGUAGE sql AS 'SELECT $1 + $1'",
        "CREATE FUNCTION public.thrice(integer) RETURNS integer LANGUAGE sql AS 'SELECT 3 * $1'",
    )  # fmt: skip
    assert backup.manifest is not None
    assert {each.name for each in backup.manifest.changed_meanwhile} >= {
        "public.twice(integer)",
        "public.thrice(integer)",
    }
    findings = found(place.restore(backup, archive))
    assert {finding.outcome for finding in findings} <= {Outcome.UNPROVEN}, [str(finding) for finding in findings]


def test_an_invalid_unique_index_is_a_finding_about_the_source(place: Place) -> None:
    archive = place.archive("invalid")
    dsn = small.ledger(place, "invalid_index", "CREATE UNIQUE INDEX holders_by_name ON holders (name)")
    assert dump.source_is_dumped_whole(dump.take(dsn, archive, permit=PERMIT, kind="before").backup).holds()
    with postgres.session(dsn, read_only=False, settings={"allow_system_table_mods": "on"}) as session:
        session.execute(
            "UPDATE pg_catalog.pg_index SET indisvalid = false WHERE indexrelid = 'public.holders_by_name'::regclass"
        )
    backup = dump.take(dsn, archive, permit=PERMIT).backup
    check = dump.source_is_dumped_whole(backup)
    assert [(f.check, f.subject) for f in check.findings] == [("source.invalid_index", "public.holders_by_name")]
    findings = found(place.restore(backup, archive))
    assert [(f.check, f.subject) for f in findings] == [("catalog.index", "public.holders_by_name")]
