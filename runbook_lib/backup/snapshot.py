"""One moment of the source database, seen by many sessions.

pg_dump and everything that is written into the manifest must see the same rows, or comparing them proves nothing.
PostgreSQL lets one transaction export its snapshot and others join it, pg_dump among them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from runbook_lib.reach import postgres
from runbook_lib.reach.postgres import Session

_BEGIN = "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"


@dataclass(frozen=True)
class Snapshot:
    """An exported snapshot, held open by a session of ours."""

    id: str
    """What ``pg_dump --snapshot`` and ``SET TRANSACTION SNAPSHOT`` take."""
    lsn: str
    """The position of the WAL when it was taken, such as ``0/1A2B3C4D``."""
    taken_at: datetime
    """The server's clock when it was taken, in UTC."""
    dsn: str
    """The database it is of."""
    application_name: str
    """What ``pg_stat_activity`` shows of the sessions in it."""

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Open a further session that sees this moment, in a transaction that PostgreSQL holds read-only."""
        with postgres.session(self.dsn, application_name=self.application_name) as session:
            session.execute(_BEGIN)
            session.execute(f"SET TRANSACTION SNAPSHOT {postgres.literal(self.id)}")
            yield session
            session.execute("ROLLBACK")


@contextmanager
def exported(dsn: str, *, application_name: str) -> Iterator[tuple[Snapshot, Session]]:
    """Export a snapshot and hold it open; yields it with the session that holds it.

    A snapshot holds back vacuum on the source for as long as it is open, like every dump.
    """
    with postgres.session(dsn, application_name=application_name) as holder:
        holder.execute(_BEGIN)
        row = holder.row(
            "SELECT pg_catalog.pg_export_snapshot() AS id, pg_catalog.clock_timestamp() AS taken_at,"
            " (CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()"
            " ELSE pg_catalog.pg_current_wal_insert_lsn() END)::text AS lsn"
        )
        yield Snapshot(row["id"], row["lsn"], row["taken_at"], dsn, application_name), holder
        holder.execute("ROLLBACK")
