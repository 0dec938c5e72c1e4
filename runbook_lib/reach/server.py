"""A private PostgreSQL server that is thrown away after use.

It opens no port: a restored production database must not be reachable by anything that happens to listen on this
machine's interfaces. Whoever talks to it goes through a unix socket in a folder that only the workspace's account
and root can enter, so that trust authentication is no weakness there.

``postgres`` itself is started, not pg_ctl: then the server is our own child, its end is seen at once, and its log is
what it printed.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Self

import psycopg
from psycopg.conninfo import make_conninfo

from runbook_lib.errors import RunbookError, ToolFailed, ToolMissing, Unproven, WaitTimedOut
from runbook_lib.reach import programs
from runbook_lib.reach.binaries import PostgresTools
from runbook_lib.reach.workspace import Account, Workspace
from runbook_lib.waiting import wait_for

SUPERUSER = "postgres"
"""The name of the role that owns the cluster."""

FAST: Mapping[str, str] = MappingProxyType(
    {
        # Nothing of it is to survive a crash.
        "fsync": "off",
        "full_page_writes": "off",
        "synchronous_commit": "off",
        # A COPY into a table made in the same transaction writes no WAL.
        "wal_level": "minimal",
        "max_wal_senders": "0",
        "archive_mode": "off",
        "max_wal_size": "16GB",
        "checkpoint_timeout": "1d",
        # The restore says itself when it has statistics taken; a worker that comes in between costs time.
        "autovacuum": "off",
        "shared_buffers": "256MB",
        "maintenance_work_mem": "256MB",
        "work_mem": "64MB",
        "wal_buffers": "16MB",
        "max_locks_per_transaction": "512",  # a schema of some thousand tables in one transaction
        "jit": "off",
    }
)
"""Settings for a server whose data may be lost at any time, and whose work is to restore a dump and be compared."""

_PRIVATE: Mapping[str, str] = MappingProxyType(
    {
        "listen_addresses": "",
        "unix_socket_permissions": "0700",
        # Anything else would leave files in /dev/shm when the server is killed.
        "dynamic_shared_memory_type": "mmap",
        "logging_collector": "off",
        "log_destination": "stderr",
        "lc_messages": "C",
        "timezone": "UTC",
        "log_timezone": "UTC",
    }
)
_ALL_LOCAL = "local all all trust\n"
"""Whoever can enter the folder with the socket is the workspace's account, or root."""
_LOCALES = ("C.UTF-8", "C")
"""Sorted by code point on every machine, and with letters beyond ASCII where the machine has that locale."""
_SOCKET_NUMBER = 5432
_LONGEST_SOCKET_PATH_BYTES = 103  # 107 on Linux, 103 on macOS and the BSDs
_INITDB_SECONDS = 180.0
_START_SECONDS = 120.0
_STOP_STEPS = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0))
"""Fast, then immediate, then without asking; and how long each is given, in seconds."""


