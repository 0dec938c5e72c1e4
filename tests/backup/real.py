"""Real parts that tests of several folders use: a server to make databases on, and a bucket."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runbook_lib.reach import postgres
from runbook_lib.reach.binaries import find
from runbook_lib.reach.objects import Bucket
from runbook_lib.reach.postgres import Session
from runbook_lib.reach.server import FAST, PostgresServer
from runbook_lib.reach.workspace import Workspace
from runbook_lib.sandbox.object_store import ObjectStore


class Databases:
    """Makes databases on a private server, and forgets them."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self._numbers = itertools.count(1)

    def make(self, *statements: str, like: str = "template0", creation: str = "") -> str:
        """Make a database and return its connection string.

        :param like: the name of the database that it is a copy of
        """
        name = f"made{next(self._numbers)}"
        with postgres.session(self.server.dsn(), read_only=False) as session:
            session.execute(f"CREATE DATABASE {name} TEMPLATE {like} {creation}")
        dsn = self.server.dsn(name)
        with postgres.session(dsn, read_only=False) as session:
            for statement in statements:
                session.execute(statement)
        return dsn

    @contextmanager
    def session(self, *statements: str) -> Iterator[Session]:
        """Make a database and open a session on it that may write."""
        with postgres.session(self.make(*statements), read_only=False) as session:
            yield session


@contextmanager
def databases(major: int = 17, *, directory: Path | None = None) -> Iterator[Databases]:
    """Start a private server."""
    with Workspace.open() as workspace:
        settings = {**FAST, "wal_level": "replica", "shared_buffers": "32MB"}
        server = PostgresServer.start(workspace, find(major, directory=directory), settings=settings)
        yield Databases(server)
        server.stop()


@contextmanager
def bucket(*, versioned: bool = True) -> Iterator[Bucket]:
    """Start a private S3 server with one bucket."""
    with Workspace.open() as workspace:
        store = ObjectStore.start(workspace)
        yield bucket_in(store, versioned=versioned)


def bucket_in(store: ObjectStore, *, versioned: bool = True) -> Bucket:
    """Make the one bucket of an S3 server."""
    made = Bucket(
        "backups",
        endpoint_url=store.endpoint_url,
        region=store.region,
        credentials=(store.access_key, store.secret_key),
    )
    made.client.create_bucket(Bucket=made.name)
    if versioned:
        made.client.put_bucket_versioning(Bucket=made.name, VersioningConfiguration={"Status": "Enabled"})
    return made
