from __future__ import annotations

from collections.abc import Iterator

import pytest

from runbook_lib.restore.restored import RestoredDatabase
from tests.detection import place as places
from tests.detection.place import Place
from tests.detection.scoreboard import Scoreboard

_SCOREBOARD = pytest.StashKey[Scoreboard]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_SCOREBOARD] = Scoreboard()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in config.stash[_SCOREBOARD].lines():
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def scoreboard(pytestconfig: pytest.Config) -> Scoreboard:
    return pytestconfig.stash[_SCOREBOARD]


@pytest.fixture(scope="package")
def place() -> Iterator[Place]:
    with places.opened() as opened:
        yield opened


@pytest.fixture(scope="module")
def restored(place: Place) -> Iterator[RestoredDatabase]:
    """The TenSafe-like database, restored once; its copies are mutated, it is not."""
    restored = places.restored_tensafe(place)
    yield restored
    restored.remove()
