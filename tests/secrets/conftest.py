from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runbook_lib.reach.binaries import find
from runbook_lib.reach.server import FAST, PostgresServer
from runbook_lib.reach.workspace import Workspace
from runbook_lib.sandbox.object_store import ObjectStore
from tests.backup import real
from tests.secrets.planted import Planted, plant


@pytest.fixture(scope="package")
def planted() -> Iterator[Planted]:
    with Workspace.open() as workspace:
        server = PostgresServer.start(workspace, find(17), settings={**FAST, "wal_level": "replica"})
        store = ObjectStore.start(workspace)
        bucket = real.bucket_in(store)
        yield plant(server, store, bucket)
        server.stop()


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder for temporary files: short, because unix sockets have short names; enterable, because of root."""
    outer = Path(tempfile.mkdtemp(prefix="sec", dir="/tmp"))
    outer.chmod(0o755)
    folder = outer / "t"
    folder.mkdir()
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(outer, ignore_errors=True)
