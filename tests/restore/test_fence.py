"""Nobody gets into a fenced database, nobody is left in it, and the door is afterwards as it was found."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from runbook_lib.errors import Denied, NotFound, WaitTimedOut
from runbook_lib.reach import postgres
from runbook_lib.reach.binaries import find
from runbook_lib.reach.server import FAST, PostgresServer
from runbook_lib.reach.workspace import Workspace
from runbook_lib.restore.fence import FenceDatabase
from runbook_lib.safety.permit import Permit
from runbook_lib.safety.systems import Systems
from runbook_lib.waiting import wait_for

PERMIT = Permit("here", granted=True, reason="a test")


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    settings = {**FAST, "shared_buffers": "32MB", "max_prepared_transactions": "4"}
    with Workspace.open() as workspace:
        started = PostgresServer.start(workspace, find(17), settings=settings)
        with postgres.session(started.dsn(), read_only=False) as session:
            session.execute("CREATE ROLE clerk LOGIN")
            session.execute("CREATE ROLE owner_only LOGIN")
            session.execute("CREATE ROLE fencer LOGIN IN ROLE owner_only, pg_signal_backend")
        yield started
        started.stop()


@pytest.fixture
def systems(server: PostgresServer) -> Iterator[Systems]:
    """A database ``app``, and the way to it."""
    with postgres.session(server.dsn(), read_only=False) as session:
        session.execute("CREATE DATABASE app OWNER owner_only")
        yield Systems(server.dsn("app"))
        with suppress(psycopg.Error):
            session.execute("ALTER DATABASE app ALLOW_CONNECTIONS true")
        session.execute("DROP DATABASE IF EXISTS app WITH (FORCE)")
        session.execute("DROP DATABASE IF EXISTS renamed WITH (FORCE)")


def door(server: PostgresServer, name: str = "app") -> tuple[bool, int]:
    """Whether the database lets anybody in, and how many are in it."""
    with postgres.session(server.dsn()) as session:
        row = session.row(
            "SELECT datallowconn, (SELECT count(*) FROM pg_stat_activity a WHERE a.datid = d.oid) AS inside"
            " FROM pg_database d WHERE datname = %s",
            name,
        )
        return row["datallowconn"], row["inside"]


class Clients:
    """Clients that are in the database, and come back at once when they are put out."""

    def __init__(self, dsns: list[str]) -> None:
        self.entered: list[tuple[float, str]] = []
        self.ended = threading.Event()
        self._threads = [threading.Thread(target=self._come_back, args=(dsn,)) for dsn in dsns]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        deadline = time.monotonic() + 30
        while len(self.entered) < len(self._threads):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        for thread in self._threads:
            thread.join(30)

    def _come_back(self, dsn: str) -> None:
        while not self.ended.is_set():
            with suppress(psycopg.Error), psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute("SELECT 1")
                self.entered.append((time.monotonic(), dsn))
                while not self.ended.is_set():
                    connection.execute("SELECT pg_sleep(0.01)")


def test_nobody_gets_in_and_nobody_is_left(systems: Systems, server: PostgresServer) -> None:
    """Six clients that reconnect in a loop, superusers among them, ten times over: each fence holds at once."""
    act = FenceDatabase("app")
    dsns = [systems.dsn] * 3 + [make_conninfo(systems.dsn, user="clerk")] * 3
    with Clients(dsns) as clients:
        for _ in range(10):
            before = act.look(systems)
            act.do(systems, before)
            fenced = time.monotonic()
            for _ in range(5):
                assert door(server) == (False, 0)
            assert [at for at, _ in clients.entered if at > fenced] == []
            assert act.undo(systems, before) == "everybody may connect to app again"
            deadline = time.monotonic() + 30
            while sum(at > fenced for at, _ in clients.entered) < 6:
                assert time.monotonic() < deadline, "they do not come back"
                time.sleep(0.01)
    assert {dsn for _, dsn in clients.entered} == set(dsns)


def test_whoever_is_on_the_threshold_is_put_out_too(systems: Systems, server: PostgresServer) -> None:
    """A client that saw the door open and is listed nowhere yet: made to stand there for a second."""
    act = FenceDatabase("app")
    before = act.look(systems)
    inside: list[psycopg.Connection[tuple[object, ...]]] = []

    def enter() -> None:
        with suppress(psycopg.Error):
            inside.append(psycopg.connect(systems.dsn, autocommit=True, options="-c post_auth_delay=1"))

    client = threading.Thread(target=enter)
    client.start()
    with postgres.session(server.dsn()) as session:
        wait_for(
            "the client to stand on the threshold",
            lambda: session.rows(
                "SELECT pid FROM pg_locks WHERE locktype = 'object' AND objid::bigint = %s", before["oid"]
            ),
            where="the server",
            within_seconds=10,
        )
        assert door(server) == (True, 0)
        act.do(systems, before)
        client.join(10)
        assert door(server) == (False, 0)
    for connection in inside:
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
        connection.close()


def test_a_prepared_transaction_is_named_and_the_door_is_opened_again(systems: Systems, server: PostgresServer) -> None:
    with postgres.session(systems.dsn, read_only=False) as session:
        session.execute("BEGIN")
        session.execute("CREATE TABLE public.t (n int)")
        session.execute("PREPARE TRANSACTION 'payroll 2026'")
    began = time.monotonic()
    with pytest.raises(WaitTimedOut, match="prepared transaction payroll 2026"):
        carry_out(systems, FenceDatabase("app", within_seconds=1.0))
    assert time.monotonic() - began < 5
    assert door(server) == (True, 0)
    with postgres.session(systems.dsn, read_only=False) as session:
        session.execute("ROLLBACK PREPARED 'payroll 2026'")
    carry_out(systems, FenceDatabase("app"))


def carry_out(systems: Systems, act: FenceDatabase) -> None:
    with PERMIT.procedure("fence it", systems) as procedure:
        procedure.do(act)


class TestUndo:
    def test_twice_and_without_having_been_done(self, systems: Systems, server: PostgresServer) -> None:
        act = FenceDatabase("app")
        before = act.look(systems)
        assert act.undo(systems, before) == "the fence of app is down"
        act.do(systems, before)
        assert door(server) == (False, 0)
        assert act.undo(systems, before) == "everybody may connect to app again"
        assert act.undo(systems, before) == "the fence of app is down"
        assert door(server) == (True, 0)

    def test_a_door_that_was_shut_before_stays_shut(self, systems: Systems, server: PostgresServer) -> None:
        with postgres.session(server.dsn(), read_only=False) as session:
            session.execute("ALTER DATABASE app ALLOW_CONNECTIONS false")
        act = FenceDatabase("app")
        before = act.look(systems)
        assert act.describe_undoing(before) == "let nobody, as before, connect to app"
        act.do(systems, before)
        assert act.undo(systems, before) == "the fence of app is down"
        assert door(server) == (False, 0)

    def test_nothing_but_the_door_is_altered(self, systems: Systems, server: PostgresServer) -> None:
        with postgres.session(server.dsn(), read_only=False) as session:
            session.execute("ALTER DATABASE app CONNECTION LIMIT 7")
            session.execute("REVOKE CONNECT ON DATABASE app FROM PUBLIC")
            session.execute("ALTER DATABASE app SET work_mem = '5MB'")
            query = "SELECT d.*, setconfig FROM pg_database d, pg_db_role_setting WHERE setdatabase = d.oid"
            was = session.row(query)
            carry_out(systems, FenceDatabase("app"))
            assert session.row(query) == was

    def test_dropped_meanwhile(self, systems: Systems, server: PostgresServer) -> None:
        act, before = fenced(systems)
        with postgres.session(server.dsn(), read_only=False) as session:
            session.execute("DROP DATABASE app")
        assert act.undo(systems, before) == "the database app is not there any more"

    def test_renamed_meanwhile(self, systems: Systems, server: PostgresServer) -> None:
        """It is still the database that we shut, and nobody else would ever open it."""
        act, before = fenced(systems)
        with postgres.session(server.dsn(), read_only=False) as session:
            session.execute("ALTER DATABASE app RENAME TO renamed")
        assert act.undo(systems, before) == "everybody may connect to renamed, which was app, again"
        assert door(server, "renamed") == (True, 0)

    def test_another_one_took_its_name(self, systems: Systems, server: PostgresServer) -> None:
        act, before = fenced(systems)
        with postgres.session(server.dsn(), read_only=False) as session:
            session.execute("ALTER DATABASE app RENAME TO renamed")
            session.execute("CREATE DATABASE app ALLOW_CONNECTIONS false")
            assert act.undo(systems, before) == "everybody may connect to renamed, which was app, again"
            assert door(server, "app") == (False, 0)


def fenced(systems: Systems) -> tuple[FenceDatabase, dict[str, object]]:
    act = FenceDatabase("app")
    before = dict(act.look(systems))
    act.do(systems, before)
    return act, before


class TestRights:
    @pytest.mark.parametrize("role", ["clerk", "owner_only"])
    def test_a_role_without_them(self, role: str, systems: Systems, server: PostgresServer) -> None:
        """One that may not shut the door; one that may, and may not put out a superuser who is inside."""
        theirs = Systems(make_conninfo(systems.dsn, user=role))
        with psycopg.connect(systems.dsn, autocommit=True) as inside:
            with pytest.raises(Denied) as raised:
                carry_out(theirs, FenceDatabase("app", within_seconds=2.0))
            inside.execute("SELECT 1")
        assert raised.value.sought in ("to shut the database app", "to put everybody out of app")
        assert "superuser" in raised.value.remedy
        assert door(server)[0]

    def test_the_owner_with_pg_signal_backend_is_enough(self, systems: Systems) -> None:
        theirs = Systems(make_conninfo(systems.dsn, user="fencer"))
        with psycopg.connect(make_conninfo(systems.dsn, user="clerk"), autocommit=True) as inside:
            carry_out(theirs, FenceDatabase("app"))
            with pytest.raises(psycopg.OperationalError):
                inside.execute("SELECT 1")

    def test_no_such_database(self, systems: Systems) -> None:
        with pytest.raises(NotFound, match="the database nowhere"):
            FenceDatabase("nowhere").look(systems)


@contextmanager
def _held(systems: Systems, name: str) -> Iterator[None]:
    with systems.alone(name):
        yield


def test_an_undoing_waits_for_its_act(systems: Systems) -> None:
    """It is told where that does not end."""
    act = FenceDatabase("app")
    before = act.look(systems)
    with _held(systems, "the door of app"), pytest.raises(WaitTimedOut, match="the door of app"):
        act.undo(systems, before)
