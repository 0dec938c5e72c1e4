"""The process that writes, and writes down what became of it.

It is a process of its own so that nothing else that a drill does delays it. Started by
`runbook_lib.failover.clients.Clients`, or by hand::

    PGHOST=db.tensafe.io PGDATABASE=tensafe python -m runbook_lib.failover.record --run 4f0c --history prober.jsonl

Where to write, and as whom, stands in libpq's variables, so that no password is an argument. It says ``ready`` when its
first attempt has ended, and ends when its standard input does or on SIGTERM: what is under way is then waited for and
written down first.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from runbook_lib.failover.history import Client, Recorder
from runbook_lib.failover.schedule import Schedule
from runbook_lib.reach.writing import DirectWriter, Writer

READY = b"ready\n"
"""What it prints when its first attempt has ended."""
PROBER, APPLICATION = "prober", "application"
"""The two ways to write."""
APPLICATION_NAME = "runbook/history"
"""What the server shows of it."""
_LOOK_SECONDS = 0.05


def arguments() -> argparse.ArgumentParser:
    """Return the command line that this process takes."""
    parser = argparse.ArgumentParser(prog="python -m runbook_lib.failover.record", description=__doc__)
    parser.add_argument("--run", required=True, help="what the rows of this run bear")
    parser.add_argument("--history", type=Path, required=True, help="the file to write; it must not be there")
    parser.add_argument("--kind", choices=(PROBER, APPLICATION), default=PROBER)
    parser.add_argument("--clients", type=int, default=1, help="how many clients there are, of this kind")
    parser.add_argument("--every-ms", type=float, default=20.0, help="how far apart the attempts of each are due")
    parser.add_argument("--deadline-ms", type=float, default=1000.0, help="after which an attempt is given up")
    parser.add_argument("--connections", type=int, default=16, help="how many there may be, all clients together")
    parser.add_argument("--fresh", action="store_true", help="a new connection for each attempt (prober)")
    parser.add_argument(
        "--pool-recycle-seconds", type=int, default=-1, help="as SQLAlchemy's pool_recycle (application)"
    )
    return parser


def main() -> int:
    """Record until we are told to stop."""
    told = arguments().parse_args()
    try:
        asyncio.run(_record(told))
    except FileExistsError:
        sys.stderr.write(f"{told.history} is there already, and is not overwritten\n")
        return 1
    except OSError as failed:  # what cannot be written down must not go on being written
        sys.stderr.write(f"{told.history}: {failed.strerror or failed}\n")
        return 1
    return 0


async def _record(told: argparse.Namespace) -> None:
    client = Client(told.kind, told.every_ms / 1000, told.deadline_ms / 1000)
    names = [told.kind] if told.clients == 1 else [f"{told.kind}-{number + 1}" for number in range(told.clients)]
    connections = max(told.connections, told.clients)
    each = connections // told.clients
    make: Callable[[], Writer]
    if told.kind == APPLICATION:
        make = _pool(told, client, connections)
    else:
        make = partial(
            DirectWriter, deadline_seconds=client.deadline_seconds, application_name=APPLICATION_NAME, fresh=told.fresh
        )
    with Recorder(told.history, run=told.run, clients=dict.fromkeys(names, client)) as recorder:
        schedules: list[Schedule] = []
        writers: list[Writer] = []
        for number, name in enumerate(names):
            own = [make() for _ in range(each)]
            writers += own
            offset_seconds = client.every_seconds * number / len(names)
            schedules.append(Schedule(recorder, told.run, name, client, own, offset_seconds=offset_seconds))
        await _run(schedules, recorder)
        for writer in writers:
            await writer.close()


def _pool(told: argparse.Namespace, client: Client, connections: int) -> Callable[[], Writer]:
    """Return what makes writers on one pool that all clients share, as those of one application do."""
    # Loaded here: a prober has no use for it, and is to begin at once.
    from runbook_lib.reach.pooled_writing import ApplicationStack, PooledWriter

    stack = ApplicationStack(
        connections=connections,
        deadline_seconds=client.deadline_seconds,
        application_name=APPLICATION_NAME,
        options={"pool_recycle": told.pool_recycle_seconds},
    )
    return partial(PooledWriter, stack)


async def _run(schedules: Sequence[Schedule], recorder: Recorder) -> None:
    loop = asyncio.get_running_loop()
    owner = os.getppid()

    def stop() -> None:
        loop.remove_reader(0)
        for schedule in schedules:
            schedule.stop()

    def heard() -> None:
        if not os.read(0, 4096):
            stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_reader(0, heard)
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(schedule.run()) for schedule in schedules]
        said = False
        while not all(task.done() for task in running):
            await asyncio.wait(running, timeout=_LOOK_SECONDS if not said else 1.0)
            if not said and recorder.attempts:
                said = True
                os.write(1, READY)
            if os.getppid() != owner:  # gone, although a stray child of it still holds our standard input
                stop()


if __name__ == "__main__":
    sys.exit(main())
