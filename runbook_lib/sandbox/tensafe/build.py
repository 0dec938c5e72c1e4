"""Builds the database, step by step, from the SQL files beside this module.

The rows are made by the server itself from a seed, so that the same seed and scale give the same rows everywhere, and
a larger database costs nothing but the server's time. Each file is a transaction of its own, because a new value of an
enum can only be used by a later one; a build that fails says at which file, and leaves a database to be dropped. Roles
belong to the whole cluster and may have been made by an earlier build: making them is idempotent.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

from runbook_lib.errors import TargetRefused, ToolFailed
from runbook_lib.reach.postgres import Row, session

_HERE = Path(__file__).parent
_OWNER = "tensafe_owner"


@dataclass(frozen=True)
class _Step:
    """One SQL file, and what it takes to run it."""

    file: str
    """The file's name without ``.sql``. A number at its end: the oldest ``server_version_num`` that reads it."""
    superuser: bool = False
    """Whether it needs a superuser; everything else is made by, and so belongs to, tensafe_owner."""
    needs: str | None = None
    """A key of `_ABILITIES`: something that not every build of PostgreSQL can do."""

    @property
    def since_version_num(self) -> int:
        """The oldest server that this file is for, as ``server_version_num``; 0 for any."""
        number = self.file.rpartition("_")[2]
        return int(number) if number.isdecimal() else 0


_ABILITIES = {
    "xml": "SELECT count(*) > 0 AS able FROM pg_config WHERE name = 'CONFIGURE' AND setting LIKE '%with-libxml%'",
    "lz4": "SELECT 'lz4' = ANY (enumvals) AS able FROM pg_settings WHERE name = 'default_toast_compression'",
}
"""What a build of PostgreSQL may be able to do, and the query that tells."""

_STEPS = (
    _Step("dice", superuser=True),
    _Step("roles", superuser=True),
    _Step("roles_160000", superuser=True),
    _Step("database", superuser=True),
    _Step("schemas", superuser=True),
    _Step("extensions"),
    _Step("foreign_data_wrapper", superuser=True),
    _Step("types"),
    _Step("collation_170000"),
    _Step("sequences"),
    _Step("functions_for_tables"),
    _Step("tables"),
    _Step("usage_events"),
    _Step("audit_chain"),
    _Step("rows_application"),
    _Step("rows_usage_events"),
    _Step("rows_audit_logs"),
    _Step("audit_triggers"),
    _Step("notifications"),
    _Step("oddities"),
    _Step("every_type"),
    _Step("every_type_xml", needs="xml"),
    _Step("compression_lz4", needs="lz4"),
    _Step("large_objects"),
    _Step("constraints"),
    _Step("constraints_150000"),
    _Step("constraints_180000"),
    _Step("indexes"),
    _Step("text_search"),
    _Step("functions"),
    _Step("operator_class", superuser=True),
    _Step("views"),
    _Step("views_150000"),
    _Step("rules"),
    _Step("triggers"),
    _Step("row_security"),
    _Step("foreign_table"),
    _Step("publications"),
    _Step("publications_150000"),
    _Step("publication_of_schema_150000", superuser=True),
    _Step("grants"),
    _Step("grants_170000"),
    _Step("superuser_grants", superuser=True),
    _Step("default_privileges", superuser=True),
    _Step("comments"),
    _Step("event_trigger", superuser=True),
    _Step("superuser_comments", superuser=True),
)
"""All there is, in the order in which it can be made."""

_SETTINGS = {"search_path": "public, extensions", "client_min_messages": "error"}
"""What the SQL files are read with, beside what every session of this project has pinned."""


def build(dsn: str, *, scale: float = 1.0, seed: int = 1) -> None:
    """Build a TenSafe-like database in an existing, empty one.

    :param dsn: libpq connection string of a superuser, naming the empty database
    :param scale: its size: 1 makes about 200,000 rows and 80 MB; small tables keep a few rows at any scale
    :param seed: draws other values; the same seed and scale make the same rows

    Raise `TargetRefused` when the database is not empty, `ToolFailed`, naming the SQL file, when the server refuses a
    step, and what `session` raises when the database cannot be reached.
    """
    settings = {**_SETTINGS, "building.seed": str(seed), "building.scale": str(scale)}
    with session(dsn, application_name="sandbox", read_only=False, settings=settings) as opened:
        connection = opened.connection
        _refuse_unless_empty(connection)
        for step in [step for step in _STEPS if _understood(step, connection)]:
            _carry_out(step, connection)
        # As any database in use has been; this also lets the first comparison find its statistics.
        connection.execute("RESET ROLE")
        connection.execute("VACUUM (ANALYZE)")


def _refuse_unless_empty(connection: psycopg.Connection[Row]) -> None:
    found = connection.execute(
        """SELECT n.nspname || '.' || c.relname AS name
           FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
           WHERE n.nspname !~ '^(pg_|information_schema$)' ORDER BY 1 LIMIT 1"""
    ).fetchone()
    if found is not None:
        raise TargetRefused(
            "an empty database to build TenSafe in",
            where=f"database {connection.info.dbname}",
            why=f"it is not empty: it holds {found['name']}",
            remedy="create a new database, and name that one",
        )


def _understood(step: _Step, connection: psycopg.Connection[Row]) -> bool:
    """Say whether this server can carry out a step at all."""
    if connection.info.server_version < step.since_version_num:
        return False
    if step.needs is None:
        return True
    answer = connection.execute(_ABILITIES[step.needs]).fetchone()
    return answer is not None and bool(answer["able"])


def _carry_out(step: _Step, connection: psycopg.Connection[Row]) -> None:
    file = _HERE / f"{step.file}.sql"
    role = sql.SQL("RESET ROLE") if step.superuser else sql.SQL("SET ROLE {}").format(sql.Identifier(_OWNER))
    try:
        connection.execute(role)
        connection.execute(file.read_bytes())
    except psycopg.Error as error:
        raise ToolFailed(
            f"step {step.file} of building TenSafe",
            where=f"{file.name}, PostgreSQL {connection.info.server_version}, database {connection.info.dbname}",
            why=str(error).strip(),
            remedy="drop the database; connect as a superuser, or correct the file for this version",
        ) from error
