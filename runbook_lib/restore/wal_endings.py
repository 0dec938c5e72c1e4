"""Where transactions end in the archived WAL, as the server's own pg_waldump reads it.

A recovery stops at a record, and whether there is such a record can be known before anything is restored. Only what can
stop one is read here: the ends of transactions, and restore points. Each segment is compared with its digest before
pg_waldump sees it, and nothing of the rows in it is kept or told.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from runbook_lib.errors import DamagedArtefact, ToolFailed
from runbook_lib.reach import programs
from runbook_lib.reach.binaries import PostgresTools
from runbook_lib.reach.workspace import Workspace
from runbook_lib.restore.timeline_path import TimelinePath
from runbook_lib.wal.archive import WalArchive
from runbook_lib.wal.segment import MIB, Segment, lsn_of, lsn_text

_CHUNK_BYTES = 128 * MIB
"""How much WAL lies on the disk at a time."""
_PARALLEL = 4
_DUMP_SECONDS = 600.0
_RECORD = re.compile(
    r"rmgr: (?P<manager>\S+)\s+len \(rec/tot\):\s*\d+/\s*(?P<bytes>\d+), tx:\s*(?P<xid>\d+), "
    r"lsn: (?P<lsn>[0-9A-F]+/[0-9A-F]+), prev (?P<previous>[0-9A-F]+/[0-9A-F]+), desc: (?P<says>.*)"
)
_ENDING = re.compile(
    r"(?P<how>COMMIT|ABORT)(?:_PREPARED)? (?:(?P<prepared>\d+): )?(?P<at>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+) UTC"
)
_RESTORE_POINT = re.compile(r"RESTORE_POINT (?P<name>.*)")
_STOPPED_AT = re.compile(r"error in WAL record at ([0-9A-F]+/[0-9A-F]+)")
_NO_RECORD = "could not find a valid record after"


@dataclass(frozen=True)
class WalEnding:
    """A record at which a recovery can stop."""

    lsn: int
    """Where it begins."""
    previous_lsn: int
    """Where the record before it begins, of whatever kind that is."""
    bytes: int
    """Its size."""
    xid: int = 0
    """The transaction that it ends; 0 for a restore point."""
    committed: bool = False
    """Whether that is there from then on; False where it was rolled back."""
    at: datetime | None = None
    """When it ended, by the server's clock, in UTC; None for a restore point."""
    name: str = ""
    """The restore point's name; empty for the end of a transaction."""

    def __str__(self) -> str:
        """Return it in words, for a report."""
        if self.name:
            return f"the restore point {self.name} at {lsn_text(self.lsn)}"
        how = "committed" if self.committed else "rolled back"
        return f"transaction {self.xid}, {how} {self.at:%Y-%m-%d %H:%M:%S.%f}+00 at {lsn_text(self.lsn)}"


