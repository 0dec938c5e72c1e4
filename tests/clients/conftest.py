"""One data directory for all servers of this folder, and a server of each test's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clients.place import Instance, Place, place


@pytest.fixture(scope="package")
def servers() -> Iterator[Place]:
    with place() as made:
        yield made


@pytest.fixture
def primary(servers: Place) -> Iterator[Instance]:
    with servers.primary() as running:
        yield running
