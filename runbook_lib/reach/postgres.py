"""How to talk to a PostgreSQL server.

The only importer of psycopg. Two things are decided here once. What a session may do: a session for checks is held
read-only by PostgreSQL itself, with timeouts, so that a check cannot do harm even where it is wrong. And how values
are written: the settings that change the text of a value or of a definition (dates, floats, the search path, ...)
are pinned, so that the same content gives the same text on every server.

And one thing more: what the server says when a statement fails quotes rows. An error leaves this module without them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import dict_row
from psycopg.types.json import set_json_loads

from runbook_lib.errors import Denied, NotFound, RunbookError, Unproven, Unreachable
from runbook_lib.secrecy import said_by_postgresql

Row = dict[str, Any]

PINNED: Mapping[str, str] = {
    "search_path": "",  # every name in a definition is written with its schema
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "xmlbinary": "base64",
    "lc_monetary": "C",
    "quote_all_identifiers": "off",
    "standard_conforming_strings": "on",
    "jit": "off",  # compiling takes longer than these queries gain
    "row_security": "off",  # raise, rather than silently leave rows out
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
}
"""Settings that change how content is written, fixed for every session that compares content."""

_MAJOR = 10_000
_GRACE_SECONDS = 10.0
"""How long after its own timeout a server may take to say so, before it counts as silent."""
_COPY_BLOCK_BYTES = 1 << 16
_TRANSACTION_TIMEOUT_SINCE = 170_000
_ANY_BYTES = "LATIN1"
"""An encoding in which every byte is a character, for databases that do not say in which encoding their bytes are."""


@dataclass(frozen=True)
class Server:
    """What a server says of itself."""

    version_num: int
    """``server_version_num``, such as 170011."""
    version: str
    """``server_version``, such as ``17.11 (Debian 17.11-1.pgdg120+1)``."""
    system_identifier: str
    """The cluster's identity, made by initdb; as text, because JSON readers round 64-bit numbers."""
    in_recovery: bool
    """True on a standby."""

    @property
    def major(self) -> int:
        """The major version, such as 17."""
        return self.version_num // _MAJOR


class Session:
    """One connection, opened for one purpose."""

    def __init__(self, connection: psycopg.Connection[Row], dsn: str) -> None:
        self._connection = connection
        self.dsn = dsn
        self.version_num = connection.info.server_version

    def rows(self, query: str, *arguments: object, **named: object) -> list[Row]:
        """Return all rows of a query, each a mapping from column name to value."""
        # Queries come from our own .sql files and from quoted identifiers; values always travel as parameters.
        parameters = named or arguments or None
        try:
            with _telling_no_rows():
                cursor = self._connection.execute(query, parameters)
                return cursor.fetchall() if cursor.description else []
        except psycopg.errors.InsufficientPrivilege as refused:
            raise Denied(
                "to read what this check needs",
                where=describe(self.dsn),
                why=_first_line(refused),
                remedy="run it as a role that may read it (pg_read_all_data, or a superuser for a full backup)",
            ) from refused
        except UnicodeDecodeError as foreign:
            raise Unproven(
                "to read names as text",
                where=describe(self.dsn),
                why=f"the server sends {foreign.object[:40]!r}, which is not in the encoding of this database",
                remedy="look for roles, role comments and settings that were made in a database of another encoding",
            ) from foreign

    def row(self, query: str, *arguments: object, **named: object) -> Row:
        """Return the one row of a query; anything but one row is a defect of the query."""
        found = self.rows(query, *arguments, **named)
        if len(found) != 1:
            msg = f"expected one row, found {len(found)}: {query[:80]}"
            raise ValueError(msg)
        return found[0]

    def value(self, query: str, *arguments: object, **named: object) -> Any:
        """Return the one value of the one row of a query."""
        return next(iter(self.row(query, *arguments, **named).values()))

    def execute(self, statement: str, *arguments: object) -> None:
        """Execute a statement for its effect; psycopg's own errors are raised, without the values of rows."""
        with _telling_no_rows():
            self._connection.execute(statement, arguments or None)

    def server(self) -> Server:
        """Ask the server who it is. Needs no more than a login."""
        return Server(
            **self.row(
                "SELECT current_setting('server_version_num')::int AS version_num,"
                " current_setting('server_version') AS version,"
                " (SELECT system_identifier::text FROM pg_catalog.pg_control_system()) AS system_identifier,"
                " pg_catalog.pg_is_in_recovery() AS in_recovery"
            )
        )

    @property
    def backend_pid(self) -> int:
        """The server process that works for this session."""
        return self._connection.info.backend_pid

    def cancel(self) -> None:
        """Ask the server to stop what this session is executing; safe from another thread."""
        self._connection.cancel_safe(timeout=5)

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Transaction]:
        """Commit at the end of the block, and roll back on an exception."""
        with _telling_no_rows(), self._connection.transaction() as transaction:
            yield transaction

    @property
    def connection(self) -> psycopg.Connection[Row]:
        """The driver's connection, for what is not a plain statement (COPY, notices)."""
        return self._connection


