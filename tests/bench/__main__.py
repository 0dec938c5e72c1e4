"""`make bench`: what proof costs, beside what people do without it.

Every figure is a ratio of two arms that ran alternately in this very run, on the same data and the same kind of
server: absolute times of a shared machine say nothing. The median of the ratios round by round is quoted, with the
smallest and the largest. Nothing here is a test: a slow day must not fail a build.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from runbook_lib.backup import content, dump
from runbook_lib.backup.catalog import Backup
from runbook_lib.environment import Environment
from runbook_lib.phases import Phase
from runbook_lib.reach import postgres
from runbook_lib.reach.server import FAST, PostgresServer
from runbook_lib.restore import scratch
from runbook_lib.sandbox.sandbox import Sandbox
from tests.bench import moment, prober, table, wal
from tests.bench.outage import outage

Result = TypeVar("Result")
_BESIDE_EACH_OTHER = {"hash", "backup", "drill", "table"}
_PARTS = ("hash", "backup", "drill", "table", "memory", "outage", "wal", "moment", "prober")


@dataclass(frozen=True)
class Bar:
    """One ratio that the project promises."""

    what: str
    """The arm that is ours."""
    beside: str
    """The arm it is compared with."""
    ratios: tuple[float, ...]
    """Ours divided by theirs, round by round."""
    promised: str
    """What is promised, such as ``at most 1.25``."""
    kept: bool
    """Whether the median keeps it."""

    def __str__(self) -> str:
        """Return the row of the table."""
        spread = f"{min(self.ratios):.2f} .. {max(self.ratios):.2f}"
        verdict = "" if not self.promised else "kept" if self.kept else "NOT KEPT"
        median = f"{statistics.median(self.ratios):.2f}"
        return f"{self.what:<44} {self.beside:<52} {median:>6}  {spread:<14} {self.promised:<14} {verdict}"


def main() -> None:
    """Run all measurements and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--scale", type=float, default=5.0, help="size of the database; 1 is about 90 MB")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=_PARTS, action="append")
    parser.add_argument("--memory-of-a-backup", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--outage-of-a-restore", type=float, help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.memory_of_a_backup:
        _memory_of_a_backup(told.memory_of_a_backup)
        return
    if told.outage_of_a_restore:
        print(outage(told.outage_of_a_restore))
        return
    wanted = set(told.only or _PARTS)
    bars = _beside_each_other(wanted, told.scale, told.rounds) if wanted & _BESIDE_EACH_OTHER else []
    if bars:
        print(f"\n{'ours':<44} {'beside':<52} {'median':>6}  {'min .. max':<14} {'promised':<14}")
    for bar in bars:
        print(bar)
    for part, option in (("memory", "--memory-of-a-backup"), ("outage", "--outage-of-a-restore")):
        for scale in (told.scale / 5, told.scale) if part in wanted else ():
            print(_in_a_process_of_its_own(option, scale))
    if "wal" in wanted:
        wal.main(rounds=told.rounds)
    if "moment" in wanted:
        moment.main(rounds=told.rounds)
    if "prober" in wanted:
        prober.main(rounds=told.rounds)


def _beside_each_other(wanted: set[str], scale: float, rounds: int) -> list[Bar]:
    bars: list[Bar] = []
    with Sandbox.up(scale=scale, kubernetes=False) as sandbox:
        environment = Environment.of(sandbox.settings)
        size = environment.identity().bytes
        print(
            f"database of {size / 1e6:.0f} MB, PostgreSQL {sandbox.server.tools.version}, {os.cpu_count()} processors"
        )
        print(f"sandbox up in {_seconds(sandbox.phases)}; not part of any figure")
        if "hash" in wanted:
            bars += _hash(environment, rounds)
        if "backup" in wanted:
            bars += _backup(environment, sandbox, rounds)
        if "drill" in wanted:
            bars += _drill(environment, rounds)
        if "table" in wanted:
            took, spent = table.measure(environment, scale=scale, rounds=rounds)
            print(spent)
            bars.append(_bar("one table of twenty, merged", "a restore of all of them", took, "table", "full", 0.3))
    return bars


def _hash(environment: Environment, rounds: int) -> list[Bar]:
    with environment.database() as session:
        tables = [table for table in content.tables(session) if table.is_populated]

        def each(query: Callable[[content.Table], str]) -> Callable[[], object]:
            return lambda: [session.rows(query(table)) for table in tables]

        def relation(table: content.Table) -> str:
            return f"ONLY {table.qualified} t" if table.kind != "p" else f"{table.qualified} t"

        arms = {
            "count": each(lambda table: f"SELECT count(*) FROM {relation(table)}"),
            "ours": each(content.content_query),
            "pgcopydb": each(lambda table: f"SELECT sum(hashtext(t::text)) FROM {relation(table)}"),
        }
        session.execute("SET statement_timeout = 0")
        took = _alternately(arms, rounds)
        # The least that a row hash costs in PostgreSQL, where every type has a hash function: it forgives much.
        tables = [table for table in tables if _has_hash_functions(session, table, relation(table))]
        least = {
            "count": arms["count"],
            "ours": arms["ours"],
            "record": each(lambda table: f"SELECT sum(hash_record_extended(t, 0)) FROM {relation(table)}"),
        }
        took_least = _alternately(least, rounds)
    some = f"content hash of the {len(tables)} tables it can hash"
    return [
        _bar(some, "sum(hash_record_extended(t, 0)), which forgives", took_least, "ours", "record", None),
        _bar(f"the same hash_record_extended, {len(tables)} tables", "count(*)", took_least, "record", "count", None),
        _bar("content hash of all tables", "sum(hashtext(t::text)), pgcopydb's form", took, "ours", "pgcopydb", 1 / 3),
        _bar("content hash of all tables", "count(*) of all tables", took, "ours", "count", 6),
    ]


def _has_hash_functions(session: postgres.Session, table: content.Table, relation: str) -> bool:
    try:
        session.rows(f"SELECT sum(hash_record_extended(t, 0)) FROM {relation}")
    except postgres.DriverError as lacking:
        if "could not identify" in str(lacking):
            return False
        raise
    return True


def _backup(environment: Environment, sandbox: Sandbox, rounds: int) -> list[Bar]:
    """Beside pg_dump with the same compression: ours, and pg_dump's own default."""
    dsn, tools = environment.settings.database.dsn, sandbox.server.tools
    file = sandbox.server.workspace.path / "plain.dump"
    bars: list[Bar] = []
    for compression in (dump.default_compression(tools), "gzip:6"):

        def plain(compression: str = compression) -> None:
            argv: list[str | Path] = [tools.program("pg_dump"), "-Fc", f"--compress={compression}", f"--file={file}"]
            subprocess.run(argv, env={**os.environ, **postgres.libpq_environment(dsn)}, check=True)
            file.unlink()

        ours = partial(
            dump.take, dsn, environment.archive, permit=environment.permit, tools=tools, compression=compression
        )
        took = _alternately({"ours": ours, "plain": plain}, rounds, between=lambda: time.sleep(1))
        beside = f"pg_dump -Fc -Z {compression} to a local file"
        bars.append(_bar("backup with manifest, to S3", beside, took, "ours", "plain", 1.25))
    return bars


def _drill(environment: Environment, rounds: int) -> list[Bar]:
    backup = environment.last_nights_backup()
    phases: list[Mapping[str, float]] = []
    took: dict[str, list[float]] = {"ours": [], "restore": [], "runbook": []}
    for _ in range(rounds):
        with environment.scratch() as place:
            place.server(17)
            phases.append(_timed(partial(_our_drill, environment, backup, place), took["ours"]))
        for name, settings in (("restore", FAST), ("runbook", {"wal_level": "replica"})):
            with _server_with_roles(environment, backup, settings) as server:
                run = _restore_and_count if name == "restore" else _runbook_as_written
                _timed(partial(run, environment, backup, server), took[name])
    last = phases[-1]
    print("drill: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in last.items()))
    return [
        _bar("drill", "pg_restore -j2 from disk + count(*) of all tables", took, "ours", "restore", 1.25),
        _bar("drill", "the runbook's own sequence, on a default server", took, "ours", "runbook", None),
    ]


def _our_drill(environment: Environment, backup: Backup, place: scratch.Scratch) -> Mapping[str, float]:
    restored = environment.restore_into_scratch(backup, "tensafe_verify", place)
    assert restored.restored.holds()
    compared = restored.compare()
    assert not compared.findings, compared.findings
    assert restored.integrity().holds()
    restored.remove()
    return {phase.name: phase.seconds for phase in restored.phases}


@contextmanager
def _server_with_roles(
    environment: Environment, backup: Backup, settings: Mapping[str, str]
) -> Iterator[PostgresServer]:
    with environment.scratch() as place:
        tools = place.tools(17)
        server = PostgresServer.start(place.workspace, tools, name="peer", settings=settings)
        roles = environment.archive.globals_of(backup) or b""
        argv: list[str | Path] = [tools.program("psql"), "--quiet", "--no-psqlrc"]
        where = {**os.environ, **postgres.libpq_environment(server.dsn())}
        subprocess.run(argv, input=roles, env=where, check=True, stderr=subprocess.DEVNULL)
        environment.archive.bucket.fetch(backup.dump, place.workspace.path / "peer.dump", sha256=None)
        yield server
        server.stop()


def _restore_and_count(_: Environment, backup: Backup, server: PostgresServer) -> None:
    file = server.workspace.path / "peer.dump"
    _create_and_restore(server, file, "--jobs=2")
    assert backup.manifest is not None
    with postgres.session(server.dsn("peer")) as session:
        for table in backup.manifest.inventory.tables:
            if table.hash != content.NOT_POPULATED:
                session.rows(f"SELECT count(*) FROM {table.table}")


def _runbook_as_written(environment: Environment, backup: Backup, server: PostgresServer) -> None:
    file = server.workspace.path / "verify.dump"
    with file.open("wb") as into:
        environment.archive.bucket.client.download_fileobj(environment.archive.bucket.name, backup.dump.key, into)
    _create_and_restore(server, file)
    with postgres.session(server.dsn("peer")) as session:
        session.rows("SELECT count(*) FROM public.training_clients")
        session.rows("SELECT count(*) FROM public.audit_logs")
    with postgres.session(server.dsn(), read_only=False) as session:
        session.execute("DROP DATABASE peer")
    file.unlink()


def _create_and_restore(server: PostgresServer, file: Path, *options: str) -> None:
    with postgres.session(server.dsn(), read_only=False) as session:
        session.execute("CREATE DATABASE peer TEMPLATE template0")
    argv: list[str | Path] = [server.tools.program("pg_restore"), "--dbname=peer", *options, file]
    subprocess.run(argv, env={**os.environ, **postgres.libpq_environment(server.dsn("peer"))}, check=True)


def _memory_of_a_backup(scale: float) -> None:
    """Take one backup and say how much memory this process had at most; the servers are other processes."""
    with Sandbox.up(scale=scale, kubernetes=False) as sandbox:
        environment = Environment.of(sandbox.settings)
        taken = environment.take_backup("manual")
        # Not getrusage: on Linux its maximum takes in the process that started this one.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        peak_bytes = int(re.findall(r"VmHWM:\s*(\d+) kB", status)[0]) * 1024
        size = environment.identity().bytes
    print(
        f"peak memory of our process: {peak_bytes / 1e6:.0f} MB for a database of {size / 1e6:.0f} MB, "
        f"a dump of {taken.backup.dump.bytes / 1e6:.0f} MB (promised: below 200 MB, whatever the size)"
    )


def _in_a_process_of_its_own(option: str, scale: float) -> str:
    argv = [sys.executable, "-m", "tests.bench", option, str(scale)]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


def _alternately(
    arms: Mapping[str, Callable[[], object]], rounds: int, *, between: Callable[[], object] = lambda: None
) -> dict[str, list[float]]:
    """Run every arm once to warm up, then all in turn, and return each one's seconds."""
    took: dict[str, list[float]] = {name: [] for name in arms}
    for arm in arms.values():
        arm()
        between()
    for _ in range(rounds):
        for name, arm in arms.items():
            _timed(arm, took[name])
            between()
    return took


def _timed(arm: Callable[[], Result], into: list[float]) -> Result:
    began = time.monotonic()
    result = arm()
    into.append(time.monotonic() - began)
    return result


def _bar(what: str, beside: str, took: Mapping[str, list[float]], ours: str, theirs: str, at_most: float | None) -> Bar:
    ratios = tuple(a / b for a, b in zip(took[ours], took[theirs], strict=True))
    promised = "" if at_most is None else f"at most {at_most:.2f}"
    return Bar(what, beside, ratios, promised, at_most is not None and statistics.median(ratios) <= at_most)


def _seconds(phases: tuple[Phase, ...]) -> str:
    return ", ".join(f"{phase.name} {phase.seconds:.1f} s" for phase in phases)


if __name__ == "__main__":
    main()
