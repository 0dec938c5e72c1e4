"""One number for the content of a table.

Equal counts prove little: every value can have changed. So each row is hashed to 64 bits by the server's own hash
functions, and the hashes are added up. The sum does not depend on the physical order of the rows, does not overflow
(PostgreSQL adds bigints up as numeric), and counts duplicates, which an xor would cancel.

PostgreSQL's hash functions are made for hash joins, and a join forgives what a proof must not:

* They hash *equal* values equally, and "equal" is weaker than "the same": numeric 1.0 = 1.00, float 0 = -0,
  interval '1 day' = '24 hours', citext 'A' = 'a', arrays of another shape, any two texts that a nondeterministic
  collation calls equal.
* Some leave things out: numeric its sign, and with it jsonb; bigint, time and timestamp are folded to 32 bits first,
  so that 1 and 4294967296 hash alike.
* Some do not exist (json, xml, point), and one hashes an OID that a restore changes (enum).
* ``hash_record_extended`` and ``hash_array_extended`` multiply and add, so that their sum over a table stays the same
  when two rows swap the values of one column.

So a value is hashed natively only where that is exact or can be made so by a second look at what was forgiven, by its
binary form where that is exact and cheap, and by its text otherwise. Each hash is the seed of the next column's, which
takes the swaps away, and the last one hashes which columns are NULL or a negative zero.

The way is the fastest of those measured that forgives nothing; ``make bench`` holds it against ``hash_record_extended``
of the whole row, which is the least a row hash costs in PostgreSQL, and forgives. What is left beyond that is jsonb as
text: no function that SQL can call sees the whole of a jsonb value and is cheaper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runbook_lib.reach import postgres
from runbook_lib.reach.postgres import Session

ALGORITHM = "sum of chained 64-bit column hashes, by column name/2"
"""Names the way of hashing. A manifest made in another way cannot be compared; change it with every change here."""

NOT_POPULATED = "not populated"
"""Stands for the hash of a materialized view that was never refreshed: it has no content."""

_CHAINED = {
    "bool": ("hashint4extended(CASE WHEN {0} THEN 1 ELSE 0 END, {1})", "false"),
    "char": ("hashcharextended({0}, {1})", "''::pg_catalog.\"char\""),
    "int2": ("hashint2extended({0}, {1})", "0::int2"),
    "int4": ("hashint4extended({0}, {1})", "0"),
    # Its high half first: with that given, folding the two halves into one loses nothing.
    "int8": ("hashint8extended({0}, pg_catalog.hashint8extended({0} >> 32, {1}))", "0::int8"),
    "float4": ("hashfloat4extended({0}, {1})", "0::float4"),
    "float8": ("hashfloat8extended({0}, {1})", "0::float8"),
    # Without its trailing blanks, and how long it is with them.
    "bpchar": ("hashint4extended(pg_catalog.octet_length({0}), pg_catalog.hashbpcharextended({0}, {1}))", "''::bpchar"),
    "oid": ("hashoidextended({0}, {1})", "0::oid"),
    "name": ("hashnameextended({0}, {1})", "''::name"),
    "text": ("hashtextextended({0}, {1})", "''"),
    "varchar": ("hashtextextended({0}, {1})", "''"),
    "uuid": ("uuid_hash_extended({0}, {1})", "'00000000-0000-0000-0000-000000000000'"),
    "inet": ("hashinetextended({0}, {1})", "'0.0.0.0'"),
    "cidr": ("hashinetextended({0}, {1})", "'0.0.0.0'"),
}
"""Types hashed by a call of their own, of the value {0} with the seed {1}; and what stands in for NULL."""

_IN_ARRAY = {
    "bytea": "{0}",
    "date": "pg_catalog.date_send({0})",
    "macaddr": "pg_catalog.macaddr_send({0})",
    "macaddr8": "pg_catalog.macaddr8_send({0})",
    "time": "pg_catalog.time_send({0})",
    "timetz": "pg_catalog.timetz_send({0})",
    "timestamp": "pg_catalog.timestamp_send({0})",
    "timestamptz": "pg_catalog.timestamptz_send({0})",
    "pg_lsn": "pg_catalog.pg_lsn_send({0})",
    "xid8": "pg_catalog.xid8send({0})",
    "numeric": "pg_catalog.numeric_send({0})",
    "interval": "pg_catalog.interval_send({0})",
    "enum": "pg_catalog.enum_send({0})",  # its label
}
"""Types whose hash function cannot be called from SQL in every version, or whose binary form tells values apart that
are equal: their bytes are hashed together, as one array."""

_FORGIVES_ZERO = ("float4", "float8")
"""Types whose hash function takes a negative zero for a zero."""

_BITS = 31
"""How many yes-or-no answers fit into one integer."""


@dataclass(frozen=True)
class Column:
    """What the hash has to know of a column."""

    name: str
    """Its name, unquoted."""
    type: str
    """The built-in type it has, below all domains; ``enum`` for any enum, empty for another type that somebody made."""
    is_array: bool
    """True for an array of whatever type."""
    has_text: bool
    """True for a type, or an array of one, that came with PostgreSQL and whose cast to text gives its whole value."""
    not_null: bool
    """True where NULL is out of the question, which saves looking for it."""
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
    total = f"coalesce(pg_catalog.sum({row_hash(columns)}), 0)::text"
    return f"SELECT pg_catalog.count(*) AS rows, {total} AS hash FROM {rows}"


def row_hash(columns: Sequence[Column]) -> str:
    """Return the expression that hashes one row, called ``t``, to a bigint, never NULL."""
    array: list[str] = []
    chain: list[tuple[str, str]] = []
    asked: list[str] = []
    # By name: pg_dump does not keep the order of columns of a table that inherits some of them.
    for column in sorted(columns, key=lambda each: each.name):
        value = f"t.{postgres.identifier(column.name)}"
        kind = "" if column.is_array else column.type
        if kind in _IN_ARRAY:
            array.append(_IN_ARRAY[kind].format(value))
            continue
        if kind in _CHAINED or column.has_text:
            # A cast is cheaper than format(). Not for xml: a cast keeps a declaration that its output function, and
            # so a dump, leaves out.
            hashing, instead = _CHAINED.get(kind, _CHAINED["text"])
            text = value if kind in _CHAINED else f"{value}::pg_catalog.text"
            collation = "" if column.deterministic else ' COLLATE "C"'
            chain.append((hashing, f"{text if column.not_null else f'coalesce({text}, {instead})'}{collation}"))
            asked.append("" if column.not_null else f"{value} IS NULL")
            if kind in _FORGIVES_ZERO:
                asked.append(f"{value} = 0 AND {value}::pg_catalog.text = '-0'")
        else:
            # %L writes NULL and 'NULL' differently, and uses the type's own output function, which no cast replaces.
            chain.append((_CHAINED["text"][0], f"pg_catalog.format('%L', {value})"))
    hashed = f"pg_catalog.hash_array_extended(ARRAY[{', '.join(array)}], 0)" if array else "0"
    for hashing, value in chain:
        hashed = f"pg_catalog.{hashing.format(value, hashed)}"
    for first in range(0, max(len(asked), 1), _BITS):
        these = enumerate(asked[first : first + _BITS])
        flags = [f"CASE WHEN {question} THEN {1 << bit} ELSE 0 END" for bit, question in these if question]
        hashed = f"pg_catalog.hashint4extended({' + '.join(flags) or '0'}, {hashed})"
    return hashed


def hash_vector(session: Session) -> str:
    """Return what this server's hash functions make of fixed values, in decimal digits."""
    return str(session.value(postgres.load_sql(__package__, "hash_vector")))
