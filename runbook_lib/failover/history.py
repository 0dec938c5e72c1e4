"""What every client saw, attempt by attempt.

How long writes were refused, which acknowledged ones are gone, and whether two servers took them at the same time are
three questions to one record; answered from three, they contradict each other, and the one number that looks good is
the one that is told. So there is one: every attempt of every client, when it was due, sent and ended on a clock that
only goes forward, what is known of how it ended, and who acknowledged it.

A history is a file of lines, appended to by one process and read by anybody at any time. Each line is handed to the
kernel whole, the moment its attempt has ended: a prober that is killed loses the attempts it was waiting for and at
most one line that is cut off, and whoever reads it is told both. (A machine that loses its power may lose more: nothing
waits for a disk.) Objects open and close it and introduce servers; attempts, which are nearly all of it, are arrays::

    {"format": "tensafe-client-history", "version": 1, "run": "4f0c...", "clock": {...}, "clients": {...}}
    {"server": 0, "system_identifier": "7301...", "timeline": 1, "address": "10.0.0.4", "port": 5432, "started_at": ...}
    ["prober", 1, 7120000000, 7120081000, 7121003000, "a", 0, "0/1A2B3C8"]
    ["prober", 2, 7140000000, 7140060000, 7140420000, "r", "connect 57P03"]
    {"ended_ns": 7160000000}

Several processes of one machine share one clock as long as it is up, so that their histories can be read as one.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from runbook_lib.errors import DamagedArtefact, NotFound, Unproven
from runbook_lib.reach.writing import Acknowledger, Answer, WriteOutcome
from runbook_lib.wal.segment import lsn_of

FORMAT = "tensafe-client-history"
"""What the first line of every history calls it."""
VERSION = 1
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of one client to write one row."""

    client: str
    """Whose it is."""
    sequence: int
    """Its number among the client's attempts, from 1."""
    due_ns: int
    """When it was to be sent, on the monotonic clock: fixed beforehand, however long the one before took."""
    sent_ns: int
    """When it was begun."""
    ended_ns: int
    """When it was known how it ended."""
    outcome: WriteOutcome
    """What is known of it."""
    error: str = ""
    """At which stage it failed, and the SQLSTATE or the kind of error; empty where it was acknowledged."""
    acknowledger: Acknowledger | None = None
    """The server that acknowledged it; None where none did."""
    lsn: int = 0
    """A position in that server's WAL behind the row and before its commit; 0 where none acknowledged it."""

    @property
    def acknowledged(self) -> bool:
        """Whether the server said that it is committed."""
        return self.outcome is WriteOutcome.ACKNOWLEDGED

    @property
    def failed(self) -> bool:
        """Whether it was sent and not acknowledged."""
        return self.outcome in {WriteOutcome.REFUSED, WriteOutcome.INDETERMINATE}


@dataclass(frozen=True)
class Client:
    """Somebody who writes."""

    kind: str
    """``prober`` or ``application``."""
    every_seconds: float
    """How far apart its attempts are due."""
    deadline_seconds: float
    """After which it gives an attempt up."""


@dataclass(frozen=True)
class Clock:
    """One moment on both clocks, and the start of the machine since which the first of them has been running."""

    monotonic_ns: int
    """The moment on the monotonic clock, in nanoseconds since some moment of the past."""
    wall: datetime
    """The same moment by the calendar."""
    boot_id: str
    """Which start of which machine the monotonic clock belongs to."""

    @classmethod
    def now(cls) -> Self:
        """Read both clocks."""
        boot_id = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""
        return cls(time.monotonic_ns(), datetime.now(UTC), boot_id)

    def at(self, monotonic_ns: int) -> datetime:
        """Return a moment of the monotonic clock by the calendar, as this one reading of both has it."""
        return self.wall + timedelta(microseconds=(monotonic_ns - self.monotonic_ns) / 1000)


@dataclass(frozen=True)
class History:
    """What the clients of one run saw, as far as it was recorded."""

    run: str
    """The run; the rows of its writes bear it."""
    clock: Clock
    """One moment on both clocks."""
    clients: Mapping[str, Client]
    """Who writes, by name."""
    attempts: Sequence[Attempt]
    """Every attempt that was recorded, by the time it ended."""
    finished: bool
    """Whether every recorder came to its end by itself. One that was killed has lost what it was waiting for."""
    torn: bool
    """Whether a last line is cut off: its recorder was killed, or is just writing it."""
    ended_ns: int
    """The last moment that it speaks of, on the monotonic clock."""

    @classmethod
    def read(cls, *paths: Path) -> Self:
        """Read a history that may still be written, or several of the same run as one.

        Raise `NotFound` where a file is not there or holds nothing yet, `DamagedArtefact` where a line other than the
        last cannot be read, and `Unproven` where two cannot be read as one.
        """
        if not paths:
            raise ValueError("at least one file is needed")
        parts = [_part(path) for path in paths]
        first = parts[0]
        for path, other in zip(paths[1:], parts[1:], strict=True):
            _must_go_together(first, other, path)
        attempts = sorted((each for part in parts for each in part.attempts), key=lambda each: each.ended_ns)
        return cls(
            run=first.run,
            clock=first.clock,
            clients={name: client for part in parts for name, client in part.clients.items()},
            attempts=tuple(attempts),
            finished=all(part.finished for part in parts),
            torn=any(part.torn for part in parts),
            ended_ns=max(part.ended_ns for part in parts),
        )

    @property
    def sampling_seconds(self) -> float:
        """How far apart the attempts of those are due who try most often."""
        return min(client.every_seconds for client in self.clients.values())

    @property
    def witnesses(self) -> frozenset[str]:
        """The names of those who try most often."""
        most_often = self.sampling_seconds
        return frozenset(name for name, client in self.clients.items() if client.every_seconds == most_often)


