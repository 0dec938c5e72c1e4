"""A base backup becomes a data directory again, and not one byte of it is taken on trust.

The tar is compared with the digest in its record while it comes, before a file of it is written; it is unpacked by a
filter that lets nothing out of the folder; and then PostgreSQL's own pg_verifybackup compares every file with the
manifest that the server wrote into it. Only after that anything is started.
"""

from __future__ import annotations

import errno
import tarfile
from dataclasses import dataclass
from pathlib import Path

from runbook_lib.errors import DamagedArtefact, NoRoom, TargetRefused
from runbook_lib.phases import Progress, Stopwatch, Watcher, nobody
from runbook_lib.reach import programs
from runbook_lib.reach.binaries import PostgresTools
from runbook_lib.reach.objects import Bucket, StoredObject
from runbook_lib.reach.workspace import Workspace
from runbook_lib.wal.base_backup import BaseBackup

MANIFEST = "backup_manifest"
"""The file in which the server wrote down what it sent."""
_TAR = "base.tar"
_VERIFY_SECONDS = 4 * 3600.0
_CONTROL_SECONDS = 20.0
_NEEDED: dict[str, str] = {
    "max_connections setting": "max_connections",
    "max_worker_processes setting": "max_worker_processes",
    "max_wal_senders setting": "max_wal_senders",
    "max_prepared_xacts setting": "max_prepared_transactions",
    "max_locks_per_xact setting": "max_locks_per_transaction",
}
"""What pg_controldata calls the settings that a standby must have at least as high as its primary."""


@dataclass(frozen=True)
class BaseCopy:
    """A data directory that is what its base backup is said to hold, and that no server was started on yet."""

    data: Path
    """The folder."""
    backup: BaseBackup
    """What it was made from."""
    needed: dict[str, str]
    """The settings that a server on it must have at least, by name."""


def unpack(
    backup: BaseBackup,
    bucket: Bucket,
    into: Path,
    *,
    workspace: Workspace,
    tools: PostgresTools,
    stopwatch: Stopwatch,
    watch: Watcher = nobody,
) -> BaseCopy:
    """Fetch a base backup and unpack it, and return it when every file of it is proven to be what was backed up.

    :param into: the data directory; nothing is there yet, and its folder is in the workspace

    Raise `DamagedArtefact` where the tar or a file in it is not what was written, or another cluster's; `NoRoom` where
    the disk is full.
    """
    tar = into.with_name(_TAR)
    stored = StoredObject(bucket.name, backup.key, backup.version_id, backup.tar_bytes, backup.stopped_at)
    _must_have_room(backup, workspace)
    try:
        with stopwatch.phase("fetch base backup"):
            bucket.fetch(
                stored,
                tar,
                sha256=backup.sha256,
                on_bytes=lambda done: watch(Progress("fetch base backup", done, backup.tar_bytes, "bytes")),
            )
        with stopwatch.phase("unpack"):
            _extract(tar, into, stored, workspace)
    finally:
        tar.unlink(missing_ok=True)
    workspace.give(into)
    with stopwatch.phase("verify"):
        _verify(into, stored, tools, workspace)
        told = _control_data(into, tools, workspace)
    if told.get("Database system identifier") != backup.system_identifier:
        raise DamagedArtefact(
            "a base backup of the cluster that its record names",
            where=stored.url,
            why=f"it is of {told.get('Database system identifier')}, and its record says {backup.system_identifier}",
            remedy="do not recover from it; see who wrote the record",
        )
    return BaseCopy(into, backup, {setting: told[name] for name, setting in _NEEDED.items() if name in told})


def _must_have_room(backup: BaseBackup, workspace: Workspace) -> None:
    needed = backup.tar_bytes + backup.data_bytes
    if workspace.free_bytes < needed:
        raise _no_room(backup.key, workspace, f"{needed:,} bytes are needed, {workspace.free_bytes:,} are free")


def _extract(tar: Path, into: Path, stored: StoredObject, workspace: Workspace) -> None:
    into.mkdir(mode=0o700)
    try:
        with tarfile.open(tar, "r:") as archive:
            archive.extractall(into, filter="data")
    except tarfile.FilterError as escaping:
        raise TargetRefused(
            f"to unpack {stored.url}",
            where=str(into),
            why=str(escaping),
            remedy="a base backup holds no such file: keep it as evidence, and find out who wrote it",
        ) from escaping
    except tarfile.TarError as broken:
        raise DamagedArtefact(
            "the tar of a base backup",
            where=stored.url,
            why=str(broken),
            remedy="do not recover from it; take the next older base backup, and keep this one as evidence",
        ) from broken
    except OSError as failed:
        if failed.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _no_room(stored.url, workspace, failed.strerror or str(failed)) from failed
    if not (into / MANIFEST).is_file():
        raise DamagedArtefact(
            "the manifest of a base backup",
            where=stored.url,
            why=f"there is no {MANIFEST} in the tar: what it should hold, nobody wrote down",
            remedy="take base backups as the runbook does; a copy without a manifest cannot be proven",
        )


def _verify(data: Path, stored: StoredObject, tools: PostgresTools, workspace: Workspace) -> None:
    verified = programs.run(
        # Its WAL is in the archive, and is compared there.
        [tools.program("pg_verifybackup"), "--no-parse-wal", "--quiet", data],
        sought="to compare a base backup with its manifest",
        timeout_seconds=_VERIFY_SECONDS,
        workspace=workspace,
    )
    if not verified.succeeded:
        raise DamagedArtefact(
            "the files of a base backup as its manifest names them",
            where=stored.url,
            why=programs.tail(verified.stderr or verified.stdout)
            or f"pg_verifybackup ended with {verified.returncode}",
            remedy="do not recover from it; take the next older base backup, and keep this one as evidence",
        )


def _control_data(data: Path, tools: PostgresTools, workspace: Workspace) -> dict[str, str]:
    told = programs.run(
        [tools.program("pg_controldata"), data],
        sought="to read the control file of a base backup",
        timeout_seconds=_CONTROL_SECONDS,
        workspace=workspace,
    ).must("use the programs of the base backup's major version")
    lines = (line.partition(":") for line in told.stdout.splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}


def _no_room(what: str, workspace: Workspace, why: str) -> NoRoom:
    return NoRoom(
        f"room for {what} and what is unpacked from it",
        where=str(workspace.path),
        why=why,
        remedy="free space there, or name a folder with room: folder under [restore] in the profile, or TMPDIR",
    )
