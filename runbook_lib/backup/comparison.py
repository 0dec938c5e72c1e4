"""Does the copy hold what the backup is said to hold?

Compared is inventory with inventory, never the copy with the living source: production has moved on since, and a
comparison with it cries wolf every week. Each question is a `Check` of its own, because people act on the answers
differently: rows lost and a lost grant are not repaired by the same person.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from runbook_lib.backup.definitions import Definition, Difference, differences
from runbook_lib.backup.inventory import VOLATILE, Inventory, SequencePosition, TableContent
from runbook_lib.backup.manifest import Manifest
from runbook_lib.outcome import Check, Finding, Outcome

_LOCALE = frozenset({"collate", "ctype", "locale provider", "locale", "icu rules"})
"""Properties of a database that it has from its creation on, and that take a locale on the machine."""
Reparsed = Callable[[Difference], bool]
"""Says of a changed definition whether the copy's server, given the old text, writes the new one: no change then."""


@dataclass(frozen=True)
class Comparison:
    """A copy beside what its backup is said to hold."""

    rows: Check
    """Every table has as many rows as it had."""
    contents: Check
    """Every table, and all large objects, hold what they held."""
    sequences: Check
    """Every sequence stands where it stood."""
    catalog: Check
    """Every object is defined as it was, with the same owner, grants, comments and settings."""

    @property
    def checks(self) -> tuple[Check, ...]:
        """All questions, in the order people ask them."""
        return (self.rows, self.contents, self.sequences, self.catalog)

    @property
    def outcome(self) -> Outcome:
        """The worst of all answers."""
        return Outcome.worst(check.outcome for check in self.checks)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Every finding of every check."""
        return tuple(finding for check in self.checks for finding in check.findings)


def compare(
    manifest: Manifest,
    found: Inventory,
    *,
    where: str,
    reparsed: Reparsed = lambda _: False,
    has_locale: bool = True,
) -> Comparison:
    """Compare a copy's inventory with the manifest of the backup it was made from.

    :param where: the copy, for the report
    :param reparsed: asks the copy's server about a definition whose text changed
    :param has_locale: whether the copy's machine has the database's locale; another one is no fault of the backup
    """
    expected = manifest.inventory
    tables = f"{len(expected.tables)} tables, {expected.rows} rows"
    return Comparison(
        rows=Check("row counts match", where, tables, tuple(_rows(expected, found))),
        contents=Check("contents match", where, tables, tuple(_contents(expected, found))),
        sequences=Check(
            "sequences stand where they stood",
            where,
            f"{len(expected.sequences)} sequences",
            tuple(_sequences(expected.sequences, manifest.sequences_after, found.sequences)),
        ),
        catalog=Check(
            "the catalog matches",
            where,
            f"{len(expected.definitions)} definitions",
            tuple(_catalog(manifest, found, reparsed, has_locale=has_locale)),
        ),
    )


def unknown(where: str) -> Comparison:
    """Return the comparison with a backup of which nobody wrote down what it holds: every answer is unproven."""

    def check(question: str) -> Check:
        finding = Finding(
            "backup.manifest",
            where,
            "the backup has no manifest: nobody wrote down what the database held when it was taken",
            Outcome.UNPROVEN,
            "take backups with this runbook (features/backup/manual_backup.feature): they carry a manifest",
        )
        return Check(question, where, "nothing", (finding,))

    return Comparison(
        check("row counts match"),
        check("contents match"),
        check("sequences stand where they stood"),
        check("the catalog matches"),
    )


def _rows(expected: Inventory, found: Inventory) -> Iterator[Finding]:
    there = {table.table: table for table in found.tables}
    known = {table.table for table in expected.tables}
    for table in expected.tables:
        restored = there.get(table.table)
        if restored is None:
            yield Finding("content.table", table.table, f"expected {table.rows} rows, found no such table")
        elif restored.rows != table.rows and not _refreshed(table, restored):
            yield Finding("content.rows", table.table, f"expected {table.rows} rows, found {restored.rows}")
    for name in sorted(there.keys() - known):
        yield Finding("content.table", name, f"was not in the backup; it has {there[name].rows} rows")


def _contents(expected: Inventory, found: Inventory) -> Iterator[Finding]:
    if (expected.algorithm, expected.hash_vector) != (found.algorithm, found.hash_vector):
        yield Finding(
            "content.hash_functions",
            "hash functions",
            f"the two servers hash the same values differently ({expected.hash_vector} and {found.hash_vector})",
            Outcome.UNPROVEN,
            "restore with the same major version, on a machine of the same kind",
        )
        return
    there = {table.table: table for table in found.tables}
    for table in expected.tables:
        restored = there.get(table.table)
        if restored is None or _refreshed(table, restored) or restored.hash == table.hash:
            continue
        same_count = " (with the same number of rows)" if restored.rows == table.rows else ""
        yield Finding(
            "content.hash", table.table, f"other content{same_count}: expected {table.hash}, found {restored.hash}"
        )
    yield from _stale_views(found)
    yield from _large_objects(expected, found)


def _stale_views(found: Inventory) -> Iterator[Finding]:
    for view in found.tables:
        if view.query_hash == VOLATILE:
            yield Finding(
                "content.materialized_view",
                view.table,
                "its query gives other rows each time it runs (now(), random()): nothing can be said of its content",
                Outcome.UNPROVEN,
                "leave it out of what the drill must prove, or take what changes out of its query",
            )
        elif view.query_hash is not None and view.query_hash != view.hash:
            yield Finding("content.materialized_view", view.table, "holds other rows than its own query gives")


def _refreshed(table: TableContent, restored: TableContent) -> bool:
    """Whether this is a materialized view that a restore fills anew.

    The dump has none of its rows. The copy's were computed from the copy's tables, which are compared themselves; so
    other rows than the source had mean that the source's were stale. `_stale_views` looks at the copy's.
    """
    return table.is_materialized_view and restored.is_materialized_view


def _large_objects(expected: Inventory, found: Inventory) -> Iterator[Finding]:
    before, after = expected.large_objects, found.large_objects
    if before is None or after is None:
        yield Finding(
            "content.large_objects",
            "pg_largeobject",
            "the role may not read large objects",
            Outcome.UNPROVEN,
            "take the backup as a superuser, or GRANT SELECT ON pg_largeobject to the backup's role",
        )
    elif before.objects != after.objects:
        yield Finding(
            "content.large_objects", "pg_largeobject", f"expected {before.objects} objects, found {after.objects}"
        )
    elif before.hash != after.hash:
        yield Finding("content.large_objects", "pg_largeobject", "other content (with the same number of objects)")


def _sequences(
    before: tuple[SequencePosition, ...], after: tuple[SequencePosition, ...], found: tuple[SequencePosition, ...]
) -> Iterator[Finding]:
    later = {position.sequence: position for position in after}
    there = {position.sequence: position for position in found}
    for position in before:
        restored, end = there.get(position.sequence), later.get(position.sequence, position)
        if restored is None:
            yield Finding(
                "sequence.missing", position.sequence, f"expected {_stands(position)}, found no such sequence"
            )
        elif not _between(position, restored, end):
            moved = f" to {_stands(end)}" if end != position else ""
            yield Finding(
                "sequence.position",
                position.sequence,
                f"expected {_stands(position)}{moved}, found {_stands(restored)}",
            )
    for name in sorted(there.keys() - {position.sequence for position in before} - later.keys()):
        yield Finding("sequence.missing", name, f"was not in the backup; it is {_stands(there[name])}")


def _between(before: SequencePosition, restored: SequencePosition, after: SequencePosition) -> bool:
    low, high = sorted((before.last_value, after.last_value))
    if before == after:
        return (restored.last_value, restored.is_called) == (before.last_value, before.is_called)
    return low <= restored.last_value <= high  # it moved while the dump ran: any position on the way is right


def _stands(position: SequencePosition) -> str:
    return f"{position.last_value} ({'' if position.is_called else 'not '}called)"


def _catalog(manifest: Manifest, found: Inventory, reparsed: Reparsed, *, has_locale: bool) -> Iterator[Finding]:
    unsettled = {(each.kind, each.name): each for each in manifest.changed_meanwhile}
    bootstrap = {each.name for held in (manifest.inventory, found) for each in held.definitions if _is_bootstrap(each)}
    open_references = {("constraint", name) for name in manifest.open_references}
    for difference in differences(_comparable(manifest.inventory, bootstrap), _comparable(found, bootstrap)):
        if difference.expected is not None and difference.found is not None and reparsed(difference):
            continue
        if difference.found is None and (difference.kind, difference.name) in open_references:
            continue  # the manifest says itself that this backup cannot bring it back alone
        check = f"catalog.{difference.kind.replace(' ', '_')}"
        if (difference.kind, difference.name) in unsettled:
            yield Finding(
                check,
                difference.name,
                f"{difference}; it was changed in the source while the dump ran",
                Outcome.UNPROVEN,
                "take the backup again while nobody changes the schema",
            )
        elif _is_another_version(difference):
            yield Finding(
                check,
                difference.name,
                f"{difference}; a dump names no version, and the target installs its own",
                Outcome.UNPROVEN,
                "restore where the source's version of the extension is installed, or update the source's",
            )
        elif difference.kind == "database" and difference.name in _LOCALE and not has_locale:
            yield Finding(
                check,
                difference.name,
                f"{difference}; the target has no such locale",
                Outcome.UNPROVEN,
                "restore where the database's locale is installed",
            )
        else:
            yield Finding(check, difference.name, str(difference))


def _is_another_version(difference: Difference) -> bool:
    """Whether this is an extension that differs in its version alone: not in its schema, which a dump does name."""
    if difference.kind != "extension" or difference.expected is None or difference.found is None:
        return False
    expected, found = (re.sub(r"^version \S+ ", "", each) for each in (difference.expected, difference.found))
    return expected == found


def _is_bootstrap(each: Definition) -> bool:
    return each.kind == "bootstrap role"


def _comparable(held: Inventory, bootstrap: set[str]) -> list[Definition]:
    """Return what must be equal: every cluster has one role that initdb made, and the two need not have one name."""
    return [
        each
        for each in held.definitions
        if not _is_bootstrap(each) and not (each.kind == "role" and each.name in bootstrap)
    ]