class _Connection(psycopg.Connection[Row]):
    """A connection that does not wait for ever.

    ``statement_timeout`` is the server's: one that is stopped, or whose disk hangs, keeps the connection open, and
    neither answers nor times out.
    """

    where: str = ""
    """What it leads to, for the error."""
    answer_within_seconds: float | None = None
    """How long one answer may take; None for as long as it takes."""

    def wait(self, *arguments: Any, **named: Any) -> Any:
        """Wait for an answer. Raise `Unreachable` where none comes in time; the connection is closed then."""
        named.setdefault("timeout", self.answer_within_seconds)
        try:
            return super().wait(*arguments, **named)
        except psycopg.errors._WaitTimeout as silent:
            self.pgconn.finish()
            raise Unreachable(
                "an answer of PostgreSQL",
                where=self.where,
                why=f"it accepted the connection, and was silent for {named['timeout']:.0f} s",
                remedy="look at the server: a stopped process, a hanging disk, a network that drops packets",
            ) from silent


@contextmanager
def _telling_no_rows() -> Iterator[None]:
    """Take the values of rows out of what the driver raises: whoever prints the error prints no row."""
    try:
        yield
    except psycopg.Error as failed:
        failed.args = (said_by_postgresql(str(failed), by_the_driver=True),)
        raise


@contextmanager
def session(
    dsn: str,
    *,
    application_name: str = "runbook",
    read_only: bool = True,
    statement_timeout_seconds: float = 0,
    lock_timeout_seconds: float = 10,
    connect_timeout_seconds: int = 10,
    answer_within_seconds: float | None = None,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Session]:
    """Open a session in autocommit mode and close it at the end.

    :param dsn: a libpq connection string; what it leaves out comes from libpq's own files and variables
    :param application_name: what ``pg_stat_activity`` shows of us
    :param read_only: have PostgreSQL itself refuse every write of this session
    :param statement_timeout_seconds: 0 for none
    :param answer_within_seconds: when a server that keeps silent is given up; by default some time after the
        statement's own timeout
    :param settings: further settings for the session, over the pinned ones

    Raise `Unreachable` if nothing answers, `Denied` if the login is refused, `NotFound` if there is no such database.
    """
    wanted = {
        **PINNED,
        "default_transaction_read_only": "on" if read_only else "off",
        "statement_timeout": f"{round(statement_timeout_seconds * 1000)}",
        "lock_timeout": f"{round(lock_timeout_seconds * 1000)}",
        **(settings or {}),
    }
    connection = _connect(dsn, application_name, connect_timeout_seconds)
    if connection.info.server_version >= _TRANSACTION_TIMEOUT_SINCE:
        wanted["transaction_timeout"] = "0"
    with connection:
        connection.execute(
            "SELECT pg_catalog.set_config(key, value, false) FROM pg_catalog.json_each_text(%s::pg_catalog.json)",
            (json.dumps(wanted),),
        )
        bounded = statement_timeout_seconds + _GRACE_SECONDS if statement_timeout_seconds else None
        connection.answer_within_seconds = answer_within_seconds or bounded
        yield Session(connection, dsn)


def _connect(dsn: str, application_name: str, timeout_seconds: int) -> _Connection:
    try:
        connection = _Connection.connect(
            dsn,
            autocommit=True,
            row_factory=dict_row,
            application_name=application_name,
            connect_timeout=timeout_seconds,
            client_encoding="UTF8",
        )
    except psycopg.ProgrammingError as malformed:
        raise Unreachable(
            "to connect to PostgreSQL",
            where=f"connection string {describe(dsn)!r}",
            why=_first_line(malformed),
            remedy="write it as libpq does: host=... port=... dbname=... user=..., or postgresql://...",
        ) from malformed
    except psycopg.OperationalError as failed:
        raise _connection_error(dsn, failed) from failed
    connection.where = describe(dsn)
    connection.answer_within_seconds = timeout_seconds
    if connection.info.parameter_status("server_encoding") == "SQL_ASCII":
        # The server converts nothing and refuses what is no UTF-8. Byte by byte nothing is refused, and nothing lost.
        connection.execute(f"SET client_encoding TO {_ANY_BYTES}")
        set_json_loads(
            lambda told: json.loads(told.decode(_ANY_BYTES) if isinstance(told, bytes) else told), connection
        )
    return connection


