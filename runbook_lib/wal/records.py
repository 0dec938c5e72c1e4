"""What the records of archived WAL say: who committed, when, and where in the WAL that stands.

A recovery needs a target, and only the WAL knows the candidates: that a restore point of this name was ever written,
that a transaction committed and did not merely run, which commit comes before a moment and which after it. The records
are told by pg_waldump of the server's own major version, whose text is read as it is written and is never kept whole.

What pg_waldump's end means is not left to its exit code. It ends with a complaint where the WAL ends, with none where
it was told to stop, and in either way where a segment is damaged. So each run is told where to stop, is given one
segment more than it has to tell of (a record may go on there), and what it has not told up to that place is an error.

The position of a record and the time in it are two things: commits are in the order of their positions, and that is
the order a recovery goes by; their times are each backend's own clock and may go back by a little.
"""

from __future__ import annotations

import contextlib
import fcntl
import re
import tempfile
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from functools import lru_cache
from pathlib import Path
from threading import Event
from typing import BinaryIO, NamedTuple

from runbook_lib.errors import DamagedArtefact, NotFound, ToolFailed, Unproven
from runbook_lib.reach.binaries import PostgresTools
from runbook_lib.reach.pipes import producing
from runbook_lib.wal.archive import WalArchive
from runbook_lib.wal.segment import HEADER_BYTES, Segment, lsn_of, lsn_text
from runbook_lib.wal.timeline_path import TimelinePath

ABOUT_TRANSACTIONS = ("Transaction", "XLOG")
"""The resource managers that tell who committed, and of restore points."""
ABOUT_ROWS = ("Heap", "Heap2", "Transaction", "Standby", "Storage", "XLOG")
"""Those that tell of rows as well, and of files that were exchanged for others."""

_SEVERAL_MANAGERS_SINCE = 15
"""Before it pg_waldump takes the last of several resource managers and no other: it is told of none, and tells all."""
_RUNS_AT_ONCE = 2
_BYTES_A_RUN = 64 * 1024 * 1024
_BLOCK_BYTES = 1 << 20
_PAGE_BYTES, _SHORT_HEADER_BYTES, _ALIGNMENT = 8192, 24, 8
_HEAD = rb"len \(rec/tot\): +\d+/ *(\d+), tx: +(\d+), lsn: ([0-9A-F/]+), prev [0-9A-F/]+, desc: "
# Each begins with a text, which is looked for faster than the beginning of a line is; a block begins with one.
# Of the flags only a DELETE's are asked for: to look for them in every line costs as much as all the rest of it.
_ROWS = re.compile(
    rb"\nrmgr: Heap2? +len \(rec/tot\): +\d+/ *\d+, tx: +(\d+), lsn: [^,]*, prev [^,]*, desc: "
    rb"(INSERT|DELETE|UPDATE|HOT_UPDATE|MULTI_INSERT)(?:\+INIT)? (?:ntuples: )?(\d*)"
    rb"(?:(?<=DELETE )[^#\n]*?flags:? 0x(\w\w))?[^#\n]*#0: rel (\d+/\d+/\d+)"
)
_PAGES = re.compile(
    rb"\nrmgr: XLOG +len \(rec/tot\): +\d+/ *\d+, tx: +(\d+), lsn: [0-9A-F/]+, prev [0-9A-F/]+, desc: "
    rb"FPI\b.*?rel (\d+/\d+/\d+)"
)
_OTHERS = re.compile(
    rb"\nrmgr: (?:Transaction|Standby|Storage|XLOG) +" + _HEAD + rb"(COMMIT|ABORT|COMMIT_PREPARED|ABORT_PREPARED|"
    rb"PREPARE|LOCK|RUNNING_XACTS|CREATE|RESTORE_POINT)\b ?(.*)"
)
_LSN = re.compile(rb", lsn: ([0-9A-F/]+), prev ")
_FILE = re.compile(r"(?:base/(\d+)|global|pg_tblspc/(\d+)/[^/]+/(\d+))/(\d+)(?:_init)?")
"""Of an unlogged relation nothing is told but its ``_init`` file."""
_LOCKED = re.compile(r"xid (\d+) db (\d+) rel (\d+)")
_DEFAULT_TABLESPACE, _GLOBAL_TABLESPACE = 1663, 1664


