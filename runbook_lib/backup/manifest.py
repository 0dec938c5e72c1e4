"""What a backup is said to hold, written down while it was made.

The manifest stands beside the dump and is written last: a dump of ours without one was cut short and is no backup.
It names the dump by version, size and digest, the database by its identity, and lists in the dump's own snapshot
everything that a restore must bring back. The source is never asked again; it has moved on long since.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import pydantic

from runbook_lib.backup.audit_chain import Head
from runbook_lib.backup.definitions import Definition
from runbook_lib.backup.inventory import Inventory, SequencePosition
from runbook_lib.backup.properties import DatabaseProperties
from runbook_lib.errors import DamagedArtefact
from runbook_lib.outcome import Finding

FORMAT = 1
"""The version of the manifest's own form."""


@dataclass(frozen=True)
class DatabaseIdentity:
    """Which database it was."""

    system_identifier: str
    """The cluster's identity, made by initdb."""
    name: str
    """The database's name."""
    oid: int
    """The database's oid, which a database of the same name made later does not have."""
    server_version_num: int
    """Such as 170011."""
    server_version: str
    """Such as ``17.11``."""
    encoding: str
    """Such as ``UTF8``."""
    bytes: int
    """``pg_database_size``."""
    collation_versions: Mapping[str, str]
    """Collation to the version of the library that sorts by it, for the database and every collation in use."""

    @property
    def major(self) -> int:
        """The server's major version, such as 17."""
        return self.server_version_num // 10_000


@dataclass(frozen=True)
class Artefact:
    """One object that belongs to a backup."""

    key: str
    """Its key in the bucket."""
    version_id: str
    """Its version; empty where the bucket keeps none."""
    bytes: int
    """Its size."""
    sha256: str
    """Its digest, in hexadecimal."""


@dataclass(frozen=True)
class Manifest:
    """What a backup holds."""

    format: int
    """The version of this form, see `FORMAT`."""
    database: DatabaseIdentity
    """Which database it was."""
    properties: DatabaseProperties
    """What belongs to the database itself, and is in no dump of what is in it."""
    taken_at: datetime
    """The server's clock when the snapshot was taken, in UTC."""
    lsn: str
    """The position of the WAL at that moment."""
    tools: Mapping[str, str]
    """The programs that made it, with their versions."""
    compression: str
    """How the dump is compressed, as pg_dump was told."""
    dump: Artefact
    """The dump itself."""
    globals: Artefact | None
    """Roles and tablespaces, which no dump of a database holds; None where the role may not read them."""
    tables: tuple[str, ...]
    """The tables that were asked for, as pg_dump patterns; empty for the whole database."""
    open_references: tuple[str, ...]
    """Foreign keys, as ``schema.table constraint``, from a table whose rows were kept to one whose rows were not: they
    cannot be restored from this backup alone."""
    inventory: Inventory
    """Everything it holds, in the dump's snapshot."""
    sequences_after: tuple[SequencePosition, ...]
    """The sequences once more, when the dump had ended: they are in no snapshot."""
    changed_meanwhile: tuple[Definition, ...]
    """Objects whose definition was another when the dump had ended: they cannot be compared."""
    source_findings: tuple[Finding, ...]
    """What was wrong with the source itself, such as an invalid index that no dump carries."""
    audit_head: Head | None = None
    """Where the audit log ended, in the dump's snapshot; None where there was none, or nobody noted it yet."""

    def to_bytes(self) -> bytes:
        """Return the manifest as compressed JSON."""
        text = json.dumps(_FORM.dump_python(self, mode="json"), ensure_ascii=False, separators=(",", ":"))
        # mtime=0: the same manifest gives the same bytes.
        return gzip.compress(text.encode(), compresslevel=6, mtime=0)

    @classmethod
    def from_bytes(cls, content: bytes, *, where: str) -> Manifest:
        """Read a manifest back. Raise `DamagedArtefact` if it is not whole or not of this form."""
        try:
            told = json.loads(gzip.decompress(content))
            if told.get("format") != FORMAT:
                raise _damaged(where, f"it is of format {told.get('format')!r}, and this library reads {FORMAT}")
            return _FORM.validate_python(told)
        except (OSError, EOFError, ValueError, AttributeError, zlib.error) as unreadable:
            raise _damaged(where, str(unreadable).splitlines()[0]) from unreadable


_FORM: pydantic.TypeAdapter[Manifest] = pydantic.TypeAdapter(Manifest)


def _damaged(where: str, why: str) -> DamagedArtefact:
    remedy = "treat the backup as unproven and take a new one; read it with the version of runbook_lib that wrote it"
    return DamagedArtefact("a readable manifest", where=where, why=why, remedy=remedy)
