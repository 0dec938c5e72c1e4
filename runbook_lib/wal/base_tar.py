"""What the tar of a base backup says of itself, read while it passes by.

pg_basebackup tells where a backup begins and ends inside its tar alone: ``backup_label`` is the first file of it and
``backup_manifest`` the last, with any number of terabytes between. So the stream is looked at on its way to the bucket,
in memory that does not grow with it, and it is believed only when it has been seen whole: the manifest's own digest
holds, every file that it names was in the tar, and they have the sizes that it says.

The manifest is JSON, but is read line by line, because its digest is defined by its lines, and because a cluster of a
million files has a manifest of two hundred megabytes.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tarfile
from dataclasses import dataclass, field
from typing import IO, Any, Protocol

from runbook_lib.errors import DamagedArtefact
from runbook_lib.wal.segment import lsn_of

LABEL = "backup_label"
MANIFEST = "backup_manifest"
CONTROL = "global/pg_control"

_PIECE_BYTES = 1 << 16
_MOST_LABEL_BYTES = 1 << 16
_LONGEST_LINE_BYTES = 1 << 20
_IDENTIFIER_BYTES = 8
"""pg_control begins with the system identifier, in the byte order of the server's machine."""
_REMEDY = "take the base backup again; what was written of it does not count"


class Readable(Protocol):
    """Something that gives bytes, and none at its end."""

    def read(self, size: int, /) -> bytes:
        """Return up to so many bytes."""


@dataclass(frozen=True)
class WalRange:
    """A stretch of WAL that the files need to become whole."""

    timeline: int
    """Its timeline."""
    start_lsn: int
    """Its first position."""
    end_lsn: int
    """The position after its last byte."""


@dataclass(frozen=True)
class Told:
    """What a whole tar says of itself."""

    label: str
    """What whoever took it called it."""
    timeline: int
    """The timeline that it began on."""
    start_lsn: int
    """Where it began."""
    ranges: tuple[WalRange, ...]
    """The WAL it needs, in order; more than one where a standby changed its timeline meanwhile."""
    system_identifier: str
    """The cluster's identity, as its ``pg_control`` has it."""
    files: int
    """How many files are in it."""
    data_bytes: int
    """The size of them all."""

    @property
    def stop_lsn(self) -> int:
        """Where it ended."""
        return self.ranges[-1].end_lsn


@dataclass
class _Manifest:
    """A manifest whose lines come one after the other."""

    files: int = 0
    data_bytes: int = 0
    ranges: list[WalRange] = field(default_factory=list)
    system_identifier: str = ""
    checksum: str = ""
    _digest: Any = field(default_factory=hashlib.sha256)

    def line(self, line: bytes) -> None:
        """Take the next line."""
        text = line.strip().rstrip(b",")
        if self.checksum:
            msg = "something follows on its checksum"
            raise ValueError(msg)
        if text.startswith(b'"Manifest-Checksum"'):
            self.checksum = json.loads(b"{" + text.removesuffix(b"}") + b"}")["Manifest-Checksum"]
            if self.checksum != self._digest.hexdigest():
                msg = f"its own checksum is {self.checksum}, and its lines have {self._digest.hexdigest()}"
                raise ValueError(msg)
            return
        self._digest.update(line)
        if text.startswith(b'"System-Identifier"'):
            self.system_identifier = str(json.loads(b"{" + text + b"}")["System-Identifier"])
        elif text.startswith(b"{") and text.endswith(b"}"):
            told = json.loads(text)
            if "Size" in told:
                self.files += 1
                self.data_bytes += told["Size"]
            elif "End-LSN" in told:
                self.ranges.append(WalRange(told["Timeline"], lsn_of(told["Start-LSN"]), lsn_of(told["End-LSN"])))


def read(stream: Readable, where: str) -> Told:
    """Read the tar of a base backup to its end.

    :param where: what it comes from, for an error

    Raise `DamagedArtefact` where it is none, or is not whole.
    """
    label, identifier, manifest = "", "", None
    files = data_bytes = 0
    try:
        with tarfile.open(fileobj=_ToItsEnd(stream), mode="r|", bufsize=_PIECE_BYTES) as tar:  # type: ignore[call-overload]
            for member in tar:
                name = member.name.removeprefix("./")
                if not member.isfile():
                    continue
                content = tar.extractfile(member)
                assert content is not None, "it is a file"
                if name == MANIFEST:
                    manifest = _manifest(content)
                    continue
                files += 1
                data_bytes += member.size
                if name == LABEL:
                    label = content.read(_MOST_LABEL_BYTES).decode(errors="replace")
                elif name == CONTROL:
                    identifier = str(int.from_bytes(content.read(_IDENTIFIER_BYTES), sys.byteorder))
        # What follows a tar's end is padding; it is part of the object all the same.
        while stream.read(_PIECE_BYTES):
            pass
        return _told(label, identifier, manifest, files, data_bytes)
    except (tarfile.TarError, ValueError, KeyError, TypeError) as wrong:
        raise DamagedArtefact(
            "the whole tar of a base backup", where=where, why=str(wrong) or type(wrong).__name__, remedy=_REMEDY
        ) from wrong


class _ToItsEnd:
    """Gives tarfile whole blocks: a pipe gives what happens to be in it."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream

    def read(self, size: int) -> bytes:
        """Return so many bytes; fewer at the end alone."""
        pieces: list[bytes] = []
        while size and (piece := self._stream.read(size)):
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)


def _manifest(content: IO[bytes]) -> _Manifest:
    manifest = _Manifest()
    while line := content.readline(_LONGEST_LINE_BYTES):
        manifest.line(line)
    return manifest


def _told(label: str, identifier: str, manifest: _Manifest | None, files: int, data_bytes: int) -> Told:
    why = ""
    if not label:
        why = f"it has no {LABEL}"
    elif not identifier:
        why = f"it has no {CONTROL}"
    elif manifest is None or not manifest.checksum:
        why = f"it has no whole {MANIFEST}, which is its last file"
    elif not manifest.ranges:
        why = f"its {MANIFEST} names no WAL"
    elif (manifest.files, manifest.data_bytes) != (files, data_bytes):
        why = (
            f"its {MANIFEST} speaks of {manifest.files} files of {manifest.data_bytes:,} bytes, and it has {files} of"
            f" {data_bytes:,}"
        )
    elif manifest.system_identifier not in ("", identifier):
        why = f"its {MANIFEST} is of the cluster {manifest.system_identifier}, and its {CONTROL} of {identifier}"
    if why:
        raise ValueError(why)
    assert manifest is not None
    return Told(
        label=_line(label, "LABEL: (.*)"),
        timeline=int(_line(label, r"START TIMELINE: (\d+)")),
        start_lsn=lsn_of(_line(label, r"START WAL LOCATION: (\S+)")),
        ranges=tuple(manifest.ranges),
        system_identifier=identifier,
        files=files,
        data_bytes=data_bytes,
    )


def _line(label: str, pattern: str) -> str:
    found = re.search(f"^{pattern}", label, re.MULTILINE)
    if found is None:
        msg = f"its {LABEL} has no line {pattern!r}"
        raise ValueError(msg)
    return found[1]
