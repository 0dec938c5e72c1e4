"""Whose database is this?

A drill creates a database, compares it and drops it. If it dies in between, the next drill finds a database of that
name, and must not drop it unless it is certain that a drill made it. So a database of ours bears a mark from its first
moment to its last: a setting in pg_db_role_setting, which is no part of the database's own content, needs no
connection to it to be read, and is no comment that a restore could overwrite.
"""

from __future__ import annotations

from runbook_lib.errors import TargetRefused, ToolFailed
from runbook_lib.reach import postgres
from runbook_lib.reach.postgres import Session

SETTING = "tensafe.owned_by"
SCRATCH_CLUSTER = "tensafe-scratch"
"""How the ``cluster_name`` of every throwaway server begins, so that no copy passes for the cluster it is a copy of."""

_MARK = """
SELECT substr(c.setting, length('tensafe.owned_by=') + 1) AS owner
  FROM pg_catalog.pg_database d
  LEFT JOIN pg_catalog.pg_db_role_setting s ON s.setdatabase = d.oid AND s.setrole = 0
  LEFT JOIN LATERAL pg_catalog.unnest(s.setconfig) AS c (setting) ON c.setting LIKE 'tensafe.owned\\_by=%%'
 WHERE d.datname = %s
"""


def mark(session: Session, database: str, owner: str) -> None:
    """Put our mark on a database that was just created."""
    session.execute(f"ALTER DATABASE {postgres.identifier(database)} SET {SETTING} = {postgres.literal(owner)}")


def owner_of(session: Session, database: str) -> str | None:
    """Return the owner on a database's mark: empty if it bears none, None if there is no such database."""
    found = session.rows(_MARK, database)
    return (found[0]["owner"] or "") if found else None


def exists(session: Session, database: str) -> bool:
    """Return whether there is a database of this name."""
    return owner_of(session, database) is not None


def remove(session: Session, database: str) -> bool:
    """Drop a database of ours, whoever is connected to it, and see that it is gone; return whether there was one.

    Raise `TargetRefused` if it does not bear our mark.
    """
    owner = owner_of(session, database)
    if owner is None:
        return False
    if not owner:
        raise TargetRefused(
            f"the database {database}",
            where=postgres.describe(session.dsn),
            why="it bears no mark of ours, so that somebody else made it",
            remedy=f"restore under another name, or drop it yourself if you are certain: DROP DATABASE {database}",
        )
    session.execute(f"DROP DATABASE IF EXISTS {postgres.identifier(database)} WITH (FORCE)")
    if exists(session, database):
        raise ToolFailed(
            f"to drop the database {database}",
            where=postgres.describe(session.dsn),
            why="the server claims that it was dropped, and it is still there",
            remedy=f"drop it yourself: DROP DATABASE {database} WITH (FORCE)",
        )
    return True
