"""What a backup holds of one table, and the table restored alone.

``pg_restore -t`` takes a table without its key, its foreign keys, its triggers, its policies and the types it is made
of. So every definition in the dump is restored, which costs next to nothing while there are no rows, and the rows of
one table: it comes back with all that belongs to it, in a place where nothing can be harmed, and is compared with the
part of the manifest that speaks of it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

from runbook_lib.backup import comparison, inventory, reparse, retention
from runbook_lib.backup.catalog import Archive, Backup
from runbook_lib.backup.comparison import Comparison
from runbook_lib.backup.definitions import Definition
from runbook_lib.backup.inventory import Inventory, LargeObjects
from runbook_lib.backup.manifest import DatabaseIdentity, Manifest
from runbook_lib.errors import NotFound, TargetRefused, Unproven
from runbook_lib.phases import Watcher, nobody
from runbook_lib.reach import postgres
from runbook_lib.restore.restored import NO_LOCALE, RestoredDatabase
from runbook_lib.restore.scratch import Scratch, into_scratch

_CATALOG_BYTES = 50_000_000
"""Room for a database without rows: its catalogs."""
_NO_LARGE_OBJECTS = LargeObjects(0, 0, "0")


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

    def into_scratch(self, name: str, *, archive: Archive, scratch: Scratch, watch: Watcher = nobody) -> RestoredTable:
        """Restore the table and everything that belongs to it into a database of ours, as `into_scratch` does.

        By one job of pg_restore: there is one table to fill, and over the definitions of all the others, which take no
        time, several would only wait for each other.
        """
        rows_of = [_unquoted(each) for each in self.tree]
        restored = into_scratch(
            self.backup, name, archive=archive, scratch=scratch, jobs=1, watch=watch, rows_of=rows_of
        )
        return RestoredTable(self, restored)


@dataclass(frozen=True)
class RestoredTable:
    """A table that was restored alone."""

    held: TableBackup
    """What the backup holds of it."""
    database: RestoredDatabase
    """Where it is now."""

    @property
    def table(self) -> str:
        """Its name as it is typed in SQL, with its schema."""
        return self.held.table

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
