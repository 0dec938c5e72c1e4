"""Adding a backup to the archive, so that it can be taken back.

A backup is three objects, and becomes one with the last of them. Until then whatever was written of it is rubbish that
looks like a backup: a dump without a manifest, an upload that nobody completes. Every object bears the token of the run
that wrote it; what bears another one, or none, is somebody else's and is left alone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from runbook_lib.backup.catalog import DUMP_SUFFIX, GLOBALS_SUFFIX, MANIFEST_SUFFIX, MARK, WRITER
from runbook_lib.errors import NotFound
from runbook_lib.reach.objects import Bucket, StoredObject
from runbook_lib.safety.act import Before, Undoable
from runbook_lib.safety.systems import Systems
from runbook_lib.waiting import wait_for

_SUFFIXES = (DUMP_SUFFIX, GLOBALS_SUFFIX, MANIFEST_SUFFIX)
_GONE_WITHIN_SECONDS = 60.0


@dataclass(frozen=True)
class AddBackup(Undoable):
    """Write the objects of one backup."""

    kind: ClassVar[str] = "add a backup"

    key: str
    """What the keys of its objects begin with."""
    token: str
    """What every object of it bears in its metadata; nobody else can know it."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """What every object of it bears: that it is of this library, and of this run."""
        return {**MARK, WRITER: self.token}

    def look(self, systems: Systems) -> Before:  # noqa: ARG002
        """Nothing is there that would be altered: S3 itself refuses to overwrite."""
        return {}

    def describe(self, before: Before) -> str:  # noqa: ARG002
        """Say where it is put."""
        return f"add a backup, {self.key}.dump with its manifest"

    def describe_undoing(self, before: Before) -> str:  # noqa: ARG002
        """Say what is removed."""
        return f"remove what was written of {self.key}, unless it became a whole backup"

    def undo(self, systems: Systems, before: Before) -> str:  # noqa: ARG002
        """Remove what was written of it, version by version, unless its manifest is there."""
        bucket = systems.must_have_bucket()
        if any(each.key == self.key + MANIFEST_SUFFIX for each in self._ours(bucket)):
            return f"{self.key} is a whole backup: it stays"
        removed = aborted = 0
        quiet_since = time.monotonic()

        def seconds_of_quiet() -> float:
            nonlocal removed, aborted, quiet_since
            found = bucket.abort_uploads(self.key + DUMP_SUFFIX)
            ours = self._ours(bucket)
            for each in ours:
                bucket.remove(each.key, each.version_id)
            removed, aborted = removed + len(ours), aborted + found
            if ours or found:
                quiet_since = time.monotonic()
                return -1.0  # it is looked once more: S3's claim that it is gone is a claim
            return time.monotonic() - quiet_since

        wait_for(
            f"everything written of {self.key} to be gone",
            seconds_of_quiet,
            where=f"bucket {bucket.name} at {bucket.endpoint}",
            within_seconds=_GONE_WITHIN_SECONDS,
            until=lambda quiet: quiet >= systems.straggling_seconds,
            remedy="find out who still writes it, and recover again",
        )
        return f"{removed} objects of {self.key} and {aborted} unfinished uploads are removed"

    def _ours(self, bucket: Bucket) -> list[StoredObject]:
        versions = [each for each in bucket.versions(self.key) if each.key.removeprefix(self.key) in _SUFFIXES]
        return [each for each in versions if self._is_ours(bucket, each)]

    def _is_ours(self, bucket: Bucket, stored: StoredObject) -> bool:
        try:
            return bucket.head(stored.key, stored.version_id)[1].get(WRITER) == self.token
        except NotFound:  # somebody removed it since it was listed
            return False
