"""A primary, standbys that stream from it, the table that clients write to, and a name that can be moved."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from psycopg.conninfo import make_conninfo

from runbook_lib.errors import RunbookError
from runbook_lib.failover import rows
from runbook_lib.reach import binaries, postgres, programs
from runbook_lib.reach.server import FAST, SUPERUSER, PostgresServer
from runbook_lib.reach.workspace import Workspace
from runbook_lib.waiting import wait_for

MAJOR = 17
SETTINGS: Mapping[str, str] = {
    **FAST,
    "wal_level": "replica",
    "max_wal_senders": "4",
    "hot_standby": "on",
    "shared_buffers": "16MB",
    "wal_buffers": "1MB",
    "max_locks_per_transaction": "64",
    "max_wal_size": "256MB",
    "min_wal_size": "4MB",
    "wal_keep_size": "64MB",
    "synchronous_commit": "on",
    "max_connections": "60",
}


class Instance:
    """A server whose postmaster can be killed, frozen and started again, unlike one that is thrown away."""

    def __init__(self, workspace: Workspace, tools: binaries.PostgresTools, folder: Path) -> None:
        self.workspace, self.tools, self.folder = workspace, tools, folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def dsn(self) -> str:
        return at(self.folder)

    def start(self) -> None:
        argv: list[str | Path] = [self.tools.program("postgres"), "-D", self.data]
        argv += ["-c", f"unix_socket_directories={self.folder}"]
        self._process = self.workspace.start(argv, log=self.folder / "log")
        wait_for(
            "the server to answer",
            lambda: self.value("SELECT true"),
            where=str(self.folder),
            within_seconds=30,
            every_seconds=0.02,
            ignoring=(RunbookError, postgres.DriverError),
        )

    def value(self, query: str) -> object:
        with postgres.session(self.dsn, read_only=False, connect_timeout_seconds=2) as session:
            return session.value(query)

    def execute(self, *statements: str) -> None:
        with postgres.session(self.dsn, read_only=False) as session:
            for statement in statements:
                session.execute(statement)

    def configure(self, name: str, value: str) -> None:
        """Alter a setting, and return when every process of the running server has been told of it."""
        self.execute(f"ALTER SYSTEM SET {name} = {postgres.literal(value)}", "SELECT pg_reload_conf()")
        wait_for(
            "the setting to be taken on",
            lambda: self.value(f"SELECT reset_val FROM pg_settings WHERE name = '{name}'") == value,
            where=str(self.folder),
            within_seconds=10,
        )
        self.execute("CHECKPOINT")  # the checkpointer, who says whether commits wait for standbys, reads it first

    def end(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(timeout=30)

    def kill(self) -> None:
        """End the postmaster and its children without a word."""
        assert self._process is not None
        with self._children() as children:
            self._process.kill()
            self._process.wait(timeout=30)
            _signal(children, signal.SIGKILL)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop all its processes, and let them go on."""
        assert self._process is not None
        with self._children() as children:
            self._process.send_signal(signal.SIGSTOP)
            _signal(children, signal.SIGSTOP)
            try:
                yield
            finally:
                _signal(children, signal.SIGCONT)
                self._process.send_signal(signal.SIGCONT)

    def promote(self) -> None:
        assert self.value("SELECT pg_promote(true, 30)")

    def rows_of(self, run: str) -> set[tuple[str, int]]:
        """What it holds of a run, without the code that is proven here."""
        with postgres.session(self.dsn) as session:
            found = session.rows("SELECT client, sequence FROM runbook_history.writes WHERE run = %s", run)
        return {(row["client"], row["sequence"]) for row in found}

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @contextmanager
    def _children(self) -> Iterator[list[int]]:
        """Handles of the postmaster's children: a handle is never another process."""
        assert self._process is not None
        pid = self._process.pid
        handles: list[int] = []
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                handles.append(os.pidfd_open(int(child)))
        try:
            yield handles
        finally:
            for handle in handles:
                os.close(handle)


def _signal(handles: list[int], number: signal.Signals) -> None:
    for handle in handles:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, number)


@dataclass(frozen=True)
class Place:
    """Where servers are made, from one data directory that was made once."""

    workspace: Workspace
    template: Path
    tools: binaries.PostgresTools

    @contextmanager
    def primary(self) -> Iterator[Instance]:
        """A server with the table, and nothing else."""
        folder = self.workspace.folder("primary")
        shutil.copytree(self.template, folder / "data")
        self.workspace.give(folder)
        with _running(Instance(self.workspace, self.tools, folder)) as instance:
            yield instance

    @contextmanager
    def standby_of(self, source: Instance) -> Iterator[Instance]:
        """A standby that streams from the primary, and has everything."""
        folder = self.workspace.folder("standby")
        argv: list[str | Path] = [self.tools.program("pg_basebackup"), "-D", folder / "data", "-c", "fast"]
        made = programs.run([*argv, "-d", source.dsn], sought="a standby", timeout_seconds=60, workspace=self.workspace)
        made.must("look at the primary's log")
        # Not by -R: it writes every option that its own libpq knows, and the server may be linked to an older one.
        (folder / "data" / "standby.signal").touch()
        with (folder / "data" / "postgresql.auto.conf").open("a") as settings:
            settings.write(f"primary_conninfo = {postgres.literal(source.dsn)}\n")
        self.workspace.give(folder)
        with _running(Instance(self.workspace, self.tools, folder)) as instance:
            wait_for(
                "the standby to have everything",
                lambda: source.value(
                    "SELECT count(*) FROM pg_stat_replication WHERE replay_lsn >= pg_current_wal_flush_lsn()"
                ),
                where=str(source.folder),
                within_seconds=30,
            )
            yield instance

    def name(self, instance: Instance) -> Path:
        """Point the name that clients connect to at this server; who is connected stays where it is."""
        link, new = self.workspace.path / "db", self.workspace.path / "db.new"
        new.symlink_to(instance.folder)
        new.rename(link)
        return link


@contextmanager
def place() -> Iterator[Place]:
    with Workspace.open() as workspace:
        tools = binaries.find(MAJOR)
        made = PostgresServer.start(
            workspace, tools, name="template", settings=SETTINGS, initdb_args=["--wal-segsize=1"]
        )
        with postgres.session(made.dsn(), read_only=False) as session:
            for statement in rows.PREPARE:
                session.execute(statement)
        made.stop()
        yield Place(workspace, made.data_directory, tools)


@contextmanager
def _running(instance: Instance) -> Iterator[Instance]:
    try:
        instance.start()
        yield instance
    finally:
        if instance.is_running:
            instance.end(signal.SIGQUIT)
        shutil.rmtree(instance.folder)


def at(folder: Path) -> str:
    return make_conninfo(host=str(folder), port=5432, user=SUPERUSER, dbname="postgres")
