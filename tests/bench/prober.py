"""What being watched costs a primary: the prober at one write in 20 ms, beside the same server without it.

Two figures. The processor time of all the server's processes, which the kernel counts to the nanosecond, without and
with the prober, on a server that has nothing else to do and commits to a real disk. And pgbench's throughput without
and with it, in turn; on a shared machine two runs of pgbench alone differ by more than what is promised, so that the
same comparison of two runs without the prober is shown beside it, and the share of processor time that the prober's
sessions took of what the server took in the same seconds.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from runbook_lib.failover import rows
from runbook_lib.failover.clients import Clients, Plan
from runbook_lib.failover.history import Client, Recorder
from runbook_lib.reach import binaries, postgres
from runbook_lib.reach.server import PostgresServer
from runbook_lib.reach.workspace import Workspace
from runbook_lib.reach.writing import TABLE, Acknowledger, Answer, WriteOutcome
from runbook_lib.waiting import wait_for

MAJOR = 17
OF_A_CORE = 0.01
OF_THROUGHPUT = 0.005
_SETTINGS = {"wal_level": "replica", "shared_buffers": "256MB", "max_wal_size": "4GB"}
_PROBERS = "SELECT pid FROM pg_stat_activity WHERE application_name = 'runbook/history'"
_TPS = re.compile(r"tps = ([\d.]+)")


@dataclass(frozen=True)
class Spent:
    """Processor seconds of a server in some seconds."""

    server: float
    """Of all its processes, those that ended meanwhile excepted."""
    prober: float
    """Of the sessions of the prober."""
    seconds: float
    """In how many seconds."""


def main(*, rounds: int = 5, seconds: float = 10.0) -> None:
    """Measure, and print."""
    with Workspace.open() as workspace:
        server = PostgresServer.start(workspace, binaries.find(MAJOR), settings=_SETTINGS)
        with postgres.session(server.dsn(), read_only=False) as session:
            for statement in rows.PREPARE:
                session.execute(statement)
        _idle(server, rounds, seconds)
        _beside_pgbench(server, rounds, seconds)
        server.stop()
    _recorder()


def _idle(server: PostgresServer, rounds: int, seconds: float) -> None:
    print(f"a primary with nothing else to do, PostgreSQL {server.tools.version}, fsync on:")
    arms: dict[str, Callable[[], AbstractContextManager[object]]] = {
        "prober, a write in 20 ms": lambda: _probing(server, Plan(writers=0)),
        "a bare INSERT in 20 ms, the least": lambda: _inserting(server),
        "prober, a new connection each": lambda: _probing(server, Plan(writers=0, fresh=True)),
    }
    extra: dict[str, list[float]] = {what: [] for what in arms}
    for _ in range(rounds):
        without = _spent(server, seconds)
        for what, arm in arms.items():
            with arm():
                with_it = _spent(server, seconds)
            extra[what].append(max(0.0, with_it.server / with_it.seconds - without.server / without.seconds))
    for what, shares in extra.items():
        median = statistics.median(shares)
        ours = what == next(iter(arms))
        bar = f"promised: below {OF_A_CORE:.0%}, {'kept' if median < OF_A_CORE else 'NOT KEPT'}" if ours else ""
        print(f"  {what:<34} {median:.2%} of a core more ({min(shares):.2%} .. {max(shares):.2%})  {bar}")


@contextmanager
def _inserting(server: PostgresServer) -> Iterator[None]:
    """Write as many rows, and ask for nothing."""
    script = server.folder / "bare.sql"
    script.write_text(f"INSERT INTO {TABLE} (run, client, sequence) VALUES ('bare', 'bare', 1);\n")
    argv = [str(server.tools.program("pgbench")), "-n", "-M", "prepared", "-R", "50", "-T", "3600", "-f", str(script)]
    env = postgres.libpq_environment(server.dsn())
    process = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with postgres.session(server.dsn()) as session:
            query = f"SELECT count(*) FROM {TABLE} WHERE run = 'bare'"
            wait_for("rows", lambda: session.value(query), where="pgbench", within_seconds=20)
        yield
    finally:
        process.terminate()
        process.wait(timeout=20)


def _beside_pgbench(server: PostgresServer, rounds: int, seconds: float) -> None:
    pgbench = [str(server.tools.program("pgbench")), "-n"]
    env = postgres.libpq_environment(server.dsn())
    subprocess.run([*pgbench, "-i", "-q", "-s", "10"], env=env, check=True, capture_output=True)

    def tps() -> float:
        argv = [*pgbench, "-c", "4", "-j", "1", "-T", f"{seconds:.0f}"]
        return float(_TPS.findall(subprocess.run(argv, env=env, check=True, capture_output=True, text=True).stdout)[0])

    tps()
    slower, noise, share = [], [], []
    for _ in range(rounds):
        first = tps()
        with _probing(server, Plan(writers=0)):
            began = _now(server)
            probed = tps()
            spent = _difference(server, began)
        second = tps()
        without = (first + second) / 2
        slower.append(1 - probed / without)
        noise.append(abs(1 - first / second))
        share.append(spent.prober / spent.server)
    kept = statistics.median(share) < OF_THROUGHPUT
    print(f"beside pgbench -c 4, {rounds} rounds of {seconds:.0f} s:")
    print(
        f"  slower by {statistics.median(slower):.2%} ({min(slower):.2%} .. {max(slower):.2%}); two runs without it "
        f"differ by {statistics.median(noise):.2%} ({min(noise):.2%} .. {max(noise):.2%})"
    )
    print(
        f"  {statistics.median(share):.3%} of the server's processor time ({min(share):.3%} .. {max(share):.3%}); "
        f"promised: below {OF_THROUGHPUT:.1%}, {'kept' if kept else 'NOT KEPT'}"
    )


def _recorder(count: int = 50_000) -> None:
    """What writing an attempt down costs the prober itself."""
    server = Acknowledger("7301000000000000000", 1, "10.0.0.4", 5432, "2026-11-24 09:00:00+00")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "history"
        with Recorder(path, run="run", clients={"prober": Client("prober", 0.02, 1.0)}) as recorder:
            began = time.process_time()
            for number in range(count):
                now = time.monotonic_ns()
                answer = Answer(WriteOutcome.ACKNOWLEDGED, now, "", server, "0/1A2B3C8")
                recorder.add("prober", number, now, now, answer)
            took = time.process_time() - began
        size = path.stat().st_size / count
    print(f"an attempt written down: {took / count * 1e6:.0f} µs of the prober's own processor, {size:.0f} bytes")


@contextmanager
def _probing(server: PostgresServer, plan: Plan) -> Iterator[Clients]:
    with tempfile.TemporaryDirectory() as folder, Clients.start(Path(folder), server.dsn(), plan=plan) as clients:
        yield clients


def _spent(server: PostgresServer, seconds: float) -> Spent:
    began = _now(server)
    time.sleep(seconds)
    return _difference(server, began)


def _now(server: PostgresServer) -> tuple[float, float, float]:
    """Processor seconds of all the server's processes until now, those of the prober's sessions, and the time."""
    with postgres.session(server.dsn()) as session:
        probers = [row["pid"] for row in session.rows(_PROBERS)]
        postmaster = int((server.data_directory / "postmaster.pid").read_text().split()[0])
    processes = [postmaster, *_children(postmaster)]
    ended = sum(map(int, Path(f"/proc/{postmaster}/stat").read_text().rpartition(")")[2].split()[13:15])) / 100
    return sum(map(_processor_seconds, processes)) + ended, sum(map(_processor_seconds, probers)), time.monotonic()


def _difference(server: PostgresServer, began: tuple[float, float, float]) -> Spent:
    ended = _now(server)
    return Spent(*(after - before for after, before in zip(ended, began, strict=True)))


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _processor_seconds(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    except FileNotFoundError:
        return 0.0


if __name__ == "__main__":
    main()
