"""How fast the moment is found: MB of WAL a second, beside pg_waldump alone.

The same segments lie in a real S3 server and, for the other arm, on the local disk. Ours is all that it takes: fetching
each segment and comparing its digest, pg_waldump, counting every row of every transaction. Theirs is pg_waldump over
the local files, its output thrown away: with everything it has to say, as people run it, and with the resource managers
alone that ours asks for.
"""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from runbook_lib.reach import postgres, programs
from runbook_lib.reach.binaries import find
from runbook_lib.reach.server import FAST, PostgresServer
from runbook_lib.reach.workspace import Workspace
from runbook_lib.sandbox.object_store import ObjectStore
from runbook_lib.wal.archive import WalArchive
from runbook_lib.wal.moment import Table, find_the_moment
from runbook_lib.wal.records import ABOUT_ROWS, WalReader
from runbook_lib.wal.segment import DEFAULT_SEGMENT_BYTES, Segment, lsn_of, lsn_text
from runbook_lib.wal.service import WalService
from tests.wal.place import BUCKET, MAJOR, Store, await_archived
from tests.wal.s3_proxy import S3Proxy

MEGABYTES = 320
_SINCE = datetime(2020, 1, 1, tzinfo=UTC)


def main(*, megabytes: int = MEGABYTES, rounds: int = 5) -> None:
    """Read the same WAL by every arm in turn, and print the table."""
    with _place(megabytes) as (reader, table, local, deleter):
        path = reader.path()
        start = min(path.segments) * DEFAULT_SEGMENT_BYTES
        size = (path.end_lsn - start) / 1e6

        def ours() -> None:
            found = find_the_moment(reader, table, _SINCE)
            assert [each.commit.xid for each in found.losses] == [deleter], found.explain()

        def alone(*rmgrs: str) -> Callable[[], None]:
            argv: list[str | Path] = [reader.tools.program("pg_waldump"), "--path", local, "--start", lsn_text(start)]
            argv += ["--end", lsn_text(path.end_lsn), *(f"--rmgr={each}" for each in rmgrs)]

            def arm() -> None:
                subprocess.run(argv, stdout=subprocess.DEVNULL, check=True)

            return arm

        arms = {"ours": ours, "pg_waldump": alone(), "pg_waldump, the same records": alone(*ABOUT_ROWS)}
        took: dict[str, list[float]] = {name: [] for name in arms}
        for turn in range(rounds + 1):  # the first one warms up
            for name, arm in arms.items():
                began = time.monotonic()
                arm()
                if turn:
                    took[name].append(time.monotonic() - began)
        _print(size, took)


def _print(size: float, took: Mapping[str, list[float]]) -> None:
    print(
        f"finding the moment in {size:.0f} MB of pgbench's WAL in S3; MB/s as a share of pg_waldump over local files:"
    )
    print(f"  ours: {size / statistics.median(took['ours']):.0f} MB/s")
    for name, times in took.items():
        if name != "ours":
            shares = [theirs / ours for ours, theirs in zip(took["ours"], times, strict=True)]
            spread = f"{min(shares):.2f} .. {max(shares):.2f}"
            speed = size / statistics.median(times)
            print(f"  beside {name:<30} {speed:>5.0f} MB/s  {statistics.median(shares):>6.2f}  {spread}")


@contextmanager
def _place(megabytes: int) -> Iterator[tuple[WalReader, Table, Path, int]]:
    with Workspace.open() as workspace:
        tools = find(MAJOR)
        store = Store(ObjectStore.start(workspace), S3Proxy(""), workspace)
        store.bucket().client.create_bucket(Bucket=BUCKET)
        settings = {**FAST, "wal_level": "replica", "max_wal_senders": "4", "archive_mode": "on"}
        settings |= {"archive_command": "false", "full_page_writes": "on", "max_connections": "20"}
        server = PostgresServer.start(workspace, tools, name="primary", settings=settings)
        with postgres.session(server.dsn(), read_only=False) as session:
            identifier = session.server().system_identifier
            with WalService.start(
                workspace.folder("primary-wal"),
                server.data_directory / "pg_wal",
                bucket=BUCKET,
                endpoint_url=store.store.endpoint_url,
                region=store.store.region,
                system_identifier=identifier,
                fetches=False,
                env=store.env,
            ) as service:
                session.execute(f"ALTER SYSTEM SET archive_command = {postgres.literal(service.archive_command)}")
                session.execute("SELECT pg_reload_conf()")
                session.execute("CREATE TABLE public.vanishing AS SELECT generate_series(1, 1000) n")
                _pgbench(server, "--initialize", "--scale=10", "--quiet")
                began = _position(session)
                while _position(session) - began < megabytes * 500_000:
                    _pgbench(server, "--client=4", "--time=5", "--no-vacuum")
                session.execute("BEGIN")
                deleter = int(session.value("SELECT pg_current_xact_id()::text"))
                session.execute("DELETE FROM public.vanishing WHERE n <= 77")
                session.execute("COMMIT")
                while _position(session) - began < megabytes * 1_000_000:
                    _pgbench(server, "--client=4", "--time=5", "--no-vacuum")
                await_archived(session, session.value("SELECT pg_walfile_name(pg_switch_wal())"))
            table = Table.living(session, "vanishing")
        server.stop()
        archive = WalArchive(store.bucket(timeout_seconds=30), system_identifier=identifier)
        local = workspace.folder("local")
        for number in archive.listing().segments[1]:
            name = Segment(1, number).name
            archive.get(name, local / name)
        yield WalReader(archive, tools, workspace.folder("runs")), table, local, deleter
        store.store.stop()


def _pgbench(server: PostgresServer, *options: str) -> None:
    argv: list[str | Path] = [server.tools.program("pgbench"), *options]
    env = postgres.libpq_environment(server.dsn())
    programs.run(argv, sought="a load", timeout_seconds=300, env=env).must("look at the server")


def _position(session: postgres.Session) -> int:
    return lsn_of(session.value("SELECT pg_current_wal_lsn()::text"))


if __name__ == "__main__":
    main()
