"""Adding a backup to the archive, so that it can be taken back.

A backup is three objects, and becomes one with the last of them. Until then whatever was written of it is rubbish that
looks like a backup: a dump without a manifest, an upload that nobody completes. Every object bears the token of the run
that wrote it; what bears another one, or none, is somebody else's and is left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from runbook_lib.backup.catalog import DUMP_SUFFIX, GLOBALS_SUFFIX, MANIFEST_SUFFIX, MARK, WRITER
from runbook_lib.safety.act import Before, Undoable
from runbook_lib.safety.systems import Systems
from runbook_lib.safety.written import WrittenObjects

_SUFFIXES = (DUMP_SUFFIX, GLOBALS_SUFFIX, MANIFEST_SUFFIX)


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
        written = WrittenObjects(self.key, _SUFFIXES, DUMP_SUFFIX, {WRITER: self.token})
        if any(each.key == self.key + MANIFEST_SUFFIX for each in written.found(bucket)):
            return f"{self.key} is a whole backup: it stays"
        return written.remove(bucket, straggling_seconds=systems.straggling_seconds)
