"""Adding a backup to the archive, so that it can be taken back.

A backup is three objects, and becomes one with the last of them. Until then whatever was written of it is rubbish that
looks like a backup: a dump without a manifest, an upload that nobody completes. Every object bears the token of the run
that wrote it; what bears another one, or none, is somebody else's and is left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from runbook_lib.backup.catalog import DUMP_SUFFIX, GLOBALS_SUFFIX, MANIFEST_SUFFIX
from runbook_lib.safety.written import WriteObjects


@dataclass(frozen=True)
class AddBackup(WriteObjects):
    """Write the objects of one backup."""

    kind: ClassVar[str] = "add a backup"
    what: ClassVar[str] = "backup"
    last: ClassVar[str] = "manifest"
    suffixes: ClassVar[tuple[str, ...]] = (DUMP_SUFFIX, GLOBALS_SUFFIX, MANIFEST_SUFFIX)
