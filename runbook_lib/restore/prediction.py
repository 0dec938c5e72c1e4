"""How long a restore will take and how much room, said before it begins, and held against what it took.

At four in the morning the first question is not how, but how long: whether to restore at all, or to fail over. Whoever
answers it has to be held to the answer. So the work is known beforehand, in bytes, from the manifest and the archive;
what a machine makes of those bytes was measured once (`_BYTES_PER_SECOND`, for a machine that is not yours); and each
run says by how much this place is quicker or slower. The next one is predicted by the median of these, and its interval
reaches beyond all of them, the further the fewer there are: an interval from one run is a guess, and says so by its
width.

A prediction that did not come true has *failed*: it was checked, and does not hold. It is the prediction that has, and
not the restore, which is why it is checked when everything else is done. What it really took is noted all the same, so
that the next prediction knows better.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from runbook_lib.backup.catalog import Backup
from runbook_lib.outcome import Check, Finding
from runbook_lib.reach.postgres import Session
from runbook_lib.restore.table_backup import TableBackup

FULL_RESTORE = "full_restore"
TABLE_RESTORE = "table_restore"
POINT_IN_TIME = "point_in_time"

_BYTES_PER_SECOND: Mapping[str, float] = {
    "dump": 100e6,  # fetched from S3, with its digest; the digest alone goes at 290 MB/s
    "database": 30e6,  # restored (916 MB in 21.6 to 24.7 s) and hashed (at 92 to 271 MB/s)
    "table": 30e6,  # the same
    "base_backup": 200e6,  # fetched and laid out; pg_basebackup is said to reach 300 to 500 MB/s
    "wal": 150e6,  # replayed from S3 (152 MB/s; from the local disk 245 MB/s)
}
"""What two cores made of these bytes, once, elsewhere: a server with fsync off and a warm cache."""
_FIXED_SECONDS = 5.0
"""What takes as long for no rows at all: a server starts, definitions are made and compared."""
_UNKNOWN = 10.0
"""How many times quicker or slower a place may be that nothing is known of."""
_SLACK = 2.0
_SLACK_OF_ONE = 2.0
"""How far beyond the earlier runs an interval reaches: twice, and twice more divided by how many there are."""
_HICCUP_SECONDS = 10.0
"""By how much the shortest restores differ for no reason that bytes could tell."""
_ROOM_UNKNOWN = (0.05, 1.3)
"""What a copy takes of what its source did: without its bloat it may be little, and is hardly more."""
_ROOM_SLACK = 1.3
_ROOM_MARGIN_BYTES = 30_000_000
"""Catalogs, and what is written meanwhile."""


@dataclass(frozen=True)
class Work:
    """What has to be done, in bytes."""

    procedure: str
    """What for: predictions look at earlier runs of the same alone."""
    of: str
    """What is restored, for people."""
    parts: Mapping[str, int]
    """Bytes by what they are: the names are those of the known rates."""
    room_bytes: int
    """What the source of the copy takes on its disk."""

    @classmethod
    def of_full_restore(cls, backup: Backup) -> Self:
        """Return the work of restoring a whole backup and comparing it; without a manifest its size is guessed."""
        size = backup.manifest.database.bytes if backup.manifest else backup.dump.bytes * 6
        return cls(FULL_RESTORE, backup.dump.url, {"dump": backup.dump.bytes, "database": size}, size)

    @classmethod
    def of_table_restore(cls, held: TableBackup) -> Self:
        """Return the work of restoring one table, which takes the fetching of the whole dump."""
        rows = sum(each.bytes for each in held.manifest.inventory.tables)
        return cls(
            TABLE_RESTORE,
            f"{held.table} of {held.backup.dump.url}",
            {"dump": held.backup.dump.bytes, "table": rows},
            rows,
        )

    @classmethod
    def of_point_in_time(cls, of: str, *, base_backup_bytes: int, wal_bytes: int, room_bytes: int) -> Self:
        """Return the work of recovering to a moment: a base backup is laid out, and WAL is replayed from there.

        :param of: the base backup and the moment, for people
        :param room_bytes: what the cluster takes, uncompressed
        """
        return cls(POINT_IN_TIME, of, {"base_backup": base_backup_bytes, "wal": wal_bytes}, room_bytes)

    @property
    def measure(self) -> str:
        """The name of the number that every earlier run of this procedure has: ``full_restore_seconds``."""
        return f"{self.procedure}_seconds"

    @property
    def nominal_seconds(self) -> float:
        """How long the known rates make it."""
        return _nominal_seconds(self.parts)

    def measures(self, *, seconds: float, room_bytes: int) -> Mapping[str, float]:
        """Return what a run has to leave to later predictions, by name."""
        parts = {f"{self.procedure}_{part}_bytes": size for part, size in self.parts.items()}
        room = {f"{self.procedure}_room_bytes": room_bytes, f"{self.procedure}_source_bytes": self.room_bytes}
        return {self.measure: round(seconds, 3), **parts, **room}

    def known_from(self, run: Mapping[str, object]) -> Earlier | None:
        """Return what an earlier run says of this place; None where it says nothing, or no sense."""
        names = self.measures(seconds=0.0, room_bytes=0)
        if not all(_is_a_number(run.get(name)) for name in names):
            return None
        numbers = {name.removeprefix(f"{self.procedure}_"): float(str(run[name])) for name in names}
        parts = {part: numbers[f"{part}_bytes"] for part in self.parts}
        rows = max(numbers["room_bytes"] - _ROOM_MARGIN_BYTES, 0.0)
        source = numbers["source_bytes"]
        return Earlier(numbers["seconds"] / _nominal_seconds(parts), rows / source if source else 0.0)


@dataclass(frozen=True)
class Earlier:
    """What an earlier run says of this place."""

    slowness: float
    """How many times as long it took as the known rates make it."""
    fullness: float
    """How many times as much room its rows took as their source's."""


