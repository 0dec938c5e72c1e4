"""What every drill of the matrix needs: a bucket of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from runbook_lib.backup.catalog import Archive
from runbook_lib.reach.objects import Bucket
from tests.backup import real


@pytest.fixture(scope="session")
def bucket() -> Iterator[Bucket]:
    """A versioned bucket on a real S3 server."""
    with real.bucket() as made:
        yield made


@pytest.fixture
def archive(bucket: Bucket, request: pytest.FixtureRequest) -> Archive:
    """An archive of this test's own in it."""
    return Archive(bucket, f"{re.sub(r'[^a-z0-9]+', '-', request.node.name.lower())}/")
