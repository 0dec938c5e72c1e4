"""Watching pg_restore at work.

A restore of hours that prints nothing is killed by somebody sooner or later. pg_restore itself says which item it has
begun, the server says how many bytes of it have arrived (``pg_stat_progress_copy``; its total is 0 for a COPY from a
client, so that the manifest's sizes stand in for it) and how far an index is.
"""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from runbook_lib.errors import RunbookError, WaitTimedOut
from runbook_lib.phases import Progress, Stopwatch, Watcher
from runbook_lib.reach import postgres, programs
from runbook_lib.reach.programs import CommandResult
from runbook_lib.reach.workspace import Workspace
from runbook_lib.secrecy import said_by_postgresql

_LOOK_SECONDS = 0.5
RESTORE_SECONDS = 4 * 3600
"""The runbook's maximum for a restore: an RTO of four hours."""

_COPIES = """
SELECT format('%I.%I', n.nspname, c.relname) AS table, p.bytes_processed AS bytes
  FROM pg_catalog.pg_stat_progress_copy p
  JOIN pg_catalog.pg_class c ON c.oid = p.relid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
"""
_INDEXES = """
SELECT p.index_relid::pg_catalog.regclass::text AS index, p.phase, p.blocks_done, p.blocks_total
  FROM pg_catalog.pg_stat_progress_create_index p
"""


@contextmanager
def watching(dsn: str, expected_bytes: Mapping[str, int], watch: Watcher) -> Iterator[None]:
    """Tell a watcher twice a second how far a restore into a database is, until the end of the block.

    :param expected_bytes: the size of every table, by its qualified name; empty where nobody knows
    """
    over = threading.Event()

    def look() -> None:
        begun: dict[str, int] = {}
        try:
            with postgres.session(dsn, application_name="runbook/progress") as session:
                while not over.wait(_LOOK_SECONDS):
                    for copy in session.rows(_COPIES):
                        begun[copy["table"]] = copy["bytes"]
                    done = sum(min(count, expected_bytes.get(table, count)) for table, count in begun.items())
                    total = sum(expected_bytes.values()) or None
                    copying = ", ".join(sorted(begun)[-1:])
                    indexes = session.rows(_INDEXES)
                    if indexes:
                        watch(
                            Progress(
                                "restore indexes",
                                sum(index["blocks_done"] for index in indexes),
                                sum(index["blocks_total"] for index in indexes) or None,
                                "blocks",
                                ", ".join(f"{index['index']} {index['phase']}" for index in indexes),
                            )
                        )
                    elif begun:
                        watch(Progress("restore data", done, total, "bytes", copying))
        except (postgres.DriverError, RunbookError):
            return  # nobody has to watch: whoever restores will tell what is wrong

    looking = threading.Thread(target=look, name="restore progress", daemon=True)
    looking.start()
    try:
        yield
    finally:
        over.set()
        looking.join(timeout=10)


_DATA_LINE = re.compile(r"(processing data for table|(?:launching|finished) item \d+ TABLE DATA)")
_INDEX_LINE = re.compile(r"(creating|launching item \d+) (INDEX|CONSTRAINT|FK CONSTRAINT|MATERIALIZED VIEW DATA)\b")


class _Moments:
    """When pg_restore was at which kind of work, by readings of the monotonic clock."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.data: list[float] = []
        self.indexes: list[float] = []

    def see(self, line: str) -> None:
        """Take note of one line that pg_restore printed."""
        self.lines.append(line)
        if _DATA_LINE.search(line):
            self.data.append(time.monotonic())
        elif index := _INDEX_LINE.search(line):
            if index[1] == "creating" and not self.indexes:
                self.data.append(time.monotonic())  # one job does one thing after the other, and says no "finished"
            self.indexes.append(time.monotonic())


def timed_restore(
    argv: Sequence[str | Path], *, env: Mapping[str, str], workspace: Workspace | None, stopwatch: Stopwatch
) -> CommandResult:
    """Run ``pg_restore --verbose``, in a workspace or as we are, and time its two halves.

    They are the phases ``restore data`` and ``restore indexes``.
    With several jobs the two overlap: indexes of one table are built while another is still being filled.
    """
    moments = _Moments()
    began = time.monotonic()
    streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    sought = "to restore the dump"
    if workspace is not None:
        process = workspace.spawn(argv, env=env, **streams)
    else:
        process = programs.start_as_we_are(argv, sought=sought, env=env, **streams)
    too_long = threading.Timer(RESTORE_SECONDS, process.kill)
    too_long.start()
    try:
        for line in cast("IO[bytes]", process.stderr):
            moments.see(line.decode(errors="replace").rstrip("\n"))
        status = process.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        too_long.cancel()
        cast("IO[bytes]", process.stderr).close()
    ended = time.monotonic()
    if ended - began >= RESTORE_SECONDS:
        raise WaitTimedOut(
            "pg_restore to end",
            where=str(argv[-1]),
            why=f"it was killed after {RESTORE_SECONDS / 3600:.0f} h; it said last: {_last(moments.lines)}",
            remedy="restore with more jobs, on a faster disk, or from a base backup",
        )
    data = moments.data or [began]
    stopwatch.note("restore data", data[0], data[-1])
    stopwatch.note("restore indexes", *((moments.indexes[0], ended) if moments.indexes else (ended, ended)))
    return CommandResult(sought, tuple(map(str, argv)), status, "", "\n".join(moments.lines), ended - began)


def _last(lines: Sequence[str]) -> str:
    return (said_by_postgresql("\n".join(lines)).splitlines() or ["nothing"])[-1]
