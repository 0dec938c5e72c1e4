"""What every sandbox holds, whatever its PostgreSQL runs in: a bucket, a database and a month of backups.

A sandbox differs from another by where its server comes from. All that makes it worth a drill is laid out here, by
the same code for each, so that what is proven in one is proven in the other.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from runbook_lib.backup import dump
from runbook_lib.backup.catalog import DUMP_SUFFIX, MANIFEST_SUFFIX, MARK, Archive
from runbook_lib.backup.manifest import Artefact
from runbook_lib.phases import Stopwatch
from runbook_lib.reach import postgres
from runbook_lib.reach.binaries import PostgresTools
from runbook_lib.reach.objects import Bucket
from runbook_lib.reach.pipes import producing
from runbook_lib.reach.server import FAST
from runbook_lib.reach.workspace import Workspace
from runbook_lib.safety.permit import Permit
from runbook_lib.sandbox import loading
from runbook_lib.sandbox.object_store import ObjectStore
from runbook_lib.sandbox.tensafe.build import build
from runbook_lib.settings import Backups, Changes, Database, Restore, Settings
from runbook_lib.waiting import wait_for

DEFAULT_MAJOR = 17
BUCKET = "tensafe-backups"
_DATABASE = "tensafe"
_HISTORY_DAYS = 30
_ARCHIVED_WITHIN_SECONDS = 30


class Server(Protocol):
    """A PostgreSQL server that is empty, and ours."""

    @property
    def tools(self) -> PostgresTools:
        """Client programs of its major version."""

    def dsn(self, dbname: str = "postgres") -> str:
        """Return the connection string of one database, as its superuser and without a password."""


@contextmanager
def furnished(
    server: Server,
    store: ObjectStore,
    workspace: Workspace,
    stopwatch: Stopwatch,
    *,
    name: str,
    scale: float,
    seed: int,
    database: Path | None,
) -> Iterator[Settings]:
    """Lay out the database and its backups, and hand out the profile that describes them.

    :param name: the name that the profile gets
    :param scale: the size of the TenSafe-like database; 1 is about 90 MB
    :param database: an SQL file or a dump to drill instead of it

    Until the end of the block the AWS chain of this process holds the sandbox's credentials and no others.
    """
    with _aws_chain(store):
        archive = Archive(_bucket(store))
        settings = _settings(name, server, store, audit_log=database is None)
        with stopwatch.phase("database"):
            with postgres.session(server.dsn(), read_only=False) as session:
                session.execute(f"CREATE DATABASE {_DATABASE}")
            if database is None:
                build(settings.database.dsn, scale=scale, seed=seed)
            else:
                loading.load(settings.database.dsn, database, tools=server.tools, workspace=workspace)
        with stopwatch.phase("backups"):
            _take_backups(server, archive, settings)
        yield settings


def primary(archive: str) -> Mapping[str, str]:
    """Return the settings of a primary: fast, because it is thrown away, but with WAL, an archive and statistics.

    :param archive: the folder that it archives its WAL to
    """
    return {
        **FAST,
        "wal_level": "replica",
        "max_wal_senders": "5",
        "autovacuum": "on",
        "archive_mode": "on",
        "archive_command": f"test ! -f {archive}/%f && cp %p {archive}/%f",
        "archive_timeout": "60s",
    }


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
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)
        os.environ.update(before)


def _bucket(store: ObjectStore) -> Bucket:
    bucket = Bucket(BUCKET, endpoint_url=store.endpoint_url, region=store.region)
    bucket.client.create_bucket(Bucket=BUCKET)
    bucket.client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    return bucket


def _settings(name: str, server: Server, store: ObjectStore, *, audit_log: bool) -> Settings:
    dsn = server.dsn(_DATABASE)
    with postgres.session(server.dsn()) as session:
        identifier = session.server().system_identifier
    return Settings(
        name=name,
        database=Database(dsn=dsn, system_identifier=identifier, audit_log=audit_log),
        backups=Backups(bucket=BUCKET, endpoint_url=store.endpoint_url, region=store.region),
        restore=Restore(),
        changes=Changes(granted=True),
    )


def _take_backups(server: Server, archive: Archive, settings: Settings) -> None:
    """Take last night's backup, and lay a month of older ones below it.

    The older ones are copies of one small backup of an empty database under earlier dates: a month cannot be waited
    for, and what is proven of the history is that it has no hole, not what it holds.
    """
    permit = Permit(settings.name, granted=True, reason="the sandbox lays out its own history")
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
    dump.take(settings.database.dsn, archive, permit=permit, kind="daily", tools=server.tools)
    _dump_as_others_do(settings.database.dsn, server, archive)
    _archive_a_segment(server)


def _dump_as_others_do(dsn: str, server: Server, archive: Archive) -> None:
    """Put a dump into the archive that nobody wrote a manifest for: the runbook's own text makes such ones."""
    argv: list[str | Path] = [server.tools.program("pg_dump"), "--format=custom", "--compress=1"]
    key = f"{archive.key('others', datetime.now(UTC))}{DUMP_SUFFIX}"
    with producing(argv, sought="a dump without a manifest", env=postgres.libpq_environment(dsn)) as producer:
        archive.bucket.write_stream(
            key, producer.output, accept=lambda: producer.must_have_succeeded("look at the sandbox's server")
        )


def _archive_a_segment(server: Server) -> None:
    with postgres.session(server.dsn(), read_only=False) as session:
        session.execute("SELECT pg_catalog.pg_switch_wal()")
        wait_for(
            "the first WAL segment to be archived",
            lambda: session.value("SELECT archived_count FROM pg_catalog.pg_stat_archiver"),
            where=postgres.describe(server.dsn()),
            within_seconds=_ARCHIVED_WITHIN_SECONDS,
        )
