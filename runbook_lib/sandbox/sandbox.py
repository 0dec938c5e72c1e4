"""The real thing on one machine.

A private PostgreSQL server with a database like TenSafe's, or any other; a private S3 server with a history of
backups in it, a base backup and the WAL since then, which is archived there as long as the server runs; two Kubernetes
clusters, with the application that writes to the database; and the profile that describes them. Whoever gets the
profile cannot tell it from production's.

What PostgreSQL runs in is another module's concern where it is not this machine: see `runbook_lib.sandbox.containers`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import boto3

from runbook_lib.backup import dump
from runbook_lib.backup.catalog import DUMP_SUFFIX, MANIFEST_SUFFIX, Archive
from runbook_lib.backup.manifest import Artefact
from runbook_lib.errors import ToolMissing
from runbook_lib.phases import Phase, Stopwatch
from runbook_lib.reach import binaries, guardian, postgres
from runbook_lib.reach.binaries import PostgresTools
from runbook_lib.reach.kubernetes import Cluster
from runbook_lib.reach.objects import Bucket
from runbook_lib.reach.pipes import producing
from runbook_lib.reach.server import FAST, PostgresServer
from runbook_lib.reach.workspace import Workspace
from runbook_lib.safety.mark import MARK
from runbook_lib.safety.permit import Permit
from runbook_lib.sandbox import DEFAULT_MAJOR, application, loading
from runbook_lib.sandbox.kubernetes.tensafe import Clusters
from runbook_lib.sandbox.object_store import ObjectStore
from runbook_lib.sandbox.tensafe.build import build
from runbook_lib.settings import Archiving, Backups, Changes, Database, Kubernetes, Restore, Settings
from runbook_lib.waiting import wait_for
from runbook_lib.wal import base_backup_taking
from runbook_lib.wal.archive import WalArchive
from runbook_lib.wal.base_backup import BaseBackups
from runbook_lib.wal.service import WalService

BUCKET = "tensafe-backups"
_DATABASE = "tensafe"
_HISTORY_DAYS = 30
_ARCHIVED_WITHIN_SECONDS = 60
_APPLICATION_READY_SECONDS = 60


class Server(Protocol):
    """A PostgreSQL server that is ours, whatever it runs in."""

    @property
    def tools(self) -> PostgresTools:
        """Programs of its major version, on this machine."""

    @property
    def workspace(self) -> Workspace:
        """The workspace that it goes away with."""

    def dsn(self, dbname: str = "postgres") -> str:
        """Return the connection string of one database, as its superuser and without a password."""


Serving = Callable[[PostgresTools, Workspace], AbstractContextManager[Server]]
"""Starts a server with the settings of `primary`, and stops it at the end of the block."""


@contextmanager
def on_this_machine(tools: PostgresTools, workspace: Workspace) -> Iterator[PostgresServer]:
    """Serve from the programs themselves."""
    server = PostgresServer.start(workspace, tools, name="primary", settings=primary())
    try:
        yield server
    finally:
        server.stop()


@dataclass(frozen=True)
class Sandbox:
    """A sandbox that is up."""

    settings: Settings
    """The profile that describes it."""
    server: Server
    """The PostgreSQL server, for tests that break something in it."""
    store: ObjectStore
    """The S3 server, likewise."""
    kubernetes: Clusters | None
    """The two Kubernetes clusters; None where they were not asked for."""
    phases: tuple[Phase, ...]
    """What its start was spent on."""

    @classmethod
    @contextmanager
    def up(
        cls,
        *,
        major: int = DEFAULT_MAJOR,
        scale: float = 1.0,
        seed: int = 1,
        database: Path | None = None,
        tools_directory: Path | None = None,
        kubernetes: bool = True,
        name: str = "sandbox",
        serving: Serving = on_this_machine,
    ) -> Iterator[Sandbox]:
        """Build a sandbox, and take it down at the end of the block, whatever happens in it.

        :param scale: the size of the TenSafe-like database; 1 is about 90 MB
        :param database: an SQL file or a dump to drill instead of it
        :param tools_directory: where PostgreSQL's programs are; by default they are looked for
        :param kubernetes: whether there are Kubernetes clusters, and the application that writes to the database;
            there are none where PostgreSQL does not run on this machine, because the commands in their pods do
        :param name: what the profile is called
        :param serving: what starts its PostgreSQL server

        While it is up, the AWS chain of this process holds the sandbox's credentials and no others, and ``KUBECONFIG``
        leads to its clusters alone.
        """
        stopwatch = Stopwatch()
        with Workspace.open() as workspace, ExitStack() as servers:
            with stopwatch.phase("servers"):
                tools = binaries.find(major, directory=tools_directory)
                # They go down in the opposite order: a server that stops archives its last segment.
                store = ObjectStore.start(workspace)
                servers.callback(store.stop)
                archiving = servers.enter_context(ExitStack())
                server = servers.enter_context(serving(tools, workspace))
                clusters = None
                if kubernetes and isinstance(server, PostgresServer):
                    clusters = Clusters.launch(workspace, server)
                    servers.callback(clusters.stop)
            with _aws_chain(store), clusters.in_environment() if clusters else nullcontext():
                bucket = _bucket(store)
                archive = Archive(bucket)
                settings = _settings(name, server, store, workspace, clusters, audit_log=database is None)
                if isinstance(server, PostgresServer):
                    settings = _archive(server, settings, archiving)
                with stopwatch.phase("database"):
                    with postgres.session(server.dsn(), read_only=False) as session:
                        session.execute(f"CREATE DATABASE {_DATABASE}")
                    if database is None:
                        build(settings.database.dsn, scale=scale, seed=seed)
                        if clusters is not None:
                            _make_room_for_the_application(settings)
                    else:
                        loading.load(settings.database.dsn, database, tools=tools, workspace=workspace)
                with stopwatch.phase("backups"):
                    _take_backups(server, archive, settings)
                if clusters is not None:
                    with stopwatch.phase("kubernetes"):
                        _let_the_application_write(clusters, database)
                    # What it wrote since the base backup can be recovered from now on.
                    _archive_a_segment(server)
                yield cls(settings, server, store, clusters, stopwatch.phases)


def primary() -> Mapping[str, str]:
    """Return the settings of a primary: fast, because it is thrown away, but with WAL and statistics.

    It keeps its WAL until it is given an ``archive_command``.
    """
    return {
        **FAST,
        "wal_level": "replica",
        "max_wal_senders": "5",
        "autovacuum": "on",
        "archive_mode": "on",
        "archive_timeout": "60s",
    }


def into_a_folder(folder: str) -> str:
    """Return the archive_command of PostgreSQL's own manual, for a server that nobody archives for."""
    return f"test ! -f {folder}/%f && cp %p {folder}/%f"


