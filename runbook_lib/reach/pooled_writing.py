"""The same write, as an application built like TenSafe makes it: SQLAlchemy on asyncpg, a pool, a transaction.

A database that is back is not an application that is back: a pool hands out connections that are broken, or that lead
to a server which is read-only now and answers when it is asked whether it is alive. So the real stack takes part in a
drill. It is a module of its own because a prober has no use for it, and it takes longer to load than a failover may.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from typing import Any

import asyncpg  # type: ignore[import-untyped]
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from runbook_lib.reach.writing import (
    BROKEN,
    IDENTIFIER,
    TABLE,
    WHO_ACKNOWLEDGES,
    Answer,
    WriteOutcome,
    Writer,
    acknowledger_of,
    certainly_not_done,
    kind_of,
)

_ANY = (SQLAlchemyError, *BROKEN)
_INSERT = text(
    f"INSERT INTO {TABLE} (run, client, sequence) VALUES (:run, :client, :sequence)"
    + f"{WHO_ACKNOWLEDGES}, {IDENTIFIER}".replace("::", "\\:\\:")
)


class ApplicationStack:
    """The pool of an application built as TenSafe is."""

    def __init__(
        self, *, connections: int, deadline_seconds: float, application_name: str, options: Mapping[str, Any] | None
    ) -> None:
        """Make a pool towards the server that libpq's variables name; nothing is connected yet.

        :param connections: how many the pool holds at most
        :param deadline_seconds: for a connection, for a place in the pool, and for a statement
        :param options: further options of SQLAlchemy's engine, such as ``{"pool_recycle": 300}``, over ours
        """
        settings = {"application_name": application_name}

        async def connect() -> Any:
            return await asyncpg.connect(
                timeout=deadline_seconds, command_timeout=deadline_seconds, server_settings=settings
            )

        ours = {"pool_size": connections, "max_overflow": 0, "pool_timeout": deadline_seconds, "pool_pre_ping": True}
        self.engine: AsyncEngine = create_async_engine(
            "postgresql+asyncpg://", async_creator=connect, **{**ours, **(options or {})}
        )
        self.deadline_seconds = deadline_seconds
        """For a connection, for a place in the pool, and for a statement."""


class PooledWriter(Writer):
    """A transaction at a time, on whatever connection the application's pool hands out."""

    def __init__(self, stack: ApplicationStack) -> None:
        """Write through this pool."""
        self._stack = stack

    async def write(self, run: str, client: str, sequence: int) -> Answer:
        """Write one row; see `Writer`. Until its commit is sent, a transaction that breaks is certainly not done."""
        answer: Answer | None = None
        stage = "connect"
        try:
            async with asyncio.timeout(self._stack.deadline_seconds), self._stack.engine.connect() as connection:
                stage = "statement"
                named = {"run": run, "client": client, "sequence": sequence}
                row = (await connection.execute(_INSERT, named)).one()
                stage = "commit"
                await connection.commit()
                answer = Answer(
                    WriteOutcome.ACKNOWLEDGED, time.monotonic_ns(), "", acknowledger_of(row, row[5]), row[0]
                )
        except _ANY as failed:
            if answer is None:  # what goes wrong behind the acknowledgement takes nothing back
                cause = _cause(failed)
                refused = stage != "commit" or certainly_not_done(cause)
                outcome = WriteOutcome.REFUSED if refused else WriteOutcome.INDETERMINATE
                return Answer(outcome, time.monotonic_ns(), f"{stage} {kind_of(cause)}")
        assert answer is not None, "it was acknowledged, or it raised"
        return answer

    async def close(self) -> None:
        """Let go of the whole pool; see `Writer`."""
        with contextlib.suppress(*_ANY):
            async with asyncio.timeout(self._stack.deadline_seconds):
                await self._stack.engine.dispose()


def _cause(failed: BaseException) -> BaseException:
    """Return the driver's own error where SQLAlchemy has wrapped it."""
    seen: BaseException | None = failed
    while seen is not None:
        if isinstance(seen, (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)):
            break
        seen = getattr(seen, "orig", None) or seen.__cause__
    return seen or failed
