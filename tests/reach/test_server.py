"""A throwaway server is private, answers, says why it does not, and leaves nothing in the kernel when it is killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from runbook_lib.errors import ToolFailed, Unproven, WaitTimedOut
from runbook_lib.reach import server as server_module
from runbook_lib.reach.binaries import PostgresTools, find
from runbook_lib.reach.server import FAST, PostgresServer
from runbook_lib.reach.workspace import Workspace
from runbook_lib.waiting import wait_for

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tools() -> PostgresTools:
    return find(17)


@pytest.fixture
def workspace() -> Iterator[Workspace]:
    with Workspace.open() as opened:
        yield opened


@pytest.fixture(scope="module")
def running(tools: PostgresTools) -> Iterator[PostgresServer]:
    with Workspace.open() as opened:
        yield PostgresServer.start(opened, tools)


def ask(server: PostgresServer, query: str) -> object:
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return row[0]


def listening_sockets(server: PostgresServer) -> list[str]:
    """Return the local addresses of the TCP sockets that a server, or as root its account, listens on."""
    assert server._process is not None
    account = server.workspace.account
    ours = set()
    if account is None:
        ours = {str(each.readlink()) for each in Path(f"/proc/{server._process.pid}/fd").iterdir()}
    found = []
    for table in "tcp", "tcp6":
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, address, _, state, _, _, _, uid, _, inode, *_ = line.split()
            its_own = f"socket:[{inode}]" in ours if account is None else int(uid) == account.uid
            if state == "0A" and its_own:
                found.append(address)
    return found


class TestRunning:
    def test_answers_as_the_version_that_was_asked_for(self, running: PostgresServer, tools: PostgresTools) -> None:
        assert running.is_running
        assert ask(running, "SHOW server_version") == tools.version

    def test_opens_no_port_and_a_private_socket(self, running: PostgresServer) -> None:
        assert listening_sockets(running) == []
        assert running.folder.stat().st_mode & 0o077 == 0
        assert (running.folder / ".s.PGSQL.5432").stat().st_mode & 0o077 == 0

    def test_runs_unprivileged(self, running: PostgresServer) -> None:
        assert running._process is not None
        owner = Path(f"/proc/{running._process.pid}").stat().st_uid
        account = running.workspace.account
        assert owner == (account.uid if account else os.geteuid()) != 0

    def test_has_the_settings_that_were_asked_for(self, running: PostgresServer) -> None:
        for name, value in FAST.items():
            assert ask(running, f"SHOW {name}") == value, name
        assert ask(running, "SHOW dynamic_shared_memory_type") == "mmap"
        assert ask(running, "SHOW timezone") == "UTC"

    def test_has_a_deterministic_encoding_and_order(self, running: PostgresServer) -> None:
        assert ask(running, "SHOW server_encoding") == "UTF8"
        query = "SELECT datcollate FROM pg_database WHERE datname = 'template1'"
        assert ask(running, query) in {"C.UTF-8", "C"}
        assert ask(running, "SELECT 'Z' < 'a'") is True

    def test_names_any_database(self, running: PostgresServer) -> None:
        ask(running, "SELECT 1")
        with psycopg.connect(running.dsn(), autocommit=True) as connection:
            connection.execute('CREATE DATABASE "it\'s a name"')
        with psycopg.connect(running.dsn("it's a name")) as connection:
            assert connection.info.dbname == "it's a name"


class TestStarting:
    @pytest.mark.parametrize("major", [14, 15, 16, 18])
    def test_works_for_every_major(self, workspace: Workspace, major: int) -> None:
        server = PostgresServer.start(workspace, find(major))
        assert int(str(ask(server, "SHOW server_version_num"))) // 10000 == major

    def test_two_in_one_workspace(self, workspace: Workspace, tools: PostgresTools) -> None:
        one = PostgresServer.start(workspace, tools, name="one")
        two = PostgresServer.start(workspace, tools, name="two", settings={"wal_level": "logical"})
        identifier = "SELECT system_identifier FROM pg_control_system()"
        assert ask(one, identifier) != ask(two, identifier)
        assert ask(two, "SHOW wal_level") == "logical"
        assert ask(two, "SHOW fsync") == "on"

    def test_lets_the_caller_choose_the_locale(self, workspace: Workspace, tools: PostgresTools) -> None:
        arguments = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        server = PostgresServer.start(workspace, tools, initdb_args=arguments)
        assert ask(server, "SELECT datlocprovider FROM pg_database WHERE datname = 'postgres'") == "b"

    def test_lets_the_caller_open_a_port_and_then_one_is_seen(self, workspace: Workspace, tools: PostgresTools) -> None:
        server = PostgresServer.start(workspace, tools, settings={"listen_addresses": "127.0.0.77"})
        assert listening_sockets(server) == ["4D00007F:1538"]

    def test_quotes_settings(self, workspace: Workspace, tools: PostgresTools) -> None:
        server = PostgresServer.start(workspace, tools, settings={"cluster_name": "it's 'mine'"})
        assert ask(server, "SHOW cluster_name") == "it's 'mine'"

    def test_tells_the_end_of_the_log_when_it_does_not_come_up(
        self, workspace: Workspace, tools: PostgresTools
    ) -> None:
        with pytest.raises(ToolFailed, match=r"(?s)throwaway PostgreSQL 17.*ended with code.*no_such_setting"):
            PostgresServer.start(workspace, tools, settings={"no_such_setting": "1"})

    def test_tells_what_initdb_says(self, workspace: Workspace, tools: PostgresTools) -> None:
        with pytest.raises(ToolFailed, match=r"(?s)cluster.*unrecognized option.*--bogus"):
            PostgresServer.start(workspace, tools, initdb_args=["--bogus"])
        assert not (workspace.path / "main.initdb").exists()

    def test_gives_up_when_nothing_answers_in_time(
        self, workspace: Workspace, tools: PostgresTools, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(server_module, "_START_SECONDS", 1.0)
        with pytest.raises(WaitTimedOut, match=r"(?s)to answer queries.*rejects connection.*its log.*rejects") as late:
            PostgresServer.start(workspace, tools, initdb_args=["--auth-local=reject"])
        assert "pg_hba.conf" in str(late.value)
        assert not (workspace.path / "main" / "data" / "postmaster.pid").exists()

    def test_refuses_a_path_too_long_for_a_socket(self, tools: PostgresTools) -> None:
        parent = Path(tempfile.mkdtemp(prefix="long-" + "x" * 80))
        parent.chmod(0o755)
        try:
            with (
                Workspace.open(parent=parent) as workspace,
                pytest.raises(Unproven, match=r"unix socket would have 1\d\d bytes.*TMPDIR"),
            ):
                PostgresServer.start(workspace, tools)
        finally:
            shutil.rmtree(parent)


class TestStopping:
    def test_ends_it_although_somebody_is_connected(self, workspace: Workspace, tools: PostgresTools) -> None:
        server = PostgresServer.start(workspace, tools)
        with psycopg.connect(server.dsn()) as connection:
            server.stop()
            assert not server.is_running
            assert "database system is shut down" in server.log_tail()
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")
        server.stop()
        assert not (server.data_directory / "postmaster.pid").exists()

    def test_ends_it_although_it_does_not_listen(
        self, workspace: Workspace, tools: PostgresTools, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        steps = tuple((number, 1.0) for number, _ in server_module._STOP_STEPS)
        monkeypatch.setattr(server_module, "_STOP_STEPS", steps)
        server = PostgresServer.start(workspace, tools)
        assert server._process is not None
        os.kill(server._process.pid, signal.SIGSTOP)
        server.stop()
        assert not server.is_running


def segments() -> set[str]:
    """Return the ids of the System V shared memory segments of this machine."""
    return {line.split()[1] for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]}


def shared_files(uid: int) -> set[str]:
    """Return the files that an account has in the machine's shared memory."""
    found = set()
    for path in Path("/dev/shm").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_uid == uid:
                found.add(path.name)
    return found


