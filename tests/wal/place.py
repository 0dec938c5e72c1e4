"""A primary that archives into a real S3 server through our door, a base backup of it, and recoveries from both."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from runbook_lib.errors import RunbookError
from runbook_lib.reach import binaries, postgres, programs
from runbook_lib.reach.objects import Bucket
from runbook_lib.reach.server import FAST, PostgresServer
from runbook_lib.reach.workspace import Workspace
from runbook_lib.sandbox.object_store import ObjectStore
from runbook_lib.waiting import wait_for
from runbook_lib.wal.archive import WalArchive
from runbook_lib.wal.segment import lsn_of
from runbook_lib.wal.service import WalService
from tests.wal.s3_proxy import S3Proxy, running

BUCKET = "tensafe-backups"
MAJOR = 17
SEGMENT_BYTES = 1 << 20
"""As small as they can be made: what is proven here is not their size."""
ROWS_A_STEP = 600
TARGET = "before_the_mistake"
_RECOVERED_WITHIN_SECONDS = 60

ARCHIVING: Mapping[str, str] = {
    **FAST,
    "wal_level": "replica",
    "max_wal_senders": "4",
    "archive_mode": "on",
    "archive_command": "false",
    "shared_buffers": "16MB",
    "wal_buffers": "1MB",
    "min_wal_size": "4MB",
    "full_page_writes": "on",
}


@dataclass(frozen=True)
class Store:
    """A real S3 server with one bucket, and a line to it that can fail."""

    store: ObjectStore
    proxy: S3Proxy
    workspace: Workspace

    @property
    def env(self) -> dict[str, str]:
        """What the AWS chain of a process is to find, and nothing else."""
        return {
            "AWS_ACCESS_KEY_ID": self.store.access_key,
            "AWS_SECRET_ACCESS_KEY": self.store.secret_key,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def bucket(self, *, through_proxy: bool = False, attempts: int = 2, timeout_seconds: int = 2) -> Bucket:
        return Bucket(
            BUCKET,
            endpoint_url=self.proxy.url if through_proxy else self.store.endpoint_url,
            region=self.store.region,
            credentials=(self.store.access_key, self.store.secret_key),
            attempts=attempts,
            timeout_seconds=timeout_seconds,
            compares_digests=True,
        )


@contextmanager
def store() -> Iterator[Store]:
    with Workspace.open() as workspace:
        started = ObjectStore.start(workspace)
        with running(started.endpoint_url) as proxy:
            made = Store(started, proxy, workspace)
            made.bucket().client.create_bucket(Bucket=BUCKET)
            yield made
        started.stop()


@dataclass(frozen=True)
class Primary:
    """A server that archives, and what it wrote."""

    store: Store
    server: PostgresServer
    service: WalService
    archive: WalArchive
    """The archive, reached past the proxy."""
    system_identifier: str
    base: Path
    """A base backup, taken before most of the WAL."""
    late_base: Path
    """Another one, with a quarter of the WAL after it."""
    rows: int
    """How many rows there are at the end of the archive."""
    rows_at_target: int
    """How many there are at the restore point `TARGET`, near the end."""
    between: str
    """A segment between the later base backup and the target."""
    last: str
    """The name of the last segment."""


@contextmanager
def primary(
    store: Store,
    *,
    steps: int = 40,
    prefix: str = "wal/",
    name: str = "primary",
    settings: Mapping[str, str] = ARCHIVING,
) -> Iterator[Primary]:
    """Start a primary, and have it write and archive more than a segment a step, with two base backups on the way."""
    workspace = store.workspace
    tools = binaries.find(MAJOR)
    initdb = ["--wal-segsize=1"]
    server = PostgresServer.start(workspace, tools, name=name, settings=settings, initdb_args=initdb)
    with postgres.session(server.dsn(), read_only=False) as session:
        identifier = session.server().system_identifier
        service = WalService.start(
            workspace.folder(f"{name}-wal"),
            server.data_directory / "pg_wal",
            bucket=BUCKET,
            prefix=prefix,
            endpoint_url=store.proxy.url,
            region=store.store.region,
            system_identifier=identifier,
            fetches=False,
            options={"segment-bytes": str(SEGMENT_BYTES), "request-seconds": "5"},
            env=store.env,
        )
        try:
            session.execute(f"ALTER SYSTEM SET archive_command = {postgres.literal(service.archive_command)}")
            session.execute("SELECT pg_reload_conf()")
            session.execute("CREATE TABLE public.t (step int, n int, filler text)")
            base = base_backup(server, workspace.path / f"{name}-base")
            late_base, rows_at_target, between = base, 0, ""
            for step in range(steps):
                session.execute(
                    "INSERT INTO public.t SELECT %s, n, repeat(md5(n::text), 40) FROM generate_series(1, %s) n",
                    step,
                    ROWS_A_STEP,
                )
                if step == steps - 10:
                    late_base = base_backup(server, workspace.path / f"{name}-late-base")
                if step == steps - 5:
                    between = session.value("SELECT pg_walfile_name(pg_current_wal_lsn())")
                if step == steps - 2:
                    session.execute(f"SELECT pg_create_restore_point('{TARGET}')")
                    rows_at_target = session.value("SELECT count(*) FROM public.t")
            last = session.value("SELECT pg_walfile_name(pg_switch_wal())")
            await_archived(session, last)
            archive = WalArchive(store.bucket(), prefix, system_identifier=identifier, segment_bytes=SEGMENT_BYTES)
            rows = session.value("SELECT count(*) FROM public.t")
            yield Primary(
                store, server, service, archive, identifier, base, late_base, rows, rows_at_target, between, last
            )
        finally:
            server.stop()
            service.stop()


def await_archived(session: postgres.Session, name: str) -> None:
    wait_for(
        f"{name} to be archived",
        lambda: session.value("SELECT coalesce(last_archived_wal, '') FROM pg_stat_archiver") >= name,
        where=session.dsn,
        within_seconds=60,
    )


def base_backup(server: PostgresServer, into: Path) -> Path:
    """Take a base backup without its WAL: a recovery from it depends on the archive alone."""
    argv: list[str | Path] = [server.tools.program("pg_basebackup"), "-D", into, "--wal-method=none", "--no-sync"]
    argv += ["--checkpoint=fast", "--no-manifest"]
    env = postgres.libpq_environment(server.dsn())
    programs.run(argv, sought="a base backup", timeout_seconds=60, env=env).must("look at the primary")
    return into


@dataclass(frozen=True)
class Recovered:
    """How a recovery ended."""

    promoted: bool
    """Whether the server came up and takes writes; else it ended by itself."""
    rows: int
    """How many rows it has; 0 where it ended."""
    replayed_lsn: int
    """The position it came to; 0 where it ended."""
    timeline: int
    """The timeline it is on; 0 where it ended."""
    log: str
    """What it said."""


_numbers = itertools.count(1)


@contextmanager
def fetching(
    primary: Primary, data: Path, *, name: str, options: Mapping[str, str] | None = None
) -> Iterator[WalService]:
    """Open our door beside a server that is going to recover."""
    store = primary.store
    defaults = {"segment-bytes": str(SEGMENT_BYTES), "request-seconds": "1", "segments-ahead": "4"}
    with WalService.start(
        store.workspace.folder(name),
        data / "pg_wal",
        bucket=BUCKET,
        prefix=primary.archive.prefix,
        endpoint_url=store.proxy.url,
        region=store.store.region,
        system_identifier=primary.system_identifier,
        patience_seconds=0.4,
        options={**defaults, **(options or {})},
        env=store.env,
    ) as service:
        yield service


def recover(
    primary: Primary,
    *,
    base: Path | None = None,
    settings: Mapping[str, str] | None = None,
    options: Mapping[str, str] | None = None,
    restore_command: str = "",
    query: str = "SELECT count(*) FROM public.t",
    on_start: Callable[[WalService], object] = lambda _: None,
) -> Recovered:
    """Recover a copy of a base backup from the archive through the proxy, and say how it ended.

    :param base: by default the later one
    :param settings: such as a target; without one it recovers to the end of the WAL
    :param restore_command: another one than ours
    :param query: what counts the rows
    :param on_start: does something to what fetches, before the server starts
    """
    workspace = primary.store.workspace
    number = next(_numbers)
    folder = workspace.folder(f"r{number}")
    data = folder / "data"
    shutil.copytree(base or primary.late_base, data)
    (data / "recovery.signal").touch()
    workspace.give(folder)
    with fetching(primary, data, name=f"w{number}", options=options) as service:
        lines = {
            "restore_command": restore_command or service.restore_command,
            "archive_mode": "off",
            "unix_socket_directories": str(folder),
            "recovery_target_action": "promote",
            **(settings or {}),
        }
        with (data / "postgresql.auto.conf").open("a") as configuration:
            for key, value in lines.items():
                configuration.write(f"{key} = {postgres.literal(value)}\n")
        on_start(service)
        server = PostgresServer(workspace, primary.server.tools, folder)
        process = workspace.start([server.tools.program("postgres"), "-D", data], log=server.log)
        try:

            def ended() -> Recovered | None:
                if process.poll() is not None:
                    return Recovered(False, 0, 0, 0, server.log.read_text())
                with postgres.session(server.dsn()) as session:
                    if session.value("SELECT pg_is_in_recovery()"):
                        return None
                    return Recovered(
                        True,
                        session.value(query),
                        lsn_of(session.value("SELECT pg_last_wal_replay_lsn()::text")),
                        session.value("SELECT timeline_id FROM pg_control_recovery(), pg_control_checkpoint()"),
                        server.log.read_text(),
                    )

            found = wait_for(
                "the recovery to end",
                ended,
                where=str(folder),
                within_seconds=_RECOVERED_WITHIN_SECONDS,
                every_seconds=0.1,
                ignoring=(RunbookError, postgres.DriverError),
            )
            assert found is not None
            return found
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGQUIT)
                process.wait(timeout=20)
            shutil.rmtree(folder)
