"""Removing what one run wrote into a bucket, and nothing else.

A run that was cut short leaves objects that look like a backup, and an upload that nobody completes. Every object bears
in its metadata which run wrote it; what bears another name, or none, is somebody else's and is left alone.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from runbook_lib.errors import NotFound
from runbook_lib.reach.objects import Bucket, StoredObject
from runbook_lib.waiting import wait_for

_GONE_WITHIN_SECONDS = 60.0


@dataclass(frozen=True)
class WrittenObjects:
    """The objects of one run whose keys begin alike."""

    key: str
    """What their keys begin with."""
    suffixes: Collection[str]
    """What may follow in them."""
    streamed: str
    """The suffix of the one that is uploaded in parts."""
    metadata: Mapping[str, str]
    """What each of them bears, and nobody else's does."""

    def found(self, bucket: Bucket) -> list[StoredObject]:
        """Return every version of them that is there."""
        versions = [each for each in bucket.versions(self.key) if each.key.removeprefix(self.key) in self.suffixes]
        return [each for each in versions if self._is_ours(bucket, each)]

    def remove(self, bucket: Bucket, *, straggling_seconds: float) -> str:
        """Remove them, version by version, until none has come for a while, and say how many were removed.

        :param straggling_seconds: for how long requests of a run that was killed may still arrive
        """
        removed = aborted = 0
        quiet_since = time.monotonic()

        def seconds_of_quiet() -> float:
            nonlocal removed, aborted, quiet_since
            uploads = bucket.abort_uploads(self.key + self.streamed)
            ours = self.found(bucket)
            for each in ours:
                bucket.remove(each.key, each.version_id)
            removed, aborted = removed + len(ours), aborted + uploads
            if ours or uploads:
                quiet_since = time.monotonic()
                return -1.0  # it is looked once more: S3's claim that it is gone is a claim
            return time.monotonic() - quiet_since

        wait_for(
            f"everything written of {self.key} to be gone",
            seconds_of_quiet,
            where=f"bucket {bucket.name} at {bucket.endpoint}",
            within_seconds=_GONE_WITHIN_SECONDS,
            until=lambda quiet: quiet >= straggling_seconds,
            remedy="find out who still writes it, and recover again",
        )
        return f"{removed} objects of {self.key} and {aborted} unfinished uploads are removed"

    def _is_ours(self, bucket: Bucket, stored: StoredObject) -> bool:
        try:
            told = bucket.head(stored.key, stored.version_id)[1]
        except NotFound:  # somebody removed it since it was listed
            return False
        return self.metadata.items() <= told.items()
