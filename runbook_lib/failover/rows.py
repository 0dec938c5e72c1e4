"""The table that clients write to, and what is in it when everything is over.

It is read once, from the one primary that is left, after the last attempt has ended: what a replica shows, or what a
server shows that is about to be rewound, says nothing of what is kept. So the server that the rows came from is part of
what was read, and a verdict looks at it first.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from runbook_lib.errors import NotFound, ToolFailed
from runbook_lib.reach import postgres
from runbook_lib.reach.postgres import DriverError, Session
from runbook_lib.reach.writing import SCHEMA, TABLE

PREPARE = (
    f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}",
    f"""CREATE TABLE IF NOT EXISTS {TABLE} (
        run text NOT NULL,
        client text NOT NULL,
        sequence bigint NOT NULL,
        written_at timestamptz NOT NULL DEFAULT clock_timestamp())""",
    f"COMMENT ON TABLE {TABLE} IS 'What the clients of a failover drill have written; each run may be removed'",
)
"""What has to be there before a client can write."""
REMOVE = (f"DROP TABLE IF EXISTS {TABLE}", f"DROP SCHEMA IF EXISTS {SCHEMA}")
"""What takes it away again."""

_NO_SUCH_TABLE = {"42P01", "3F000"}


@dataclass(frozen=True)
class FinalRows:
    """The rows of one run, as one server showed them at one moment."""

    rows: Mapping[tuple[str, int], int]
    """How many rows there are of each client and sequence."""
    system_identifier: str
    """The cluster's identity, as the server told it that they were read from."""
    timeline: int
    """The timeline that it was writing; 0 for a standby."""
    in_recovery: bool
    """Whether it was a standby."""
    read_at_ns: int
    """When the reading began, on the monotonic clock."""
    where: str
    """Where they were read from, for a report."""

    @classmethod
    def read(cls, dsn: str, run: str) -> FinalRows:
        """Read the rows of a run, with the server's identity, in one snapshot.

        Raise `Unreachable`, `Denied` or `NotFound` where that cannot be done.
        """
        began_ns = time.monotonic_ns()
        with postgres.session(dsn, application_name="runbook/final rows") as session:
            try:
                return cls._from(session, run, began_ns)
            except DriverError as refused:
                where, why = postgres.describe(dsn), (str(refused).splitlines() or [type(refused).__name__])[0]
                if refused.sqlstate in _NO_SUCH_TABLE:
                    remedy = f"read from the server that clients wrote to, before {SCHEMA} is removed"
                    raise NotFound("the rows that clients wrote", where=where, why=why, remedy=remedy) from refused
                remedy = "look at the server's log"
                raise ToolFailed(
                    "reading the rows that clients wrote", where=where, why=why, remedy=remedy
                ) from refused

    @classmethod
    def _from(cls, session: Session, run: str, began_ns: int) -> FinalRows:
        session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        rows = session.rows(f"SELECT client, sequence, count(*) AS n FROM {TABLE} WHERE run = %s GROUP BY 1, 2", run)
        server = session.server()
        timeline = 0
        if not server.in_recovery:
            name = session.value("SELECT pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn())")
            timeline = int(name[:8], 16)
        session.execute("ROLLBACK")
        return cls(
            rows={(row["client"], row["sequence"]): row["n"] for row in rows},
            system_identifier=server.system_identifier,
            timeline=timeline,
            in_recovery=server.in_recovery,
            read_at_ns=began_ns,
            where=postgres.describe(session.dsn),
        )