class Recorder:
    """Appends to a history. One process, one recorder, one file."""

    def __init__(self, path: Path, *, run: str, clients: Mapping[str, Client]) -> None:
        """Begin a new history.

        Raise `FileExistsError` where the file is there: what was recorded is never overwritten.
        """
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._servers: dict[Acknowledger, int] = {}
        self.attempts = 0
        """How many have been appended."""
        clock = Clock.now()
        self._line(
            {
                "format": FORMAT,
                "version": VERSION,
                "run": run,
                "clock": {**asdict(clock), "wall": clock.wall.isoformat()},
                "clients": {name: asdict(client) for name, client in clients.items()},
            }
        )

    def add(self, client: str, sequence: int, due_ns: int, sent_ns: int, answer: Answer) -> None:
        """Append one attempt that has ended."""
        self.attempts += 1
        told: list[object] = [client, sequence, due_ns, sent_ns, answer.ended_ns, answer.outcome.value]
        if answer.acknowledger is None:
            self._line([*told, answer.error])
            return
        number = self._servers.get(answer.acknowledger)
        if number is None:
            number = self._servers[answer.acknowledger] = len(self._servers)
            self._line({"server": number, **asdict(answer.acknowledger)})
        self._line([*told, number, answer.lsn])

    def finish(self) -> None:
        """Say that this is all there was, and close the file."""
        self._line({"ended_ns": time.monotonic_ns()})
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.finish()

    def _line(self, told: object) -> None:
        line = json.dumps(told, separators=(",", ":")).encode() + b"\n"
        written = os.write(self._descriptor, line)
        while written < len(line):  # a disk that is nearly full
            written += os.write(self._descriptor, line[written:])


def _part(path: Path) -> History:
    """Read one file."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as missing:
        raise _nothing_there(path, "there is no such file") from missing
    lines = content.split(b"\n")
    torn = bool(lines.pop())  # what follows the last end of a line
    if not lines:
        raise _nothing_there(path, "it holds no whole line yet")
    try:
        header = json.loads(lines[0])
        if header["format"] != FORMAT or header["version"] != VERSION:
            raise ValueError(f"it is {header['format']} {header['version']}, and {FORMAT} {VERSION} is needed")
        told = header["clock"]
        clock = Clock(told["monotonic_ns"], datetime.fromisoformat(told["wall"]), told["boot_id"])
        clients = {name: Client(**client) for name, client in header["clients"].items()}
        ended: list[int] = []
        attempts = tuple(_attempts(lines[1:], set(clients), ended))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as wrong:
        raise DamagedArtefact(
            "the history of what clients saw",
            where=str(path),
            why=f"a line other than the last cannot be read: {type(wrong).__name__}: {wrong}",
            remedy="nothing can be said from it: drill again",
        ) from wrong
    last = max((each.ended_ns for each in attempts), default=clock.monotonic_ns)
    return History(header["run"], clock, clients, attempts, bool(ended) and not torn, torn, max([last, *ended]))


def _attempts(lines: Sequence[bytes], clients: set[str], ended: list[int]) -> Iterator[Attempt]:
    servers: dict[int, Acknowledger] = {}
    for line in lines:
        told: Any = json.loads(line)
        if ended:
            raise ValueError("it goes on behind its end")
        if isinstance(told, dict):
            if "ended_ns" in told:
                ended.append(int(told["ended_ns"]))
            else:
                number = told.pop("server")
                servers[number] = Acknowledger(**told)
            continue
        client, sequence, due_ns, sent_ns, ended_ns, letter, *rest = told
        if client not in clients:
            raise ValueError(f"{client!r} is no client of it")
        outcome = WriteOutcome(letter)
        if outcome is WriteOutcome.ACKNOWLEDGED:
            number, lsn = rest
            yield Attempt(client, sequence, due_ns, sent_ns, ended_ns, outcome, "", servers[number], lsn_of(lsn))
        else:
            (error,) = rest
            yield Attempt(client, sequence, due_ns, sent_ns, ended_ns, outcome, error)


def _must_go_together(first: History, other: History, path: Path) -> None:
    why = ""
    if other.run != first.run:
        why = f"it is of the run {other.run}, and the others are of {first.run}"
    elif other.clock.boot_id != first.clock.boot_id:
        why = "it was recorded on another machine, or before this one was started: the clocks cannot be compared"
    elif shared := first.clients.keys() & other.clients.keys():
        why = f"{', '.join(sorted(shared))} is a client of another one, too"
    if why:
        remedy = "record all clients of a run on one machine, each under a name of its own"
        raise Unproven("several histories as one", where=str(path), why=why, remedy=remedy)


def _nothing_there(path: Path, why: str) -> NotFound:
    remedy = "see whether its prober was started, and what it said"
    return NotFound("the history of what clients saw", where=str(path), why=why, remedy=remedy)
