"""One write at a time, and what may be believed of how it ended.

A drill that counts lost writes stands on one distinction, which drivers do not make: a write that the server *refused*
is certainly not there, one whose answer never came may be. Whoever takes the second for the first finds rows that
nobody wrote; whoever takes the first for the second never sees a loss. So it is decided here, once, for both ways in
which this project writes: a prober's single statement on a connection of its own, and the transaction of an
application built as TenSafe is (`runbook_lib.reach.pooled_writing`).

And one thing more: a prober that waits for an answer longer than it said is blind meanwhile. asyncpg's own timeouts
send a cancel request by a second connection to the very server that does not answer; here the connection is dropped
instead, which takes no longer than saying so.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum
from typing import Any

import asyncpg  # type: ignore[import-untyped]

SCHEMA = "runbook_history"
"""The schema of the table that is written to."""
TABLE = f"{SCHEMA}.writes"
"""The table that is written to. It has no key: a row that is there twice must be able to be."""

WHO_ACKNOWLEDGES = """
RETURNING pg_catalog.pg_current_wal_insert_lsn()::text,
    pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8),
    pg_catalog.host(pg_catalog.inet_server_addr()), pg_catalog.inet_server_port(),
    pg_catalog.pg_postmaster_start_time()::text"""
"""What an INSERT ends with, so that the same statement tells who it was and how far its WAL was."""
# The timeline of the control file is the last checkpoint's, which a promoted server has not made yet.
IDENTIFIER = "(SELECT system_identifier::text FROM pg_catalog.pg_control_system())"
"""The cluster's identity, as an expression."""
_INSERT = f"INSERT INTO {TABLE} (run, client, sequence) VALUES ($1, $2, $3)" + WHO_ACKNOWLEDGES
# It makes the server read a file. A server keeps it for as long as it is up, so that a prober asks once a connection,
# and with each write only whether that is still the same server: a pooler may lead each statement to another one.
_WHOSE = f"SELECT pg_catalog.pg_postmaster_start_time()::text, {IDENTIFIER}"
BROKEN = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)
"""What a server or a network that does not do its work is raised as."""
_CONNECTION_LOST = "08"
"""The class of the errors that the driver makes up itself when a connection breaks."""
_GRACE_SECONDS = 2.0
"""How long after our own deadline the server stops a statement that nobody waits for any more."""


class WriteOutcome(Enum):
    """What is known of a write."""

    ACKNOWLEDGED = "a"
    """The server said that it is committed."""
    REFUSED = "r"
    """It is certainly not committed: the server said so, or its commit was never sent."""
    INDETERMINATE = "i"
    """Its commit was sent, and no answer came that can be relied on: it may be there."""
    UNSENT = "u"
    """Nobody tried: every connection was waiting for an answer, or the prober itself was late. It says nothing of the
    server."""


@dataclass(frozen=True)
class Acknowledger:
    """The server that acknowledged a write, as the very statement that wrote told it."""

    system_identifier: str
    """The cluster's identity; empty where a pooler led a prober's connection to another server than at its
    beginning."""
    timeline: int
    """The timeline it was writing."""
    address: str
    """The address that the connection came to; empty on a unix socket."""
    port: int
    """The port; 0 on a unix socket."""
    started_at: str
    """When this server was started: two copies on unix sockets differ in nothing else."""

    def __str__(self) -> str:
        """Return where it is and what it writes, for a report."""
        place = f"{self.address}:{self.port}" if self.address else "a unix socket"
        return f"{place}, timeline {self.timeline}, up since {self.started_at}"


@dataclass(frozen=True)
class Answer:
    """How one write ended."""

    outcome: WriteOutcome
    """What is known of it."""
    ended_ns: int
    """When that was known, on the monotonic clock."""
    error: str = ""
    """At which stage it failed and how: ``connect 57P03``, ``statement 25006``, ``commit deadline``; empty where it
    did not."""
    acknowledger: Acknowledger | None = None
    """Who acknowledged it; None where nobody did."""
    lsn: str = ""
    """A position in that server's WAL behind the row and before its commit; empty where nobody acknowledged it."""


class Writer(ABC):
    """One place to write from. It carries out one write at a time."""

    @abstractmethod
    async def write(self, run: str, client: str, sequence: int) -> Answer:
        """Write one row and return how that ended. Never raises for what a server or a network does."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of the connection, at once."""


