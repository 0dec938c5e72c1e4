"""Several sessions working off one list: all of it, or the first failure, and nobody waits for the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager

import pytest

from runbook_lib.errors import Unproven
from runbook_lib.reach import binaries, postgres
from runbook_lib.reach.postgres import Session
from runbook_lib.reach.server import PostgresServer
from runbook_lib.reach.workers import work_off
from runbook_lib.reach.workspace import Workspace


@pytest.fixture(scope="module")
def dsn() -> Iterator[str]:
    with Workspace.open() as workspace:
        server = PostgresServer.start(workspace, binaries.find(17))
        yield server.dsn()
        server.stop()


def opening(dsn: str) -> AbstractContextManager[Session]:
    return postgres.session(dsn)


@pytest.mark.parametrize("workers", [0, 1, 3, 50])
def test_every_piece_is_done_once_whatever_the_number_of_workers(dsn: str, workers: int) -> None:
    done: list[int] = []

    def work(session: Session, piece: int) -> None:
        done.append(session.value("SELECT %s::int", piece))

    work_off(range(20), work, open_session=lambda: opening(dsn), workers=workers)

    assert sorted(done) == list(range(20))


def test_nothing_to_do_opens_no_session() -> None:
    def never() -> AbstractContextManager[Session]:
        raise AssertionError

    work_off([], lambda _session, _piece: None, open_session=never, workers=2)


def test_the_first_failure_is_raised_and_the_others_are_not_waited_for(dsn: str) -> None:
    asleep = threading.Event()

    def work(session: Session, piece: str) -> None:
        if piece == "long":
            asleep.set()
            session.rows("SELECT pg_sleep(60)")
        assert asleep.wait(10)
        raise Unproven("a piece", where="here", why="planted", remedy="none")

    began = time.monotonic()
    with pytest.raises(Unproven, match="planted"):
        work_off(["long", "failing"], work, open_session=lambda: opening(dsn), workers=2)

    assert time.monotonic() - began < 20


def test_a_stop_ends_it_before_the_next_piece(dsn: str) -> None:
    stop = threading.Event()
    done: list[int] = []

    def work(_session: Session, piece: int) -> None:
        done.append(piece)
        stop.set()

    with pytest.raises(InterruptedError):
        work_off(range(5), work, open_session=lambda: opening(dsn), workers=1, stop=stop)

    assert done == [0]