class RowKind(Enum):
    """What happened to rows of a table's file."""

    INSERTED = "inserted"
    UPDATED = "updated"
    DELETED = "deleted"
    MOVED = "moved"
    """Deleted here and inserted into another partition, by an UPDATE of the partition key."""

    __hash__ = object.__hash__  # each is there once; Enum's own hashes its name anew for every row


class RelationFile(NamedTuple):
    """The file that a relation's rows are in, which TRUNCATE, VACUUM FULL and the like exchange for a new one."""

    tablespace: int
    """The tablespace's OID; 1663 is pg_default."""
    database: int
    """The database's OID; 0 for what all databases share."""
    node: int
    """The file's number, ``pg_relation_filenode``."""

    @classmethod
    def of_path(cls, path: str) -> RelationFile | None:
        """Read a path as PostgreSQL writes it: ``base/5/16384``. None where it is of a map beside the rows."""
        found = _FILE.fullmatch(path)
        if found is None:
            return None
        if found[1]:
            return cls(_DEFAULT_TABLESPACE, int(found[1]), int(found[4]))
        if found[2]:
            return cls(int(found[2]), int(found[3]), int(found[4]))
        return cls(_GLOBAL_TABLESPACE, 0, int(found[4]))

    def __str__(self) -> str:
        """Return tablespace, database and file number as pg_waldump writes them: ``1663/5/16384``."""
        return f"{self.tablespace}/{self.database}/{self.node}"


@dataclass(frozen=True)
class Commit:
    """The end of a transaction, for better or worse."""

    xid: int
    """The transaction: the top one, where it has subtransactions."""
    lsn: int
    """Where its commit record begins. A recovery to just before it has this for its target, exclusively."""
    end_lsn: int
    """Where the record ends: a recovery that came to here has it."""
    timeline: int
    """The timeline that it is on."""
    at: datetime
    """When, by the clock of the server, in UTC."""
    aborted: bool = False
    """Whether it was rolled back: nothing of it counts."""
    prepared: bool = False
    """Whether it was a prepared transaction (two-phase commit)."""
    subtransactions: tuple[int, ...] = ()
    """Those that ended together with it. Of a rollback to a savepoint they have a record of their own."""
    dropped: tuple[RelationFile, ...] = ()
    """The files that went with it."""

    def __str__(self) -> str:
        """Return number, time and position for a report."""
        return f"transaction {self.xid}, {'rolled back' if self.aborted else 'committed'} {self.at.isoformat()} at " + (
            f"{lsn_text(self.lsn)} on timeline {self.timeline}"
        )


@dataclass(frozen=True)
class RestorePoint:
    """A place in the WAL that somebody gave a name."""

    name: str
    """The name."""
    lsn: int
    """Where its record begins."""
    end_lsn: int
    """Where its record ends: a recovery to it stops here."""
    timeline: int
    """The timeline that it is on."""


@dataclass(frozen=True)
class Prepared:
    """A transaction that was prepared, and may commit later."""

    xid: int
    """The transaction."""
    gid: str
    """Its name, for COMMIT PREPARED."""


@dataclass(frozen=True)
class Locked:
    """A relation that a transaction locked against everybody: it is about to drop it, or to exchange its file."""

    xid: int
    """The transaction, or the subtransaction."""
    database: int
    """The database's OID."""
    relation: int
    """The relation's OID."""


@dataclass(frozen=True)
class Created:
    """A file that a transaction made."""

    xid: int
    """The transaction, or the subtransaction."""
    file: RelationFile
    """The file."""


@dataclass(frozen=True)
class Running:
    """Which transactions there were at a place in the WAL."""

    next_xid: int
    """The transaction that would be the next to begin: it, and all after it, have all their records behind here."""
    lsn: int
    """The place."""


