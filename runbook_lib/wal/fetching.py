"""Getting WAL out of the archive as fast as PostgreSQL can replay it, and never saying "not there" without proof.

PostgreSQL asks for one segment at a time and waits. Whoever begins to fetch only then pays a round trip for every
16 MB; so the segments that come next on the timeline that is being asked for are fetched ahead, a bounded number of
them, several at a time, into a folder of the fetcher's own.

What was fetched ahead is a favour and never an answer. A segment that was not there a moment ago may be there now, a
failed request says nothing, histories are never guessed, and whatever PostgreSQL asks for, in whatever order and how
often, is looked for anew unless it lies ready and proven. The two things that can be said to PostgreSQL are "here it
is", of a file that was compared with what was archived, and "it is not in the archive", which it takes for the end of
the WAL. Everything else is an error and has to stop it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import threading
import time
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from runbook_lib.errors import DamagedArtefact, NotFound, RunbookError, TargetRefused, Unreachable
from runbook_lib.wal.archive import Absence, Received, WalArchive
from runbook_lib.wal.segment import MIB, Kind, Segment, WalName

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_DAMAGED_ATTEMPTS = 3
"""How often other bytes than were archived must arrive before they count as what is in the archive."""
_SUFFIX = ".wal"
"""How the names of the files in the fetcher's folder end; nothing else in it is ever removed."""
_LOCK = "lock"


@dataclass(frozen=True)
class Fetched:
    """A file that is proven, and now belongs to whoever asked for it."""

    received: Received
    """The file, in the fetcher's folder: to be renamed to where it is needed, or removed."""
    ahead: bool
    """Whether it was being fetched, or lay ready, before it was asked for."""


@dataclass
class Counts:
    """What a fetcher has done so far."""

    asked: int = 0
    """Files that were asked for."""
    ahead: int = 0
    """Those of them that had been fetched ahead."""
    absent: int = 0
    """Those of them that were proven not to be in the archive."""
    failed: int = 0
    """Those of them of which nothing could be said."""
    again: int = 0
    """Attempts that were repeated."""


