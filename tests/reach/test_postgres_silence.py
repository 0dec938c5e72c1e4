"""A server that accepts connections and never answers is told within a deadline, by its name."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from runbook_lib.errors import Unreachable
from runbook_lib.reach import postgres
from tests.backup import real


@pytest.fixture(scope="module")
def databases() -> Iterator[real.Databases]:
    with real.databases() as started:
        yield started


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "_GRACE_SECONDS", 1.0)


@pytest.mark.usefixtures("short_grace")
def test_a_backend_that_is_stopped_in_mid_session(databases: real.Databases) -> None:
    with postgres.session(databases.make(), statement_timeout_seconds=1) as session:
        assert session.value("SELECT 1") == 1
        pid = session.backend_pid
        os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
        try:
            with pytest.raises(Unreachable, match="accepted the connection, and was silent for 2 s"):
                session.rows("SELECT 1")
            assert time.monotonic() - began < 5
        finally:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.usefixtures("short_grace")
def test_a_statement_that_only_takes_its_time(databases: real.Databases) -> None:
    with postgres.session(databases.make()) as session:
        assert session.value("SELECT 1 FROM pg_sleep(2.5)") == 1
    with (
        postgres.session(databases.make(), statement_timeout_seconds=1) as session,
        pytest.raises(postgres.DriverError, match="statement timeout"),
    ):
        session.rows("SELECT pg_sleep(30)")


def test_a_port_that_accepts_and_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        accepted: list[socket.socket] = []
        answering = threading.Thread(target=lambda: accepted.append(listening.accept()[0]))
        answering.start()
        began = time.monotonic()
        dsn = f"host=127.0.0.1 port={listening.getsockname()[1]} dbname=x user=x sslmode=disable"
        with pytest.raises(Unreachable), postgres.session(dsn, connect_timeout_seconds=2):
            pass
        assert time.monotonic() - began < 8
        answering.join()
        for each in accepted:
            each.close()
