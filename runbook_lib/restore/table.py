"""One table comes back from a backup, and the living one stays what it is.

``pg_restore -t`` into the living database restores nothing where the name is not quite right, fails on the first key
that is there, and doubles the rows where there is no key; and to rename tables leaves foreign keys, views, grants,
policies and publications on the old one. So the table is restored where nothing can be harmed, with everything that
belongs to it and none of the other tables' rows, and compared with the manifest. Then the two are compared row by row:
the living database is read once, and gives a key and two hashes for each row; the comparing is done beside it. Only the
rows that differ travel, and only those that somebody asked for are merged.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Self

from runbook_lib.backup import comparison, content, inventory, reparse, retention
from runbook_lib.backup.catalog import Archive, Backup
from runbook_lib.backup.comparison import Comparison
from runbook_lib.backup.content import Content
from runbook_lib.backup.definitions import Definition, definitions, differences
from runbook_lib.backup.inventory import Inventory, LargeObjects
from runbook_lib.backup.manifest import DatabaseIdentity, Manifest
from runbook_lib.errors import NotFound, TargetRefused, Unproven
from runbook_lib.outcome import Check, Finding, Outcome
from runbook_lib.phases import Watcher, nobody
from runbook_lib.reach import postgres
from runbook_lib.reach.postgres import Session
from runbook_lib.restore import living_table, staging
from runbook_lib.restore.living_table import Key, LivingTable, listed
from runbook_lib.restore.merge import AUDIT_LOG, Merged, MergeTable, TakeMergeBack
from runbook_lib.restore.restored import NO_LOCALE, RestoredDatabase
from runbook_lib.restore.scratch import Scratch, into_scratch
from runbook_lib.restore.staging import ACTION, CHANGED, MISSING, REVIEWED, Mark, StageRows
from runbook_lib.safety.act import Act
from runbook_lib.safety.permit import Procedure
from runbook_lib.safety.systems import Systems

_CATALOG_BYTES = 50_000_000
"""Room for a database without rows: its catalogs."""
_NO_LARGE_OBJECTS = LargeObjects(0, 0, "0")
_REVIEW = "runbook_review"
"""The schema in the scratch database that the comparison is done in."""


@dataclass(frozen=True)
class TableBackup:
    """What a backup holds of one table."""

    backup: Backup
    """The backup, with a manifest that speaks of this table's rows alone."""
    table: str
    """The table's name as it is typed in SQL, with its schema."""
    tree: Sequence[str]
    """It and all partitions it had below it."""

    @classmethod
    def of(cls, backup: Backup, name: str, identity: DatabaseIdentity) -> Self:
        """Find a table in a backup.

        :param name: as people type it; without a schema, public is meant
        :param identity: the database that its rows are to go to

        Raise `TargetRefused` if the backup is of another database, `NotFound` if it does not hold the table's rows,
        `Unproven` if it has no manifest.
        """
        manifest = backup.manifest
        if manifest is None:
            raise Unproven(
                f"to restore {name} from {backup.dump.url}",
                where="the backup",
                why="it has no manifest: what the table should hold, nobody wrote down",
                remedy="choose a backup with a manifest, or restore this one to scratch and look at it yourself",
            )
        if foreign := retention.is_of(backup, identity).findings:
            raise TargetRefused(
                f"to restore {name} from {backup.dump.url}",
                where=f"the database {identity.name}",
                why=foreign[0].says,
                remedy="choose a backup of this database",
            )
        table = name if "." in name else f"public.{name}"
        tree = _tree(manifest.inventory.definitions, table)
        kept = {each.table for each in manifest.inventory.tables} & set(tree)
        covered = {each for one in kept for each in _tree(manifest.inventory.definitions, one)}
        leaves = {each.name for each in manifest.inventory.definitions if each.kind == "table"} & set(tree)
        if not kept or leaves - covered:
            raise NotFound(
                f"the table {name}",
                where=backup.dump.url,
                why="the backup keeps the rows of other tables only, or of some of its partitions"
                if tree
                else "it held no table of that name when the backup was taken",
                remedy="if it was renamed, say what it was called then; or choose another backup",
            )
        tables = tuple(each for each in manifest.inventory.tables if each.table in kept)
        # What its rows refer to is not restored with it.
        references = tuple(
            each.name
            for each in manifest.inventory.definitions
            if each.kind == "constraint"
            and each.definition.startswith("FOREIGN KEY")
            and each.name.startswith(tuple(f"{one} " for one in tree))
        )
        narrowed = replace(
            manifest,
            database=replace(manifest.database, bytes=2 * sum(each.bytes for each in tables) + _CATALOG_BYTES),
            tables=tuple(sorted(kept)),
            open_references=tuple({*manifest.open_references, *references}),
            inventory=replace(manifest.inventory, tables=tables, large_objects=_NO_LARGE_OBJECTS),
        )
        return cls(replace(backup, manifest=narrowed), table, tuple(tree))

    @property
    def manifest(self) -> Manifest:
        """What the table is said to hold, and what belongs to it."""
        assert self.backup.manifest is not None
        return self.backup.manifest

    def into_scratch(
        self, name: str, *, archive: Archive, scratch: Scratch, jobs: int = 2, watch: Watcher = nobody
    ) -> RestoredTable:
        """Restore the table and everything that belongs to it into a database of ours, as `into_scratch` does."""
        rows_of = [_unquoted(each) for each in self.tree]
        restored = into_scratch(
            self.backup, name, archive=archive, scratch=scratch, jobs=jobs, watch=watch, rows_of=rows_of
        )
        return RestoredTable(self, restored)


