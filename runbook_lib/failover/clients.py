"""Those who write while the database moves: a prober, and clients built as the application is.

Each kind is a process of its own with a history of its own, on one clock; here they are started together, stopped
together, and read as one.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from runbook_lib.errors import RunbookError, ToolFailed
from runbook_lib.failover import record
from runbook_lib.failover.history import History
from runbook_lib.failover.record import APPLICATION, PROBER
from runbook_lib.reach import postgres, programs

_READY_SECONDS = 30.0
_STOP_SECONDS = 20.0


@dataclass(frozen=True)
class Plan:
    """Who writes, how often and for how long each waits."""

    probe_every_ms: float = 20.0
    """How far apart the prober's attempts are due."""
    probe_deadline_ms: float = 1000.0
    """After which the prober gives one up, connection and statement together."""
    probe_connections: int = 16
    """How many connections the prober may have, where earlier ones are waiting. It needs one while all is well."""
    fresh: bool = False
    """Whether each of the prober's attempts has a new connection, which looks the server's name up anew. Costs a
    server more than ten times as much."""
    writers: int = 2
    """How many clients write through the application's own stack; 0 for none."""
    write_every_ms: float = 200.0
    """How far apart the attempts of each of these are due."""
    write_deadline_ms: float = 5000.0
    """After which one of these gives up, as the application does."""
    pool_connections: int = 2
    """How many connections their pool has."""
    pool_recycle_seconds: int = -1
    """After which their pool replaces a connection; -1 for never, as SQLAlchemy has it."""


class Clients:
    """Running clients. Use it as a context manager."""

    def __init__(self, folder: Path, run: str) -> None:
        """Stand for clients that are not started; use `start` instead."""
        self.folder = folder
        """Where their histories and their logs are."""
        self.run = run
        """What the rows of this run bear."""
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @classmethod
    def start(cls, folder: Path, dsn: str, *, plan: Plan | None = None, run: str = "") -> Self:
        """Start them, and return them when each has tried to write once.

        :param folder: an empty folder for their histories
        :param dsn: where they write; the table has to be there (`runbook_lib.failover.rows.PREPARE`)
        :param plan: who writes, and how often
        :param run: what their rows bear; something new where it is not given

        Raise `ToolFailed` where one of them does not come up. That they can write is not awaited: the history tells it.
        """
        plan = plan or Plan()
        clients = cls(folder, run or uuid.uuid4().hex[:12])
        env = postgres.libpq_environment(dsn)
        try:
            clients._start_one(
                PROBER,
                env,
                {
                    "every-ms": plan.probe_every_ms,
                    "deadline-ms": plan.probe_deadline_ms,
                    "connections": plan.probe_connections,
                },
                *(["--fresh"] if plan.fresh else []),
            )
            if plan.writers:
                clients._start_one(
                    APPLICATION,
                    env,
                    {
                        "clients": plan.writers,
                        "every-ms": plan.write_every_ms,
                        "deadline-ms": plan.write_deadline_ms,
                        "connections": plan.pool_connections,
                        "pool-recycle-seconds": plan.pool_recycle_seconds,
                    },
                )
            for kind in clients._processes:
                clients._must_be_ready(kind)
        except BaseException:
            clients._kill()
            raise
        return clients

    @property
    def pids(self) -> Mapping[str, int]:
        """The processes, by the kind of client."""
        return {kind: process.pid for kind, process in self._processes.items()}

    def history(self) -> History:
        """Read what they saw until now."""
        return History.read(*(self._file(kind) for kind in self._processes))

    def stop(self) -> History:
        """Have them finish what is under way, and return what they saw. Stopping twice is no error.

        One that does not end is killed; its history says that it is not finished. Raise `ToolFailed` where one of them
        ended because it could not write down what it saw.
        """
        for process in self._processes.values():
            if process.stdin is not None:
                process.stdin.close()
        for process in self._processes.values():
            try:
                process.wait(timeout=_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=_STOP_SECONDS)
            if process.stdout is not None:
                process.stdout.close()
        for kind, process in self._processes.items():
            if process.returncode > 0:
                raise self._failed(kind, f"it ended with code {process.returncode}")
        return self.history()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.stop()
        else:
            with contextlib.suppress(RunbookError):
                self.stop()

    def _start_one(self, kind: str, env: Mapping[str, str], options: Mapping[str, object], *flags: str) -> None:
        command = [sys.executable, "-P", "-m", record.__name__, "--kind", kind, "--run", self.run]
        command += ["--history", str(self._file(kind)), *flags]
        for name, value in options.items():
            command += [f"--{name}={value}"]
        descriptor = os.open(self._log(kind), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            self._processes[kind] = programs.start_as_we_are(
                command,
                sought="starting clients that write during a failover",
                env={**env, "PYTHONPATH": str(Path(__file__).parents[2])},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=descriptor,
            )
        finally:
            os.close(descriptor)

    def _must_be_ready(self, kind: str) -> None:
        process = self._processes[kind]
        assert process.stdout is not None
        said = b""
        if select.select([process.stdout], [], [], _READY_SECONDS)[0]:
            said = process.stdout.readline()
        if said != record.READY:
            raise self._failed(kind, f"it said {said!r} within {_READY_SECONDS:.0f} s")

    def _failed(self, kind: str, why: str) -> ToolFailed:
        log = programs.tail(self._log(kind).read_text(errors="replace")) if self._log(kind).exists() else ""
        return ToolFailed(
            f"clients that write during a failover ({kind})",
            where=str(self.folder),
            why=f"{why}; the end of its log:\n{log}",
            remedy=f"correct what {self._log(kind)} complains of",
        )

    def _kill(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait(timeout=_STOP_SECONDS)
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()

    def _file(self, kind: str) -> Path:
        return self.folder / f"{kind}.jsonl"

    def _log(self, kind: str) -> Path:
        return self.folder / f"{kind}.log"
