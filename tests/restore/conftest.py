from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.backup import real


@pytest.fixture(scope="session")
def databases() -> Iterator[real.Databases]:
    with real.databases() as started:
        yield started