@contextmanager
def _aws_chain(store: ObjectStore) -> Iterator[None]:
    """Put the sandbox's credentials where the AWS chain looks first, and keep it from finding anybody's real ones."""
    ours = {
        "AWS_ACCESS_KEY_ID": store.access_key,
        "AWS_SECRET_ACCESS_KEY": store.secret_key,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    before = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    for name in before:
        del os.environ[name]
    os.environ.update(ours)
    boto3.DEFAULT_SESSION = None  # it keeps the credentials that it found first
    try:
        yield
    finally:
        boto3.DEFAULT_SESSION = None
        for name in ours:
            os.environ.pop(name, None)
        os.environ.update(before)


def _bucket(store: ObjectStore) -> Bucket:
    bucket = Bucket(BUCKET, endpoint_url=store.endpoint_url, region=store.region)
    bucket.client.create_bucket(Bucket=BUCKET)
    bucket.client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    return bucket


def _settings(
    name: str,
    server: Server,
    store: ObjectStore,
    workspace: Workspace,
    clusters: Clusters | None,
    *,
    audit_log: bool,
) -> Settings:
    dsn = server.dsn(_DATABASE)
    with postgres.session(server.dsn()) as session:
        identifier = session.server().system_identifier
    return Settings(
        name=name,
        database=Database(dsn=dsn, system_identifier=identifier, audit_log=audit_log),
        backups=Backups(bucket=BUCKET, endpoint_url=store.endpoint_url, region=store.region),
        restore=Restore(),
        changes=Changes(granted=True, journal=str(workspace.path / "journal")),
        kubernetes=clusters.as_profile() if clusters else Kubernetes(),
        archiving=Archiving(wal_prefix="", base_prefix=""),
    )


def _archive(server: PostgresServer, settings: Settings, archiving: ExitStack) -> Settings:
    """Have the server archive into the bucket, and return the profile that says so.

    Where this machine has no Python that the server's account can run, the WAL goes into a folder, and the profile goes
    on saying that none of it is in the bucket.
    """
    service = archiving.enter_context(
        WalService.start(
            server.workspace.folder("wal"),
            server.data_directory / "pg_wal",
            bucket=BUCKET,
            endpoint_url=settings.backups.endpoint_url,
            region=settings.backups.region,
            system_identifier=settings.database.system_identifier,
            fetches=False,
            env={guardian.MARK: server.workspace.id},  # it ends with its owner by itself; and so does what may be stuck
        )
    )
    told = Archiving()
    try:
        command = service.archive_command
    except ToolMissing:
        told, command = settings.archiving, into_a_folder(str(server.workspace.folder("wal_archive")))
    with postgres.session(server.dsn(), read_only=False) as session:
        session.execute(f"ALTER SYSTEM SET archive_command = {postgres.literal(command)}")
        session.execute("SELECT pg_catalog.pg_reload_conf()")
    return replace(settings, archiving=told)


def _make_room_for_the_application(settings: Settings) -> None:
    with postgres.session(settings.database.dsn, read_only=False) as session:
        for statement in application.PREPARE:
            session.execute(statement)


def _let_the_application_write(clusters: Clusters, database: Path | None) -> None:
    """Bring the application up where the database is ours; somebody else's gets no table that is not in it."""
    clusters.api.await_ready()
    if database is not None:
        return
    clusters.api.scale(clusters.primary_context, clusters.deployment, clusters.replicas)
    with Cluster.connect(
        clusters.primary_context, namespace=clusters.namespace, kubeconfig=str(clusters.kubeconfig)
    ) as cluster:
        cluster.wait_for_replicas(clusters.deployment, clusters.replicas, within_seconds=_APPLICATION_READY_SECONDS)


def _take_backups(server: Server, archive: Archive, settings: Settings) -> None:
    """Take a base backup and last night's dump, and lay a month of older ones below it.

    The older ones are copies of one small backup of an empty database under earlier dates: a month cannot be waited
    for, and what is proven of the history is that it has no hole, not what it holds.
    """
    permit = Permit("sandbox", granted=True, reason="the sandbox lays out its own history")
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="base-backup") as beside:
        base = beside.submit(_take_base_backup, server, archive.bucket, settings, permit)
        _lay_out_history(server, archive, permit)
        base.result()
    dump.take(settings.database.dsn, archive, permit=permit, kind="daily", tools=server.tools)
    _dump_as_others_do(settings.database.dsn, server, archive)
    _archive_a_segment(server)


