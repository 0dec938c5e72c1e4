"""One table comes back from a backup, and the living one stays what it is.

``pg_restore -t`` into the living database restores nothing where the name is not quite right, fails on the first key
that is there, and doubles the rows where there is no key; and to rename tables leaves foreign keys, views, grants,
policies and publications on the old one. So the table is restored to scratch (`table_backup`), compared row by row with
the living one (`review`), and what was asked for is merged into that (`merge`), in the order that this module keeps.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from runbook_lib.backup.content import Content
from runbook_lib.backup.definitions import Definition, definitions, differences
from runbook_lib.errors import TargetRefused
from runbook_lib.outcome import Check, Finding, Outcome
from runbook_lib.reach import postgres
from runbook_lib.reach.postgres import Session
from runbook_lib.restore import living_table, staging
from runbook_lib.restore.living_table import listed
from runbook_lib.restore.merge import AUDIT_LOG, Merged, MergeTable, TakeMergeBack
from runbook_lib.restore.restored import HeldDatabase
from runbook_lib.restore.review import DIFFERING, Review
from runbook_lib.restore.staging import ACTION, MISSING, REVIEWED, Mark, StageRows
from runbook_lib.restore.table_backup import belonging
from runbook_lib.safety.act import Act
from runbook_lib.safety.permit import Procedure
from runbook_lib.safety.systems import Systems


@dataclass(frozen=True)
class TableMerge:
    """The acts of merging what was found to differ into the living table."""

    stage: StageRows
    """A place for the rows, and for what they replace."""
    merge: MergeTable
    """They are written."""

    @classmethod
    def of(
        cls,
        found: Review,
        *,
        changed_too: bool,
        now: datetime,
        keep_for: timedelta,
        lock_timeout_seconds: float = 5.0,
    ) -> Self:
        """Return the acts. Raise `TargetRefused` where rows of the audit log would be changed."""
        if changed_too and found.table == AUDIT_LOG:
            raise TargetRefused(
                f"to give changed rows of {found.table} their values back",
                where="the audit log",
                why="it is append-only: a row that differs is evidence",
                remedy="merge the missing rows alone, and keep both versions of the changed ones",
            )
        token = secrets.token_hex(8)
        at, until = (moment.isoformat(timespec="milliseconds") for moment in (now, now + keep_for))
        return cls(
            StageRows(token, found.table, tuple(found.columns), at, until),
            MergeTable(
                token,
                found.table,
                found.oid,
                tuple(found.key.columns),
                tuple(found.key.operators),
                tuple(found.columns),
                changed_too,
                lock_timeout_seconds,
            ),
        )

    @property
    def acts(self) -> tuple[Act, ...]:
        """Both, in their order."""
        return (self.stage, self.merge)

    def carry_out(self, procedure: Procedure, restored: HeldDatabase, systems: Systems) -> DoneMerge:
        """Stage the rows that differ, merge them, and have both stay."""
        with systems.inside(read_only=True) as living:
            before = same_table(living, self.merge.table)
        with procedure.doing(self.stage) as was:
            self.stage.do(systems, was)
            with restored.stopwatch.phase("stage"):
                self.fill(restored, systems)
        with restored.stopwatch.phase("merge"):
            procedure.do(self.merge)
        procedure.keep(*self.acts)
        with systems.inside(read_only=True) as living:
            mark = staging.mark_of(living, self.merge.token)
        return DoneMerge(mark, Merged(**mark.merged), before)

    def fill(self, restored: HeldDatabase, systems: Systems) -> None:
        """Send the rows that differ, of those that are to be merged, to their place in the living database."""
        only = "" if self.merge.changed_too else f" WHERE {postgres.identifier(ACTION)} = '{MISSING}'"
        columns = listed([*self.stage.columns, ACTION, REVIEWED])
        with systems.inside() as living, restored.session() as scratch:
            staging.as_a_replica(living)
            into = postgres.identifier(self.stage.schema, "incoming")
            query = f"SELECT {columns} FROM {DIFFERING}{only}"
            postgres.copy_between(scratch, query, living, f"{into} ({columns})")


@dataclass(frozen=True)
class DoneMerge:
    """A merge that was done, and can be taken back."""

    mark: Mark
    """What is written of it in the database."""
    merged: Merged
    """What it did."""
    before: Sequence[Definition]
    """What made the table the one it is, before."""

    def table_is_the_same(self, session: Session) -> Check:
        """Say whether the table is the one it was: its oid, and everything that hangs on it."""
        findings = tuple(
            Finding(f"table.{each.kind.replace(' ', '_')}", each.name, str(each))
            for each in differences(self.before, same_table(session, self.mark.table))
        )
        looked_at = f"{len(self.before)} definitions of {self.mark.table}"
        return Check("the table is still the same one", postgres.describe(session.dsn), looked_at, findings)


def take_back(act: TakeMergeBack, procedure: Procedure, systems: Systems) -> Content:
    """Take a merge back, and return what the table has to hold then, if nobody else writes to it."""
    with systems.inside(read_only=True) as session:
        expected = act.expected_back(session)
    procedure.do(act)
    for problem in procedure.take_back():
        raise problem
    return expected


def is_as_it_was(session: Session, act: TakeMergeBack, expected: Content) -> Check:
    """Say whether a table holds what it held before a merge that was taken back."""
    found = act.content(session)
    findings: tuple[Finding, ...] = ()
    if found != expected:
        told = f"{expected.rows} rows were expected, and {found.rows} are there"
        findings = (
            Finding(
                "table.content",
                act.table,
                f"{told if found.rows != expected.rows else 'other content'}: somebody has written to it since",
                Outcome.UNPROVEN,
                "look what the journal says of the rows that were left alone",
            ),
        )
    question, looked_at = "the table is as it was before the merge", f"{found.rows} rows of {act.table}"
    return Check(question, postgres.describe(session.dsn), looked_at, findings)


def same_table(session: Session, table: str) -> tuple[Definition, ...]:
    """Return what makes a table the one it is: its oid, and everything that hangs on it."""
    found = living_table.read(session, table)
    identity = Definition("oid", found.qualified, str(found.oid))
    return (identity, *belonging(definitions(session), found.tree))