class WalEndings:
    """Reads the endings along a path of timelines.

    :param workspace: where the segments lie while they are read, and what pg_waldump runs in
    """

    def __init__(self, archive: WalArchive, path: TimelinePath, tools: PostgresTools, workspace: Workspace) -> None:
        self._archive = archive
        self._path = path
        self._tools = tools
        self._workspace = workspace
        self._chunk = max(_CHUNK_BYTES // archive.segment_bytes, 2)
        self.segments_read = 0
        """How many segments were fetched so far."""

    def between(self, first: int, last: int, *, names: bool = False) -> Iterator[WalEnding]:
        """Yield the endings that begin in the segments of these numbers, in order.

        :param names: whether restore points are wanted, too

        Raise `DamagedArtefact` where the WAL cannot be read to its end, and what the archive raises.
        """
        begin = first
        while begin <= last:
            end = min(begin + self._chunk - 1, last)
            until = self._path.segment(end).end_lsn
            # A record that goes on in the next segment is whole only with that.
            with self._lying_ready(begin, min(end + 1, last)) as folder:
                since = lsn_text(self._path.segment(begin).start_lsn)
                found = self._read(folder, since, "Transaction", last=min(end + 1, last))
                if names:
                    found += self._read(folder, since, "XLOG", last=min(end + 1, last))
            for each in sorted(found, key=lambda ending: ending.lsn):
                if each.lsn < until:
                    yield each
            begin = end + 1

    def last_of(self, first: int, last: int) -> WalEnding | None:
        """Return the last end of a transaction in a range of segments, reading backwards; None where there is none."""
        end, step = last, 2
        while end >= first:
            begin = max(first, end - step + 1)
            found = list(self.between(begin, min(end + 1, last)))
            if found:
                return found[-1]
            end, step = begin - 1, min(step * 2, self._chunk)
        return None

    def records_from(self, lsn: int, count: int, *, last: int) -> list[tuple[int, int, int]]:
        """Return some records that begin at a position or after it: where each begins, where its predecessor, its size.

        :param last: the number of the last segment that there is
        """
        number = lsn // self._archive.segment_bytes
        found: list[tuple[int, int, int]] = []
        for ahead in (1, 8):
            end = min(number + ahead, last)
            with self._lying_ready(number, end) as folder:
                lines, _ = self._dump(folder, end, ["--start", lsn_text(lsn), "--limit", str(count)])
            found = [(lsn_of(each["lsn"]), lsn_of(each["previous"]), int(each["bytes"])) for each in lines]
            if len(found) >= count or end == last:
                break
        return found

    def _read(self, folder: Path, since: str, manager: str, *, last: int) -> list[WalEnding]:
        lines, stopped = self._dump(folder, last, ["--start", since, "--rmgr", manager])
        if stopped is not None and stopped < self._path.segment(last).start_lsn - self._archive.segment_bytes:
            raise DamagedArtefact(
                "WAL that can be read to its end",
                where=self._archive.where,
                why=f"pg_waldump {self._tools.version} reads no record after {lsn_text(stopped)}",
                remedy="recover to a moment before it; look at what was archived after it with pg_waldump",
            )
        return [ending for each in lines if (ending := _ending(each)) is not None]

    def _dump(self, folder: Path, last: int, options: Sequence[str]) -> tuple[list[re.Match[str]], int | None]:
        """Return the records that pg_waldump tells, and the last one it could read where it did not come to an end."""
        # Without an end it waits five seconds for a segment that is not there.
        until = lsn_text(self._path.segment(last).end_lsn)
        program, timeline = self._tools.program("pg_waldump"), str(self._path.timeline)
        ran = programs.run(
            [program, "--path", folder, "--timeline", timeline, "--end", until, *options],
            sought="to read archived WAL",
            timeout_seconds=_DUMP_SECONDS,
            workspace=self._workspace,
        )
        stopped = _STOPPED_AT.search(ran.stderr)
        if not ran.succeeded and stopped is None and _NO_RECORD not in ran.stderr:
            ran.must("look whether this pg_waldump is of the server's major version")
        found = [match for line in ran.stdout.splitlines() if (match := _RECORD.match(line))]
        if ran.stdout.strip() and not found:
            raise ToolFailed(
                "to read what pg_waldump says",
                where=str(self._tools.program("pg_waldump")),
                why="none of its lines is a record as PostgreSQL 14 to 18 tell them",
                remedy="use the programs of one of these versions",
            )
        return found, lsn_of(stopped[1]) if stopped else None

    @contextmanager
    def _lying_ready(self, first: int, last: int) -> Iterator[Path]:
        """Have segments lie in a folder under names of one timeline, so that one run of pg_waldump reads them all."""
        folder = self._workspace.folder("waldump")
        try:
            with ThreadPoolExecutor(max_workers=_PARALLEL, thread_name_prefix="waldump") as pool:
                list(pool.map(lambda number: self._fetch(number, folder), range(first, last + 1)))
            self._workspace.give(folder)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _fetch(self, number: int, folder: Path) -> None:
        name = Segment(self._path.timeline, number, self._archive.segment_bytes).name
        self._archive.get(self._path.segment(number).name, folder / name)
        self.segments_read += 1


def _ending(told: re.Match[str]) -> WalEnding | None:
    lsn, previous, size = lsn_of(told["lsn"]), lsn_of(told["previous"]), int(told["bytes"])
    if told["manager"] == "Transaction" and (ended := _ENDING.match(told["says"])):
        at = datetime.strptime(ended["at"], "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=UTC)
        xid = int(ended["prepared"] or told["xid"])
        return WalEnding(lsn, previous, size, xid, ended["how"] == "COMMIT", at)
    if told["manager"] == "XLOG" and (named := _RESTORE_POINT.match(told["says"])):
        return WalEnding(lsn, previous, size, name=named["name"])
    return None
