"""Names of WAL files, the arithmetic between them and positions in the WAL, and what a segment says of itself.

A file of the archive is believed for what is in it, not for what it is called: of all the ways in which an archive is
bad, a segment under another one's name, one of another cluster, one of zeros and one cut short are those that end a
recovery early without a word. The first page of every segment names its cluster, its position and its size; that is
enough to recognise each of them before PostgreSQL sees it. How far the records of a segment reach is read here as
well, so that the end of an archive is a position, to be compared with the one that a recovery came to.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum

from runbook_lib.errors import DamagedArtefact

MIB = 1024 * 1024
DEFAULT_SEGMENT_BYTES = 16 * MIB
"""What initdb chooses for ``wal_segment_size``."""
HEADER_BYTES = 40
"""The long header that the first page of a segment begins with."""
MAGICS = {0xD106: 13, 0xD10D: 14, 0xD110: 15, 0xD113: 16, 0xD116: 17, 0xD118: 18}
"""What the pages of the WAL begin with, and the major version of PostgreSQL that writes them so."""

_LOG_BYTES = 1 << 32
"""What the middle part of a segment's name counts."""
_LONG_HEADER = struct.Struct("=HHIQI4xQII")
_SHORT_HEADER = struct.Struct("=HHIQI4x")
_RECORD_HEADER = struct.Struct("=IIQBB2xI")
_CONTINUES, _IS_LONG = 0x0001, 0x0002
_ALIGNMENT = 8
_XLOG, _SWITCH = 0, 0x40
"""The resource manager and the kind of the record that pg_switch_wal writes: what follows in its segment is nothing."""
_TRANSACTION = 1
"""The resource manager of what ends a transaction."""
_ENDS = (0x00, 0x20, 0x30, 0x40)
"""Its kinds that a recovery to a moment stops at: commit, abort, and both of a prepared one."""
_KIND_MASK = 0x70
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
"""What PostgreSQL counts microseconds from."""
_TIME = struct.Struct("=q")
_BEFORE_DATA = {252: 4, 253: 2}
"""What may stand in a record between its header and its data, and its bytes: the top transaction, the origin."""
_DATA_SHORT, _DATA_LONG = 255, 254
_NAME = re.compile(
    r"(?P<timeline>[0-9A-F]{8})"
    r"(?:(?P<history>\.history)|(?P<log>[0-9A-F]{8})(?P<low>[0-9A-F]{8})(?:(?P<partial>\.partial)|(?P<label>\.[0-9A-F]{8}\.backup))?)"
)
_HISTORY_LINE = re.compile(r"\s*(\d+)\s+([0-9A-F]+/[0-9A-F]+)(?:\s+(.*))?")


class Kind(Enum):
    """What a file of the archive is."""

    SEGMENT = "segment"
    """A whole segment of the WAL."""
    PARTIAL = "partial"
    """The last segment of a timeline that was left, kept under a name that PostgreSQL never asks for."""
    HISTORY = "history"
    """Which timelines a timeline comes from."""
    LABEL = "label"
    """What a base backup tells of itself, for people."""


