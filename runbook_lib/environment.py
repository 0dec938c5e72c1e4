"""What a run acts on, reached.

One frozen object holds everything a step can act on, made from a profile and handed to steps by a fixture. Nothing
below it knows where it came from: a drill in the sandbox and a check in production run the same code on two of these.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from runbook_lib.backup import dump
from runbook_lib.backup.catalog import Archive, Backup
from runbook_lib.backup.dump import Taken
from runbook_lib.backup.manifest import DatabaseIdentity
from runbook_lib.errors import RunbookError, TargetRefused
from runbook_lib.phases import Watcher, nobody
from runbook_lib.reach import binaries, postgres
from runbook_lib.reach.objects import Bucket
from runbook_lib.reach.postgres import Session
from runbook_lib.restore.scratch import RestoredDatabase, Scratch, into_scratch
from runbook_lib.safety.permit import Permit
from runbook_lib.settings import Settings


@dataclass(frozen=True)
class Environment:
    """Everything that steps act on."""

    settings: Settings
    """The profile it was made from."""
    archive: Archive
    """Where the backups are."""
    permit: Permit
    """Whether anything may be altered."""
    tools_directory: Path | None = None
    """Where PostgreSQL's programs are; None to look for them."""

    @classmethod
    def of(cls, settings: Settings, *, tools_directory: Path | None = None) -> Environment:
        """Make the environment that a profile describes. Nothing is connected to yet."""
        bucket = Bucket(
            settings.backups.bucket,
            endpoint_url=settings.backups.endpoint_url or None,
            region=settings.backups.region or None,
        )
        reason = (
            f"the profile {settings.name} grants changes"
            if settings.changes.granted
            else f"set granted = true under [changes] in the profile {settings.name}"
        )
        return cls(
            settings,
            Archive(bucket, settings.backups.prefix),
            Permit(settings.name, settings.changes.granted, reason),
            tools_directory,
        )

    @property
    def now(self) -> datetime:
        """The moment, in UTC."""
        return datetime.now(UTC)

    @contextmanager
    def database(self) -> Iterator[Session]:
        """Open a session on the database that PostgreSQL holds read-only, once its identity is established.

        Raise `TargetRefused` if it is not the cluster that the profile names.
        """
        with postgres.session(self.settings.database.dsn, statement_timeout_seconds=60) as session:
            self._must_be_the_one(session)
            yield session

    def identity(self) -> DatabaseIdentity:
        """Ask the database who it is."""
        with self.database() as session:
            return dump.identify(session)

    def last_nights_backup(self) -> Backup:
        """Return last night's backup, which must be as new as the schedule demands."""
        return self.archive.last_night(self.settings.backups.schedule, self.now)

    def take_backup(self, kind: str, *, tables: Sequence[str] = (), watch: Watcher = nobody) -> Taken:
        """Take a backup of the database into the archive, if this run may."""
        major = self.identity().major
        return dump.take(
            self.settings.database.dsn,
            self.archive,
            permit=self.permit,
            kind=kind,
            tables=tables,
            compression=self.settings.backups.compression or None,
            tools=binaries.find(major, directory=self.tools_directory),
            watch=watch,
        )

    def restore_into_scratch(
        self, backup: Backup, name: str, place: Scratch, *, watch: Watcher = nobody
    ) -> RestoredDatabase:
        """Restore a backup into a database of ours, as the profile says restores are done."""
        return into_scratch(
            backup, name, archive=self.archive, scratch=place, jobs=self.settings.restore.jobs, watch=watch
        )

    def scratch(self) -> AbstractContextManager[Scratch]:
        """Open a place to restore to."""
        folder = self.settings.restore.folder
        return Scratch.open(parent=Path(folder) if folder else None, tools_directory=self.tools_directory)

    def describe(self) -> Mapping[str, str]:
        """Say what this is, for the head of a report; what cannot be reached is said as well."""
        try:
            with self.database() as session:
                server = session.server()
                database = f"PostgreSQL {server.version}, system identifier {server.system_identifier}"
        except RunbookError as unreachable:
            database = str(unreachable)
        return {
            "environment": self.settings.name,
            "database": f"{postgres.describe(self.settings.database.dsn)}: {database}",
            "backups": f"{self.archive.where} at {self.archive.bucket.endpoint}",
            "changes": "granted" if self.permit.granted else "none",
        }

    def _must_be_the_one(self, session: Session) -> None:
        wanted = self.settings.database.system_identifier
        found = session.server().system_identifier
        if wanted and found != wanted:
            raise TargetRefused(
                f"the database of {self.settings.name}",
                where=postgres.describe(session.dsn),
                why=f"its system identifier is {found}, and the profile names {wanted}",
                remedy="correct the connection string, or the profile if the cluster was made anew",
            )
