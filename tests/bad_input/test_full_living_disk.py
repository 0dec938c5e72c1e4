"""A disk that becomes full under the living database, or under a table's restore: no fault of the backup, and no harm.

The living server's WAL lies elsewhere, as it should: a full disk of WAL is a stopped server, whoever filled it.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from runbook_lib.backup import dump
from runbook_lib.backup.catalog import Archive, Backup
from runbook_lib.environment import Environment
from runbook_lib.errors import NoRoom
from runbook_lib.phases import Progress
from runbook_lib.reach import postgres
from runbook_lib.reach.binaries import find
from runbook_lib.reach.server import FAST, PostgresServer
from runbook_lib.reach.workspace import Workspace
from runbook_lib.restore.full_restore import FullRestore, Place
from runbook_lib.restore.scratch import Scratch
from runbook_lib.restore.table_backup import TableBackup
from runbook_lib.safety import journal
from runbook_lib.safety.permit import Asked
from runbook_lib.settings import load
from tests.bad_input.conftest import PERMIT, World
from tests.bad_input.test_full_disk import disk

__all__ = ["disk"]
ROWS = 60_000
TABLE = "public.t"


@dataclass(frozen=True)
class Living:
    """A living database whose disk is small."""

    environment: Environment
    backup: Backup
    disk: Path
    workspace: Workspace

    @contextmanager
    def full(self, *, leaving_mb: int) -> Iterator[None]:
        """Have somebody else fill the disk."""
        with filled(self.disk, self.workspace, leaving_mb=leaving_mb):
            yield

    def look(self) -> tuple[object, ...]:
        """The table row by row and version by version, the databases, and the schemas."""
        with self.environment.systems.inside(read_only=True) as session:
            rows = session.value(f"SELECT md5(string_agg(xmin::text || ctid::text, ' ' ORDER BY ctid)) FROM {TABLE}")
            databases = session.rows("SELECT datname, datallowconn FROM pg_database ORDER BY 1")
            schemas = session.rows("SELECT nspname FROM pg_namespace WHERE nspname NOT LIKE 'pg_temp%%' ORDER BY 1")
        left = [
            each for record in journal.read_all(self.environment.settings.journal_folder) for each in record.outstanding
        ]
        return rows, databases, schemas, left


@contextmanager
def filled(disk: Path, workspace: Workspace, *, leaving_mb: int) -> Iterator[None]:
    filler = disk / "filler"
    try:
        with filler.open("wb") as file, suppress(OSError):  # others fill it at the same time
            while (more := workspace.free_bytes - leaving_mb * 1_000_000) > 0:
                file.write(bytes(min(more, 1_000_000)))
                file.flush()
        yield
    finally:
        filler.unlink()


def move_wal(server: PostgresServer, workspace: Workspace, elsewhere: Path) -> None:
    elsewhere.chmod(0o711)
    wal = server.data_directory / "pg_wal"
    moved = shutil.copytree(wal, elsewhere / "wal")
    shutil.rmtree(wal)
    workspace.give(moved)
    wal.symlink_to(moved)


@pytest.fixture
def living(disk: Path, world: World, tmp_path: Path) -> Iterator[Living]:
    with Workspace.open(parent=disk) as workspace, tempfile.TemporaryDirectory(prefix="wal", dir="/tmp") as elsewhere:
        server = PostgresServer.start(
            workspace, find(17), settings={**FAST, "wal_level": "replica"}, initdb_args=["--wal-segsize=1"]
        )
        server.stop()
        move_wal(server, workspace, Path(elsewhere))
        server._launch()
        with postgres.session(server.dsn(), read_only=False) as session:
            session.execute("CREATE DATABASE app")
            identifier = session.server().system_identifier
        with postgres.session(server.dsn("app"), read_only=False) as session:
            session.execute(
                f"CREATE TABLE {TABLE} AS SELECT n AS id, repeat(md5(n::text), 6) AS word"
                f" FROM generate_series(1, {ROWS}) AS n"
            )
            session.execute(f"ALTER TABLE {TABLE} ADD PRIMARY KEY (id)")
            session.execute("CHECKPOINT")
        archive = Archive(world.bucket, f"living{identifier}/")
        backup = dump.take(server.dsn("app"), archive, permit=PERMIT, kind="daily").backup
        profile = tmp_path / "living.toml"
        profile.write_text(
            f"""
name = "living"
cluster = "tensafe-living"
[database]
dsn = "{server.dsn("app")}"
system_identifier = "{identifier}"
[backups]
bucket = "{world.bucket.name}"
[restore]
jobs = 1
[changes]
journal = "{tmp_path / "journal"}"
"""
        )
        settings = load(str(profile))
        environment = replace(Environment.of(settings, asked=Asked(settings.cluster_name, "a test")), archive=archive)
        yield Living(environment, backup, disk, workspace)
        server.stop()


@pytest.mark.parametrize("disk", [200], indirect=True)
def test_it_becomes_full_under_the_living_database(living: Living) -> None:
    """First while a copy is restored beside it, then while rows are merged into it; both go well when there is room."""
    environment, backup = living.environment, living.backup
    place = Place("app", "primary", "tensafe-api", 30, timedelta(days=7))
    before = living.look()

    def restore_beside() -> str:
        acts = FullRestore.of(backup, place, datetime.now(UTC), environment.identity())
        with environment.procedure("replace the database", [acts.make]) as procedure:
            procedure.do(acts.make)
            restored = environment.restore_beside(backup, acts.make.database)
            assert restored.restored.holds()
            return restored.name

    with living.full(leaving_mb=14), pytest.raises(NoRoom) as raised:
        restore_beside()
    assert "beside the living database" in str(raised.value)
    assert "No space left on device" in str(raised.value)
    assert living.look() == before
    assert restore_beside().startswith("app_new_")
    assert living.look() == before  # it was not kept

    with Scratch.open() as scratch:
        restored = environment.restore_table_into_scratch(environment.table_backup(backup, "t"), "table_t", scratch)
        with environment.systems.inside() as session:
            session.execute(f"DELETE FROM {TABLE} WHERE id > 1000")
        before = living.look()
        found = environment.review(restored)
        with living.full(leaving_mb=4), pytest.raises(NoRoom, match="No space left on device"):
            environment.merge(found, restored)
        assert living.look() == before
        assert environment.merge(found, restored).merged.inserted == ROWS - 1000


@pytest.mark.parametrize("disk", [320], indirect=True)
def test_it_becomes_full_under_a_table_that_is_restored(disk: Path, world: World) -> None:
    """Somebody else fills the disk of the scratch once the restore has begun."""
    backup = Archive(world.bucket).newest()
    with postgres.session(world.dsn) as session:
        held = TableBackup.of(backup, "t", dump.identify(session))
    filling, once = ExitStack(), threading.Lock()

    with Scratch.open(parent=disk) as scratch, filling:

        def watch(progress: Progress) -> None:
            if progress.phase == "fetch" and once.acquire(blocking=False):
                filling.enter_context(filled(disk, scratch.workspace, leaving_mb=3))

        with pytest.raises(NoRoom, match="No space left on device") as raised:
            held.into_scratch("tensafe_table", archive=Archive(world.bucket), scratch=scratch, watch=watch)
        assert str(disk) in str(raised.value)
    assert list(disk.iterdir()) == []
    with Scratch.open(parent=disk) as scratch:
        again = held.into_scratch("tensafe_table", archive=Archive(world.bucket), scratch=scratch)
        assert again.database.restored.holds()
