"""The real thing on one machine.

A private PostgreSQL server with a database like TenSafe's, or any other; a private S3 server with a history of
backups in it; and the profile that describes the two. Whoever gets the profile cannot tell it from production's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from runbook_lib.phases import Phase, Stopwatch
from runbook_lib.reach import binaries
from runbook_lib.reach.server import PostgresServer
from runbook_lib.reach.workspace import Workspace
from runbook_lib.sandbox.furnishing import DEFAULT_MAJOR, furnished, primary
from runbook_lib.sandbox.object_store import ObjectStore
from runbook_lib.settings import Settings


@dataclass(frozen=True)
class Sandbox:
    """A sandbox that is up."""

    settings: Settings
    """The profile that describes it."""
    server: PostgresServer
    """The PostgreSQL server, for tests that break something in it."""
    store: ObjectStore
    """The S3 server, likewise."""
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
    ) -> Iterator[Sandbox]:
        """Build a sandbox, and take it down at the end of the block, whatever happens in it.

        :param scale: the size of the TenSafe-like database; 1 is about 90 MB
        :param database: an SQL file or a dump to drill instead of it
        :param tools_directory: where PostgreSQL's programs are; by default they are looked for

        While it is up, the AWS chain of this process holds the sandbox's credentials and no others.
        """
        stopwatch = Stopwatch()
        with Workspace.open() as workspace:
            with stopwatch.phase("servers"):
                tools = binaries.find(major, directory=tools_directory)
                settings = primary(str(workspace.folder("wal_archive")))
                server = PostgresServer.start(workspace, tools, name="primary", settings=settings)
                store = ObjectStore.start(workspace)
            try:
                with furnished(
                    server, store, workspace, stopwatch, name="sandbox", scale=scale, seed=seed, database=database
                ) as profile:
                    yield cls(profile, server, store, stopwatch.phases)
            finally:
                server.stop()
                store.stop()
