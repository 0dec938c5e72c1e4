"""What a run was about to do, written down before it did it.

A journal that is written at the end of a run is missing exactly when it is needed. So before each act a row goes to
the disk with all that taking it back needs, and only then is the act done; a runner that is killed at any moment, the
power cord included, leaves a file that says what may be half done. A row is one line of JSON, appended and synced; a
last line that was cut short announces an act that was never begun.

Journals of one cluster lie in one folder, a file for each run that altered something. Whoever alters the cluster holds
the folder's lock, so that two runs of one machine do not undo each other's work; and while an earlier run's acts are
outstanding nothing new is begun.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import getpass
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runbook_lib.errors import DamagedArtefact, Denied, NoRoom, NotPermitted, Unproven

FORMAT = 1
"""The version of the form; a file of a later one is refused."""
_LOCK = "changing.lock"
_SUFFIX = ".jsonl"


@dataclass(frozen=True)
class Header:
    """Whose journal it is: the first row."""

    cluster: str
    """The cluster's name, as the profile has it."""
    profile: str
    """The profile that was used, a name or a path."""
    system_identifier: str
    """The database cluster's identity when the run began; empty where there was none to ask."""
    reason: str
    """Why the run altered something, in the operator's words."""
    by: str = ""
    """Who ran it."""
    host: str = ""
    """On which machine."""
    pid: int = 0
    """In which process."""
    at: str = ""
    """When it began, in UTC."""

    @classmethod
    def here_and_now(cls, *, cluster: str, profile: str, system_identifier: str, reason: str) -> Header:
        """Return the header of a run of this process."""
        with contextlib.suppress(OSError, KeyError):
            return cls(
                cluster,
                profile,
                system_identifier,
                reason,
                getpass.getuser(),
                socket.gethostname(),
                os.getpid(),
                _now(),
            )
        return cls(
            cluster, profile, system_identifier, reason, f"uid {os.getuid()}", socket.gethostname(), os.getpid(), _now()
        )


@dataclass(frozen=True)
class Entry:
    """One act, as the rows about it tell it together."""

    number: int
    """Its number in the journal, from 1."""
    procedure: str
    """What it was part of."""
    kind: str
    """What kind of act it is."""
    arguments: Mapping[str, Any]
    """Its arguments."""
    before: Mapping[str, Any]
    """What was there before it."""
    says: str
    """What it does, as people read it."""
    undoing: str
    """How it is taken back, as people read it."""
    state: str
    """The last word on it: ``intent``, ``done``, ``failed``, ``undone``, ``stuck`` or ``kept``."""
    last: str = ""
    """What the last row says beyond that."""

    @property
    def is_outstanding(self) -> bool:
        """Whether it may still have to be taken back."""
        return self.state not in ("undone", "kept")


@dataclass(frozen=True)
class Record:
    """A journal as it was read."""

    path: Path
    """The file."""
    header: Header
    """Whose it is."""
    entries: Sequence[Entry]
    """The acts, in the order they were announced."""

    @property
    def outstanding(self) -> Sequence[Entry]:
        """The acts that may still have to be taken back, the last one first."""
        return [entry for entry in reversed(self.entries) if entry.is_outstanding]


@dataclass
class Journal:
    """One run's journal, held open for writing."""

    path: Path
    """The file."""
    _descriptor: int
    _entries: int = field(default=0)
    _ends_in_a_row: bool = field(default=True)

    def announce(
        self,
        procedure: str,
        kind: str,
        arguments: Mapping[str, Any],
        before: Mapping[str, Any],
        *,
        says: str,
        undoing: str,
    ) -> int:
        """Write down what is about to be done, and return its number once the disk has it."""
        # Counted first: where the disk refuses, it may have the row all the same.
        self._entries += 1
        row = {"procedure": procedure, "act": kind, "with": dict(arguments), "before": dict(before)}
        self._append("intent", self._entries, {**row, "says": says, "undoing": undoing})
        return self._entries

    def note(self, state: str, number: int, says: str = "") -> None:
        """Write down what became of an act: ``done``, ``failed``, ``undone`` or ``stuck``."""
        self._append(state, number, {"says": says} if says else {})

    def keep(self, numbers: Sequence[int]) -> None:
        """Write down that some acts are to stay: all of them in one row, for half of them might be no state at all."""
        self._write({"row": "kept", "numbers": list(numbers), "at": _now()})

    def _append(self, row: str, number: int, more: Mapping[str, Any]) -> None:
        self._write({"row": row, "number": number, "at": _now(), **more})

    def _write(self, row: Mapping[str, Any]) -> None:
        """Append a row and have the disk keep it. A line that was cut short before must not swallow it."""
        # Nothing is made to fit: what JSON does not keep, no other process could take back.
        line = json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
        line = line if self._ends_in_a_row else b"\n" + line
        try:
            self._ends_in_a_row = False
            while line:
                line = line[os.write(self._descriptor, line) :]
            self._ends_in_a_row = True
            os.fsync(self._descriptor)
        except OSError as error:
            raise _unwritable(self.path.parent, error) from error


@contextlib.contextmanager
def opened(folder: Path, header: Header, *, recover: str) -> Iterator[Journal]:
    """Hold the folder's lock and a new journal in it until the end of the block.

    :param recover: what to type to have the outstanding acts of an earlier run taken back

    Raise `NotPermitted` where another run holds the lock, or where an earlier one left acts outstanding.
    """
    with alone_in(folder):
        must_be_settled(folder, header.cluster, recover=recover)
        path = folder / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}Z-{os.getpid()}{_SUFFIX}"
        descriptor = _create(path)
        try:
            begun = Journal(path, descriptor)
            begun._write({"row": "run", "format": FORMAT, **asdict(header)})
            yield begun
        finally:
            os.close(descriptor)


