"""Do the foreign keys of a table, and those to it, hold?

Rows are merged without firing a trigger, and foreign keys are triggers: nothing checks them then. So they are proven by
anti-joins: for the rows that were written before the transaction ends, while the rows they refer to are held; for the
whole table afterwards, by a session that only reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from runbook_lib.errors import ToolFailed, Unproven
from runbook_lib.outcome import Check, Finding, Outcome
from runbook_lib.reach import postgres
from runbook_lib.reach.postgres import Session
from runbook_lib.restore.living_table import LivingTable, matching


@dataclass(frozen=True)
class ForeignKey:
    """One foreign key of a table or to it."""

    name: str
    """Its name."""
    child: str
    """The table that refers, as it is typed in SQL."""
    child_is_partitioned: bool
    """Whether that is a partitioned table."""
    parent: str
    """The table that is referred to, as it is typed in SQL."""
    parent_is_partitioned: bool
    """Whether that is a partitioned table."""
    child_columns: Sequence[str]
    """The columns that refer."""
    parent_columns: Sequence[str]
    """The columns that are referred to."""
    operators: Sequence[str]
    """The equality of each pair, parent first."""
    is_validated: bool
    """Whether it is known of all rows, and not only asked of new ones."""
    is_temporal: bool
    """Whether it has a PERIOD: one row may refer to several."""
    is_of_it: bool
    """Whether the table that was asked about refers."""
    is_to_it: bool
    """Whether the table that was asked about is referred to."""

    def __str__(self) -> str:
        """Return it as people call it."""
        return f"{self.child} {postgres.identifier(self.name)}"

    @property
    def parents(self) -> str:
        """The rows that are referred to."""
        return self.parent if self.parent_is_partitioned else f"ONLY {self.parent}"

    @property
    def children(self) -> str:
        """The rows that refer."""
        return self.child if self.child_is_partitioned else f"ONLY {self.child}"

    def refers(self, parent: str, child: str) -> str:
        """Return the condition that one alias refers to the other."""
        return matching(parent, self.parent_columns, child, self.child_columns, self.operators)

    def orphans(self, rows: str) -> str:
        """Return the query that counts rows, called ``c``, that refer to nothing."""
        given = " AND ".join(f"c.{postgres.identifier(name)} IS NOT NULL" for name in self.child_columns)
        return (
            f"SELECT pg_catalog.count(*) FROM {rows} AS c WHERE {given}"
            f" AND NOT EXISTS (SELECT FROM {self.parents} AS p WHERE {self.refers('p', 'c')})"
        )


def of(session: Session, table: LivingTable) -> list[ForeignKey]:
    """List the foreign keys of a table and to it."""
    found = session.rows(postgres.load_sql(__package__, "table_foreign_keys"), oid=table.oid)
    return [ForeignKey(**row) for row in found]


def must_hold(session: Session, table: LivingTable, *, written: str, lost: str) -> None:
    """Prove them of what this transaction did, and hold what its rows refer to until it ends.

    :param written: the rows as they were written, as a relation
    :param lost: the rows as they were before, as a relation

    Raise `ToolFailed` where one does not hold, `Unproven` where that cannot be said.
    """
    for key in of(session, table):
        if key.is_temporal:
            raise Unproven(
                f"the foreign key {key}",
                where=postgres.describe(session.dsn),
                why="it has a PERIOD, which this library does not know how to prove",
                remedy="drop it, merge the rows, and add it again: that proves it",
            )
        if key.is_of_it:
            # Whoever deletes one of them now waits, and then finds the rows that refer to it.
            session.rows(
                f"SELECT pg_catalog.count(*) FROM (SELECT FROM {key.parents} AS p"
                f" WHERE EXISTS (SELECT FROM {written} AS c WHERE {key.refers('p', 'c')}) FOR KEY SHARE OF p) AS held"
            )
            _must_be_none(session, key, key.orphans(written), f"rows of {table.qualified}")
        if key.is_to_it:
            gone = f"{key.orphans(key.children)} AND EXISTS (SELECT FROM {lost} AS b WHERE {key.refers('b', 'c')})"
            _must_be_none(session, key, gone, f"rows of {key.child}")


def _must_be_none(session: Session, key: ForeignKey, query: str, whose: str) -> None:
    if count := session.value(query):
        raise ToolFailed(
            f"the foreign key {key}",
            where=postgres.describe(session.dsn),
            why=f"{count} {whose} would refer to rows of {key.parent} that are not there; nothing was changed",
            remedy=f"bring back the rows of {key.parent} first",
        )


def hold(session: Session, table: LivingTable) -> Check:
    """Look whether every foreign key of a table, and to it, holds for every row."""
    keys = of(session, table)
    return Check(
        "every foreign key holds",
        postgres.describe(session.dsn),
        f"{len(keys)} foreign keys of {table.qualified} and to it",
        tuple(_findings(session, keys)),
    )


def _findings(session: Session, keys: Sequence[ForeignKey]) -> Iterator[Finding]:
    for key in keys:
        if key.is_temporal:
            yield Finding(
                "foreign_key.temporal",
                str(key),
                "it has a PERIOD, which this library does not know how to prove",
                Outcome.UNPROVEN,
                "validate it anew: drop it and add it again",
            )
        elif key.is_validated and (count := session.value(key.orphans(key.children))):
            yield Finding(
                "foreign_key.orphans",
                str(key),
                f"{count} rows refer to rows of {key.parent} that are not there",
                remedy=f"bring back the rows of {key.parent}, or remove those that refer to them",
            )
