"""Restoring a backup into a database of our own, to see whether it can be done and what comes back.

The drill never trusts an exit code. The bytes are checked against the manifest before pg_restore sees any of them;
the whole dump is decoded; pg_restore's every complaint becomes a finding; and what came back is compared with the
manifest by whoever asked for the restore.

A dump is code that runs where it is restored. So pg_restore runs in a private workspace, without a shell, cloud
credentials or a network address to serve, against a throwaway server of the backup's own major version.
"""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from runbook_lib.backup import comparison, inventory, reparse
from runbook_lib.backup.catalog import Archive, Backup
from runbook_lib.backup.comparison import Comparison
from runbook_lib.backup.inventory import Inventory
from runbook_lib.backup.properties import DatabaseProperties
from runbook_lib.errors import DamagedArtefact, NoRoom, RunbookError, TargetRefused, ToolFailed, Unproven
from runbook_lib.outcome import Check, Finding, Outcome
from runbook_lib.phases import Phase, Progress, Stopwatch, Watcher, nobody
from runbook_lib.reach import binaries, postgres, programs
from runbook_lib.reach.binaries import PostgresTools
from runbook_lib.reach.postgres import Session
from runbook_lib.reach.server import FAST, PostgresServer
from runbook_lib.reach.workspace import Workspace
from runbook_lib.restore import archive_file, integrity, progress
from runbook_lib.safety import ownership
from runbook_lib.secrecy import said_by_postgresql, without_credentials

_NO_LOCALE = "restore.locale"
_SPACE_FACTOR = 1.2
"""Room for the dump and the restored database together, over their sizes in the manifest: indexes being built."""
_SERVER_BYTES = 100_000_000
"""Room for an empty server: its catalogs and the first segments of WAL."""
_DISK_FULL = re.compile(r".*(?:No space left on device|Check free disk space|Disk quota exceeded).*")
"""What the operating system and PostgreSQL say when a disk is full."""


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
        found = _DISK_FULL.search(said_by_postgresql("\n".join(logs)))
        return found[0] if found else ""


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
                has_locale=all(finding.check != _NO_LOCALE for finding in self.restored.findings),
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
                _forget_subscriptions(self.dsn)
            return ownership.remove(session, self.name)

    @property
    def is_gone(self) -> bool:
        """Whether its server knows no database of this name."""
        with postgres.session(postgres.with_database(self.dsn, "postgres")) as session:
            return not ownership.exists(session, self.name)


def into_scratch(
    backup: Backup,
    name: str,
    *,
    archive: Archive,
    scratch: Scratch,
    jobs: int = 2,
    watch: Watcher = nobody,
) -> RestoredDatabase:
    """Restore a backup into a new database on a throwaway server of the backup's own major version.

    :param name: the new database's name, such as ``tensafe_verify``
    :param jobs: how many tables and indexes pg_restore works on at once

    Raise `DamagedArtefact` if the dump's bytes are not those of the manifest or cannot be decoded, `Unproven` if the
    target lacks something (an extension, a locale, room), `TargetRefused` if a database of that name is not ours.
    """
    stopwatch = Stopwatch()
    workspace = scratch.workspace
    folder = workspace.folder("dump")
    dump = folder / f"{name}.dump"
    _must_have_room(backup, workspace)

    def start_server(major: int) -> PostgresServer:
        with stopwatch.phase("start server"):
            return scratch.server(major)

    with (
        _disk_full_is_no_fault_of(backup, scratch),
        _gone_afterwards(dump),
        ThreadPoolExecutor(max_workers=2, thread_name_prefix="restore") as beside,
    ):
        # The server of the manifest's major version comes up while the bytes come in.
        early = beside.submit(start_server, backup.manifest.database.major) if backup.manifest else None
        with stopwatch.phase("fetch"):
            archive.bucket.fetch(
                backup.dump,
                dump,
                sha256=backup.sha256,
                on_bytes=lambda done: watch(Progress("fetch", done, backup.dump.bytes, "bytes")),
            )
            workspace.give(dump)
        header = archive_file.read_header(dump, where=backup.dump.url)
        server = early.result() if early else start_server(header.major)
        dsn = server.dsn(name)
        decoding: list[subprocess.Popen[bytes]] = []
        try:
            decoded = beside.submit(_decode, dump, server, backup, stopwatch, decoding)
            with stopwatch.phase("prepare"), postgres.session(server.dsn(), read_only=False) as session:
                findings = list(_create(session, name, backup, archive, server))
                if backup.manifest is None:
                    _make_up_roles(session, archive_file.roles_in(dump, server))
            complaints = _pg_restore(dump, dsn, server, jobs, backup, stopwatch, watch)
            decoded.result()
        except BaseException:
            for process in decoding:
                process.kill()  # a Ctrl-C must not wait for the end of a large dump
            _drop_quietly(server, name)
            raise
        if complaints and scratch.disk_full:
            raise _no_room(backup, workspace, scratch.disk_full)
        if backup.manifest:
            with postgres.session(dsn, read_only=False) as session:
                findings.extend(_apply(session, backup.manifest.properties, name))
    restored = Check("the backup restores", backup.dump.url, f"{backup.dump.bytes} bytes", (*findings, *complaints))
    return RestoredDatabase(name, dsn, backup, server.tools.version, restored, stopwatch.elapsed_seconds, stopwatch)