class DirectWriter(Writer):
    """A connection of its own, kept from one write to the next and made anew where it broke."""

    def __init__(self, *, deadline_seconds: float, application_name: str, fresh: bool = False) -> None:
        """Reach the server that libpq's variables (``PGHOST``, ``PGSERVICE``, ...) name, when it is first needed.

        :param deadline_seconds: for one write, its connection included
        :param fresh: make a new connection for each write, so that each looks its server's name up anew
        """
        self._deadline_seconds = deadline_seconds
        self._fresh = fresh
        statement_milliseconds = round((deadline_seconds + _GRACE_SECONDS) * 1000)
        self._settings = {
            "application_name": application_name,
            # Whoever waits for a lock on our behalf when we are gone is not to wait for ever.
            "statement_timeout": str(statement_milliseconds),
        }
        self._connection: Any = None
        self._statement: Any = None
        self._started_at = self._system_identifier = ""
        self._warned = False

    async def write(self, run: str, client: str, sequence: int) -> Answer:
        """Write one row; see `Writer`."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + self._deadline_seconds
        while True:
            if self._connection is None or self._connection.is_closed():
                try:
                    async with asyncio.timeout_at(ends):
                        await self._connect()
                except BROKEN as failed:
                    self._drop()
                    return Answer(WriteOutcome.REFUSED, time.monotonic_ns(), f"connect {kind_of(failed)}")
            self._warned = False
            # No cancel request: see above.
            guard = loop.call_at(ends, self._connection.terminate)
            try:
                row = await self._statement.fetchrow(run, client, sequence)
                ended_ns = time.monotonic_ns()
                break
            except BROKEN as failed:
                ended_ns = time.monotonic_ns()
                if _certainly_not_sent(failed):
                    self._drop()
                    continue
                refused = certainly_not_done(failed)
                if not refused or self._connection.is_closed():
                    self._drop()
                error = "deadline" if loop.time() >= ends and not refused else kind_of(failed)
                outcome = WriteOutcome.REFUSED if refused else WriteOutcome.INDETERMINATE
                return Answer(outcome, ended_ns, f"statement {error}")
            finally:
                guard.cancel()
        if self._fresh:
            self._drop()
        if self._warned:
            # "The transaction has already committed locally, but might not have been replicated to the standby."
            return Answer(WriteOutcome.INDETERMINATE, ended_ns, "commit warning")
        same = row[4] == self._started_at
        if not same:
            self._drop()
        acknowledger = acknowledger_of(row, self._system_identifier if same else "")
        return Answer(WriteOutcome.ACKNOWLEDGED, ended_ns, "", acknowledger, row[0])

    async def close(self) -> None:
        """Let go of the connection; see `Writer`."""
        self._drop()

    async def _connect(self) -> None:
        self._connection = await asyncpg.connect(timeout=self._deadline_seconds, server_settings=self._settings)
        self._connection.add_log_listener(self._heard)
        self._started_at, self._system_identifier = await self._connection.fetchrow(_WHOSE)
        self._statement = await self._connection.prepare(_INSERT)

    def _heard(self, _: object, said: Any) -> None:
        self._warned = self._warned or getattr(said, "severity_en", "") == "WARNING"

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
        self._connection = self._statement = None


def acknowledger_of(row: Any, system_identifier: str) -> Acknowledger:
    """Return who it was, of a row that begins with `WHO_ACKNOWLEDGES`."""
    _, timeline, address, port, started_at = tuple(row)[:5]
    return Acknowledger(system_identifier, int(timeline, 16), address or "", port or 0, started_at)


def certainly_not_done(failed: BaseException) -> bool:
    """Return whether the server itself said that it did not do it.

    An ERROR is that: behind the commit record there is none. A FATAL is not: a server that is shut down in the middle
    of a commit says it, too.
    """
    said = isinstance(failed, asyncpg.PostgresError) and not (failed.sqlstate or "").startswith(_CONNECTION_LOST)
    return said and getattr(failed, "severity_en", None) == "ERROR"


def _certainly_not_sent(failed: BaseException) -> bool:
    """Return whether the driver itself refused to send it.

    A server that ends a connection says so first and closes it then; between the two the driver knows that it may send
    nothing, and not yet that the connection is closed.
    """
    return isinstance(failed, asyncpg.InternalClientError) and str(failed).startswith("cannot switch to state")


def kind_of(failed: BaseException) -> str:
    """Return the SQLSTATE, or the name of the error where there is none; never its text, which may quote a row."""
    if isinstance(failed, TimeoutError):
        return "deadline"
    return getattr(failed, "sqlstate", None) or type(failed).__name__
