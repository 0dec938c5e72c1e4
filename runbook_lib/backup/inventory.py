"""Everything a database holds, in a form that can be compared.

The same code takes the inventory of the source, in the dump's own snapshot, and of the restored copy. Whatever it
sees in one it sees in the other, so that the two can differ only where the databases do.

Two things are not part of a snapshot in PostgreSQL. Sequences move while a dump runs: they are read before and after
it, and the restored position must lie between. Definitions are read as they are now: they are read twice as well,
and what changed meanwhile is named, not compared.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from runbook_lib.backup import content
from runbook_lib.backup.content import Content, Table
from runbook_lib.backup.definitions import Definition, definitions
from runbook_lib.phases import Progress, Watcher, nobody
from runbook_lib.reach import postgres
from runbook_lib.reach.postgres import Session
from runbook_lib.reach.workers import work_off

OpenSession = Callable[[], AbstractContextManager[Session]]
"""Opens one more session on the database, in the snapshot where there is one."""


@dataclass(frozen=True)
class TableContent:
    """What one relation held."""

    table: str
    """Its name as it is typed in SQL, with its schema."""
    rows: int
    """The exact number of rows."""
    hash: str
    """The content hash, see `runbook_lib.backup.content`."""
    bytes: int
    """Heap and TOAST on disk: what a restore's progress is measured against. Not compared."""
    is_materialized_view: bool
    """True where a restore fills it by running its query again, so that a stale one comes back fresh."""
    query_hash: str | None = None
    """What the query of a materialized view gives now; None where nobody asked. VOLATILE if it changes by itself."""


VOLATILE = "differs from run to run"
"""The `TableContent.query_hash` of a materialized view whose query gives other rows each time."""


@dataclass(frozen=True)
class SequencePosition:
    """Where a sequence stood."""

    sequence: str
    """Its name as it is typed in SQL, with its schema."""
    last_value: int
    """As ``SELECT last_value`` gives it."""
    is_called: bool
    """False if ``last_value`` itself is what ``nextval`` answers next."""


@dataclass(frozen=True)
class LargeObjects:
    """All large objects as one."""

    objects: int
    """How many there are."""
    bytes: int
    """Their bytes on disk, without trailing zeros of pages; a hint, not compared."""
    hash: str
    """The content hash over all of them."""


@dataclass(frozen=True)
class Inventory:
    """Everything a database holds."""

    algorithm: str
    """The way of hashing, see `runbook_lib.backup.content.ALGORITHM`."""
    hash_vector: str
    """What the server's hash functions make of fixed values."""
    tables: tuple[TableContent, ...]
    """Every relation with rows of its own, by name."""
    sequences: tuple[SequencePosition, ...]
    """Every sequence, by name."""
    large_objects: LargeObjects | None
    """None where the role may not read them: they are unproven then."""
    definitions: tuple[Definition, ...]
    """Every object, by kind and name."""

    @property
    def rows(self) -> int:
        """The number of rows of all tables."""
        return sum(table.rows for table in self.tables)

    @property
    def table_bytes(self) -> int:
        """The bytes of all tables on disk."""
        return sum(table.bytes for table in self.tables)


def take(
    open_session: OpenSession,
    *,
    workers: int = 2,
    only: Callable[[Table], bool] = lambda _: True,
    with_queries: bool = False,
    watch: Watcher = nobody,
    stop: threading.Event | None = None,
) -> Inventory:
    """Take the inventory of a database.

    :param workers: how many tables are read at once, each over a session of its own
    :param only: which tables to read, for a backup of some tables
    :param with_queries: run the query of every materialized view too, to see whether the view holds what it should
    :param stop: when set, no further table is begun and the inventory raises `InterruptedError`
    """
    with open_session() as session:
        # First what is in no snapshot: whatever happens to it from here on shows in a second reading.
        positions = sequence_positions(session)
        defined = tuple(definitions(session))
        found = [table for table in content.tables(session) if only(table)]
        rows = read_contents(open_session, found, workers=workers, watch=watch, stop=stop)
        return Inventory(
            algorithm=content.ALGORITHM,
            hash_vector=content.hash_vector(session),
            tables=tuple(
                TableContent(
                    table.qualified,
                    rows[table.qualified].rows,
                    rows[table.qualified].hash,
                    table.bytes,
                    table.is_materialized_view,
                    _query_hash(session, table) if with_queries else None,
                )
                for table in sorted(found, key=lambda each: each.qualified)
            ),
            sequences=positions,
            large_objects=large_objects(session),
            definitions=defined,
        )


def _query_hash(session: Session, table: Table) -> str | None:
    if not table.is_materialized_view or not table.is_populated:
        return None
    first = content.content_of_query(session, table).hash
    return first if first == content.content_of_query(session, table).hash else VOLATILE


def read_contents(
    open_session: OpenSession,
    tables: Sequence[Table],
    *,
    workers: int,
    watch: Watcher = nobody,
    stop: threading.Event | None = None,
) -> Mapping[str, Content]:
    """Hash tables, several at once, in the order given; the keys are their qualified names."""
    found: dict[str, Content] = {}
    total = sum(table.bytes for table in tables)

    def work(session: Session, table: Table) -> None:
        found[table.qualified] = _read(session, table)
        done = sum(each.bytes for each in tables if each.qualified in found)
        watch(Progress("compare", done, total, "bytes", table.qualified))

    work_off(tables, work, open_session=open_session, workers=workers, stop=stop)
    return found


def _read(session: Session, table: Table) -> Content:
    if not table.is_populated:
        return Content(rows=0, hash=content.NOT_POPULATED)
    return content.content_of(session, table)


def sequence_positions(session: Session) -> tuple[SequencePosition, ...]:
    """Read every sequence's position, as it is now: sequences are in no snapshot."""
    found = session.rows(postgres.load_sql(__package__, "sequences"))
    if not found:
        return ()
    each = " UNION ALL ".join(
        f"SELECT {number} AS number, last_value, is_called FROM {postgres.identifier(row['schema'], row['name'])}"
        for number, row in enumerate(found)
    )
    positions = {row["number"]: row for row in session.rows(each)}
    return tuple(
        SequencePosition(
            row["qualified"],
            positions[number]["last_value"],
            positions[number]["is_called"],
        )
        for number, row in enumerate(found)
    )


def large_objects(session: Session) -> LargeObjects | None:
    """Hash all large objects; None where the role may not read them."""
    if not session.value("SELECT pg_catalog.has_table_privilege('pg_catalog.pg_largeobject', 'SELECT')"):
        return None
    row = session.row(postgres.load_sql(__package__, "large_objects"))
    return LargeObjects(objects=row["objects"], bytes=row["bytes"], hash=row["hash"])