@contextmanager
def _gone_afterwards(dump: Path) -> Iterator[None]:
    """See that a dump is not left behind, wherever the restore ended: it is production's data."""
    try:
        yield
    finally:
        dump.unlink(missing_ok=True)


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
        said = scratch.disk_full or _DISK_FULL.search(str(failed))
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
        _must_have_extensions(session, backup)
        yield from _create_database(session, name, backup.manifest.properties)
    ownership.mark(session, name, server.workspace.id)
    if backup.manifest:
        yield from _create_roles(archive.globals_of(backup), server, name)


def _must_have_extensions(session: Session, backup: Backup) -> None:
    assert backup.manifest is not None
    available = {row["name"] for row in session.rows("SELECT name FROM pg_catalog.pg_available_extensions")}
    wanted = {each.name for each in backup.manifest.inventory.definitions if each.kind == "extension"}
    if missing := sorted(wanted - available):
        raise Unproven(
            f"to restore {backup.dump.url}",
            where=f"throwaway server {session.server().version}",
            why=f"the target lacks extensions that the database uses: {', '.join(missing)}",
            remedy="install them here, and name the server programs that have them with --pg-bin or RUNBOOK_PG_BIN",
        )


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
            _NO_LOCALE,
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


def _apply(session: Session, properties: DatabaseProperties, name: str) -> Iterator[Finding]:
    for statement in properties.application(name):
        try:
            session.execute(statement)
        except postgres.DriverError as refused:
            yield Finding(
                "restore.properties",
                name,
                f"{without_credentials(statement)}: {str(refused).splitlines()[0]}",
                remedy="apply it by hand after a real restore",
            )


def _decode(
    dump: Path, server: PostgresServer, backup: Backup, stopwatch: Stopwatch, decoding: list[subprocess.Popen[bytes]]
) -> None:
    """Decode every byte of the dump, beside the restore: damage shows here even where no row is wrong by it."""
    with stopwatch.phase("verify"):
        decoded = programs.run(
            ["nice", server.tools.program("pg_restore"), "--file=/dev/null", dump],
            sought=f"to decode {backup.dump.url}",
            timeout_seconds=progress.RESTORE_SECONDS,
            workspace=server.workspace,
            on_start=decoding.append,
        )
    if decoded.returncode < 0:
        decoded.must("find out what ended pg_restore, such as a lack of memory; this says nothing about the dump")
    if not decoded.succeeded:
        raise DamagedArtefact(
            "a dump that can be decoded to its end",
            where=backup.dump.url,
            why=programs.tail(decoded.stderr, 3)
            or f"pg_restore ends with exit code {decoded.returncode}, and says nothing",
            remedy="do not rely on it; take the next older proven backup, and find out what wrote these bytes",
        )


def _pg_restore(
    dump: Path,
    dsn: str,
    server: PostgresServer,
    jobs: int,
    backup: Backup,
    stopwatch: Stopwatch,
    watch: Watcher,
) -> list[Finding]:
    expected = {}
    if backup.manifest:
        expected = {table.table: table.bytes for table in backup.manifest.inventory.tables}
    argv: list[str | Path] = [
        server.tools.program("pg_restore"),
        f"--jobs={jobs}",
        "--no-password",
        "--verbose",
        f"--dbname={postgres.database_of(dsn)}",
    ]
    if backup.manifest and backup.manifest.open_references:
        listed = archive_file.table_of_contents_without(dump, backup.manifest.open_references, server)
        argv.append(f"--use-list={listed}")
    with progress.watching(dsn, expected, watch):
        ran = progress.timed_restore(
            [*argv, dump],
            env=postgres.libpq_environment(dsn),
            workspace=server.workspace,
            stopwatch=stopwatch,
        )
    complaints = list(archive_file.complaints(ran.stderr))
    if not ran.succeeded and not complaints:
        complaints.append(
            Finding(
                "restore.exit_code", backup.dump.url, f"pg_restore failed without a reason: exit code {ran.returncode}"
            )
        )
    return complaints


def _drop_quietly(server: PostgresServer, name: str) -> None:
    """Drop what was half restored, without hiding the error that is on its way."""
    with (
        suppress(postgres.DriverError, TargetRefused, ToolFailed, Unproven),
        postgres.session(server.dsn(), read_only=False) as session,
    ):
        if ownership.exists(session, name):
            _forget_subscriptions(server.dsn(name))
        ownership.remove(session, name)


def _forget_subscriptions(dsn: str) -> None:
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
