"""Restoring a backup beside the living database, on the living server.

Nothing of the living database is touched: the copy has a name of its own and bears our mark until it takes the living
one's place. The roles are there already. pg_restore runs as we are, because the way to the server is ours: libpq's
service and password files.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from runbook_lib.backup.catalog import Archive, Backup
from runbook_lib.errors import NoRoom, RunbookError, TargetRefused
from runbook_lib.outcome import Finding
from runbook_lib.phases import Watcher, nobody
from runbook_lib.reach import binaries, postgres
from runbook_lib.reach.binaries import PostgresTools
from runbook_lib.reach.postgres import Session
from runbook_lib.reach.workspace import Workspace
from runbook_lib.restore.restored import RestoredDatabase
from runbook_lib.restore.restoring import DISK_FULL, must_have_extensions, restore
from runbook_lib.restore.target import Target


@dataclass(frozen=True)
class LivingServer:
    """The server that the living database is on, as a target."""

    tools: PostgresTools
    """Programs of its major version, on this machine."""
    control_dsn: str
    """How to connect to it, beside the living database."""
    workspace: None = None
    """Its programs run as we are."""

    def dsn(self, dbname: str = "") -> str:
        """Return the connection string of one of its databases; by default of the one to alter others from."""
        return postgres.with_database(self.control_dsn, dbname) if dbname else self.control_dsn


def restore_beside(
    backup: Backup,
    name: str,
    *,
    archive: Archive,
    control_dsn: str,
    major: int,
    jobs: int,
    parent: Path | None,
    tools_directory: Path | None,
    watch: Watcher = nobody,
) -> RestoredDatabase:
    """Restore a backup into an empty database of ours that is on the living server already.

    :param control_dsn: how to connect to the server, beside the living database
    :param major: the server's major version
    :param parent: the folder for the dump while it is restored, with room for it

    Raise `TargetRefused` where the server is older than the backup's, `NoRoom` where a disk is full, which is no fault
    of the backup, and what `restore` raises.
    """
    target = LivingServer(binaries.find(major, directory=tools_directory), control_dsn)

    def target_of(wanted: int) -> Target:
        if wanted > major:
            raise TargetRefused(
                f"to restore {backup.dump.url}",
                where=postgres.describe(control_dsn),
                why=f"it is of PostgreSQL {wanted}, and the server is {major}",
                remedy="restore it to a server of its own major version or a newer one",
            )
        return target

    def lay_out(session: Session, _: Target, __: Path) -> Iterator[Finding]:
        if backup.manifest is not None:
            must_have_extensions(session, backup)
        return iter(())

    with _disk_full_is_no_fault_of(backup, control_dsn), Workspace.open(parent=parent) as workspace:
        restored = restore(
            backup,
            name,
            archive=archive,
            folder=workspace.folder("dump"),
            target_of=target_of,
            lay_out=lay_out,
            jobs=jobs,
            watch=watch,
        )
        for complaint in restored.restored.findings:
            if DISK_FULL.search(complaint.says):
                raise _no_room(backup, control_dsn, complaint.says)
    return restored


@contextmanager
def _disk_full_is_no_fault_of(backup: Backup, control_dsn: str) -> Iterator[None]:
    """Tell a restore that fails by a full disk, the server's or this machine's, from one that fails by the dump."""
    try:
        yield
    except (postgres.DriverError, RunbookError, OSError) as failed:
        said = DISK_FULL.search(str(failed))
        if isinstance(failed, NoRoom) or not said:
            raise
        raise _no_room(backup, control_dsn, said[0]) from failed


def _no_room(backup: Backup, control_dsn: str, why: str) -> NoRoom:
    return NoRoom(
        f"room for a copy of {backup.dump.url} beside the living database",
        where=postgres.describe(control_dsn),
        why=why,
        remedy="make room on the database's own disk at once: the living database needs it, too; the copy is dropped",
    )
