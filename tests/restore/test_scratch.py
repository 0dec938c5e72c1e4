"""A restore ends cleanly, whatever ends it: an error, a name that is taken, a dump that is not there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from runbook_lib.backup import dump
from runbook_lib.backup.catalog import Archive, Backup
from runbook_lib.errors import TargetRefused, Unproven
from runbook_lib.phases import Progress
from runbook_lib.reach import postgres
from runbook_lib.restore.scratch import Scratch, into_scratch
from runbook_lib.safety import ownership
from runbook_lib.safety.permit import Permit
from tests.backup import real

PERMIT = Permit("a test's own archive", granted=True, reason="the test made it")


@pytest.fixture(scope="module")
def archive() -> Iterator[Archive]:
    with real.bucket() as bucket:
        yield Archive(bucket)


@pytest.fixture(scope="module")
def backup(archive: Archive) -> Iterator[Backup]:
    """Of a database whose index takes as long to restore as anybody waits."""
    with real.databases() as databases:
        dsn = databases.make(
            "CREATE FUNCTION public.slow(n int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN"
            " IF current_database() = 'tensafe_verify' THEN PERFORM pg_sleep(1000); END IF; RETURN n; END $$",
            "CREATE TABLE public.t AS SELECT 1 AS n",
            "CREATE INDEX ON public.t (public.slow(n))",
        )
        yield dump.take(dsn, archive, permit=PERMIT, kind="daily").backup


def test_called_off_while_it_restores(archive: Archive, backup: Backup) -> None:
    def watch(progress: Progress) -> None:
        if progress.phase == "restore indexes":
            ours.execute("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX%'")

    with Scratch.open() as place, ExitStack() as stack:
        ours = stack.enter_context(postgres.session(place.server(17).dsn(), read_only=False))
        began = time.monotonic()
        restored = into_scratch(backup, "tensafe_verify", archive=archive, scratch=place, watch=watch)
        assert time.monotonic() - began < 300
        assert [found.says for found in restored.restored.findings] == [
            "ERROR:  canceling statement due to user request"
        ]
        assert list(place.workspace.folder("dump").iterdir()) == []


def test_a_name_that_is_taken_is_left_alone(archive: Archive, backup: Backup) -> None:
    with Scratch.open() as place:
        server = place.server(17)
        with postgres.session(server.dsn(), read_only=False) as session:
            session.execute("CREATE DATABASE tensafe_verify")
            with pytest.raises(TargetRefused, match="it bears no mark of ours"):
                into_scratch(backup, "tensafe_verify", archive=archive, scratch=place)
            assert ownership.exists(session, "tensafe_verify")
        assert list(place.workspace.folder("dump").iterdir()) == []


def test_left_over_by_a_drill_that_died(archive: Archive, backup: Backup) -> None:
    with Scratch.open() as place:
        with postgres.session(place.server(17).dsn(), read_only=False) as session:
            session.execute("CREATE DATABASE elsewhere")
            ownership.mark(session, "elsewhere", "tensafe-dead")
        restored = into_scratch(backup, "elsewhere", archive=archive, scratch=place)
        assert restored.restored.holds()
        assert restored.remove()
        assert restored.is_gone


def test_a_dump_that_is_not_there(archive: Archive, backup: Backup) -> None:
    with real.bucket() as empty, Scratch.open() as place:
        gone = Archive(empty)
        with pytest.raises(Unproven):
            into_scratch(backup, "x", archive=gone, scratch=place)
        assert list(place.workspace.folder("dump").iterdir()) == []