Record = Commit | RestorePoint | Prepared | Locked | Created | Running
"""What is told one by one."""


@dataclass(frozen=True)
class WalPath(TimelinePath):
    """The WAL of a timeline with that of its ancestors, as far as it is archived: what a recovery along it replays."""

    end_lsn: int
    """The position after the last whole record that is archived."""
    segments: Mapping[int, Segment]
    """Number to the segment that is in the archive for it: `segment`'s; or, while a timeline has archived nothing of
    its own, the ancestor's copy of the one that it begins in, as nothing is read in there from the fork on."""
    archived_at: Mapping[int, datetime]
    """Number to when it was archived, which is later than any record in it."""

    def missing(self, start_lsn: int, end_lsn: int) -> list[int]:
        """Return the numbers of the segments between two positions that are not in the archive."""
        size = self.segment_bytes
        return [number for number in range(start_lsn // size, -(-end_lsn // size)) if number not in self.segments]


@dataclass
class Told:
    """What one run of pg_waldump told."""

    start_lsn: int
    """Where the WAL begins that it was asked of: every record is told that begins in there."""
    end_lsn: int
    """Where that ends."""
    rows: Counter[tuple[int, RowKind, RelationFile]] = field(default_factory=Counter)
    """How many rows a transaction, or a subtransaction, did this to. They precede its commit, in here or further on."""
    pages: set[tuple[int, RelationFile]] = field(default_factory=set)
    """The files that a transaction wrote whole pages into, past the rows: a copy of what was elsewhere."""
    records: list[Record] = field(default_factory=list)
    """All the others, in their order."""


class WalReader:
    """Reads the records of an archive.

    :param archive: the archive
    :param tools: programs of the major version that wrote it
    :param folder: where segments are put, a few at a time, and removed again
    """

    def __init__(self, archive: WalArchive, tools: PostgresTools, folder: Path) -> None:
        self.archive = archive
        self.tools = tools
        """Programs of the major version that wrote it."""
        self._folder = folder
        self._segments_a_run = max(1, _BYTES_A_RUN // archive.segment_bytes)

    def path(self, timeline: int | None = None) -> WalPath:
        """Return what a recovery along a timeline replays.

        :param timeline: by default the newest

        Raise `NotFound` where the archive has nothing of it, or not its history.
        """
        end = self.archive.end(timeline)
        listing, size = self.archive.listing(), self.archive.segment_bytes
        path = TimelinePath(end.timeline, self.archive.history(end.timeline), size)
        segments: dict[int, Segment] = {}
        archived_at: dict[int, datetime] = {}
        for of in path.timelines:
            left = path.ends(of)
            for number, stored in listing.segments.get(of, {}).items():
                segment = Segment(of, number, size)
                up_to_the_fork = left is not None and end.lsn <= left and segment.start_lsn < left <= segment.end_lsn
                if up_to_the_fork or path.segment(number) == segment:
                    segments[number] = segment  # the later timeline's, where both are there
                    archived_at[number] = stored.modified
        return WalPath(path.timeline, path.forks, size, end.lsn, segments, archived_at)

    def read(
        self, path: WalPath, start_lsn: int, end_lsn: int | None = None, about: Sequence[str] = ABOUT_ROWS
    ) -> Iterator[Told]:
        """Read the WAL between two positions, in its order, a few segments at a time.

        :param end_lsn: by default the end of what can be replayed
        :param about: the resource managers to hear of

        Raise `NotFound` where a segment is not there, `DamagedArtefact` where it is not what it should be or cannot be
        read to its end.
        """
        stop = Event()
        pending: deque[Future[Told]] = deque()
        with ThreadPoolExecutor(max_workers=_RUNS_AT_ONCE, thread_name_prefix="waldump") as pool:
            try:
                for begins, ends in self._runs(start_lsn, min(end_lsn or path.end_lsn, path.end_lsn)):
                    pending.append(pool.submit(self._run, path, begins, ends, about, stop))
                    if len(pending) > _RUNS_AT_ONCE:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                stop.set()
                for each in pending:
                    each.cancel()

    def commits(self, start_lsn: int = 0, end_lsn: int | None = None, timeline: int | None = None) -> Iterator[Commit]:
        """Return every commit whose record begins between two positions, in their order; no rolled back ones.

        :param start_lsn: by default the first position of the archive
        :param end_lsn: by default the end of what can be replayed
        :param timeline: whose WAL, with that of its ancestors; by default the newest
        """
        for record in self.records(start_lsn, end_lsn, timeline):
            if isinstance(record, Commit) and not record.aborted:
                yield record

    def records(self, start_lsn: int = 0, end_lsn: int | None = None, timeline: int | None = None) -> Iterator[Record]:
        """Return every commit, abort, PREPARE and restore point between two positions, in their order."""
        path = self.path(timeline)
        begins = start_lsn or min(path.segments, default=0) * self.archive.segment_bytes
        for told in self.read(path, begins, end_lsn, ABOUT_TRANSACTIONS):
            yield from told.records

    def restore_point(self, name: str, start_lsn: int = 0, timeline: int | None = None) -> RestorePoint:
        """Return the first restore point of a name, which is the one that a recovery from there stops at.

        Raise `NotFound` where there is none up to the end of the archive.
        """
        for record in self.records(start_lsn, timeline=timeline):
            if isinstance(record, RestorePoint) and record.name == name:
                return record
        raise self._nowhere(f"the restore point {name!r}", start_lsn)

    def commit_of(self, xid: int, start_lsn: int = 0, timeline: int | None = None) -> Commit:
        """Return the commit of a transaction. Raise `NotFound` where it is not between there and the archive's end."""
        for record in self.commits(start_lsn, timeline=timeline):
            if record.xid == xid:
                return record
        raise self._nowhere(f"the commit of transaction {xid}", start_lsn)

    def commits_around(
        self, at: datetime, start_lsn: int = 0, timeline: int | None = None
    ) -> tuple[Commit | None, Commit | None]:
        """Return the last commit that a recovery to a time, inclusively, has, and the first one that it has not.

        PostgreSQL stops before the first record that is later than the target. None where there is no such commit
        between the given position and the archive's end.
        """
        before = None
        for record in self.commits(start_lsn, timeline=timeline):
            if record.at > at:
                return before, record
            before = record
        return before, None

    def last_commit(self, timeline: int | None = None) -> Commit:
        """Return the last commit of the archive; looks at the last segments first.

        Raise `NotFound` where there is none.
        """
        path, size = self.path(timeline), self.archive.segment_bytes
        first = min(path.segments, default=0) * size
        begins, reach = path.end_lsn, size
        while begins > first:
            upto, begins = begins, max(first, (begins - reach) // size * size)
            found = None
            for told in self.read(path, begins, upto, ABOUT_TRANSACTIONS):
                for record in told.records:
                    if isinstance(record, Commit) and not record.aborted:
                        found = record
            if found is not None:
                return found
            reach *= 2
        raise self._nowhere("any commit", first)

    def _nowhere(self, what: str, start_lsn: int) -> NotFound:
        return NotFound(
            what,
            where=f"{self.archive.where} from {lsn_text(start_lsn) if start_lsn else 'its beginning'} on",
            why="its WAL was read to the end of the archive, and it is not in there",
            remedy="look for it at an earlier position or on another timeline, or wait until its WAL is archived",
        )

    def _runs(self, start_lsn: int, end_lsn: int) -> Iterator[tuple[int, int]]:
        size, begins = self.archive.segment_bytes, start_lsn
        while begins < end_lsn:
            ends = min(end_lsn, (begins // size + self._segments_a_run) * size)
            yield begins, ends
            begins = ends

    def _run(self, path: WalPath, start_lsn: int, end_lsn: int, about: Sequence[str], stop: Event) -> Told:
        size = self.archive.segment_bytes
        # A record that begins before the end may go on in the next segment. Where that is missing nobody can replay it.
        reached = min(path.end_lsn, end_lsn + size) if end_lsn // size in path.segments else end_lsn
        with tempfile.TemporaryDirectory(prefix="run-", dir=self._folder) as made:
            folder = Path(made)
            for number in range(start_lsn // size, (reached - 1) // size + 1):
                # pg_waldump is told of one timeline, and goes by the names of files alone.
                self._fetch(path, number, folder / Segment(path.timeline, number, size).name, stop)
            return self._tell(folder, path, Told(start_lsn, end_lsn), reached, about)

    def _fetch(self, path: WalPath, number: int, into: Path, stop: Event) -> None:
        def go_on() -> None:
            if stop.is_set():
                raise Unproven("reading WAL", where=into.name, why="it was given up", remedy="read it again")

        segment = path.segments.get(number)
        if segment is None:
            raise NotFound(
                f"the segment {into.name}",
                where=self.archive.where,
                why="it is not there: the archive has a hole here, or begins later",
                remedy="look for it in pg_wal of every server and in older versions of the bucket; until then nothing "
                "can be said of that time",
            )
        self.archive.get(segment.name, into, on_piece=go_on)

    def _tell(self, folder: Path, path: WalPath, told: Told, reached: int, about: Sequence[str]) -> Told:
        argv: list[str | Path] = [self.tools.program("pg_waldump"), "--path", folder]
        argv += ["--timeline", str(path.timeline), "--start", lsn_text(told.start_lsn), "--end", lsn_text(reached)]
        if self.tools.major >= _SEVERAL_MANAGERS_SINCE or len(about) == 1:
            argv += [f"--rmgr={manager}" for manager in about]
        where = f"{lsn_text(told.start_lsn)} to {lsn_text(told.end_lsn)} of timeline {path.timeline}"
        with producing(argv, sought=f"reading the WAL from {where}", env={"TZ": "UTC", "LC_ALL": "C"}) as producer:
            # Each read gives up the interpreter and waits for its turn to have it back: there must be few of them.
            with contextlib.suppress(OSError):  # as much as an account may have; else the pipe stays as it is
                fcntl.fcntl(producer.output.fileno(), fcntl.F_SETPIPE_SZ, _BLOCK_BYTES)
            for block in _whole_lines(producer.output):
                last = _LSN.findall(block[block.rfind(b"\nrmgr: ", 0, -1) + 1 :])
                if last and lsn_of(last[-1].decode()) >= told.end_lsn:
                    # Everything before it was told: what comes now is the next run's.
                    self._take_in(_before(block, told.end_lsn), path, told)
                    return told
                self._take_in(block, path, told)
            try:
                producer.must_have_succeeded("compare the segment with pg_wal of a server; it is damaged, or no WAL")
            except ToolFailed as failed:
                raise DamagedArtefact(
                    "WAL that can be read",
                    where=f"{self.archive.where}, {where}",
                    why=f"pg_waldump did not come to its end: {failed.why}",
                    remedy="look with pg_waldump at that place; recover to a target before it",
                ) from failed
        return told

    def _take_in(self, block: bytes, path: WalPath, told: Told) -> None:
        block = b"\n" + block
        for (xid, kind, count, flags, file), times in Counter(_ROWS.findall(block)).items():
            found = _row_kind(kind, flags)
            if found is not None:
                rows = int(count) * times if kind == b"MULTI_INSERT" else times
                told.rows[int(xid), found, _file_of(file)] += rows
        if b" FPI " in block:
            told.pages.update((int(xid), _file_of(file)) for xid, file in set(_PAGES.findall(block)))
        for length, xid, lsn, kind, text in _OTHERS.findall(block):
            record = self._record(
                kind.decode(), int(xid), lsn_of(lsn.decode()), int(length), text.decode(errors="replace"), path
            )
            if record is not None:
                told.records.append(record)

    def _record(self, kind: str, xid: int, lsn: int, length: int, text: str, path: WalPath) -> Record | None:
        size = self.archive.segment_bytes
        if kind == "RESTORE_POINT":
            return RestorePoint(text, lsn, record_end(lsn, length, size), path.timeline_at(lsn))
        if kind == "LOCK":
            return Locked(int(found[1]), int(found[2]), int(found[3])) if (found := _LOCKED.match(text)) else None
        if kind == "RUNNING_XACTS":
            return Running(int(found[1]), lsn) if (found := re.match(r"nextXid (\d+)", text)) else None
        if kind == "CREATE":
            file = RelationFile.of_path(text.strip())
            return None if file is None else Created(xid, file)
        if kind == "PREPARE":
            return Prepared(xid, found[1]) if (found := re.match(r"gid (.*): \d{4,}-\d\d-\d\d ", text)) else None
        if kind.endswith("_PREPARED"):
            number, _, text = text.partition(": ")
            xid = int(number)
        at, *parts = text.split("; ")
        lists = {name: values.split() for name, colon, values in (part.partition(": ") for part in parts) if colon}
        files = (RelationFile.of_path(path) for path in lists.get("rels", ()))
        return Commit(
            xid,
            lsn,
            record_end(lsn, length, size),
            path.timeline_at(lsn),
            _time(at),
            aborted=kind.startswith("ABORT"),
            prepared=kind.endswith("_PREPARED"),
            subtransactions=tuple(int(each) for each in lists.get("subxacts", ())),
            dropped=tuple(file for file in files if file is not None),
        )


def record_end(lsn: int, length: int, segment_bytes: int) -> int:
    """Return the position after a record: its bytes, the headers of the pages that it goes on in, and the padding."""
    position = lsn
    while length:
        if position % _PAGE_BYTES == 0:
            position += _SHORT_HEADER_BYTES if position % segment_bytes else HEADER_BYTES
        step = min(length, _PAGE_BYTES - position % _PAGE_BYTES)
        position, length = position + step, length - step
    return -(-position // _ALIGNMENT) * _ALIGNMENT


@lru_cache(maxsize=1024)
def _row_kind(kind: bytes, flags: bytes) -> RowKind | None:
    if kind == b"DELETE":
        if int(flags, 16) & 0x08:
            return None  # takes back a row of INSERT ... ON CONFLICT that was never anybody's
        return RowKind.MOVED if int(flags, 16) & 0x10 else RowKind.DELETED
    return RowKind.UPDATED if kind.endswith(b"UPDATE") else RowKind.INSERTED


@lru_cache(maxsize=4096)
def _file_of(text: bytes) -> RelationFile:
    tablespace, database, node = text.split(b"/")
    return RelationFile(int(tablespace), int(database), int(node))


def _time(text: str) -> datetime:
    """Read a time as pg_waldump writes it; it was asked to do so in UTC."""
    moment, _, zone = text.strip().rpartition(" ")
    try:
        if zone != "UTC":
            raise ValueError(zone)
        return datetime.fromisoformat(moment).replace(tzinfo=UTC)
    except ValueError as other:
        raise ToolFailed(
            "the time of a commit",
            where="pg_waldump",
            why=f"it says {text[:60]!r}, where a time in UTC was expected",
            remedy="run pg_waldump with TZ=UTC and look what it writes",
        ) from other


def _whole_lines(output: BinaryIO) -> Iterator[bytes]:
    rest = b""
    while piece := output.read(_BLOCK_BYTES):
        end = piece.rfind(b"\n") + 1
        if end:
            yield rest + piece[:end]
            rest = piece[end:]
        else:
            rest += piece
    if rest:
        yield rest


def _before(block: bytes, lsn: int) -> bytes:
    """Return the lines of a block whose records begin before a position."""
    for found in _LSN.finditer(block):
        if lsn_of(found[1].decode()) >= lsn:
            return block[: block.rfind(b"\n", 0, found.start()) + 1]
    return block