@dataclass(frozen=True)
class RestoredTable:
    """A table that was restored alone."""

    held: TableBackup
    """What the backup holds of it."""
    database: RestoredDatabase
    """Where it is now."""

    def compare(self, *, workers: int = 2, watch: Watcher = nobody) -> Comparison:
        """Compare what came back with what the backup is said to hold of the table."""
        with (
            self.database.stopwatch.phase("compare"),
            postgres.session(self.database.dsn, read_only=False, application_name="runbook/compare") as scratch,
        ):
            tree = self.held.tree
            found = inventory.take(
                self.database.session, workers=workers, only=lambda each: each.qualified in tree, watch=watch
            )
            return comparison.compare(
                replace(self.held.manifest, inventory=self._of_it(self.held.manifest.inventory)),
                self._of_it(found),
                where=f"{self.held.table} restored from {self.held.backup.dump.url}",
                reparsed=lambda difference: reparse.same_after_parsing(scratch, difference),
                has_locale=all(finding.check != NO_LOCALE for finding in self.database.restored.findings),
            )

    def _of_it(self, held: Inventory) -> Inventory:
        sequences = _sequences_of(held.definitions, self.held.tree)
        return replace(
            held,
            definitions=tuple(belonging(held.definitions, self.held.tree)),
            sequences=tuple(each for each in held.sequences if each.sequence in sequences),
            large_objects=_NO_LARGE_OBJECTS,
        )


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