def _take_base_backup(server: Server, bucket: Bucket, settings: Settings, permit: Permit) -> None:
    """Take what recoveries begin from, where there is an archive that they can go on along."""
    told = settings.archiving
    if told.wal_prefix:
        archive = WalArchive(bucket, told.wal_prefix, system_identifier=settings.database.system_identifier)
        backups = BaseBackups(bucket, told.base_prefix)
        base_backup_taking.take(server.dsn(), backups, permit=permit, archive=archive, tools=server.tools)


def _lay_out_history(server: Server, archive: Archive, permit: Permit) -> None:
    with postgres.session(server.dsn(), read_only=False) as session:
        session.execute("CREATE DATABASE before_the_first_night")
    past = dump.take(
        server.dsn("before_the_first_night"), archive, permit=permit, kind="history", tools=server.tools
    ).backup
    with postgres.session(server.dsn(), read_only=False) as session:
        session.execute("DROP DATABASE before_the_first_night")
    assert past.manifest is not None
    for days in range(1, _HISTORY_DAYS + 1):
        taken_at = past.taken_at - timedelta(days=days)
        key = archive.key("daily", taken_at)
        copied = archive.bucket.copy(past.dump.key, key + DUMP_SUFFIX)
        artefact = Artefact(copied.key, copied.version_id, copied.bytes, past.manifest.dump.sha256)
        manifest = replace(past.manifest, taken_at=taken_at, dump=artefact)
        archive.bucket.write_once(key + MANIFEST_SUFFIX, manifest.to_bytes(), metadata=MARK)
    for stored in archive.bucket.objects(f"{archive.prefix}history/"):
        archive.bucket.remove(stored.key)


def _dump_as_others_do(dsn: str, server: Server, archive: Archive) -> None:
    """Put a dump into the archive that nobody wrote a manifest for: the runbook's own text makes such ones."""
    argv: list[str | Path] = [server.tools.program("pg_dump"), "--format=custom", "--compress=1"]
    key = f"{archive.key('others', datetime.now(UTC))}{DUMP_SUFFIX}"
    with producing(argv, sought="a dump without a manifest", env=postgres.libpq_environment(dsn)) as producer:
        archive.bucket.write_stream(
            key, producer.output, accept=lambda: producer.must_have_succeeded("look at the sandbox's server")
        )


def _archive_a_segment(server: Server) -> None:
    """Have what was written so far archived, with a transaction in it: an empty segment is neither ended nor sent."""
    with postgres.session(server.dsn(), read_only=False) as session:
        session.execute("SELECT pg_catalog.pg_logical_emit_message(true, 'runbook', 'archived up to here')")
        name = session.value("SELECT pg_catalog.pg_walfile_name(pg_catalog.pg_switch_wal())")
        wait_for(
            f"the WAL segment {name} to be archived",
            lambda: session.value("SELECT coalesce(last_archived_wal, '') FROM pg_catalog.pg_stat_archiver") >= name,
            where=postgres.describe(server.dsn()),
            within_seconds=_ARCHIVED_WITHIN_SECONDS,
        )
