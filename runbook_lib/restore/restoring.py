"""Bringing a backup's bytes into an empty database, and believing none of it.

No exit code is trusted. The bytes are checked against the manifest before pg_restore sees any of them; the whole dump
is decoded; and pg_restore's every complaint becomes a finding. Where the database lies, on a throwaway server or beside
the living one, is somebody else's concern: here it is a `Target`.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from runbook_lib.backup.catalog import Archive, Backup
from runbook_lib.backup.properties import DatabaseProperties
from runbook_lib.errors import DamagedArtefact, Unproven
from runbook_lib.outcome import Check, Finding
from runbook_lib.phases import Progress, Stopwatch, Watcher, nobody
from runbook_lib.reach import postgres, programs
from runbook_lib.reach.postgres import Session
from runbook_lib.restore import archive_file, progress
from runbook_lib.restore.restored import RestoredDatabase
from runbook_lib.restore.target import Target
from runbook_lib.secrecy import without_credentials

DISK_FULL = re.compile(r".*(?:No space left on device|Check free disk space|Disk quota exceeded).*")
"""What the operating system and PostgreSQL say when a disk is full."""
LayOut = Callable[[Session, Target, Path], Iterator[Finding]]
"""Makes the empty database and what the dump takes for granted, given the dump; yields what the target could not
give."""


def restore(
    backup: Backup,
    name: str,
    *,
    archive: Archive,
    folder: Path,
    target_of: Callable[[int], Target],
    lay_out: LayOut,
    jobs: int,
    watch: Watcher = nobody,
    stopwatch: Stopwatch | None = None,
    give: Callable[[Path], object] = lambda _: None,
    rows_of: Collection[tuple[str, str]] = (),
) -> RestoredDatabase:
    """Fetch a backup and restore it into a database that ``lay_out`` makes.

    :param folder: a private one, with room for the dump, which is removed again
    :param target_of: gives the target for a major version; it is asked while the bytes come in
    :param jobs: how many tables and indexes pg_restore works on at once
    :param give: hands the dump to whoever runs pg_restore
    :param rows_of: the tables, as schema and name, whose rows to restore; none for those of all. The backup must have a
        manifest then: its digest vouches for the bytes, and what is not restored is not decoded either

    Raise `DamagedArtefact` if the dump's bytes are not those of the manifest or cannot be decoded. The database, half
    restored, is the caller's to drop then.
    """
    stopwatch = stopwatch or Stopwatch()
    dump = folder / f"{name}.dump"
    decoding: list[subprocess.Popen[bytes]] = []
    with _gone_afterwards(dump), ThreadPoolExecutor(max_workers=2, thread_name_prefix="restore") as beside:
        early: Future[Target] | None = None
        if backup.manifest:
            early = beside.submit(target_of, backup.manifest.database.major)
        with stopwatch.phase("fetch"):
            archive.bucket.fetch(
                backup.dump,
                dump,
                sha256=backup.sha256,
                on_bytes=lambda done: watch(Progress("fetch", done, backup.dump.bytes, "bytes")),
            )
            give(dump)
        header = archive_file.read_header(dump, where=backup.dump.url)
        target = early.result() if early else target_of(header.major)
        dsn = target.dsn(name)
        try:
            decoded = None if rows_of else beside.submit(_decode, dump, target, backup, stopwatch, decoding)
            with stopwatch.phase("prepare"), postgres.session(target.dsn(), read_only=False) as session:
                findings = list(lay_out(session, target, dump))
            complaints = _pg_restore(dump, dsn, target, jobs, backup, stopwatch, watch, rows_of)
            if decoded is not None:
                decoded.result()
        except BaseException:
            for process in decoding:
                process.kill()  # a Ctrl-C must not wait for the end of a large dump
            raise
    if backup.manifest:
        with postgres.session(dsn, read_only=False) as session:
            findings.extend(_apply(session, backup.manifest.properties, name))
    restored = Check("the backup restores", backup.dump.url, f"{backup.dump.bytes} bytes", (*findings, *complaints))
    return RestoredDatabase(name, dsn, backup, target.tools.version, restored, stopwatch.elapsed_seconds, stopwatch)


@contextmanager
def _gone_afterwards(dump: Path) -> Iterator[None]:
    """See that a dump is not left behind, wherever the restore ended: it is production's data."""
    try:
        yield
    finally:
        dump.unlink(missing_ok=True)


def must_have_extensions(session: Session, backup: Backup) -> None:
    """Raise `Unproven` where the target lacks an extension that the backup uses."""
    assert backup.manifest is not None
    available = {row["name"] for row in session.rows("SELECT name FROM pg_catalog.pg_available_extensions")}
    wanted = {each.name for each in backup.manifest.inventory.definitions if each.kind == "extension"}
    if missing := sorted(wanted - available):
        raise Unproven(
            f"to restore {backup.dump.url}",
            where=f"server {session.server().version}",
            why=f"the target lacks extensions that the database uses: {', '.join(missing)}",
            remedy="install them here, and name the server programs that have them with --pg-bin or RUNBOOK_PG_BIN",
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
    dump: Path, target: Target, backup: Backup, stopwatch: Stopwatch, decoding: list[subprocess.Popen[bytes]]
) -> None:
    """Decode every byte of the dump, beside the restore: damage shows here even where no row is wrong by it."""
    with stopwatch.phase("verify"):
        decoded = programs.run(
            ["nice", target.tools.program("pg_restore"), "--file=/dev/null", dump],
            sought=f"to decode {backup.dump.url}",
            timeout_seconds=progress.RESTORE_SECONDS,
            workspace=target.workspace,
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
    target: Target,
    jobs: int,
    backup: Backup,
    stopwatch: Stopwatch,
    watch: Watcher,
    rows_of: Collection[tuple[str, str]],
) -> list[Finding]:
    expected = {}
    if backup.manifest:
        expected = {table.table: table.bytes for table in backup.manifest.inventory.tables}
    argv: list[str | Path] = [
        target.tools.program("pg_restore"),
        f"--jobs={jobs}",
        "--no-password",
        "--verbose",
        f"--dbname={postgres.database_of(dsn)}",
    ]
    if backup.manifest and (backup.manifest.open_references or rows_of):
        unwanted = backup.manifest.open_references
        listed = archive_file.table_of_contents_without(dump, unwanted, target, rows_of=rows_of)
        argv.append(f"--use-list={listed}")
    with progress.watching(dsn, expected, watch):
        ran = progress.timed_restore(
            [*argv, dump],
            env=postgres.libpq_environment(dsn),
            workspace=target.workspace,
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