@dataclass(frozen=True)
class WalName:
    """The name of a file of the archive, taken apart."""

    text: str
    """The name."""
    kind: Kind
    """What it names."""
    timeline: int
    """The timeline it belongs to."""
    log: int = 0
    """The middle part of a segment's name: the upper half of its position. 0 for a history."""
    low: int = 0
    """The last part of a segment's name: which segment of that log. 0 for a history."""

    @classmethod
    def parse(cls, text: str) -> WalName | None:
        """Take a name apart; None where PostgreSQL gives no file such a name."""
        found = _NAME.fullmatch(text)
        if found is None or int(found["timeline"], 16) == 0:
            return None
        timeline = int(found["timeline"], 16)
        if found["history"]:
            return cls(text, Kind.HISTORY, timeline)
        kind = Kind.PARTIAL if found["partial"] else Kind.LABEL if found["label"] else Kind.SEGMENT
        return cls(text, kind, timeline, int(found["log"], 16), int(found["low"], 16))

    def segment(self, segment_bytes: int) -> Segment:
        """Return the segment that it names, or belongs to."""
        return Segment(self.timeline, self.log * (_LOG_BYTES // segment_bytes) + self.low, segment_bytes)


@dataclass(frozen=True, order=True)
class Segment:
    """One segment of the WAL of one timeline."""

    timeline: int
    """The timeline."""
    number: int
    """Its number from the beginning of the WAL, which is position divided by size."""
    bytes: int = DEFAULT_SEGMENT_BYTES
    """The cluster's ``wal_segment_size``."""

    @classmethod
    def at(cls, timeline: int, lsn: int, segment_bytes: int = DEFAULT_SEGMENT_BYTES) -> Segment:
        """Return the segment that holds the byte at this position."""
        return cls(timeline, lsn // segment_bytes, segment_bytes)

    @property
    def name(self) -> str:
        """The name of its file."""
        log, low = divmod(self.number, _LOG_BYTES // self.bytes)
        return f"{self.timeline:08X}{log:08X}{low:08X}"

    @property
    def start_lsn(self) -> int:
        """The position of its first byte."""
        return self.number * self.bytes

    @property
    def end_lsn(self) -> int:
        """The position after its last byte."""
        return self.start_lsn + self.bytes

    def after(self, count: int = 1) -> Segment:
        """Return the segment so many further on, on the same timeline."""
        return Segment(self.timeline, self.number + count, self.bytes)


@dataclass(frozen=True)
class SegmentHeader:
    """What the first page of a segment says of it."""

    major: int
    """The major version of the PostgreSQL that wrote it."""
    timeline: int
    """The timeline it was written on: where a timeline begins in its middle, that of an ancestor."""
    start_lsn: int
    """The position of its first byte."""
    remaining_bytes: int
    """How much of the record that began in an earlier segment is still to come."""
    system_identifier: str
    """The cluster's identity."""
    segment_bytes: int
    """The cluster's ``wal_segment_size``."""
    page_bytes: int
    """The size of its pages."""

    @classmethod
    def read(cls, content: bytes | memoryview) -> SegmentHeader | None:
        """Read the header at the beginning of a segment; None where these bytes are none."""
        if len(content) < HEADER_BYTES:
            return None
        magic, info, timeline, start, remaining, identifier, size, page = _LONG_HEADER.unpack_from(content)
        if magic not in MAGICS or not info & _IS_LONG or not size or not page:
            return None
        remaining = remaining if info & _CONTINUES else 0
        return cls(MAGICS[magic], timeline, start, remaining, str(identifier), size, page)


@dataclass(frozen=True)
class Fork:
    """Where a timeline, or one of its ancestors, was left for the next one."""

    parent: int
    """The timeline that was left."""
    lsn: int
    """The position up to which it counts."""
    reason: str
    """What the server said of it."""


def lsn_text(lsn: int) -> str:
    """Write a position as PostgreSQL does: ``0/3000060``."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def lsn_of(text: str) -> int:
    """Read a position. Raise `ValueError` where it is none."""
    high, slash, low = text.partition("/")
    if not slash:
        raise ValueError(f"{text!r} is no position in the WAL")
    return (int(high, 16) << 32) + int(low, 16)


def history_of(content: bytes, timeline: int, *, where: str) -> tuple[Fork, ...]:
    """Read a history file: the ancestors of a timeline, the oldest first.

    Raise `DamagedArtefact` where it is none, or none of this timeline.
    """
    forks: list[Fork] = []
    why = ""
    for line in content.decode(errors="replace").splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _HISTORY_LINE.fullmatch(line)
        if found is None:
            why = f"this line is none of a history: {line[:60]!r}"
            break
        forks.append(Fork(int(found[1]), lsn_of(found[2]), found[3] or ""))
    if not why and not forks:
        why = "it names no timeline that this one comes from"
    if not why and [fork.parent for fork in forks] != sorted({fork.parent for fork in forks}):
        why = "its timelines do not ascend"
    if not why and forks[-1].parent >= timeline:
        why = f"it says that timeline {timeline} comes from {forks[-1].parent}, which is not older"
    if why:
        remedy = "take the file from pg_wal of a server of that timeline; do not recover along it as it is"
        raise DamagedArtefact(f"the history of timeline {timeline}", where=where, why=why, remedy=remedy)
    return tuple(forks)


def why_not(
    name: WalName,
    beginning: bytes | memoryview,
    size_bytes: int,
    *,
    segment_bytes: int,
    system_identifier: str | None,
) -> str:
    """Say why a file cannot be the one of this name; nothing where it can.

    :param beginning: its first bytes, at least `HEADER_BYTES` of a segment, all of a history or a label
    :param size_bytes: its size
    :param segment_bytes: the cluster's ``wal_segment_size``
    :param system_identifier: the cluster's identity; None where it is not known
    """
    if name.kind is Kind.HISTORY:
        try:
            history_of(bytes(beginning), name.timeline, where=name.text)
        except DamagedArtefact as damaged:
            return damaged.why
        return ""
    if name.kind is Kind.LABEL:
        named = re.search(rb"\(file ([0-9A-F]{24})\)", bytes(beginning))
        if named is None or named[1].decode() != name.text[:24]:
            return f"it is not the label of a backup that began in {name.text[:24]}"
        return ""
    if size_bytes != segment_bytes:
        return f"it has {size_bytes} bytes, and a segment has {segment_bytes}"
    header = SegmentHeader.read(beginning)
    if header is None:
        if not any(beginning):
            return "it begins with zeros"
        return f"it begins with {bytes(beginning[:4]).hex()}, as no segment of PostgreSQL 13 to 18 does"
    if header.segment_bytes != segment_bytes:
        return f"it is of a cluster whose segments have {header.segment_bytes} bytes, not {segment_bytes}"
    segment = name.segment(segment_bytes)
    if header.start_lsn != segment.start_lsn:
        return f"it holds the WAL from {lsn_text(header.start_lsn)}, and {lsn_text(segment.start_lsn)} is its name"
    if header.timeline > name.timeline:
        return f"it was written on timeline {header.timeline}, which is later than {name.timeline}"
    if system_identifier is not None and header.system_identifier != system_identifier:
        return f"it is of the cluster {header.system_identifier}, not of {system_identifier}"
    return ""


def end_of_records(content: bytes | memoryview) -> int | None:
    """Return the position after the last record that is whole in a segment, as PostgreSQL counts it.

    :param content: the whole segment, whose header has been looked at

    None where not a single record ends in it. A record that goes on in the next segment does not count: without that
    segment nobody can replay it. The records' checksums are not computed: whoever asks has compared the digest.
    """
    header = SegmentHeader.read(content)
    if header is None:
        return None
    end = None
    for record in _records(content, header):
        if record.manager == _XLOG and record.info & 0xF0 == _SWITCH:
            return header.start_lsn + header.segment_bytes
        end = record.ends
    return None if end is None else header.start_lsn + end


def last_commit_at(content: bytes | memoryview) -> datetime | None:
    """Return the latest moment at which a transaction ended that a segment holds whole; None where it holds none.

    A recovery to any moment before it stops in this segment at the latest: it has seen a transaction that is too late.

    :param content: the whole segment, whose header has been looked at
    """
    header = SegmentHeader.read(content)
    if header is None:
        return None
    pages, latest = _Pages(content, header), None
    for record in _records(content, header):
        if record.manager == _TRANSACTION and record.info & _KIND_MASK in _ENDS:
            told = pages.take(record.begins, min(record.bytes, _RECORD_HEADER.size + 32))
            ended = None if told is None else _ended_at(told)
            latest = ended if latest is None or (ended is not None and ended > latest) else latest
    return latest


def _ended_at(record: bytes) -> datetime | None:
    """Read when a transaction ended from the beginning of its last record."""
    offset = _RECORD_HEADER.size
    while offset < len(record) and record[offset] in _BEFORE_DATA:
        offset += 1 + _BEFORE_DATA[record[offset]]
    if offset >= len(record) or record[offset] not in (_DATA_SHORT, _DATA_LONG):
        return None
    offset += 2 if record[offset] == _DATA_SHORT else 5
    if offset + _TIME.size > len(record):
        return None
    return _EPOCH + timedelta(microseconds=_TIME.unpack_from(record, offset)[0])


@dataclass(frozen=True)
class _Record:
    """A record of the WAL that is whole in its segment, but for the first, which may have begun before."""

    begins: int
    bytes: int
    manager: int
    info: int
    ends: int


def _records(content: bytes | memoryview, header: SegmentHeader) -> Iterator[_Record]:
    """Follow the records of a segment. The rest of one from an earlier segment is told as one of no manager."""
    pages = _Pages(content, header)
    position = pages.skip(HEADER_BYTES, header.remaining_bytes)
    if header.remaining_bytes and position is not None:
        position = _aligned(position)
        yield _Record(HEADER_BYTES, header.remaining_bytes, -1, 0, position)
    previous: int | None = None
    while position is not None and (begins := pages.into_page(position)) is not None:
        told = pages.take(begins, _RECORD_HEADER.size)
        if told is None:
            return
        length, _, before, info, manager, _ = _RECORD_HEADER.unpack(told)
        if length < _RECORD_HEADER.size or (previous is not None and before != previous):
            return
        previous = header.start_lsn + begins
        position = pages.skip(begins, length)
        if position is None:
            return
        position = _aligned(position)
        yield _Record(begins, length, manager, info, position)


class _Pages:
    """A segment as the stream of its records' bytes, which the headers of its pages interrupt."""

    def __init__(self, content: bytes | memoryview, header: SegmentHeader) -> None:
        self._content = memoryview(content)
        self._header = header
        self._size = min(len(content), header.segment_bytes)

    def into_page(self, offset: int) -> int | None:
        """Return the offset itself, or at the beginning of a page the one after its header; None at the end."""
        if offset >= self._size:
            return None
        if offset % self._header.page_bytes:
            return offset
        if offset == 0:
            return HEADER_BYTES
        magic, _, _, address, _ = _SHORT_HEADER.unpack_from(self._content, offset)
        if MAGICS.get(magic) != self._header.major or address != self._header.start_lsn + offset:
            return None  # never written, or left from an earlier use of the file
        return offset + _SHORT_HEADER.size

    def skip(self, offset: int, count: int) -> int | None:
        """Return the offset after so many bytes of records; None where they are not all there."""
        page = self._header.page_bytes
        while count:
            begins = self.into_page(offset)
            if begins is None:
                return None
            step = min(count, page - begins % page)
            offset, count = begins + step, count - step
        return offset

    def take(self, offset: int, count: int) -> bytes | None:
        """Return so many bytes of records; None where they are not all there."""
        page = self._header.page_bytes
        taken = b""
        while len(taken) < count:
            begins = self.into_page(offset)
            if begins is None:
                return None
            offset = min(begins + count - len(taken), begins - begins % page + page)
            taken += self._content[begins:offset]
        return taken


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGNMENT) * _ALIGNMENT
