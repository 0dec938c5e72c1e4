from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.wal import losses as losing
from tests.wal import place
from tests.wal.place import Primary, Store
from tests.wal.scoreboard import Scoreboard

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
def store() -> Iterator[Store]:
    with place.store() as started:
        yield started


@pytest.fixture(scope="package")
def archived(store: Store) -> Iterator[Primary]:
    """A primary that has archived some forty segments."""
    with place.primary(store) as started:
        yield started


@pytest.fixture(scope="package")
def losses(store: Store) -> Iterator[losing.Losses]:
    """A primary on which rows were lost in every way there is."""
    with losing.lost(store) as happened:
        yield happened


@pytest.fixture
def primary(archived: Primary) -> Iterator[Primary]:
    """The same, with a line to its archive that has no fault."""
    archived.store.proxy.reset()
    yield archived
    archived.store.proxy.reset()
