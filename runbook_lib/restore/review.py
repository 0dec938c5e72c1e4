"""How does the living table differ from what was restored of it?

The living database is read once, and gives a key and two hashes for each row, and nothing else of it; the comparing
is done beside it, where the rows were restored to. Only the rows that differ are kept there, to be merged if somebody
asks for that, each with what its living version hashed to when it was looked at.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from runbook_lib.backup import content
from runbook_lib.errors import TargetRefused, Unproven
from runbook_lib.outcome import Check, Finding
from runbook_lib.reach import postgres
from runbook_lib.restore import living_table, staging
from runbook_lib.restore.living_table import Key, LivingTable, listed
from runbook_lib.restore.restored import HeldDatabase
from runbook_lib.restore.staging import ACTION, CHANGED, MISSING, REVIEWED
from runbook_lib.safety.systems import Systems

REVIEW_SCHEMA = "runbook_review"
"""The schema in the scratch database that the comparison is done in."""
DIFFERING = f"{REVIEW_SCHEMA}.differing"
"""The rows of the backup that the living table has not, or has with other values."""
_SHARED, _WHOLE = '"runbook shared"', '"runbook whole"'


@dataclass(frozen=True)
class Review:
    """How a living table differs from what was restored of it."""

    table: str
    """The table as it is typed in SQL."""
    oid: int
    """The living one's oid."""
    key: Key
    """What tells its rows apart."""
    columns: Sequence[str]
    """The columns that would be written."""
    missing: int
    """Rows of the backup that the living table has not."""
    changed: int
    """Rows that both have, with other values."""
    added: int
    """Rows that the living table alone has; nobody touches them."""
    same: int
    """Rows that are the same in both."""
    columns_left_out: Sequence[str] = ()
    """What is not compared and not written because one side alone has it; a sentence each."""

    def __str__(self) -> str:
        """Return it as one sentence."""
        return (
            f"{self.table}: {self.missing} rows are missing, {self.changed} are changed, {self.added} are new,"
            f" {self.same} are the same"
        )

    @property
    def nothing_is_missing(self) -> Check:
        """Say whether the living table has every row of the backup, with whatever values."""
        findings: tuple[Finding, ...] = ()
        if self.missing:
            findings = (Finding("table.missing", self.table, f"{self.missing} rows of the backup are not there"),)
        return Check("no row of the backup is missing", self.table, str(self), findings)


