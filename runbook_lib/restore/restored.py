"""A database that was restored from a backup: what can be asked of it, and how it is removed.

It is the same whether it lies on a throwaway server or beside the living database: it bears our mark, and it is ours to
look at and to drop.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from runbook_lib.backup import comparison, inventory, reparse
from runbook_lib.backup.catalog import Backup
from runbook_lib.backup.comparison import Comparison
from runbook_lib.backup.inventory import Inventory
from runbook_lib.outcome import Check
from runbook_lib.phases import Phase, Stopwatch, Watcher, nobody
from runbook_lib.reach import postgres
from runbook_lib.reach.postgres import Session
from runbook_lib.restore import integrity
from runbook_lib.safety import ownership

NO_LOCALE = "restore.locale"
"""The check that tells of a target which cannot sort as the source does."""


class HeldDatabase(Protocol):
    """A database of ours that holds what was once, whatever it comes from, and that rows can be taken from."""

    @property
    def dsn(self) -> str:
        """How to connect to it, as the server's superuser."""

    @property
    def stopwatch(self) -> Stopwatch:
        """Times what is done with it."""

    @property
    def phases(self) -> tuple[Phase, ...]:
        """What the time was spent on so far."""

    def session(self) -> AbstractContextManager[Session]:
        """Open a session on it that PostgreSQL holds read-only."""


class HeldTable(Protocol):
    """A table as it was once, in a database of ours."""

    @property
    def database(self) -> HeldDatabase:
        """Where it is."""

    @property
    def table(self) -> str:
        """Its name as it is typed in SQL, with its schema."""


@dataclass(frozen=True)
class RestoredDatabase:
    """A database that was restored from a backup, and is ours to look at and to drop."""

    name: str
    """Its name."""
    dsn: str
    """How to connect to it, as the server's superuser."""
    backup: Backup
    """What it was restored from."""
    server_version: str
    """The version of the server it was restored to."""
    restored: Check
    """What pg_restore had to say."""
    rto_seconds: float
    """Seconds from the first byte fetched to the last index built: when an application could have written again."""
    stopwatch: Stopwatch
    """Times what is done with it: restoring, comparing, removing."""

    @property
    def phases(self) -> tuple[Phase, ...]:
        """What the time was spent on so far."""
        return self.stopwatch.phases

    @property
    def took_seconds(self) -> float:
        """Seconds from the first byte fetched to the end of what was done with it last, such as comparing it."""
        return max((phase.ended_seconds for phase in self.phases), default=0.0)

    def session(self) -> AbstractContextManager[Session]:
        """Open a session on it that PostgreSQL holds read-only."""
        return postgres.session(self.dsn, application_name="runbook/compare")

    def compare(self, *, workers: int = 2, watch: Watcher = nobody) -> Comparison:
        """Compare what came back with what the backup is said to hold; unproven throughout without a manifest."""
        manifest = self.backup.manifest
        if manifest is None:
            return comparison.unknown(f"{self.name} restored from {self.backup.dump.url}")
        kept = {table.table for table in manifest.inventory.tables} if manifest.tables else None
        with (
            self.stopwatch.phase("compare"),
            postgres.session(self.dsn, read_only=False, application_name="runbook/compare") as scratch,
        ):
            found = self.inventory(workers=workers, only=kept, watch=watch)
            return comparison.compare(
                manifest,
                found,
                where=f"{self.name} restored from {self.backup.dump.url}",
                reparsed=lambda difference: reparse.same_after_parsing(scratch, difference),
                has_locale=all(finding.check != NO_LOCALE for finding in self.restored.findings),
            )

    def integrity(self, *, deep: bool = False, workers: int = 2, watch: Watcher = nobody) -> Check:
        """Look whether heap and indexes are sound, see `runbook_lib.restore.integrity`."""
        with self.stopwatch.phase("amcheck in depth" if deep else "amcheck"):
            return integrity.heap_and_indexes_are_sound(self.dsn, deep=deep, workers=workers, watch=watch)

    def inventory(self, *, workers: int = 2, only: set[str] | None = None, watch: Watcher = nobody) -> Inventory:
        """Take the inventory of what came back.

        :param only: the tables to read; None for all
        """
        return inventory.take(
            self.session,
            workers=workers,
            only=lambda table: only is None or table.qualified in only,
            with_queries=True,
            watch=watch,
        )

    def remove(self) -> bool:
        """Drop it, and see that it is gone; return whether it was there."""
        server = postgres.with_database(self.dsn, "postgres")
        with self.stopwatch.phase("clean up"), postgres.session(server, read_only=False) as session:
            if ownership.exists(session, self.name):
                forget_subscriptions(self.dsn)
            return ownership.remove(session, self.name)

    @property
    def is_gone(self) -> bool:
        """Whether its server knows no database of this name."""
        with postgres.session(postgres.with_database(self.dsn, "postgres")) as session:
            return not ownership.exists(session, self.name)


def forget_subscriptions(dsn: str) -> None:
    """Drop the copy's subscriptions, without which no database can be dropped; the publisher is told nothing."""
    with postgres.session(dsn, read_only=False) as session:
        for row in session.rows(
            "SELECT subname FROM pg_catalog.pg_subscription s JOIN pg_catalog.pg_database d ON d.oid = s.subdbid"
            " WHERE d.datname = pg_catalog.current_database()"
        ):
            name = postgres.identifier(row["subname"])
            session.execute(f"ALTER SUBSCRIPTION {name} DISABLE")
            session.execute(f"ALTER SUBSCRIPTION {name} SET (slot_name = NONE)")
            session.execute(f"DROP SUBSCRIPTION {name}")
