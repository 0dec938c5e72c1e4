"""Clients that write all the time and come back at once, and remember what the database acknowledged."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg


@dataclass
class Writers:
    """What some clients have been told."""

    acknowledged: dict[int, float] = field(default_factory=dict)
    """Every number that was acknowledged, and when, on the monotonic clock."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def longest_gap_seconds(self) -> float:
        """The longest time in which no write was acknowledged, and was one before and after."""
        moments = sorted(self.acknowledged.values())
        return max(later - earlier for earlier, later in itertools.pairwise(moments))

    def count(self) -> int:
        with self.lock:
            return len(self.acknowledged)

    def before(self, moment: float) -> set[int]:
        """The numbers that were acknowledged before a moment."""
        with self.lock:
            return {number for number, at in self.acknowledged.items() if at < moment}


@contextmanager
def writing(dsn: str, table: str, *, clients: int = 6) -> Iterator[Writers]:
    """Have clients write numbers into a table until the end of the block; each reconnects at once whenever it is put
    out.
    """
    writers, over = Writers(), threading.Event()

    def write(client: int) -> None:
        number = client
        while not over.is_set():
            try:
                with psycopg.connect(dsn, autocommit=True, application_name="writer", connect_timeout=2) as connection:
                    while not over.is_set():
                        number += clients  # one whose answer was lost is not used again
                        connection.execute(f"INSERT INTO {table} VALUES (%s)", (number,))
                        with writers.lock:
                            writers.acknowledged[number] = time.monotonic()
            except psycopg.Error:
                over.wait(0.002)

    threads = [threading.Thread(target=write, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield writers
    finally:
        over.set()
        for thread in threads:
            thread.join()
