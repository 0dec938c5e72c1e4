"""How fast WAL comes back: replay through our fetcher, beside pure redo and beside what people do without it.

Pure redo is the floor: the same segments already on the local disk, ``cp`` as restore_command. PostgreSQL's own figure
is taken, the time between the beginning and the end of redo, waiting for restore_command included. The latency is that
of a line which delays every request and costs no processor. All arms replay the same segments in turn, in this very
run; the ratios to the pure redo of the same round are quoted, and never a time of its own.
"""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import statistics
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from runbook_lib.reach import binaries, postgres
from runbook_lib.reach.server import FAST, PostgresServer
from runbook_lib.reach.workspace import Workspace
from runbook_lib.sandbox.object_store import ObjectStore
from runbook_lib.waiting import wait_for
from runbook_lib.wal.archive import WalArchive
from runbook_lib.wal.segment import DEFAULT_SEGMENT_BYTES, lsn_of
from runbook_lib.wal.service import WalService
from tests.wal.place import BUCKET, MAJOR, Store, await_archived, base_backup
from tests.wal.s3_proxy import S3Proxy
from tests.wal.slow_line import SlowLine, open_line

SEGMENTS = 60
LATENCIES_MS = (0, 20, 50)
PROMISED = 0.90
"""How much of the speed of pure redo is promised."""
ARMS: Mapping[str, str] = {
    "ours": "ours: several segments fetched ahead",
    "plain": "one GET a call, by a process that is warm, nothing ahead",
    "seed": "the runbook's own form: a new S3 client a segment",
}
_REDO_DONE = re.compile(r"redo done at \S+ system usage: CPU: .*elapsed: ([\d.]+) s")
_ONE_PROCESS_A_SEGMENT = (
    "import boto3, sys; boto3.client('s3', endpoint_url=sys.argv[1], region_name=sys.argv[2])"
    ".download_file(sys.argv[3], 'wal/' + sys.argv[4], sys.argv[5])"
)


@dataclass(frozen=True)
class Place:
    """What is replayed, and from where."""

    workspace: Workspace
    store: Store
    line: SlowLine
    tools: binaries.PostgresTools
    system_identifier: str
    base: Path
    local: Path
    """The same segments, as files."""
    segments: int
    """How many there are to replay."""


def main(
    *,
    segments: int = SEGMENTS,
    rounds: int = 3,
    latencies_ms: tuple[int, ...] = LATENCIES_MS,
    arms: Mapping[str, str] = ARMS,
) -> None:
    """Replay the same segments by every arm, and print the table."""
    with _place(segments) as place:
        seconds: dict[tuple[str, int], list[float]] = {}
        for turn in range(-1, rounds):  # the first warms the disk's cache, and does not count
            for latency_ms in (0,) if turn < 0 else latencies_ms:
                for arm in ("pure", *arms):
                    if arm == "seed" and turn != 0:
                        continue  # it takes ten times as long, and says the same every time
                    took = _replay(place, arm, latency_ms)
                    if turn >= 0:
                        seconds.setdefault((arm, latency_ms), []).append(took)
        size = place.segments * DEFAULT_SEGMENT_BYTES / 1e6
        pure = [each for (arm, _), times in seconds.items() if arm == "pure" for each in times]
        print(
            f"replay of {place.segments} segments, {size:.0f} MB; pure redo (cp from the local disk) at "
            f"{size / statistics.median(pure):.0f} MB/s; speed as a share of pure redo in the same round:"
        )
        print(f"  {'restore_command':<58} {'latency':>8}  {'median':>6}  {'min .. max':<14} promised")
        for arm, what in arms.items():
            for latency_ms in latencies_ms:
                times = seconds[arm, latency_ms]
                shares = [a / b for a, b in zip(seconds["pure", latency_ms], times, strict=False)]
                median = statistics.median(shares)
                verdict = ("kept" if median >= PROMISED else "NOT KEPT") if arm == "ours" else ""
                promised = f"at least {PROMISED:.2f}  {verdict}" if arm == "ours" else ""
                spread = f"{min(shares):.2f} .. {max(shares):.2f}"
                print(f"  {what:<58} {latency_ms:>5} ms  {median:>6.2f}  {spread:<14} {promised}")


