"""Unique and exclusion constraints that wait until a transaction ends.

They are checked by a trigger, and a merge fires none: two rows of one unique value would both stay, and nothing would
ever say so. So where a table has such a constraint, nobody else writes to it while rows are merged, and that no row
written stands against another one is proven by a join before the transaction ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from runbook_lib.errors import ToolFailed, Unproven
from runbook_lib.reach import postgres
from runbook_lib.reach.postgres import Session
from runbook_lib.restore.living_table import LivingTable, matching


@dataclass(frozen=True)
class Deferrable:
    """One such constraint."""

    name: str
    """Its name."""
    columns: Sequence[str]
    """The columns that no two rows may share."""
    operators: Sequence[str]
    """How the two would be compared, column by column."""


def held(session: Session, table: LivingTable) -> list[Deferrable]:
    """List those of a table, and keep everybody else from writing to it until the transaction ends if there are any.

    Raise `Unproven` for one that a join cannot prove.
    """
    found = [
        Deferrable(**row) for row in session.rows(postgres.load_sql(__package__, "table_deferrable"), oid=table.oid)
    ]
    for each in found:
        if len(each.columns) != len(each.operators):
            raise Unproven(
                f"the constraint {each.name} of {table.qualified}",
                where=postgres.describe(session.dsn),
                why="it is checked by a trigger, which a merge does not fire, and is made of expressions",
                remedy="make it NOT DEFERRABLE, merge the rows, and make it DEFERRABLE again",
            )
    if found:
        session.execute(f"LOCK TABLE {table.rows} IN SHARE ROW EXCLUSIVE MODE")
    return found


def must_hold(
    session: Session,
    table: LivingTable,
    constraints: Sequence[Deferrable],
    *,
    written: str,
    same: Callable[[str, str], str],
) -> None:
    """Prove them of the rows that were written.

    :param written: the rows, as a relation
    :param same: the condition that two aliases stand for the same row

    Raise `ToolFailed` where one does not hold.
    """
    for each in constraints:
        alike = matching("a", each.columns, "t", each.columns, each.operators)
        count = session.value(
            f"SELECT pg_catalog.count(*) FROM {written} AS a JOIN {table.rows} AS t ON {alike}"
            f" WHERE NOT ({same('a', 't')})"
        )
        if count:
            raise ToolFailed(
                f"the constraint {each.name} of {table.qualified}",
                where=postgres.describe(session.dsn),
                why=f"{count} rows would stand against others that are there; nothing was changed",
                remedy="look which rows took their place since the backup",
            )