def review(restored: HeldDatabase, systems: Systems, table: str, *, common_columns: bool = False) -> Review:
    """Compare the living table, row by row, with what was restored of it. The living one is read once.

    :param restored: a database of ours that was restored, from whatever; what differs is left in it, to be merged
    :param common_columns: whether a column that one side alone has may be left out: missing rows have its default then

    Raise `TargetRefused` where the two are no longer the same table, or nothing tells its rows apart; `NotFound` where
    there is no living one; `Unproven` where the two servers hash differently.
    """
    with (
        restored.stopwatch.phase("compare with the living table"),
        systems.inside(read_only=True) as living,
        postgres.session(restored.dsn, read_only=False, application_name="runbook/compare") as scratch,
    ):
        now, then = living_table.read(living, table), living_table.read(scratch, table)
        shared, left_out = _shared_columns(now, then, common_columns=common_columns)
        key = _key(now, then, shared)
        if content.hash_vector(living) != content.hash_vector(scratch):
            raise Unproven(
                f"to compare {table} with its backup",
                where=postgres.describe(living.dsn),
                why="the two servers hash the same values differently",
                remedy="restore with the living server's major version, on a machine of the same kind",
            )
        columns = [each.name for each in now.columns if each.name in shared and not each.is_generated]
        staging.as_a_replica(scratch)
        keys, seen, held = listed(key.columns, "t"), f"{REVIEW_SCHEMA}.living", f"{REVIEW_SCHEMA}.held"
        scratch.execute(f"DROP SCHEMA IF EXISTS {REVIEW_SCHEMA} CASCADE")
        scratch.execute(f"CREATE SCHEMA {REVIEW_SCHEMA}")
        scratch.execute(
            f"CREATE UNLOGGED TABLE {seen} AS SELECT {keys}, 0::bigint AS {_SHARED}, 0::bigint AS {_WHOLE}"
            f" FROM {then.rows} AS t WITH NO DATA"
        )
        # What is compared, and what must not have changed when it is written: the same where no column is left out.
        hashes = f"s.h, {now.hash() if left_out else 's.h'}"
        each = f"CROSS JOIN LATERAL (SELECT {now.hash(shared)} OFFSET 0) AS s (h)"
        # Both sides hash at the same time, by the living table's columns: the same types, by the same names.
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="review") as beside:
            hashing = beside.submit(
                _execute,
                restored.dsn,
                f"CREATE UNLOGGED TABLE {held} AS SELECT {keys}, {now.hash(shared)} AS {_SHARED} FROM {then.rows} AS t",
            )
            postgres.copy_between(living, f"SELECT {keys}, {hashes} FROM {now.rows} AS t {each}", scratch, seen)
            hashing.result()
        none = f"l.{postgres.identifier(key.columns[0])} IS NULL"
        scratch.execute(
            f"CREATE UNLOGGED TABLE {DIFFERING} AS SELECT {listed(columns, 't')},"
            f" CASE WHEN d.is_missing THEN '{MISSING}' ELSE '{CHANGED}' END AS {postgres.identifier(ACTION)},"
            f" coalesce(d.{_WHOLE}, 0) AS {postgres.identifier(REVIEWED)} FROM"
            f" (SELECT {listed(key.columns, 'h')}, {none} AS is_missing, l.{_WHOLE} FROM {held} AS h"
            f" LEFT JOIN {seen} AS l ON {key.same('h', 'l')} WHERE {none} OR l.{_SHARED} <> h.{_SHARED} OFFSET 0) AS d"
            f" JOIN {then.rows} AS t ON {key.same('t', 'd')}"
        )
        counted = scratch.row(
            f"SELECT (SELECT pg_catalog.count(*) FROM {held}) AS held,"
            f" (SELECT pg_catalog.count(*) FROM {seen}) AS living,"
            f" pg_catalog.count(*) FILTER (WHERE {postgres.identifier(ACTION)} = '{MISSING}') AS missing,"
            f" pg_catalog.count(*) AS differing FROM {DIFFERING}"
        )
    found = counted["held"] - counted["missing"]
    return Review(
        now.qualified,
        now.oid,
        key,
        columns,
        missing=counted["missing"],
        changed=counted["differing"] - counted["missing"],
        added=counted["living"] - found,
        same=counted["held"] - counted["differing"],
        columns_left_out=left_out,
    )


def _execute(dsn: str, statement: str) -> None:
    with postgres.session(dsn, read_only=False, application_name="runbook/compare") as session:
        staging.as_a_replica(session)
        session.execute(statement)


def _shared_columns(now: LivingTable, then: LivingTable, *, common_columns: bool) -> tuple[set[str], tuple[str, ...]]:
    """Return the columns that both have; raise `TargetRefused` where they differ and may not be left out."""
    living, held = ({each.name: each for each in table.columns} for table in (now, then))
    retyped = [
        f"{name} was {held[name].type}, and is {living[name].type}"
        for name in living.keys() & held.keys()
        if (held[name].type, held[name].is_generated) != (living[name].type, living[name].is_generated)
    ]
    added = [f"{name} was added since" for name in living if name not in held]
    dropped = [f"{name} was dropped since, or renamed" for name in held if name not in living]
    told = tuple(sorted(retyped) + dropped + added)
    if now.has_rules:
        why, remedy = "it has rules, which rewrite what is written to it", "drop the rules, and make them again after"
    elif retyped or (told and not common_columns):
        why = f"its columns are others than in the backup: {'; '.join(told)}"
        remedy = (
            "restore the table to scratch, and convert the rows yourself"
            if retyped
            else "have the common columns compared alone: missing rows have the default in the others"
        )
    else:
        return living.keys() & held.keys(), told
    raise TargetRefused(f"to merge rows into {now.qualified}", where="the living table", why=why, remedy=remedy)


def _key(now: LivingTable, then: LivingTable, shared: Collection[str]) -> Key:
    held = {frozenset(each.columns) for each in then.keys}
    for key in now.keys:
        if frozenset(key.columns) in held and set(key.columns) <= set(shared):
            return key
    raise TargetRefused(
        f"to compare {now.qualified} row by row",
        where="the living table and the backup",
        why="no primary key and no unique key of columns that are never NULL is there in both: which row is which"
        " cannot be told, and what was inserted twice could not be taken back",
        remedy="restore it to scratch and compare it yourself, or replace the whole database",
    )
