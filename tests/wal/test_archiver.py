"""Archiving that works is silent; each way in which it does not is told, by its name."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from runbook_lib.outcome import Outcome
from runbook_lib.reach import postgres
from runbook_lib.reach.binaries import find
from runbook_lib.reach.postgres import Session
from runbook_lib.reach.server import FAST, PostgresServer
from runbook_lib.reach.workspace import Workspace
from runbook_lib.waiting import wait_for
from runbook_lib.wal.archiver import archiving_is_alive

ARCHIVING = {**FAST, "wal_level": "replica", "archive_mode": "on", "archive_command": "true", "shared_buffers": "32MB"}


@pytest.fixture(scope="module")
def archiving() -> Iterator[Session]:
    with Workspace.open() as workspace:
        server = PostgresServer.start(workspace, find(17), settings=ARCHIVING)
        with postgres.session(server.dsn(), read_only=False) as session:
            yield session
        server.stop()


@pytest.fixture
def session(archiving: Session) -> Session:
    """A server of whose archiver nothing is known yet."""
    set_command(archiving, "true")
    wait_until(archiving, "NOT EXISTS (SELECT FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready')")
    archiving.execute("SELECT pg_stat_reset_shared('archiver')")
    return archiving


def set_command(session: Session, command: str) -> None:
    session.execute(f"ALTER SYSTEM SET archive_command = '{command}'")
    session.execute("SELECT pg_reload_conf()")
    wait_until(session, f"current_setting('archive_command') = '{command}'")


def wait_until(session: Session, condition: str) -> None:
    wait_for(condition, lambda: session.value(f"SELECT {condition}"), where=session.dsn, within_seconds=60)


def archive_a_segment(session: Session) -> None:
    """Write something, and have its segment handed to archive_command."""
    session.execute("CREATE TABLE IF NOT EXISTS public.t (n int); INSERT INTO public.t VALUES (1)")
    session.execute("SELECT pg_switch_wal()")


def test_alive(session: Session) -> None:
    archive_a_segment(session)
    wait_until(session, "(SELECT archived_count > 0 FROM pg_stat_archiver)")
    check = archiving_is_alive(session, rpo_seconds=300)
    assert check.outcome is Outcome.PROVEN, check.explain()
    assert "last 0000000100000000" in check.looked_at


def test_the_last_segment_is_too_old(session: Session) -> None:
    archive_a_segment(session)
    wait_until(session, "(SELECT archived_count > 0 FROM pg_stat_archiver)")
    (found,) = archiving_is_alive(session, rpo_seconds=0).findings
    assert (found.check, found.outcome) == ("wal.archive_age", Outcome.FAILED)
    assert "the RPO is 0 s" in found.says


def test_failing(session: Session) -> None:
    set_command(session, "false")
    archive_a_segment(session)
    wait_until(session, "(SELECT failed_count > 0 FROM pg_stat_archiver)")
    (found,) = archiving_is_alive(session, rpo_seconds=300).findings
    assert (found.check, found.outcome) == ("wal.archiver", Outcome.FAILED)
    assert "failed last at" in found.says


def test_failed_once_and_works_again(session: Session) -> None:
    set_command(session, "false")
    archive_a_segment(session)
    wait_until(session, "(SELECT failed_count > 0 FROM pg_stat_archiver)")
    set_command(session, "true")
    archive_a_segment(session)
    wait_until(session, "(SELECT last_archived_time > last_failed_time FROM pg_stat_archiver)")
    assert archiving_is_alive(session, rpo_seconds=300).outcome is Outcome.PROVEN


def test_nothing_is_known_yet(session: Session) -> None:
    (found,) = archiving_is_alive(session, rpo_seconds=300).findings
    assert found.outcome is Outcome.UNPROVEN
    assert "pg_switch_wal()" in found.remedy


@pytest.mark.parametrize("level", ["replica", "minimal"])
def test_switched_off(level: str) -> None:
    with Workspace.open() as workspace:
        server = PostgresServer.start(workspace, find(17), settings={**FAST, "wal_level": level})
        with postgres.session(server.dsn()) as session:
            (found,) = archiving_is_alive(session, rpo_seconds=300).findings
        server.stop()
    assert (found.check, found.outcome) == ("wal.archive_mode", Outcome.FAILED)
    assert "archive_mode = off" in found.says


def test_what_waits_is_counted(session: Session) -> None:
    """A command that hangs fails never: only the line before it shows that nothing goes on."""
    archive_a_segment(session)
    wait_until(session, "(SELECT archived_count > 0 FROM pg_stat_archiver)")
    set_command(session, "false")
    archive_a_segment(session)
    wait_until(session, "EXISTS (SELECT FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready')")
    session.execute("SELECT pg_stat_reset_shared('archiver')")
    check = archiving_is_alive(session, rpo_seconds=300)
    assert "wal.waiting" not in {found.check for found in check.findings}
    assert re.search(r"1 wait, the first, [0-9A-F]{24}, for \d+ s", check.looked_at)
    (found,) = (found for found in archiving_is_alive(session, rpo_seconds=0).findings if found.check == "wal.waiting")
    assert found.outcome is Outcome.FAILED
    assert "to be archived" in found.says


def test_whoever_may_not_look_says_so(session: Session) -> None:
    archive_a_segment(session)
    wait_until(session, "(SELECT archived_count > 0 FROM pg_stat_archiver)")
    session.execute("CREATE ROLE nobody_special")
    session.execute("SET ROLE nobody_special")
    try:
        (found,) = archiving_is_alive(session, rpo_seconds=300).findings
    finally:
        session.execute("RESET ROLE")
        session.execute("DROP ROLE nobody_special")
    assert (found.check, found.outcome) == ("wal.waiting", Outcome.UNPROVEN)
    assert "pg_monitor" in found.remedy