class PostgresServer:
    """A running server in a workspace."""

    def __init__(self, workspace: Workspace, tools: PostgresTools, folder: Path) -> None:
        """Stand for the server whose data is in ``folder/data``; use `start` instead."""
        self.workspace = workspace
        """The workspace that it runs in."""
        self.tools = tools
        """The programs that it was started from; clients of the same version are beside them."""
        self.folder = folder
        """The folder that holds its data directory, its socket and its log."""
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def start(
        cls,
        workspace: Workspace,
        tools: PostgresTools,
        *,
        name: str = "main",
        settings: Mapping[str, str] = FAST,
        initdb_args: Sequence[str] = (),
    ) -> Self:
        """Make a new cluster and start its server; return it when it answers queries.

        :param name: the name of its folder in the workspace
        :param settings: the server's settings, such as `FAST`
        :param initdb_args: arguments for initdb, which win over ours: UTF8 and the C.UTF-8 locale where there is one

        Raise `ToolFailed` or `WaitTimedOut`, with the end of the log, where it does not come up.
        """
        server = cls(workspace, tools, workspace.folder(name))
        server._must_have_a_short_socket_path()
        server._make_cluster({**_PRIVATE, **settings}, initdb_args)
        server._launch()
        return server

    @classmethod
    def begin_on_data(
        cls, workspace: Workspace, tools: PostgresTools, folder: Path, *, settings: Mapping[str, str]
    ) -> Self:
        """Start a server on the cluster that lies in ``folder/data``, and return it while it comes up.

        What configured that cluster is replaced: another machine's settings would have it listen, archive over its
        source, or load what is not here. Whoever starts it looks at `exit_code`, and asks it when it answers.

        :param folder: a folder of the workspace; the cluster in it must belong to the workspace's account
        :param settings: all of the server's settings
        """
        server = cls(workspace, tools, folder)
        server._must_have_a_short_socket_path()
        for name, content in {
            "postgresql.conf": server._configuration({**_PRIVATE, **settings}),
            "postgresql.auto.conf": "",
            "pg_hba.conf": _ALL_LOCAL,
            "pg_ident.conf": "",
        }.items():
            path = server.data_directory / name
            path.unlink(missing_ok=True)
            path.write_text(content)
            workspace.give(path)
        server._begin()
        return server

    @property
    def exit_code(self) -> int | None:
        """What the server's process ended with, negative where a signal ended it; None while it runs."""
        return None if self._process is None else self._process.poll()

    @property
    def data_directory(self) -> Path:
        """The cluster's data directory."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """The file that the server's log goes to."""
        return self.folder / "log"

    @property
    def is_running(self) -> bool:
        """Whether the server's process is there."""
        return self._process is not None and self._process.poll() is None

    def dsn(self, dbname: str = "postgres") -> str:
        """Return the connection string of one database, as its superuser."""
        return make_conninfo(host=str(self.folder), port=_SOCKET_NUMBER, user=SUPERUSER, dbname=dbname)

    def log_tail(self, lines: int = 15) -> str:
        """Return the last lines of the server's log."""
        with contextlib.suppress(FileNotFoundError):
            return programs.tail(self.log.read_text(errors="replace"), lines)
        return ""

    def stop(self) -> None:
        """Stop the server: fast, then immediate, then by killing it. Stopping twice is no error."""
        if self._process is None:
            return
        for number, seconds in _STOP_STEPS:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.send_signal(number)
                self._process.wait(timeout=seconds)
                return
        raise ToolFailed(
            "stopping a throwaway PostgreSQL server",
            where=str(self.folder),
            why=f"process {self._process.pid} did not end on SIGKILL",
            remedy="look at what it waits for in the kernel (ps -o stat,wchan)",
        )

    def _must_have_a_short_socket_path(self) -> None:
        socket = os.fsencode(self.folder / f".s.PGSQL.{_SOCKET_NUMBER}.lock")
        if len(socket) > _LONGEST_SOCKET_PATH_BYTES:
            raise Unproven(
                "starting a throwaway PostgreSQL server",
                where=str(self.folder),
                why=f"the path of its unix socket would have {len(socket)} bytes",
                remedy="set TMPDIR to a folder with a shorter path, such as /tmp",
            )

    def _make_cluster(self, settings: Mapping[str, str], initdb_args: Sequence[str]) -> None:
        """Run initdb, and write the settings.

        Of all PostgreSQL's programs initdb alone insists that its user id has a name. As root it therefore runs as
        ``nobody``, in a folder of its own, and the cluster changes hands when it is made. A user id that a container
        platform made up is shown to initdb as ``nobody`` by a user namespace, where the kernel lets us.
        """
        nobody = _somebody_with_a_name() if self.workspace.account else None
        shown_as_nobody = (
            [] if self.workspace.account or _has_name(os.geteuid()) else _shown_as(_somebody_with_a_name())
        )
        nursery = self.workspace.path / f"{self.folder.name}.initdb"
        nursery.mkdir(mode=0o700)
        if nobody:
            os.chown(nursery, nobody.uid, nobody.gid)
        made = nursery / "data"
        arguments = [
            "--pgdata",
            str(made),
            "--username",
            SUPERUSER,
            "--auth",
            "trust",
            "--no-sync",
            "--no-instructions",
        ]
        try:
            for locale in _LOCALES:
                initdb = programs.run(
                    [
                        *shown_as_nobody,
                        self.tools.program("initdb"),
                        *arguments,
                        *("--encoding", "UTF8", "--locale", locale),
                        *initdb_args,
                    ],
                    sought="making a throwaway PostgreSQL cluster",
                    timeout_seconds=_INITDB_SECONDS,
                    workspace=self.workspace,
                    account=nobody,
                )
                if initdb.succeeded or "invalid locale" not in initdb.stderr:
                    break
            remedy = f"see what initdb of {self.tools.bin} needs; {self.workspace.free_bytes:,} bytes are free there"
            if shown_as_nobody:
                remedy = f"give user id {os.geteuid()} a name in /etc/passwd, or run as a user that has one"
            initdb.must(remedy)
            made.rename(self.data_directory)
        finally:
            shutil.rmtree(nursery, ignore_errors=True)
        with (self.data_directory / "postgresql.conf").open("a") as configuration:
            configuration.write("\n# The runbook's\n" + self._configuration(settings))
        self.workspace.give(self.data_directory)

    def _configuration(self, settings: Mapping[str, str]) -> str:
        lines = [f"{name} = {_quoted(value)}" for name, value in settings.items()]
        lines += [f"unix_socket_directories = {_quoted(str(self.folder))}", f"port = {_SOCKET_NUMBER}"]
        return "\n".join(lines) + "\n"

    def _begin(self) -> subprocess.Popen[bytes]:
        self._process = self.workspace.start([self.tools.program("postgres"), "-D", self.data_directory], log=self.log)
        return self._process

    def _launch(self) -> None:
        process = self._begin()

        def answers() -> bool:
            if process.poll() is not None:
                raise ToolFailed(
                    f"starting a throwaway PostgreSQL {self.tools.version}",
                    where=str(self.folder),
                    why=f"it ended with code {process.returncode}; the end of its log:\n{self.log_tail()}",
                    remedy="correct what its log complains of",
                )
            with psycopg.connect(self.dsn(), connect_timeout=5, autocommit=True) as connection:
                return connection.execute("SELECT 1").fetchone() == (1,)

        try:
            wait_for(
                f"a throwaway PostgreSQL {self.tools.version} to answer queries",
                answers,
                where=str(self.folder),
                within_seconds=_START_SECONDS,
                ignoring=(psycopg.OperationalError,),
            )
        except WaitTimedOut as late:
            self._give_up()
            raise WaitTimedOut(
                late.sought,
                where=late.where,
                why=f"{late.why}; the end of its log:\n{self.log_tail()}",
                remedy="correct what its log complains of, or free the machine's processors",
            ) from late
        except BaseException:
            self._give_up()
            raise

    def _give_up(self) -> None:
        with contextlib.suppress(RunbookError):
            self.stop()


def _somebody_with_a_name() -> Account:
    """Return an unprivileged account that is known by name on this machine."""
    for name in ("nobody", "daemon"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(entry.pw_uid, entry.pw_gid)
    raise ToolMissing(
        "an unprivileged account that has a name, for initdb",
        where="this machine's accounts",
        why="there is neither nobody nor daemon",
        remedy="run as an ordinary user",
    )


def _shown_as(account: Account) -> list[str]:
    """Return what a command is preceded by, to find itself running as another account without really doing so."""
    return ["unshare", "--user", f"--map-user={account.uid}", f"--map-group={account.gid}", "--"]


def _has_name(uid: int) -> bool:
    with contextlib.suppress(KeyError):
        return bool(pwd.getpwuid(uid))
    return False


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