@contextmanager
def _place(segments: int) -> Iterator[Place]:
    with Workspace.open() as workspace:
        tools = binaries.find(MAJOR)
        store = Store(ObjectStore.start(workspace), S3Proxy(""), workspace)
        store.bucket().client.create_bucket(Bucket=BUCKET)
        settings = {**FAST, "wal_level": "replica", "max_wal_senders": "4", "archive_mode": "on"}
        settings |= {"archive_command": "false", "full_page_writes": "on", "hot_standby": "off"}
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
                base = base_backup(server, workspace.path / "base")
                began = _position(session)
                session.execute("CREATE TABLE public.t (id bigint PRIMARY KEY, at timestamptz, filler text)")
                step = 0
                while _position(session) - began < segments * DEFAULT_SEGMENT_BYTES:
                    session.execute(
                        "INSERT INTO public.t SELECT n, now(), repeat(md5(n::text), 4)"
                        " FROM generate_series(%s::bigint * 100000, %s::bigint * 100000 + 99999) n",
                        step,
                        step,
                    )
                    session.execute(
                        "UPDATE public.t SET at = clock_timestamp() WHERE id BETWEEN %s::bigint * 100000 AND"
                        " %s::bigint * 100000 + 99999 AND id %% 5 = 0",
                        step,
                        step,
                    )
                    step += 1
                await_archived(session, session.value("SELECT pg_walfile_name(pg_switch_wal())"))
        server.stop()
        archive = WalArchive(store.bucket(), system_identifier=identifier)
        local = workspace.folder("local")
        numbers = sorted(archive.listing().segments[1])
        for stored in archive.bucket.objects("wal/"):
            name = stored.key.removeprefix("wal/")
            archive.get(name, local / name)
        workspace.give(local)
        with open_line(store.store.endpoint_url) as line:
            yield Place(workspace, store, line, tools, identifier, base, local, len(numbers))
        store.store.stop()


def _position(session: postgres.Session) -> int:
    return lsn_of(session.value("SELECT pg_current_wal_lsn()::text"))


def _replay(place: Place, arm: str, latency_ms: int) -> float:
    """Recover a copy of the base backup to the end of the archive, and return the seconds that PostgreSQL was at it."""
    place.line.latency_seconds = latency_ms / 1000
    folder = place.workspace.folder("recovered")
    data = folder / "data"
    shutil.copytree(place.base, data)
    (data / "recovery.signal").touch()
    place.workspace.give(folder)
    env: Mapping[str, str] = {}
    with _fetching(place, arm, data) if arm in ("ours", "plain") else nullcontext() as service:
        if service is not None:
            command = service.restore_command
        elif arm == "pure":
            command = f"cp {shlex.quote(str(place.local))}/%f %p"
        else:
            env = {**place.store.env, "PYTHONPATH": sysconfig.get_path("purelib"), "PYTHONDONTWRITEBYTECODE": "1"}
            argv = ["/usr/bin/python3", "-c", _ONE_PROCESS_A_SEGMENT, place.line.url, place.store.store.region, BUCKET]
            command = f"{shlex.join(argv)} %f %p"
        with (data / "postgresql.auto.conf").open("a") as configuration:
            for key, value in {
                "restore_command": command,
                "archive_mode": "off",
                "unix_socket_directories": str(folder),
            }.items():
                configuration.write(f"{key} = {postgres.literal(value)}\n")
        log = folder / "log"
        process = place.workspace.start([place.tools.program("postgres"), "-D", data], log=log, env=env)
        try:
            text = wait_for(
                "the recovery to end",
                lambda: log.read_text() if process.poll() is None else _ended(log),
                where=str(log),
                within_seconds=900,
                until=lambda text: "ready to accept connections" in text,
                every_seconds=0.2,
            )
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGQUIT)
                process.wait(timeout=30)
    (elapsed,) = _REDO_DONE.findall(text)
    restored = len(re.findall(r'restored log file "[0-9A-F]{24}"', text))
    assert restored >= place.segments - 1, text[-3000:]
    shutil.rmtree(folder)
    return float(elapsed)


def _ended(log: Path) -> str:
    raise AssertionError(f"the server ended: {log.read_text()[-3000:]}")


@contextmanager
def _fetching(place: Place, arm: str, data: Path) -> Iterator[WalService]:
    with WalService.start(
        place.workspace.folder("fetching"),
        data / "pg_wal",
        bucket=BUCKET,
        endpoint_url=place.line.url,
        region=place.store.store.region,
        system_identifier=place.system_identifier,
        options={} if arm == "ours" else {"segments-ahead": "0"},
        env=place.store.env,
    ) as service:
        yield service


if __name__ == "__main__":
    main()
