"""What has to be known of a table before anything is compared with it or written to it.

A table restored from last night and the living one need not be the same table any more: a column was added, dropped or
given another type, the key is another. And "the same row" and "the same value" are questions with traps: a key is
compared by the equality that its own index uses, a value by the content hash, which forgives nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from runbook_lib.backup import content
from runbook_lib.errors import NotFound, TargetRefused
from runbook_lib.reach import postgres
from runbook_lib.reach.postgres import Session


@dataclass(frozen=True)
class TableColumn:
    """One column."""

    name: str
    """Its name, unquoted."""
    type: str
    """Its type with modifier and collation, as it is typed in SQL."""
    is_generated: bool
    """Whether it is computed from others, and cannot be written."""
    is_always_identity: bool
    """Whether it can be written by an INSERT alone, and never be changed."""


@dataclass(frozen=True)
class Key:
    """Columns that tell rows apart."""

    columns: Sequence[str]
    """Their names, unquoted."""
    operators: Sequence[str]
    """The equality of each, with its schema."""

    def same(self, one: str, other: str) -> str:
        """Return the condition that two aliases stand for the same row."""
        return matching(one, self.columns, other, self.columns, self.operators)


@dataclass(frozen=True)
class LivingTable:
    """A table, or a partitioned one as a whole."""

    oid: int
    """Its oid: another table of the same name has another one."""
    schema: str
    """Its schema, unquoted."""
    name: str
    """Its name, unquoted."""
    qualified: str
    """Both, as they are typed in SQL."""
    kind: str
    """``r``, or ``p`` where it is partitioned."""
    has_rules: bool
    """Whether a rule rewrites what is written to it."""
    tree: Sequence[str]
    """It and all partitions below it, as they are typed in SQL."""
    columns: Sequence[TableColumn]
    """Its columns in their order."""
    keys: Sequence[Key]
    """What tells its rows apart; the primary key first."""
    hashed: Sequence[content.Column]
    """Its columns as the content hash knows them. All may be NULL: what is hashed on two sides must not depend on a
    NOT NULL that only one of them has."""

    @property
    def rows(self) -> str:
        """What stands behind FROM or UPDATE: without the tables that inherit from it, but with its partitions."""
        return relation(self.schema, self.name, is_partitioned=self.kind == "p")

    def hash(self, names: Collection[str] | None = None) -> str:
        """Return the expression that hashes a row called ``t``: all of it, or some columns."""
        return content.row_hash([each for each in self.hashed if names is None or each.name in names])

    @property
    def names(self) -> list[str]:
        """The names of all its columns."""
        return [each.name for each in self.columns]


def read(session: Session, name: str) -> LivingTable:
    """Read what a table is like. Raise `NotFound` where there is none of that name."""
    found = session.rows(postgres.load_sql(__package__, "table"), name)
    if not found:
        raise NotFound(
            f"the table {name}",
            where=postgres.describe(session.dsn),
            why="there is none of that name",
            remedy="if it was renamed, name it back first; if it was dropped, restore the whole database beside the"
            " living one, and take the table's definition from there",
        )
    table = found[0]
    if table["kind"] not in ("r", "p"):
        raise TargetRefused(
            f"the table {name}",
            where=postgres.describe(session.dsn),
            why="it is no table: rows cannot be put into it as they were",
            remedy="name the table that its rows come from",
        )
    columns = tuple(
        TableColumn(**row) for row in session.rows(postgres.load_sql(__package__, "table_columns"), oid=table["oid"])
    )
    keys = tuple(
        Key(tuple(row["columns"]), tuple(row["operators"]))
        for row in session.rows(postgres.load_sql(__package__, "table_keys"), oid=table["oid"])
    )
    return LivingTable(
        **{name: value for name, value in table.items() if name != "tree"},
        tree=tuple(table["tree"]),
        columns=columns,
        keys=keys,
        hashed=_hashed(session, table["tree"], columns),
    )


def _hashed(session: Session, tree: Sequence[str], columns: Sequence[TableColumn]) -> tuple[content.Column, ...]:
    known = next((each for each in content.tables(session) if each.qualified in tree), None)
    if known is not None:
        return tuple(replace(column, not_null=False) for column in known.columns)
    # Partitioned, without a partition: what nothing is known of is hashed by its text.
    return tuple(
        content.Column(column.name, "", is_array=False, has_text=False, not_null=False, deterministic=True)
        for column in columns
    )


def relation(schema: str, name: str, *, is_partitioned: bool) -> str:
    """Return a table as it stands behind FROM."""
    return f"{'' if is_partitioned else 'ONLY '}{postgres.identifier(schema, name)}"


def matching(
    one: str, columns: Sequence[str], other: str, other_columns: Sequence[str], operators: Sequence[str]
) -> str:
    """Return the condition that columns of two aliases are equal, each pair by its operator."""
    pairs = zip(columns, other_columns, operators, strict=True)
    return " AND ".join(
        f"{one}.{postgres.identifier(left)} OPERATOR({operator}) {other}.{postgres.identifier(right)}"
        for left, right, operator in pairs
    )


def listed(names: Sequence[str], alias: str = "") -> str:
    """Return names as a list of columns."""
    before = f"{alias}." if alias else ""
    return ", ".join(f"{before}{postgres.identifier(name)}" for name in names)
