"""The backups that there are.

Listing objects is not enough: the newest object may be empty, half written, or of another database. So a dump counts
as a backup of ours only with the manifest that was written after it, and as somebody else's backup if our mark is not
on it. What bears our mark and has no manifest was cut short: it is told, and never offered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

from runbook_lib.backup.audit_chain import Head
from runbook_lib.backup.manifest import Artefact, Manifest
from runbook_lib.errors import DamagedArtefact, NotFound
from runbook_lib.outcome import Finding
from runbook_lib.reach.objects import Bucket, StoredObject
from runbook_lib.safety.mark import MARK

DUMP_SUFFIX = ".dump"
MANIFEST_SUFFIX = ".manifest"
GLOBALS_SUFFIX = ".globals.sql"


@dataclass(frozen=True)
class Backup:
    """A dump in the bucket, with what is known of it."""

    dump: StoredObject
    """The dump itself, by version."""
    manifest: Manifest | None
    """What it is said to hold; None for a dump that others made."""

    @property
    def taken_at(self) -> datetime:
        """When the rows it holds were current, in UTC; without a manifest, when the object was written."""
        return self.manifest.taken_at if self.manifest else self.dump.modified

    @property
    def sha256(self) -> str | None:
        """The digest it must have; None where nobody wrote one down."""
        return self.manifest.dump.sha256 if self.manifest else None

    @property
    def audit_head(self) -> Head | None:
        """Where the audit log ended that it holds; None where nobody noted it."""
        return self.manifest.audit_head if self.manifest else None

    def __str__(self) -> str:
        """Return its address and its moment, for a report."""
        return f"{self.dump.url} of {self.taken_at:%Y-%m-%d %H:%M:%S} UTC"


@dataclass(frozen=True)
class Listing:
    """What was found below a prefix."""

    backups: tuple[Backup, ...]
    """Newest first, by the moment their rows were current."""
    incomplete: tuple[StoredObject, ...]
    """Dumps of ours that were cut short: no manifest, no backup."""
    damaged: Mapping[StoredObject, DamagedArtefact]
    """Dumps whose manifest cannot be read or is of another one; what is wrong with each."""
    findings: tuple[Finding, ...]
    """Everything that is not as it should be."""


@dataclass(frozen=True)
class Schedule:
    """When a backup is due."""

    daily_at: time
    """The time of day, in UTC."""
    ready_within: timedelta
    """How long after it a backup may take before it is missed."""

    def last_due(self, now: datetime) -> datetime:
        """Return the last moment whose backup must exist by now."""
        latest = now - self.ready_within
        due = datetime.combine(latest.date(), self.daily_at, tzinfo=UTC)
        return due if due <= latest else due - timedelta(days=1)


class Archive:
    """The part of a bucket in which a database's dumps are kept.

    :param prefix: such as ``postgres/``; below it ``daily/``, ``manual/`` and ``tables/``
    """

    def __init__(self, bucket: Bucket, prefix: str = "postgres/") -> None:
        self.bucket = bucket
        self.prefix = prefix

    @property
    def where(self) -> str:
        """The address of the archive, for a report."""
        return f"s3://{self.bucket.name}/{self.prefix}"

    def key(self, kind: str, taken_at: datetime) -> str:
        """Return the key of a dump, without suffix, as the runbook names them: ``postgres/manual/20260203_143000``."""
        return f"{self.prefix}{kind}/{taken_at.astimezone(UTC):%Y%m%d_%H%M%S}"

    def listing(self, kind: str = "daily") -> Listing:
        """Look at everything below one kind, reading every manifest.

        Cost: one request for every manifest.
        """
        objects = {stored.key: stored for stored in self.bucket.objects(f"{self.prefix}{kind}/")}
        backups: list[Backup] = []
        incomplete: list[StoredObject] = []
        damaged: dict[StoredObject, DamagedArtefact] = {}
        for key, stored in objects.items():
            if not key.endswith(DUMP_SUFFIX):
                continue
            manifest_key = key.removesuffix(DUMP_SUFFIX) + MANIFEST_SUFFIX
            if manifest_key in objects:
                try:
                    backups.append(self._with_manifest(stored, manifest_key))
                except DamagedArtefact as wrong:  # one bad night must not hide the others
                    damaged[stored] = wrong
            elif self._is_ours(key):
                incomplete.append(stored)
            else:
                backups.append(Backup(self.bucket.head(key)[0], None))
        findings = [
            Finding(
                "backup.incomplete",
                stored.url,
                "a dump of ours without a manifest: it was cut short, and is no backup",
                remedy=f"remove it: aws s3 rm s3://{stored.bucket}/{stored.key}",
            )
            for stored in incomplete
        ]
        findings += [
            Finding("backup.manifest", stored.url, wrong.why, remedy=wrong.remedy) for stored, wrong in damaged.items()
        ]
        backups.sort(key=lambda backup: backup.taken_at, reverse=True)
        return Listing(tuple(backups), tuple(incomplete), damaged, tuple(findings))

    def newest(self, *, since: datetime | None = None, kind: str = "daily") -> Backup:
        """Return the newest backup of a kind.

        :param since: the oldest moment that will do, such as the last one a backup was due

        Raise `NotFound` if there is none, or none so new; it says what the newest is and what was passed over. Raise
        `DamagedArtefact` if the one that should do is there, and its manifest is damaged.
        """
        listing = self.listing(kind)
        for stored, wrong in listing.damaged.items():
            older = (_written(stored) > _written(backup.dump) for backup in listing.backups)
            if all(older):
                raise wrong
        remedy = f"look at the backup job of {self.where}{kind}/, and take one now (runbook 1.2)"
        passed_over = f"; passed over as incomplete: {', '.join(o.key for o in listing.incomplete)}" * bool(
            listing.incomplete
        )
        if not listing.backups:
            raise NotFound(
                f"the newest {kind} backup",
                where=f"{self.where}{kind}/",
                why=f"there is no backup at all{passed_over}",
                remedy=remedy,
            )
        newest = listing.backups[0]
        if since is not None and newest.taken_at < since:
            raise NotFound(
                f"a {kind} backup taken since {since:%Y-%m-%d %H:%M} UTC",
                where=f"{self.where}{kind}/",
                why=f"the newest is {newest}{passed_over}",
                remedy=remedy,
            )
        return newest

    def last_night(self, schedule: Schedule, now: datetime) -> Backup:
        """Return last night's backup: the newest, which must be as new as the schedule demands."""
        return self.newest(since=schedule.last_due(now))

    def read_again(self, backup: Backup) -> Backup:
        """Read a backup's manifest from the bucket, as somebody else would find it."""
        return self._with_manifest(backup.dump, backup.dump.key.removesuffix(DUMP_SUFFIX) + MANIFEST_SUFFIX)

    def globals_of(self, backup: Backup) -> bytes | None:
        """Return roles and tablespaces as SQL, with the digest the manifest names; None where there are none."""
        artefact = backup.manifest.globals if backup.manifest else None
        return self._read(artefact) if artefact else None

    def _read(self, artefact: Artefact) -> bytes:
        content = self.bucket.read(artefact.key, artefact.version_id)
        found = hashlib.sha256(content).hexdigest()
        if found != artefact.sha256:
            raise DamagedArtefact(
                "roles and tablespaces with the digest that the manifest names",
                where=f"s3://{self.bucket.name}/{artefact.key}",
                why=f"their sha256 is {found}, and {artefact.sha256} was written down when they were dumped",
                remedy="do not restore them; take roles from the next older proven backup",
            )
        return content

    def _with_manifest(self, newest: StoredObject, manifest_key: str) -> Backup:
        content = self.bucket.read(manifest_key)
        where = f"s3://{self.bucket.name}/{manifest_key}"
        manifest = Manifest.from_bytes(content, where=where)
        if manifest.dump.key != newest.key:
            raise DamagedArtefact(
                f"a manifest of {newest.url}",
                where=where,
                why=f"it is of another dump, {manifest.dump.key}",
                remedy="find out who copied it there; treat the dump as one that nobody has proven",
            )
        # The version that the manifest speaks of, also where somebody has written over the key since.
        dump = StoredObject(
            newest.bucket, manifest.dump.key, manifest.dump.version_id, manifest.dump.bytes, newest.modified
        )
        return Backup(dump, manifest)

    def _is_ours(self, key: str) -> bool:
        _, metadata = self.bucket.head(key)
        return MARK.items() <= dict(metadata).items()


def _written(stored: StoredObject) -> tuple[datetime, str]:
    """When an object was written; S3 counts whole seconds, and the keys are named by the time as well."""
    return stored.modified, stored.key