def review(restored: RestoredDatabase, systems: Systems, table: str, *, common_columns: bool = False) -> Review:
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
        keys, seen = listed(key.columns, "t"), f"{_REVIEW}.living"
        scratch.execute(f"DROP SCHEMA IF EXISTS {_REVIEW} CASCADE")
        scratch.execute(f"CREATE SCHEMA {_REVIEW}")
        scratch.execute(
            f"CREATE UNLOGGED TABLE {seen} AS SELECT {keys}, 0::bigint AS {_SHARED}, 0::bigint AS {_WHOLE}"
            f" FROM {then.rows} AS t WITH NO DATA"
        )
        # What is compared, and what must not have changed when it is written: the same where no column is left out.
        hashes = f"s.h, {now.hash() if left_out else 's.h'}"
        each = f"CROSS JOIN LATERAL (SELECT {now.hash(shared)} OFFSET 0) AS s (h)"
        postgres.copy_between(living, f"SELECT {keys}, {hashes} FROM {now.rows} AS t {each}", scratch, seen)
        none = f"l.{postgres.identifier(key.columns[0])} IS NULL"
        # Hashed by the living table's columns: the same types, by the same names.
        scratch.execute(
            f"CREATE UNLOGGED TABLE {_REVIEW}.differing AS SELECT {listed(columns, 't')},"
            f" CASE WHEN {none} THEN '{MISSING}' ELSE '{CHANGED}' END AS {postgres.identifier(ACTION)},"
            f" coalesce(l.{_WHOLE}, 0) AS {postgres.identifier(REVIEWED)}"
            f" FROM {then.rows} AS t LEFT JOIN {seen} AS l ON {key.same('t', 'l')}"
            f" WHERE {none} OR l.{_SHARED} <> {now.hash(shared)}"
        )
        counted = scratch.row(
            f"SELECT (SELECT pg_catalog.count(*) FROM {then.rows} AS t) AS held,"
            f" (SELECT pg_catalog.count(*) FROM {seen}) AS living,"
            f" pg_catalog.count(*) FILTER (WHERE {postgres.identifier(ACTION)} = '{MISSING}') AS missing,"
            f" pg_catalog.count(*) AS differing FROM {_REVIEW}.differing"
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


_SHARED, _WHOLE = '"runbook shared"', '"runbook whole"'


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

    def carry_out(self, procedure: Procedure, restored: RestoredDatabase, systems: Systems) -> DoneMerge:
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

    def fill(self, restored: RestoredDatabase, systems: Systems) -> None:
        """Send the rows that differ, of those that are to be merged, to their place in the living database."""
        only = "" if self.merge.changed_too else f" WHERE {postgres.identifier(ACTION)} = '{MISSING}'"
        columns = listed([*self.stage.columns, ACTION, REVIEWED])
        with systems.inside() as living, restored.session() as scratch:
            staging.as_a_replica(living)
            into = postgres.identifier(self.stage.schema, "incoming")
            query = f"SELECT {columns} FROM {_REVIEW}.differing{only}"
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


def belonging(held: Sequence[Definition], tree: Collection[str]) -> Iterator[Definition]:
    """Return the definitions that speak of some tables: columns, constraints, indexes, grants, policies and so on."""
    speaks = _speaking_of(tree)
    for each in held:
        if speaks.search(each.name) or (each.kind in ("index", "sequence") and speaks.search(each.definition)):
            yield each


def _sequences_of(held: Sequence[Definition], tree: Collection[str]) -> set[str]:
    speaks = _speaking_of(tree)
    return {each.name for each in held if each.kind == "sequence" and speaks.search(each.definition)}


def _speaking_of(tree: Collection[str]) -> re.Pattern[str]:
    return re.compile(rf'(?<![\w."])(?:{"|".join(map(re.escape, tree))})(?![\w"$])')


def _tree(held: Sequence[Definition], table: str) -> list[str]:
    """Return a table and all partitions below it, by what was written down of them; nothing where it is not there."""
    tables = {each.name: each.definition for each in held if each.kind in ("table", "partitioned table")}
    found = [table] if table in tables else []
    for parent in found:  # it grows on the way
        below = re.compile(rf'\bINHERITS {re.escape(parent)}(?![\w"$])')
        found += [name for name, told in tables.items() if " PARTITION " in f" {told}" and below.search(told)]
    return found


def _unquoted(qualified: str) -> tuple[str, str]:
    """Return schema and name of a table that is written as in SQL."""
    parts = re.findall(r'"((?:[^"]|"")*)"|([^".]+)', qualified)
    schema, name = (quoted.replace('""', '"') or plain for quoted, plain in parts)
    return schema, name


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