def _connection_error(dsn: str, failed: psycopg.OperationalError) -> RunbookError:
    """Tell a server that is not there from one that refuses; libpq reports both in prose only."""
    why = _first_line(failed)
    sought, where = "to connect to PostgreSQL", describe(dsn)
    if re.search(r'database ".*" does not exist', why):
        return NotFound(sought, where=where, why=why, remedy="name an existing database in the profile")
    if "not currently accepting connections" in why:
        remedy = "somebody has shut it: let that come to its end, or take it back (runbook recover)"
        return Denied(sought, where=where, why=why, remedy=remedy)
    if "permission denied for database" in why:
        return Denied(sought, where=where, why=why, remedy="GRANT CONNECT ON DATABASE ... TO the role of the profile")
    if re.search(r"authentication failed|no pg_hba.conf entry|no password supplied|role .* does not exist", why):
        remedy = "check user and password (PGPASSFILE, PGSERVICE, PGUSER) and pg_hba.conf"
        return Denied(sought, where=where, why=why, remedy=remedy)
    remedy = "check that the server runs and that host and port are right and reachable from here"
    return Unreachable(sought, where=where, why=why, remedy=remedy)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def copy_between(source: Session, query: str, target: Session, table: str) -> None:
    """Stream the rows of a query into a table of another server, a buffer at a time, as pg_dump writes values.

    :param query: a SELECT
    :param table: the table, quoted, and its columns in parentheses where not all are given
    """
    with (
        _telling_no_rows(),
        source.connection.cursor() as reading,
        target.connection.cursor() as writing,
        reading.copy(f"COPY ({query}) TO STDOUT") as rows,
        writing.copy(f"COPY {table} FROM STDIN") as into,
    ):
        block = bytearray()
        for row in rows:  # one row at a time, which would cost more to send on than to read
            block += row
            if len(block) >= _COPY_BLOCK_BYTES:
                into.write(bytes(block))
                block.clear()
        into.write(bytes(block))


def with_database(dsn: str, database: str) -> str:
    """Return the connection string of another database on the same server."""
    return make_conninfo(dsn, dbname=database)


def at_address(dsn: str, host: str, port: int) -> str:
    """Return the connection string of the same database and user on another server."""
    return make_conninfo(dsn, host=host, port=port)


def nobody_listens(error: Unreachable) -> bool:
    """Say whether a connection failed because nothing listens there, as opposed to something that keeps silent."""
    return "Connection refused" in error.why or ("socket" in error.why and "No such file or directory" in error.why)


def database_of(dsn: str) -> str:
    """Return the name of the database a connection string asks for; empty where libpq decides."""
    return str(conninfo_to_dict(dsn).get("dbname") or "")


def holds_password(dsn: str) -> bool:
    """Return whether a connection string holds a secret, in either of libpq's two forms; a malformed one may."""
    try:
        return any(key.endswith("password") for key, value in conninfo_to_dict(dsn).items() if value)
    except psycopg.ProgrammingError:
        return re.search(r"password\s*=|://[^/@]*:[^/@]*@", dsn, re.IGNORECASE) is not None


def libpq_environment(dsn: str) -> dict[str, str]:
    """Return a connection string as ``PG*`` variables, so that no password stands in a process list."""
    variables = {
        "host": "PGHOST",
        "hostaddr": "PGHOSTADDR",
        "port": "PGPORT",
        "user": "PGUSER",
        "password": "PGPASSWORD",
        "dbname": "PGDATABASE",
        "service": "PGSERVICE",
        "passfile": "PGPASSFILE",
        "sslmode": "PGSSLMODE",
        "sslrootcert": "PGSSLROOTCERT",
        "sslcert": "PGSSLCERT",
        "sslkey": "PGSSLKEY",
        "options": "PGOPTIONS",
    }
    return {variables[key]: str(value) for key, value in conninfo_to_dict(dsn).items() if key in variables and value}


def describe(dsn: str) -> str:
    """Return a connection string fit for a report: place, database and user, never a password."""
    try:
        parts = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        return re.sub(r"(password\s*=\s*|:)[^\s@]+", r"\1***", dsn)
    shown = [f"{key}={parts[key]}" for key in ("service", "host", "port", "dbname", "user") if parts.get(key)]
    return " ".join(shown) or "libpq's defaults"


def identifier(*names: str) -> str:
    """Quote a name, or a schema and a name, for use in a statement."""
    return sql.Identifier(*names).as_string(None)


def literal(value: str) -> str:
    """Quote a text for use in a statement that takes no parameters, such as DDL."""
    return sql.Literal(value).as_string(None)


@cache
def load_sql(package: str, name: str, version_num: int = 0) -> str:
    """Return the text of ``sql/NAME.sql`` of a package, in the form that fits a server version.

    ``NAME_150000.sql`` is for servers from 150000 on; the highest floor that is not above the server wins, and
    ``NAME.sql`` is for all the others.
    """
    folder, stem = files(package) / "sql", name
    if "/" in name:
        parts = name.split("/")
        folder, stem = folder.joinpath(*parts[:-1]), parts[-1]
    floors = {0: f"{stem}.sql"}
    for entry in folder.iterdir():
        matched = re.fullmatch(rf"{re.escape(stem)}_(\d{{6}})\.sql", entry.name)
        if matched and int(matched[1]) <= version_num:
            floors[int(matched[1])] = entry.name
    return (folder / floors[max(floors)]).read_text(encoding="utf-8")


def sql_names(package: str, folder: str) -> Sequence[str]:
    """Return the names of all queries in ``sql/FOLDER``, without version floors, in alphabetical order."""
    entries = (files(package) / "sql" / folder).iterdir()
    stems = {re.sub(r"(_\d{6})?\.sql$", "", entry.name) for entry in entries if entry.name.endswith(".sql")}
    return sorted(stems)


DriverError = psycopg.Error
"""What the driver raises; named here so that other rooms need not import it."""
