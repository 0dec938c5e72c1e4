"""What every drill of the matrix needs: a bucket of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from runbook_lib.backup.catalog import Archive
from runbook_lib.reach.objects import Bucket
from runbook_lib.reach.workspace import Workspace
from runbook_lib.sandbox.object_store import ObjectStore


@pytest.fixture(scope="session")
def bucket() -> Iterator[Bucket]:
    """A versioned bucket on a real S3 server."""
    with Workspace.open() as workspace:
        store = ObjectStore.start(workspace)
        made = Bucket(
            "backups",
            endpoint_url=store.endpoint_url,
            region=store.region,
            credentials=(store.access_key, store.secret_key),
        )
        made.client.create_bucket(Bucket=made.name)
        made.client.put_bucket_versioning(Bucket=made.name, VersioningConfiguration={"Status": "Enabled"})
        yield made


@pytest.fixture
def archive(bucket: Bucket, request: pytest.FixtureRequest) -> Archive:
    """An archive of this test's own in it."""
    return Archive(bucket, f"{re.sub(r'[^a-z0-9]+', '-', request.node.name.lower())}/")
