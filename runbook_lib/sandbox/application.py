"""The sandbox's tensafe-api: a program that writes to the database all the time, as the real one does.

A restore under which nobody writes, and a failover that nobody notices, prove little. This one is built like the
application it stands for (SQLAlchemy on asyncpg, a small pool that asks a connection whether it is alive before it is
used), writes a numbered row five times a second, and says in its log which of them the database has acknowledged: a
number that was acknowledged and is not in the table is a lost write. It reconnects for ever, and ends the moment it is
told to.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import time
from collections.abc import Mapping

import asyncpg  # type: ignore[import-untyped]
from sqlalchemy import URL, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from runbook_lib.errors import ToolFailed

NAME = "tensafe-api"
"""What it calls itself towards the database."""
TABLE = "tensafe_api.writes"
"""The table that it writes to, and owns."""
ROLE = "tensafe"
"""Whom it logs in as: a role that may be locked out, unlike a superuser."""

_EVERY_SECONDS = 0.2
_STATEMENT_SECONDS = 5.0
_CONNECT_SECONDS = 5.0
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 2.0
_INSERT = text(f"INSERT INTO {TABLE} (writer, number) VALUES (:writer, :number)")

PREPARE = (
    f"CREATE SCHEMA IF NOT EXISTS tensafe_api AUTHORIZATION {ROLE}",
    f"""CREATE TABLE IF NOT EXISTS {TABLE} (
        writer text NOT NULL,
        number bigint NOT NULL,
        written_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (writer, number))""",
    f"ALTER TABLE {TABLE} OWNER TO {ROLE}",
    f"COMMENT ON TABLE {TABLE} IS 'What the application has written, numbered by each writer'",
)
"""What a superuser has to have made in its database before it can write."""

_log = logging.getLogger(NAME)


def url(environment: Mapping[str, str]) -> URL:
    """Return where the database is, as PostgreSQL's own variables say it; several hosts are tried in turn."""
    hosts = environment.get("PGHOST", "localhost").split(",")
    ports = environment.get("PGPORT", "5432").split(",")
    ports = ports * len(hosts) if len(ports) == 1 else ports
    places = ",".join(f"{host}:{port}" for host, port in zip(hosts, ports, strict=True))
    query = {"host": places} if len(hosts) > 1 else {"host": hosts[0], "port": ports[0]}
    return URL.create(
        "postgresql+asyncpg",
        username=environment.get("PGUSER", ROLE),
        password=environment.get("PGPASSWORD"),
        database=environment.get("PGDATABASE", "tensafe"),
        query=query,
    )


class Readiness:
    """Says to whoever started us whether we can do our work, once for each change."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        self._ready: bool | None = None

    def say(self, *, ready: bool) -> None:
        """Say it."""
        if ready is not self._ready and self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.write(self._descriptor, b"ready\n" if ready else b"unready\n")
        self._ready = ready


async def write_for_ever(engine: AsyncEngine, writer: str, readiness: Readiness) -> None:
    """Write a row five times a second, and go on after every failure."""
    number = 0
    pause_seconds = _FIRST_PAUSE_SECONDS
    while True:
        began = time.monotonic()
        number += 1  # one that failed may have been written nevertheless: its number is not used again
        try:
            async with asyncio.timeout(_STATEMENT_SECONDS), engine.begin() as connection:
                await connection.execute(_INSERT, {"writer": writer, "number": number})
        except (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as failed:
            readiness.say(ready=False)
            reason = " ".join(str(failed).partition("[SQL:")[0].split()) or type(failed).__name__
            _log.warning("not acknowledged %s: %s; again in %.1f s", number, reason, pause_seconds)
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)
            continue
        pause_seconds = _FIRST_PAUSE_SECONDS
        readiness.say(ready=True)
        _log.info("acknowledged %s", number)
        await asyncio.sleep(max(0.0, began + _EVERY_SECONDS - time.monotonic()))


async def _run(environment: Mapping[str, str]) -> None:
    descriptor = environment.get("READINESS_FD")
    readiness = Readiness(int(descriptor) if descriptor else None)
    writer = f"{environment.get('POD_NAME', NAME)}.{environment.get('RESTARTS', '0')}"
    where = url(environment)
    engine = create_async_engine(
        where,
        pool_size=2,
        max_overflow=0,
        pool_timeout=_CONNECT_SECONDS,
        pool_pre_ping=True,
        connect_args={
            "timeout": _CONNECT_SECONDS,
            "command_timeout": _STATEMENT_SECONDS,
            "server_settings": {"application_name": NAME},
        },
    )
    _log.info("%s writes to %s of %s", writer, TABLE, where.render_as_string(hide_password=True))
    await write_for_ever(engine, writer, readiness)


def main() -> int:
    """Write until we are killed, or whoever started us is gone."""
    logging.basicConfig(
        stream=sys.stdout,
        level=logging.INFO,
        format="%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
    )
    logging.Formatter.converter = time.gmtime

    async def run() -> None:
        loop = asyncio.get_running_loop()
        if not os.isatty(0):
            loop.add_reader(0, _end_with_our_owner)
        await _run(os.environ)

    try:
        asyncio.run(run())
    except ValueError as wrong:
        raise ToolFailed(
            "to write to the database",
            where="PGHOST and PGPORT",
            why=str(wrong),
            remedy="give as many ports as hosts, or one",
        ) from wrong
    return 0


def _end_with_our_owner() -> None:
    if not os.read(0, 1):
        os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
