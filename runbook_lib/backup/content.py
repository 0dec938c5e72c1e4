"""One number for the content of a table.

Equal counts prove little: every value can have changed. So each row is hashed to 64 bits by the server's own
``hash_record_extended`` and the hashes are added up. The sum does not depend on the physical order of the rows, does
not overflow (PostgreSQL adds bigints up as numeric), and counts duplicates, which an xor would cancel.

Three facts about PostgreSQL's hash functions decide how a column enters the row:

* They hash *equal* values equally, and "equal" is weaker than "the same": numeric 1.0 = 1.00, float 0 = -0,
  interval '1 day' = '24 hours', citext 'A' = 'a', any two texts that a nondeterministic collation calls equal.
* Some do not exist (json, xml, point), and one hashes an OID that a restore changes (enum).
* ``hash_record_extended`` combines columns by multiplying and adding, so its sum over a table would stay the same
  when two rows swap the values of one column. A second hash over each row's hash takes that away.

So a column is hashed natively only if its type's hash is exact and free of OIDs, by its binary form where that is
exact and cheap, and by its text otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runbook_lib.reach import postgres
from runbook_lib.reach.postgres import Session

ALGORITHM = "sum(hashint8extended(hash_record_extended(columns by name)))/1"
"""Names the way of hashing. A manifest made in another way cannot be compared; change it with every change here."""

NOT_POPULATED = "not populated"
"""Stands for the hash of a materialized view that was never refreshed: it has no content."""

_NATIVE = frozenset(
    [
        "bool",
        "char",
        "int2",
        "int4",
        "int8",
        "oid",
        "name",
        "text",
        "varchar",
        "bytea",
        "uuid",
        "date",
        "time",
        "timestamp",
        "timestamptz",
        "timetz",
        "inet",
        "cidr",
        "macaddr",
        "macaddr8",
        "pg_lsn",
        "xid8",
    ]
)
"""Types whose hash is equal for the same value only, and the same on every server."""

_BY_BINARY_FORM = {
    "float4": "float4send",
    "float8": "float8send",
    "numeric": "numeric_send",
    "interval": "interval_send",
    "bpchar": "bpcharsend",  # a cast to text would cut trailing blanks
}
"""Types whose binary form tells values apart that are equal; each with the function that gives it."""

_BY_CAST = frozenset({"jsonb", "json", "tsvector"})
"""Types of one piece whose text is exact; a cast is cheaper than format(). Not xml: a cast keeps a declaration that
its output function, and so a dump, leaves out."""


@dataclass(frozen=True)
class Column:
    """What the hash has to know of a column."""

    name: str
    """Its name, unquoted."""
    type: str
    """The built-in type it has, below all domains; empty for a type that somebody made."""
    is_array: bool
    """True for an array of whatever type."""
    deterministic: bool
    """False where its collation calls different texts equal."""


@dataclass(frozen=True)
class Table:
    """A relation whose rows a dump carries: a table, a partition, a materialized view, a hash-partitioned table."""

    schema: str
    """The schema's name, unquoted."""
    name: str
    """The relation's name, unquoted."""
    qualified: str
    """Both together as they are typed in SQL: quoted where necessary, as PostgreSQL itself quotes."""
    columns: tuple[Column, ...]
    """Its columns in their order, dropped ones left out."""
    bytes: int
    """Heap, TOAST and maps on disk; a hint for scheduling, no part of the content."""
    kind: str
    """``r`` for a table, ``m`` for a materialized view, ``p`` for a hash-partitioned table that is read as one."""
    is_populated: bool
    """False for a materialized view that was never refreshed: reading it is an error."""

    @property
    def is_materialized_view(self) -> bool:
        """True where a restore fills it by running its query again."""
        return self.kind == "m"


@dataclass(frozen=True)
class Content:
    """What a table held."""

    rows: int
    """The exact number of rows."""
    hash: str
    """The sum of the 64-bit hashes of all rows, in decimal digits: the sum outgrows 64 bits."""


def tables(session: Session) -> list[Table]:
    """List every relation whose rows a dump carries, largest first, so that the longest work begins first."""
    return [
        Table(
            schema=row["schema"],
            name=row["name"],
            qualified=row["qualified"],
            columns=tuple(Column(**column) for column in row["columns"]),
            bytes=row["bytes"],
            kind=row["kind"],
            is_populated=row["is_populated"],
        )
        for row in session.rows(postgres.load_sql(__package__, "tables"))
    ]


def content_of(session: Session, table: Table) -> Content:
    """Read a table once and return its exact number of rows and its content hash.

    Takes an AccessShareLock, and reads rows that row-level security would hide or raises: ``row_security`` is off.
    """
    row = session.row(content_query(table))
    return Content(rows=row["rows"], hash=row["hash"])


def content_of_query(session: Session, view: Table) -> Content:
    """Run a materialized view's query and return what the view would hold if it were refreshed now."""
    query = session.value("SELECT pg_catalog.pg_get_viewdef(%s::pg_catalog.regclass)", view.qualified).rstrip("; ")
    names = ", ".join(postgres.identifier(column.name) for column in view.columns)
    row = session.row(_hashing(view.columns, f"({query}) AS t ({names})"))
    return Content(rows=row["rows"], hash=row["hash"])


def content_query(table: Table) -> str:
    """Return the query that hashes one table: ``(rows bigint, hash text)``."""
    only = "" if table.kind == "p" else "ONLY "
    return _hashing(table.columns, f"{only}{postgres.identifier(table.schema, table.name)} AS t")


def _hashing(columns: Sequence[Column], rows: str) -> str:
    return (
        "SELECT pg_catalog.count(*) AS rows, coalesce(pg_catalog.sum(pg_catalog.hashint8extended("
        f"pg_catalog.hash_record_extended({_row(columns)}, 0), 0)), 0)::text AS hash FROM {rows}"
    )


def _row(columns: Sequence[Column]) -> str:
    if not columns:
        return "ROW (0)"  # a table without columns has rows all the same
    # By name: pg_dump does not keep the order of columns of a table that inherits some of them.
    return f"ROW ({', '.join(_expression(column) for column in sorted(columns, key=lambda each: each.name))})"


def _expression(column: Column) -> str:
    name = f"t.{postgres.identifier(column.name)}"
    if not column.is_array and column.type in _NATIVE:
        return name if column.deterministic else f'{name} COLLATE "C"'
    if column.type in _BY_BINARY_FORM:
        return f"pg_catalog.{_BY_BINARY_FORM[column.type]}({name})"
    if column.type in _BY_CAST:
        return f"{name}::pg_catalog.text"
    # %L writes NULL and 'NULL' differently, and uses the type's own output function, which no cast can replace.
    return f"pg_catalog.format('%L', {name})"


def hash_vector(session: Session) -> str:
    """Return what this server's hash functions make of fixed values, in decimal digits."""
    return str(session.value(postgres.load_sql(__package__, "hash_vector")))