@dataclass(frozen=True)
class Interval:
    """What is expected, and between what it will be."""

    low: float
    """It will not be less."""
    expected: float
    """What it is most likely to be."""
    high: float
    """It will not be more."""

    def holds(self, value: float) -> bool:
        """Return whether a value is in it."""
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Prediction:
    """What a restore will take."""

    work: Work
    """What has to be done."""
    seconds: Interval
    """How long it will take: from the first byte fetched until what came back is compared."""
    room_bytes: Interval
    """How much room what comes back will take."""
    runs: int
    """From how many earlier runs; 0 where it comes from rates that were measured elsewhere."""

    def __str__(self) -> str:
        """Return it as two sentences."""
        return f"{self._time}, and {self._room}; {self._source}"

    @property
    def _time(self) -> str:
        told = self.seconds
        return f"{told.expected:.1f} s (between {told.low:.1f} and {told.high:.1f} s)"

    @property
    def _room(self) -> str:
        low, expected, high = (
            round(each / 1e6) for each in (self.room_bytes.low, self.room_bytes.expected, self.room_bytes.high)
        )
        return f"{expected} MB of room (between {low} and {high} MB)"

    @property
    def _source(self) -> str:
        if not self.runs:
            return (
                "no earlier run is in the history of this environment: from rates that were measured on another machine"
            )
        return f"from {'the one earlier run' if self.runs == 1 else f'{self.runs} earlier runs'} here"

    def measures(self, *, seconds: float, room_bytes: int) -> Mapping[str, float]:
        """Return what later predictions need of this run, by name."""
        return self.work.measures(seconds=seconds, room_bytes=room_bytes)

    def compare(self, *, seconds: float, room_bytes: int, where: str) -> Check:
        """Hold it against what the restore took."""
        took = f"it took {seconds:.1f} s and {room_bytes / 1e6:.0f} MB; predicted were {self}"
        return Check("it took as long as predicted", where, took, tuple(self._wrong(seconds, room_bytes)))

    def _wrong(self, seconds: float, room_bytes: int) -> Iterator[Finding]:
        if not self.seconds.holds(seconds):
            remedy = (
                "look at the phases of this restore beside those of earlier ones: the restore itself is not in doubt"
            )
            says = f"{self._time} was predicted, and it took {seconds:.1f} s"
            yield Finding("prediction.seconds", self.work.procedure, says, remedy=remedy)
        if not self.room_bytes.holds(room_bytes):
            remedy = "look at what has grown or shrunk; before the next one, look whether there is room for it"
            says = f"{self._room} was predicted, and it took {room_bytes / 1e6:.0f} MB"
            yield Finding("prediction.room", self.work.procedure, says, remedy=remedy)


def predict(work: Work, earlier: Sequence[Mapping[str, object]] = ()) -> Prediction:
    """Say what a restore will take.

    :param earlier: the numbers that earlier runs left, by name, as `Work.measures` gives them; of any procedure
    """
    known = [found for run in earlier if (found := work.known_from(run)) is not None]
    if not known:
        nominal, (low, high) = work.nominal_seconds, _ROOM_UNKNOWN
        return Prediction(work, _around([nominal], _UNKNOWN), _room(work, low, 1.0, high), runs=0)
    full = [each.fullness for each in known]
    return Prediction(
        work,
        _around([each.slowness * work.nominal_seconds for each in known], _SLACK + _SLACK_OF_ONE / len(known)),
        _room(work, min(full) / _ROOM_SLACK, statistics.median(full), max(full) * _ROOM_SLACK),
        runs=len(known),
    )


def _around(seconds: Sequence[float], slack: float) -> Interval:
    low, high = min(seconds) / slack - _HICCUP_SECONDS, max(seconds) * slack + _HICCUP_SECONDS
    return Interval(max(0.0, low), statistics.median(seconds), high)


def _room(work: Work, low: float, expected: float, high: float) -> Interval:
    """Return the room for a copy, given how much of its source it takes; catalogs are there without any rows."""
    return Interval(
        work.room_bytes * low,
        work.room_bytes * expected + _ROOM_MARGIN_BYTES / 2,
        work.room_bytes * high + 2 * _ROOM_MARGIN_BYTES,
    )


def _nominal_seconds(parts: Mapping[str, float]) -> float:
    return _FIXED_SECONDS + sum(size / _BYTES_PER_SECOND[part] for part, size in parts.items())


def _is_a_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def room_of(session: Session) -> int:
    """Return how many bytes a database takes."""
    return int(session.value("SELECT pg_catalog.pg_database_size(pg_catalog.current_database())"))
