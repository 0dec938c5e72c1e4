"""A place of our own to restore a backup to, to see whether it can be done and what comes back.

A dump is code that runs where it is restored. So pg_restore runs in a private workspace, without a shell, cloud
credentials or a network address to serve, against a throwaway server of the backup's own major version.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from runbook_lib.backup.catalog import Archive, Backup
from runbook_lib.backup.properties import DatabaseProperties
from runbook_lib.errors import NoRoom, RunbookError, TargetRefused, ToolFailed, Unproven
from runbook_lib.outcome import Finding, Outcome
from runbook_lib.phases import Stopwatch, Watcher, nobody
from runbook_lib.reach import binaries, postgres, programs
from runbook_lib.reach.binaries import PostgresTools
from runbook_lib.reach.postgres import Session
from runbook_lib.reach.server import FAST, PostgresServer
from runbook_lib.reach.workspace import Workspace
from runbook_lib.restore import archive_file
from runbook_lib.restore.restored import NO_LOCALE, RestoredDatabase, forget_subscriptions
from runbook_lib.restore.restoring import DISK_FULL, must_have_extensions, restore
from runbook_lib.restore.target import Target
from runbook_lib.safety import ownership
from runbook_lib.secrecy import said_by_postgresql

_SPACE_FACTOR = 1.2
"""Room for the dump and the restored database together, over their sizes in the manifest: indexes being built."""
_SERVER_BYTES = 100_000_000
"""Room for an empty server: its catalogs and the first segments of WAL."""


class Scratch:
    """A place to restore to: a private workspace, and throwaway servers in it that are started when first needed."""

    def __init__(self, workspace: Workspace, *, tools_directory: Path | None = None) -> None:
        self.workspace = workspace
        self._tools_directory = tools_directory
        self._servers: dict[int, PostgresServer] = {}
        self._lock = threading.Lock()

    @classmethod
    @contextmanager
    def open(cls, *, parent: Path | None = None, tools_directory: Path | None = None) -> Iterator[Scratch]:
        """Open a scratch place; everything in it is gone at the end, whatever happens.

        :param parent: the folder to make it in, with room for the dump and the restored database
        :param tools_directory: where PostgreSQL's programs are; by default they are looked for
        """
        with Workspace.open(parent=parent) as workspace:
            scratch = cls(workspace, tools_directory=tools_directory)
            try:
                yield scratch
            finally:
                for server in scratch._servers.values():
                    server.stop()

    def tools(self, major: int) -> PostgresTools:
        """Return the programs of a major version."""
        return binaries.find(major, directory=self._tools_directory)

    def server(self, major: int) -> PostgresServer:
        """Return the throwaway server of a major version, started when it is first asked for."""
        with self._lock:
            if major not in self._servers:
                self._servers[major] = PostgresServer.start(
                    self.workspace,
                    self.tools(major),
                    name=f"scratch{major}",
                    settings={**FAST, "cluster_name": ownership.SCRATCH_CLUSTER},
                )
            return self._servers[major]

    @property
    def disk_full(self) -> str:
        """What its servers logged of a full disk; empty if nothing."""
        logs = [server.log.read_text(errors="replace") for server in self._servers.values()]
        found = DISK_FULL.search(said_by_postgresql("\n".join(logs)))
        return found[0] if found else ""


def into_scratch(
    backup: Backup,
    name: str,
    *,
    archive: Archive,
    scratch: Scratch,
    jobs: int = 2,
    watch: Watcher = nobody,
    rows_of: Collection[tuple[str, str]] = (),
) -> RestoredDatabase:
    """Restore a backup into a new database on a throwaway server of the backup's own major version.

    :param name: the new database's name, such as ``tensafe_verify``
    :param jobs: how many tables and indexes pg_restore works on at once
    :param rows_of: the tables, as schema and name, whose rows to restore; none for those of all

    Raise `DamagedArtefact` if the dump's bytes are not those of the manifest or cannot be decoded, `Unproven` if the
    target lacks something (an extension, a locale, room), `TargetRefused` if a database of that name is not ours.
    """
    stopwatch = Stopwatch()
    workspace = scratch.workspace
    started: list[PostgresServer] = []
    _must_have_room(backup, workspace)

    def start_server(major: int) -> PostgresServer:
        with stopwatch.phase("start server"):
            started.append(scratch.server(major))
        return started[-1]

    def lay_out(session: Session, target: Target, dump: Path) -> Iterator[Finding]:
        assert isinstance(target, PostgresServer)
        yield from _create(session, name, backup, archive, target)
        if backup.manifest is None:
            _make_up_roles(session, archive_file.roles_in(dump, target))

    with _disk_full_is_no_fault_of(backup, scratch):
        try:
            restored = restore(
                backup,
                name,
                archive=archive,
                folder=workspace.folder("dump"),
                target_of=start_server,
                lay_out=lay_out,
                jobs=jobs,
                watch=watch,
                stopwatch=stopwatch,
                give=workspace.give,
                rows_of=rows_of,
            )
        except BaseException:
            for server in started:
                _drop_quietly(server, name)
            raise
        if restored.restored.findings and scratch.disk_full:
            raise _no_room(backup, workspace, scratch.disk_full)
    return restored


def _must_have_room(backup: Backup, workspace: Workspace) -> None:
    database_bytes = backup.manifest.database.bytes if backup.manifest else backup.dump.bytes * 6
    needed = (backup.dump.bytes + database_bytes) * _SPACE_FACTOR + _SERVER_BYTES
    if workspace.free_bytes < needed:
        why = f"about {needed / 1e9:.1f} GB are needed, {workspace.free_bytes / 1e9:.1f} GB are free"
        raise _no_room(backup, workspace, why)


@contextmanager
def _disk_full_is_no_fault_of(backup: Backup, scratch: Scratch) -> Iterator[None]:
    """Tell a restore that fails by a full disk from one that fails by the dump, in whatever part of it that shows."""
    try:
        yield
    except (postgres.DriverError, RunbookError, OSError) as failed:
        said = scratch.disk_full or DISK_FULL.search(str(failed))
        if isinstance(failed, NoRoom) or not said:
            raise
        raise _no_room(backup, scratch.workspace, said if isinstance(said, str) else said[0]) from failed


def _no_room(backup: Backup, workspace: Workspace, why: str) -> NoRoom:
    return NoRoom(
        f"room for {backup.dump.url} and the database restored from it",
        where=str(workspace.path),
        why=why,
        remedy="free space there, or name a folder with room: folder under [restore] in the profile, or TMPDIR",
    )


def _create(session: Session, name: str, backup: Backup, archive: Archive, server: PostgresServer) -> Iterator[Finding]:
    """Create the empty database and the roles; yield what the target could not give it."""
    if ownership.exists(session, name):
        ownership.remove(session, name)  # left over by a drill that died, or refused as somebody else's
    if backup.manifest is None:
        session.execute(f"CREATE DATABASE {postgres.identifier(name)} TEMPLATE template0 ENCODING 'UTF8'")
    else:
        must_have_extensions(session, backup)
        yield from _create_database(session, name, backup.manifest.properties)
    ownership.mark(session, name, server.workspace.id)
    if backup.manifest:
        yield from _create_roles(archive.globals_of(backup), server, name)


def _create_roles(roles: bytes | None, server: PostgresServer, name: str) -> Iterator[Finding]:
    """Run the globals dump by psql of the server's own version, which knows how to confine what is in it.

    It runs in the new database: names of roles are stored in the encoding of the database in which they are made.
    """
    if roles is None:
        return
    ran = programs.run(
        [server.tools.program("psql"), "--no-psqlrc", "--quiet", "--file=-"],
        sought="to create the roles of the backup",
        env=postgres.libpq_environment(server.dsn(name)),
        stdin=roles,
        timeout_seconds=300,
        workspace=server.workspace,
    )
    for line in said_by_postgresql(ran.stderr).splitlines():
        if "ERROR:" not in line or re.search(r'role ".*" already exists', line):
            continue
        yield Finding(
            "restore.roles",
            "globals",
            line.split("ERROR:", 1)[1].strip(),
            Outcome.UNPROVEN,
            "create what is missing on the drill's machine, or accept that tablespaces and such differ there",
        )


def _make_up_roles(session: Session, roles: set[str]) -> None:
    """Create what a dump without a globals dump takes for granted: roles by name, which may do nothing."""
    there = {row["rolname"] for row in session.rows("SELECT rolname FROM pg_catalog.pg_roles")}
    for role in sorted(roles - there):
        session.execute(f"CREATE ROLE {postgres.identifier(role)} NOLOGIN")


def _create_database(session: Session, name: str, properties: DatabaseProperties) -> Iterator[Finding]:
    try:
        session.execute(properties.creation(name))
    except postgres.DriverError as refused:
        yield Finding(
            NO_LOCALE,
            name,
            f"the target cannot create it as it was: {str(refused).splitlines()[0]}; sort order and case are unproven",
            Outcome.UNPROVEN,
            f"install the locale {properties.locale or properties.collate!r} on this machine, or use server programs "
            "built with ICU (--pg-bin)",
        )
        session.execute(
            f"CREATE DATABASE {postgres.identifier(name)} TEMPLATE template0"
            f" ENCODING {postgres.literal(properties.encoding)} LC_COLLATE 'C' LC_CTYPE 'C'"
        )


def _drop_quietly(server: PostgresServer, name: str) -> None:
    """Drop what was half restored, without hiding the error that is on its way."""
    with (
        suppress(postgres.DriverError, TargetRefused, ToolFailed, Unproven),
        postgres.session(server.dsn(), read_only=False) as session,
    ):
        if ownership.exists(session, name):
            forget_subscriptions(server.dsn(name))
        ownership.remove(session, name)
