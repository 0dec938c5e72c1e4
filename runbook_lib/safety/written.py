"""Writing some objects that become one thing with the last of them, and removing what one run wrote, and nothing else.

A run that was cut short leaves objects that look like a backup, and an upload that nobody completes. Every object bears
in its metadata which run wrote it; what bears another name, or none, is somebody else's and is left alone.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar

from runbook_lib.errors import NotFound
from runbook_lib.reach.objects import Bucket, StoredObject
from runbook_lib.safety.act import Before, Undoable
from runbook_lib.safety.mark import MARK, WRITER
from runbook_lib.safety.systems import Systems
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


@dataclass(frozen=True)
class WriteObjects(Undoable):
    """Write objects that are nothing until the last of them is there."""

    what: ClassVar[str]
    """What they become: ``backup``."""
    last: ClassVar[str]
    """What the suffix of the last one says it is: ``manifest``."""
    suffixes: ClassVar[tuple[str, ...]]
    """The suffixes of their keys: that of the one which is uploaded in parts first, that of the last one last."""

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
        return f"add a {self.what}, {self.key}{self.suffixes[0]} with its {self.last}"

    def describe_undoing(self, before: Before) -> str:  # noqa: ARG002
        """Say what is removed."""
        return f"remove what was written of {self.key}, unless it became a whole {self.what}"

    def undo(self, systems: Systems, before: Before) -> str:  # noqa: ARG002
        """Remove what was written of it, version by version, unless the last object is there."""
        bucket = systems.must_have_bucket()
        written = WrittenObjects(self.key, self.suffixes, self.suffixes[0], {WRITER: self.token})
        if any(each.key == self.key + self.suffixes[-1] for each in written.found(bucket)):
            return f"{self.key} is a whole {self.what}: it stays"
        return written.remove(bucket, straggling_seconds=systems.straggling_seconds)