class Fetcher:
    """Fetches WAL files for one server that recovers.

    :param spool: a folder of its own, best on the file system of the server's ``pg_wal``
    :param segments_ahead: how many segments are kept ahead at most; 0 for none
    :param bytes_ahead: how many bytes of them are kept at most. Beside them only what is being fetched for somebody is
        on disk; memory is bounded by a piece of 1 MiB for each request under way
    :param parallel: how many are fetched ahead at a time
    :param patience_seconds: how long failures are answered by trying again, before they are told
    :param ready: a folder on the same file system, into which each segment that is proven is renamed under its own
        name, for a server to take by itself; what it takes is told to `taken`. None where nobody takes anything
    :param owner: user and group that the files in it are given to; None for our own
    """

    def __init__(
        self,
        archive: WalArchive,
        spool: Path,
        *,
        segments_ahead: int = 8,
        bytes_ahead: int = 512 * MIB,
        parallel: int = 4,
        patience_seconds: float = 60.0,
        ready: Path | None = None,
        owner: tuple[int, int] | None = None,
    ) -> None:
        self.archive = archive
        self._ready = ready
        self._owner = owner
        self.spool = spool
        self.counts = Counts()
        self._ahead_at_most = max(0, min(segments_ahead, bytes_ahead // archive.segment_bytes))
        self._patience_seconds = patience_seconds
        self._lock = threading.Lock()
        self._ahead: dict[Segment, _Ahead] = {}
        self._end_seen: Segment | None = None
        self._missed: str | None = None
        self._serial = 0
        self._stopping = threading.Event()
        self._held: int | None = _hold(spool)
        self._sweep()
        self._pool = ThreadPoolExecutor(max_workers=max(1, parallel), thread_name_prefix="wal-ahead")

    def fetch(self, name: str) -> Fetched | Absence:
        """Return a file that is proven to be the one of this name, or the proof that it is not in the archive.

        Raise a `RunbookError` where neither can be said: what the archive raised last, after it was asked again and
        again for as long as there was patience.
        """
        with self._lock:
            self.counts.asked += 1
        try:
            answer = self._fetch(name)
        except BaseException:
            with self._lock:
                self.counts.failed += 1
            raise
        with self._lock:
            self.counts.ahead += isinstance(answer, Fetched) and answer.ahead
            self.counts.absent += isinstance(answer, Absence)
        return answer

    def taken(self, name: str) -> None:
        """Take note that a segment was taken out of the folder of those that lie ready, and fetch further ahead."""
        known = WalName.parse(name)
        if known is None or known.kind is not Kind.SEGMENT:
            return
        segment = known.segment(self.archive.segment_bytes)
        with self._lock:
            self._ahead.pop(segment, None)
            self.counts.asked += 1
            self.counts.ahead += 1
        self._look_ahead(segment)

    def close(self) -> None:
        """Stop fetching ahead and remove what lies ready. Closing twice is no error."""
        self._stopping.set()
        with self._lock:
            for ahead in self._ahead.values():
                ahead.call_off()
            self._ahead.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)
        if self._held is not None:
            self._sweep()
            os.close(self._held)
            self._held = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _fetch(self, name: str) -> Fetched | Absence:
        known = WalName.parse(name)
        if known is None or known.kind is not Kind.SEGMENT:
            return self._now(name)  # which refuses a name that is none
        segment = known.segment(self.archive.segment_bytes)
        received = self._from_ahead(segment)
        if received is not None:
            self._look_ahead(segment)
            return Fetched(received, ahead=True)
        with self._lock:
            cold = not self._ahead
        if cold:
            self._look_ahead(segment)  # beside the first one, and not after it
        answer = self._now(name)
        if isinstance(answer, Fetched) and not cold:
            self._look_ahead(segment)
        return answer

    def _from_ahead(self, segment: Segment) -> Received | None:
        """Return the segment where it lies ready or is on its way, and gets here; None in any other case."""
        with self._lock:
            ahead = self._ahead.pop(segment, None)
        if ahead is None:
            return None
        if ahead.future.cancel():  # it stands in the queue behind others, and is wanted now
            return None
        try:
            received = ahead.future.result(timeout=self._patience_seconds)
        except (RunbookError, CancelledError, _CalledOff):
            return None
        except FutureTimeoutError:
            ahead.call_off()
            return None
        if received is None:
            with self._lock:
                self._missed = segment.name
            return None
        return self._taken_back(received)

    def _taken_back(self, received: Received) -> Received | None:
        """Return a segment that lies ready out of everybody else's reach; None where it is gone, or another thing."""
        if self._ready is None:
            return received if received.path.exists() else None
        place = self._place(received.name)
        try:
            received.path.rename(place)
        except FileNotFoundError:  # taken, and asked for once more
            return None
        found = place.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_size != received.bytes:
            place.unlink()
            return None
        return replace(received, path=place)

    def _now(self, name: str) -> Fetched | Absence:
        """Ask the archive until it gives an answer that proves something, or patience is at an end."""
        deadline = time.monotonic() + self._patience_seconds
        pause, damaged = _FIRST_PAUSE_SECONDS, 0
        with self._lock:
            missed, self._missed = self._missed == name, None
        while True:
            try:
                if missed:  # the list alone can prove it; where it does not, the file is asked for again
                    missed = False
                    with contextlib.suppress(Unreachable):
                        return self._absent(name)
                try:
                    return Fetched(self.archive.get(name, self._place(name)), ahead=False)
                except NotFound:
                    return self._absent(name)
            except DamagedArtefact:  # on its way, perhaps: then it arrives whole the next time
                damaged += 1
                if damaged == _DAMAGED_ATTEMPTS:
                    raise
            except (Unreachable, NotFound):
                if time.monotonic() + pause > deadline:
                    raise
            if self._stopping.wait(pause):
                raise Unreachable(
                    f"{name} from the archive",
                    where=self.archive.where,
                    why="the fetcher is being stopped",
                    remedy="start it again, and the recovery",
                )
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            with self._lock:
                self.counts.again += 1

    def _absent(self, name: str) -> Absence:
        """Prove that a file is not there, and remember to ask for the proof first if it is asked for once more."""
        proven = self.archive.prove_absent(name)
        with self._lock:
            self._missed = name
        return proven

    def _look_ahead(self, segment: Segment) -> None:
        """Have the segments after this one fetched, and forget all others."""
        wanted = [segment.after(count) for count in range(1, self._ahead_at_most + 1)]
        with self._lock:
            if self._stopping.is_set():
                return
            self._end_seen = None  # whatever was not there before may be there now
            for other in self._ahead.keys() - set(wanted):
                self._ahead.pop(other).call_off()
            for each in wanted:
                if (there := self._ahead.get(each)) is not None and not there.came_to_nothing:
                    continue
                ahead = _Ahead()
                ahead.future = self._pool.submit(self._get_ahead, each, ahead)
                self._ahead[each] = ahead

    def _get_ahead(self, segment: Segment, ahead: _Ahead) -> Received | None:
        """Fetch one segment, once. None where it is not there: that is remembered for nobody's answer."""
        with self._lock:
            if self._end_seen is not None and segment > self._end_seen:
                return None  # one before it is not there; so many requests less
        ahead.must_go_on()
        try:
            received = self.archive.get(segment.name, self._place(segment.name), on_piece=ahead.must_go_on)
        except NotFound:
            with self._lock:
                self._end_seen = segment if self._end_seen is None else min(self._end_seen, segment)
            return None
        if self._ready is not None:
            if self._owner is not None:
                os.chown(received.path, *self._owner)
            place = self._ready / segment.name
            received.path.rename(place)
            received = replace(received, path=place)
        ahead.done(received)
        return received

    def _place(self, name: str) -> Path:
        with self._lock:
            self._serial += 1
            return self.spool / f"{name[:40]}.{self._serial}{_SUFFIX}"

    def _sweep(self) -> None:
        """Remove what an earlier fetcher left: nobody has proven it to this one."""
        for left in self.spool.glob(f"*{_SUFFIX}"):
            left.unlink(missing_ok=True)
        for left in self._ready.iterdir() if self._ready is not None else ():
            left.unlink(missing_ok=True)


class _CalledOff(Exception):
    """Nobody wants this segment any more."""


class _Ahead:
    """One segment that is being fetched ahead."""

    future: Future[Received | None]

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._off = False
        self._received: Received | None = None

    @property
    def came_to_nothing(self) -> bool:
        """Whether it ended without a file."""
        return self.future.done() and (
            self.future.cancelled() or self.future.exception() is not None or self.future.result() is None
        )

    def call_off(self) -> None:
        """Have it end as soon as possible, and remove what it has brought."""
        self.future.cancel()
        with self._lock:
            self._off = True
            if self._received is not None:
                self._received.path.unlink(missing_ok=True)

    def must_go_on(self) -> None:
        """Raise where it was called off."""
        if self._off:
            raise _CalledOff

    def done(self, received: Received) -> None:
        """Take note of the file; remove it where nobody wants it any more."""
        with self._lock:
            self._received = received
            if self._off:
                received.path.unlink(missing_ok=True)


def _hold(spool: Path) -> int:
    """Take the folder for this process alone, for as long as the returned descriptor is open."""
    spool.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(spool / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as taken:
        os.close(descriptor)
        raise TargetRefused(
            "a folder to fetch WAL into",
            where=str(spool),
            why="another fetcher works in it",
            remedy="give each its own",
        ) from taken
    except BaseException:
        with contextlib.suppress(OSError):
            os.close(descriptor)
        raise
    return descriptor