def must_be_settled(folder: Path, cluster: str, *, recover: str) -> None:
    """Return if no earlier run left acts outstanding in a folder, else raise `NotPermitted`.

    :param recover: what to type to have them taken back
    """
    for left in read_all(folder):
        if left.outstanding:
            raise NotPermitted(
                "to alter anything",
                where=f"cluster {cluster}",
                why=f"the run of {left.header.by} on {left.header.host} at {left.header.at} has not come to its end,"
                f" and {len(left.outstanding)} of its acts are outstanding, the last one: {left.outstanding[0].says}",
                remedy=f"if it is not running any more, type: {recover}",
            )


@contextlib.contextmanager
def reopened(record: Record) -> Iterator[Journal]:
    """Append to a journal that somebody else began; the folder's lock must be held."""
    try:
        descriptor = os.open(record.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    except OSError as error:
        raise _unwritable(record.path, error) from error
    try:
        last = max((entry.number for entry in record.entries), default=0)
        yield Journal(record.path, descriptor, last, _ends_in_a_row=False)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold a journal folder's lock; the system itself releases it when the process ends, however it ends.

    Raise `NotPermitted` at once where somebody holds it.
    """
    try:
        _make(folder)
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as taken:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
            raise NotPermitted(
                "to alter anything",
                where=str(folder),
                why=f"another run is altering the same cluster: {holder or 'it has not said who it is'}",
                remedy="wait for its end, or stop it with Ctrl-C and let it take back what it did",
            ) from taken
        with contextlib.suppress(
            OSError
        ):  # a courtesy to whoever finds it locked; a full disk must not stop a recovery
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()} since {_now()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def read_all(folder: Path) -> list[Record]:
    """Read every journal of a folder, the oldest first; none where there is no folder.

    Raise `Denied` where it, or a journal in it, may not be read: what nobody could read has not been taken back.
    """
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(_SUFFIX))  # noqa: PTH208 - glob hides errors
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unreadable(folder, error) from error
    return [record for name in names if (record := read(folder / name)) is not None]


def read(path: Path) -> Record | None:
    """Read a journal; None for one that was cut short before its first row, so that nothing was ever done.

    Raise `DamagedArtefact` where a line that others follow cannot be read: what it announced may have been done.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    rows: list[dict[str, Any]] = []
    lines = [line for line in content.split(b"\n") if line]
    unreadable: int | None = None
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            row["row"]
        except (ValueError, TypeError, KeyError):
            unreadable = unreadable or number
            continue
        # After a line that was cut short only an undoing may follow: nobody goes on after a disk that failed.
        if unreadable is not None and row["row"] in ("intent", "run"):
            raise _damaged(path, f"line {unreadable} of {len(lines)} is no row")
        rows.append(row)
    if not rows:
        return None
    try:
        return _record(path, rows)
    except (KeyError, TypeError, AttributeError) as incomplete:
        why = f"line {unreadable} of {len(lines)} is no row" if unreadable else f"a row is incomplete: {incomplete!r}"
        raise _damaged(path, why) from incomplete


def _record(path: Path, rows: Sequence[dict[str, Any]]) -> Record:
    first = rows[0]
    if first["row"] != "run" or first.get("format") != FORMAT:
        raise _damaged(path, f"it begins with a row {first['row']!r} of format {first.get('format')!r}")
    header = Header(**{name: first[name] for name in Header.__dataclass_fields__ if name in first})
    entries: dict[int, Entry] = {}
    for row in rows[1:]:
        if row["row"] == "intent":
            entries[row["number"]] = Entry(
                row["number"],
                row["procedure"],
                row["act"],
                row["with"],
                row["before"],
                row["says"],
                row["undoing"],
                "intent",
            )
        else:
            for number in row["numbers"] if row["row"] == "kept" else [row["number"]]:
                entries[number] = replace(entries[number], state=row["row"], last=row.get("says", ""))
    return Record(path, header, tuple(entries.values()))


def _damaged(path: Path, why: str) -> DamagedArtefact:
    return DamagedArtefact(
        "a journal of this runbook",
        where=str(path),
        why=why,
        remedy="read it with your own eyes, put right what it announces, and move it out of the folder",
    )


def _make(folder: Path) -> None:
    """Make a folder, its parents too, and have the disk keep that they are there."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for each in missing:
        _sync(each.parent)


def _create(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _sync(path.parent)
        except OSError:
            os.close(descriptor)
            raise
    except OSError as error:
        raise _unwritable(path.parent, error) from error
    return descriptor


def _sync(folder: Path) -> None:
    """Have the disk keep a folder's entries, or what was made in it may be gone after a crash."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unreadable(path: Path, error: OSError) -> Denied:
    return Denied(
        "to read what earlier runs wrote down",
        where=str(path),
        why=error.strerror or str(error),
        remedy="run it as the user who may read it, or name another folder as changes.journal in the profile",
    )


def _unwritable(folder: Path, error: OSError) -> Unproven | NoRoom:
    kind = NoRoom if error.errno in (errno.ENOSPC, errno.EDQUOT) else NotPermitted
    return kind(
        "to write down what is done",
        where=str(folder),
        why=error.strerror or str(error),
        remedy="name a folder with room that you may write to as changes.journal in the profile; what is not written"
        " down is not begun",
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
