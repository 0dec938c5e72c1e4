from __future__ import annotations

from collections.abc import Iterator

import pytest

from runbook_lib.reach.objects import Bucket
from tests.backup import real


@pytest.fixture(scope="session")
def databases() -> Iterator[real.Databases]:
    with real.databases() as started:
        yield started


@pytest.fixture(scope="session")
def bucket() -> Iterator[Bucket]:
    with real.bucket() as started:
        yield started
