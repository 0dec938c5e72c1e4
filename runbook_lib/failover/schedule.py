"""When attempts are due: at times fixed beforehand, whatever becomes of them.

A client that sends its next write when the one before was answered asks least while nothing works, and its worst
answers count once instead of as often as they were waited for ("coordinated omission"). Here an attempt is due every so
many milliseconds. Where the one before is still waiting another writer carries it out; where all of them wait, or we
ourselves are late by more than an attempt's deadline, it is written down as not sent, which says nothing of the server.

While many wait, so that a server may be hanging, attempts are spread over the deadline instead of being used up at its
beginning: else everybody would wait for the same moment, and nobody would look in between.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from runbook_lib.failover.history import Client, Recorder
from runbook_lib.failover.outages import SECOND_NS
from runbook_lib.reach.writing import Answer, WriteOutcome, Writer

_FEW = 2
"""So many may be waiting until attempts are spread."""
_BUSY = "all connections are waiting"
_LATE = "the prober was late"


class Schedule:
    """One client's attempts, from now until it is stopped."""

    def __init__(
        self,
        recorder: Recorder,
        run: str,
        name: str,
        client: Client,
        writers: Sequence[Writer],
        *,
        offset_seconds: float,
    ) -> None:
        """Prepare them; nothing is sent yet.

        :param recorder: where each is written down when it has ended
        :param writers: who carries them out; the first that is free is taken, so that few are ever connected
        :param offset_seconds: how long after the beginning the first is due, so that clients do not write in step
        """
        self._recorder, self._run, self._name, self._client = recorder, run, name, client
        self._free = list(reversed(writers))
        self._writers = len(writers)
        self._offset_ns = round(offset_seconds * SECOND_NS)
        self._stopping = False

    def stop(self) -> None:
        """Send nothing more."""
        self._stopping = True

    async def run(self) -> None:
        """Send attempts as they are due until stopped, and return when all of them have ended."""
        every_ns = round(self._client.every_seconds * SECOND_NS)
        deadline_ns = round(self._client.deadline_seconds * SECOND_NS)
        spread_ns = max(every_ns, deadline_ns // self._writers)
        due_ns = time.monotonic_ns() + self._offset_ns
        sent_ns = 0
        sequence = 0
        async with asyncio.TaskGroup() as group:  # whose end awaits all that is under way
            while not self._stopping:
                wait_ns = due_ns - time.monotonic_ns()
                if wait_ns > 0:
                    await asyncio.sleep(wait_ns / SECOND_NS)
                sequence += 1
                now_ns = time.monotonic_ns()
                waiting = self._writers - len(self._free)
                if now_ns - due_ns > deadline_ns:
                    self._not_sent(sequence, due_ns, _LATE)
                elif not self._free or (waiting >= _FEW and due_ns - sent_ns < spread_ns):
                    self._not_sent(sequence, due_ns, _BUSY)
                else:
                    sent_ns = due_ns
                    group.create_task(self._attempt(self._free.pop(), sequence, due_ns))
                due_ns += every_ns
                if wait_ns <= 0:
                    await asyncio.sleep(0)  # catching up must not keep answers from being read

    async def _attempt(self, writer: Writer, sequence: int, due_ns: int) -> None:
        sent_ns = time.monotonic_ns()
        answer = await writer.write(self._run, self._name, sequence)
        self._recorder.add(self._name, sequence, due_ns, sent_ns, answer)
        self._free.append(writer)

    def _not_sent(self, sequence: int, due_ns: int, why: str) -> None:
        now_ns = time.monotonic_ns()
        self._recorder.add(self._name, sequence, due_ns, now_ns, Answer(WriteOutcome.UNSENT, now_ns, why))
