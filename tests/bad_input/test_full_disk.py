"""A disk that is full, or becomes full, where the drill restores to: unproven, because the backup may be perfect."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runbook_lib.backup import dump
from runbook_lib.backup.catalog import Archive
from runbook_lib.reach import postgres
from tests.bad_input.conftest import DRILL, PERMIT, User, World, lay
from tests.bad_input.test_profiles import must_say
from tests.small_disk import small_disk


@pytest.fixture
def disk(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A disk of as many MiB as the parameter says."""
    with small_disk(f"{request.param}m") as mounted:
        yield mounted


@pytest.fixture(scope="session")
def big(world: World) -> str:
    """The prefix of a backup that needs 60 MB when it is restored, and whose manifest says that it needs none."""
    with postgres.session(world.server.dsn(), read_only=False) as session:
        session.execute("CREATE DATABASE big")
    with postgres.session(world.server.dsn("big"), read_only=False) as session:
        session.execute("CREATE TABLE public.t AS SELECT n, repeat('x', 200) FROM generate_series(1, 200000) AS n")
        session.execute("CREATE INDEX ON public.t (n)")
    taken = dump.take(world.server.dsn("big"), Archive(world.bucket, "big/"), permit=PERMIT, kind="taken").backup
    lay(world.bucket, "big/", taken, database_bytes=0)
    return "big/"


@pytest.mark.parametrize("disk", [8, 80], indirect=True)
def test_there_is_no_room(disk: Path, user: User) -> None:
    ran = user.runs(*DRILL, profile=user.profile(restore__folder=str(disk)))
    must_say(ran, "room for s3://backups/postgres/daily/", str(disk), "0.1 GB are needed", "free space there")


@pytest.mark.parametrize("disk", [110, 116, 122], indirect=True)
def test_the_disk_becomes_full_during_the_restore(disk: Path, big: str, user: User) -> None:
    """At each of these sizes something else is the first to find no room: rows, WAL, an index."""
    ran = user.runs(*DRILL, profile=user.profile(restore__folder=str(disk), backups__prefix=big))
    must_say(ran, "room for s3://backups/big/daily/", str(disk), "no room: ", "free space there")
