"""The base backups that there are: what a recovery to a moment begins from.

A dump cannot take WAL: only a copy of the cluster's files can, and only from the position on at which the copy ended. A
recovery to an earlier position would come out with files from two moments. So what decides about a base backup is its
*stop*, and beside each tar in the bucket lies a record of it, written last: where and when it began and ended, of
which cluster and timeline it is, and the digest of the tar. A tar without a record was cut short and is no backup.

The tar is pg_basebackup's, ``backup_manifest`` within, so that whoever has lost everything else can unpack it by hand.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import pydantic

from runbook_lib.errors import DamagedArtefact, NotFound
from runbook_lib.outcome import Finding
from runbook_lib.reach.objects import Bucket, StoredObject
from runbook_lib.wal.segment import DEFAULT_SEGMENT_BYTES, Segment, lsn_text

TAR_SUFFIX = ".tar"
RECORD_SUFFIX = ".json"
FORMAT = 1
"""The version of the record's own form."""


@dataclass(frozen=True)
class BaseBackup:
    """A copy of a cluster's files, and the stretch of WAL that makes it whole."""

    key: str
    """The key of its tar."""
    version_id: str
    """The tar's version; empty where the bucket keeps none."""
    tar_bytes: int
    """The size of the tar."""
    sha256: str
    """The tar's digest, in hexadecimal."""
    system_identifier: str
    """The cluster's identity, made by initdb."""
    server_version_num: int
    """Such as 170011."""
    timeline: int
    """The timeline that it began on."""
    start_lsn: int
    """Where its WAL begins: everything from here on must be in the archive."""
    stop_lsn: int
    """Where it ended: nothing before it can be recovered from this backup."""
    started_at: datetime
    """When it began, by the server's clock, in UTC."""
    stopped_at: datetime
    """When it ended, by the server's clock, in UTC: no earlier moment can be recovered from this backup."""
    data_bytes: int
    """The size of the files in it, as its manifest says."""
    segment_bytes: int = DEFAULT_SEGMENT_BYTES
    """The cluster's ``wal_segment_size``."""
    label: str = ""
    """What whoever took it called it."""
    format: int = FORMAT
    """The version of this form."""

    @property
    def major(self) -> int:
        """The server's major version, such as 17."""
        return self.server_version_num // 10_000

    @property
    def first_segment(self) -> Segment:
        """The first segment that it needs."""
        return Segment.at(self.timeline, self.start_lsn, self.segment_bytes)

    def __str__(self) -> str:
        """Return its key and its end, for a report."""
        return (
            f"{self.key} of {self.stopped_at:%Y-%m-%d %H:%M:%S} UTC (timeline {self.timeline},"
            f" {lsn_text(self.start_lsn)} to {lsn_text(self.stop_lsn)})"
        )

    def to_bytes(self) -> bytes:
        """Return the record, as it lies beside the tar."""
        content = asdict(self) | {"started_at": self.started_at.isoformat(), "stopped_at": self.stopped_at.isoformat()}
        return json.dumps(content, indent=1).encode() + b"\n"

    @classmethod
    def from_bytes(cls, content: bytes, *, where: str) -> BaseBackup:
        """Read a record. Raise `DamagedArtefact` where it is none."""
        try:
            read = pydantic.TypeAdapter(cls).validate_json(content)
        except pydantic.ValidationError as wrong:
            first = wrong.errors()[0]
            raise DamagedArtefact(
                "the record of a base backup",
                where=where,
                why=f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}",
                remedy="do not recover from this one; take a new base backup",
            ) from wrong
        if read.format != FORMAT or read.started_at.tzinfo is None or read.stopped_at.tzinfo is None:
            raise DamagedArtefact(
                "the record of a base backup",
                where=where,
                why=f"it has form {read.format} (known is {FORMAT}), or times without an offset",
                remedy="read it with the version of the runbook that wrote it",
            )
        return read


@dataclass(frozen=True)
class BaseListing:
    """What was found below a prefix."""

    backups: tuple[BaseBackup, ...]
    """Newest first, by the moment they ended."""
    findings: tuple[Finding, ...]
    """Tars that were cut short, records that cannot be read, and records without their tar."""


class BaseBackups:
    """The part of a bucket in which a cluster's base backups are kept.

    :param prefix: such as ``base/``
    """

    def __init__(self, bucket: Bucket, prefix: str = "base/") -> None:
        self.bucket = bucket
        self.prefix = prefix

    @property
    def where(self) -> str:
        """The address, for a report."""
        return f"s3://{self.bucket.name}/{self.prefix}"

    def key(self, started_at: datetime) -> str:
        """Return the key of a base backup, without suffix: ``base/20260203_020000``."""
        return f"{self.prefix}{started_at.astimezone(UTC):%Y%m%d_%H%M%S}"

    def listing(self) -> BaseListing:
        """Look at all base backups, reading every record.

        Cost: one request for a thousand objects, and two for every record. No tar is read.
        """
        objects = {stored.key: stored for stored in self.bucket.objects(self.prefix)}
        backups: list[BaseBackup] = []
        findings: list[Finding] = []
        for key, stored in objects.items():
            if key.endswith(TAR_SUFFIX) and key.removesuffix(TAR_SUFFIX) + RECORD_SUFFIX not in objects:
                findings.append(_cut_short(stored))
            if not key.endswith(RECORD_SUFFIX):
                continue
            try:
                backups.append(self._read(stored, objects))
            except (DamagedArtefact, NotFound) as wrong:  # one bad backup must not hide the others
                findings.append(Finding("base_backup.record", stored.url, wrong.why, remedy=wrong.remedy))
        backups.sort(key=lambda backup: (backup.stopped_at, backup.stop_lsn), reverse=True)
        return BaseListing(tuple(backups), tuple(findings))

    def _read(self, record: StoredObject, objects: dict[str, StoredObject]) -> BaseBackup:
        backup = BaseBackup.from_bytes(self.bucket.read(record.key, record.version_id), where=record.url)
        tar = objects.get(backup.key)
        if tar is None or backup.key.removesuffix(TAR_SUFFIX) != record.key.removesuffix(RECORD_SUFFIX):
            raise NotFound(
                "the tar that a record speaks of",
                where=record.url,
                why=f"it speaks of {backup.key}, which is not beside it",
                remedy="do not count on this base backup; see who removed its tar",
            )
        tar, _ = self.bucket.head(tar.key)  # a list tells no version
        if (tar.version_id, tar.bytes) != (backup.version_id, backup.tar_bytes):
            raise DamagedArtefact(
                "the tar that a record speaks of",
                where=tar.url,
                why=f"its record speaks of version {backup.version_id or 'none'} of {backup.tar_bytes:,} bytes,"
                f" and there is version {tar.version_id or 'none'} of {tar.bytes:,}",
                remedy="see who overwrote it; the older version may still be there",
            )
        return backup


def _cut_short(stored: StoredObject) -> Finding:
    return Finding(
        "base_backup.incomplete",
        stored.url,
        "the tar of a base backup without a record: it was cut short, and is no backup",
        remedy=f"remove it: aws s3 rm s3://{stored.bucket}/{stored.key}",
    )