def test_killed_with_its_owner_it_leaves_nothing_even_in_the_kernel(tools: PostgresTools) -> None:
    before = shared_files(os.geteuid()) if os.geteuid() else set()  # an ordinary user may have servers of his own
    program = f"""
        import sys
        sys.path.insert(0, {str(PROJECT)!r})
        from runbook_lib.reach.binaries import find
        from runbook_lib.reach.server import PostgresServer
        from runbook_lib.reach.workspace import Workspace
        with Workspace.open() as workspace:
            server = PostgresServer.start(workspace, find(17))
            print(workspace.path, server._process.pid, server.dsn(), sep="|", flush=True)
            sys.stdin.read()
    """
    owner = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    try:
        path, pid, dsn = owner.stdout.readline().strip().split("|")
        uid = Path(f"/proc/{pid}").stat().st_uid
        segment = Path(path, "main/data/postmaster.pid").read_text().splitlines()[6].split()[1]
        assert segment in segments()
        with psycopg.connect(dsn, autocommit=True) as connection:
            backend = connection.info.backend_pid
            connection.execute("SET debug_parallel_query = on")  # with workers and the memory they share
            connection.execute("SELECT count(*) FROM pg_class")
            os.kill(int(pid), signal.SIGKILL)
            owner.kill()
            wait_for(
                "the workspace to be gone",
                lambda: [
                    *(trace for trace in (path, f"/proc/{pid}", f"/proc/{backend}") if Path(trace).exists()),
                    *(segments() & {segment}),
                    *(shared_files(uid) - before),
                ],
                until=lambda left: not left,
                where=path,
                within_seconds=10,
            )
            connection.close()
    finally:
        owner.kill()
        owner.communicate()
