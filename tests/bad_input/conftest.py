"""A real database and a real bucket with last night's backup in it, which nothing below may harm."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo

from runbook_lib.backup import dump
from runbook_lib.backup.catalog import Archive, Backup
from runbook_lib.reach import postgres
from runbook_lib.reach.binaries import find
from runbook_lib.reach.objects import Bucket
from runbook_lib.reach.server import FAST, PostgresServer
from runbook_lib.reach.workspace import Workspace
from runbook_lib.safety.mark import MARK
from runbook_lib.safety.permit import Permit
from runbook_lib.sandbox.object_store import ObjectStore
from tests.backup import real
from tests.bad_input.running import Ran, environment, processes_with, runbook

PERMIT = Permit("a test's own archive", granted=True, reason="the test made it")
DRILL = ("features/backup/backup_verification.feature", "-k", "without_an_audit_log")
READ = ("features/backup/automated_backups.feature", "-k", "archived or night")
TAKE = ("features/backup/manual_backup.feature",)


@dataclass(frozen=True)
class World:
    """What a profile can name."""

    server: PostgresServer
    store: ObjectStore
    bucket: Bucket

    @property
    def dsn(self) -> str:
        return self.server.dsn("app")

    @property
    def credentials(self) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": self.store.access_key, "AWS_SECRET_ACCESS_KEY": self.store.secret_key}

    def everything(self) -> list[tuple[str, str, int]]:
        """All that is in the bucket, version by version, and every upload that was never ended."""
        kept = [(each.key, each.version_id, each.bytes) for each in self.bucket.versions()]
        return kept + [(key, "unfinished", 0) for key in self.bucket.unfinished_uploads()]


def lay(bucket: Bucket, prefix: str, backup: Backup, *, taken_at: datetime | None = None, database_bytes: int) -> None:
    """Lay a copy of a backup below a prefix, as the only one there, with another manifest."""
    assert backup.manifest is not None
    stored = bucket.copy(backup.dump.key, f"{prefix}daily/x.dump")
    manifest = replace(
        backup.manifest,
        taken_at=taken_at or backup.taken_at,
        dump=replace(backup.manifest.dump, key=stored.key, version_id=stored.version_id),
        database=replace(backup.manifest.database, bytes=database_bytes),
    )
    bucket.write_once(f"{prefix}daily/x.manifest", manifest.to_bytes(), metadata=MARK)


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    with Workspace.open() as workspace:
        server = PostgresServer.start(workspace, find(17), settings={**FAST, "wal_level": "replica"})
        store = ObjectStore.start(workspace)
        bucket = real.bucket_in(store)
        with postgres.session(server.dsn(), read_only=False) as session:
            session.execute("CREATE DATABASE app")
            session.execute("CREATE ROLE clerk LOGIN PASSWORD 'correct'")
        with postgres.session(server.dsn("app"), read_only=False) as session:
            session.execute("CREATE TABLE public.t (id int PRIMARY KEY, word text)")
            session.execute("INSERT INTO public.t SELECT n, md5(n::text) FROM generate_series(1, 20000) AS n")
            configuration = server.data_directory / "pg_hba.conf"
            configuration.write_text(f"local all clerk scram-sha-256\n{configuration.read_text()}")
            session.execute("SELECT pg_reload_conf()")
        dump.take(server.dsn("app"), Archive(bucket), permit=PERMIT, kind="daily")
        yield World(server, store, bucket)
        server.stop()


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder for temporary files: short, because unix sockets have short names; enterable, because of root."""
    folder = Path(tempfile.mkdtemp(prefix="bad", dir="/tmp"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


class User:
    """Somebody who runs the runbook with a profile of their own."""

    def __init__(self, world: World, folder: Path, temporary: Path) -> None:
        self._world = world
        self._folder = folder
        self._temporary = temporary
        self.said = ""

    def profile(self, **changed: object) -> Path:
        """Write a profile for the world; each argument changes one key, written ``section__key``."""
        told: dict[str, dict[str, object]] = {
            "database": {"dsn": self._world.dsn, "audit_log": False},
            "backups": {
                "bucket": self._world.bucket.name,
                "endpoint_url": self._world.store.endpoint_url,
                "region": self._world.store.region,
            },
            "restore": {"jobs": 1},
            "changes": {"granted": False},
        }
        for key, value in changed.items():
            section, _, name = key.partition("__")
            told[section][name] = value
        lines = ['name = "here"']
        for section, entries in told.items():
            lines += [f"[{section}]", *(f"{name} = {_toml(value)}" for name, value in entries.items())]
        path = self._folder / "here.toml"
        path.write_text("\n".join(lines) + "\n")
        return path

    def runs(self, *arguments: str | Path, profile: Path | None = None, **env: str) -> Ran:
        """Run the runbook, and see that nothing is left behind and that nothing in the bucket is lost."""
        before = self._world.everything()
        surroundings = environment(self._temporary, **{**self._world.credentials, **env})
        options = ("--env", profile) if profile else ()
        ran = runbook(*arguments, *options, reports=self._folder / "reports", env=surroundings)
        assert self._world.everything() == before
        folder = surroundings["TMPDIR"]
        assert list(processes_with(f"TMPDIR={folder}")) == []
        assert [path.name for path in Path(folder).glob("tensafe-*")] == []
        return ran


def _toml(value: object) -> str:
    return (
        {True: "true", False: "false"}[value]
        if isinstance(value, bool)
        else str(value)
        if isinstance(value, int)
        else f"'{value}'"
    )


@pytest.fixture
def user(world: World, tmp_path: Path, temporary: Path) -> User:
    return User(world, tmp_path, temporary)


__all__ = ["DRILL", "READ", "TAKE", "User", "World", "make_conninfo"]
