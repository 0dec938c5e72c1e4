"""Several sessions working off one list.

Hashing tables and checking indexes are the same kind of work: many pieces of very different size, each a single long
statement. They are taken in the order given, largest first, by as many sessions as there are workers; and when one
piece fails, or somebody presses Ctrl-C, the others are cancelled instead of waited for.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack, suppress
from typing import TypeVar

from runbook_lib.reach.postgres import DriverError, Session

Piece = TypeVar("Piece")


def work_off(
    pieces: Iterable[Piece],
    work: Callable[[Session, Piece], None],
    *,
    open_session: Callable[[], AbstractContextManager[Session]],
    workers: int,
    stop: threading.Event | None = None,
) -> None:
    """Do a piece of work for every item of a list, each in one of several sessions; return when all is done.

    :param work: does one piece, in the session it is given
    :param open_session: opens a worker's session, when it has its first piece
    :param stop: when somebody sets it, no further piece is begun and `InterruptedError` is raised

    What ``work`` raises first is raised here, once every worker has stopped.
    """
    waiting: queue.SimpleQueue[Piece] = queue.SimpleQueue()
    for piece in pieces:
        waiting.put(piece)
    sessions: list[Session] = []
    failures: list[BaseException] = []

    def worker() -> None:
        try:
            with ExitStack() as stack:
                session: Session | None = None
                while not failures:
                    if stop is not None and stop.is_set():
                        raise InterruptedError
                    try:
                        piece = waiting.get_nowait()
                    except queue.Empty:
                        return
                    if session is None:
                        session = stack.enter_context(open_session())
                        sessions.append(session)
                    work(session, piece)
        except BaseException as failed:  # noqa: BLE001 - kept in its order, and raised below
            call_off(failed)

    def call_off(why: BaseException) -> None:
        failures.append(why)  # the first is the cause; cancelling makes the others
        cancel_all(sessions)

    with ThreadPoolExecutor(max_workers=max(1, workers), thread_name_prefix="worker") as pool:
        working = [pool.submit(worker) for _ in range(max(1, workers))]
        try:
            wait(working)
        except BaseException as interrupted:
            call_off(interrupted)
            raise
    if failures:
        raise failures[0]


def cancel_all(sessions: Iterable[Session]) -> None:
    """Stop whatever these sessions are executing, as far as they are still there."""
    for each in sessions:
        with suppress(DriverError):
            each.cancel()
