from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.sweep import world as worlds
from tests.sweep.world import World


@dataclass
class Swept:
    """What a sweep of one procedure found, counted before anything is asserted."""

    procedure: str
    positions: int = 0
    killed: int = 0
    recovered: int = 0


_SWEPT = pytest.StashKey[list[Swept]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_SWEPT] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    found = config.stash[_SWEPT]
    if found:
        terminalreporter.write_line(f"{'killed with SIGKILL at every row':<34} positions  killed  recovered as it was")
    for each in found:
        line = f"  {each.procedure:<32} {each.positions:>9}  {each.killed:>6}  {each.recovered:>19}"
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def swept(pytestconfig: pytest.Config) -> list[Swept]:
    return pytestconfig.stash[_SWEPT]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with worlds.opened() as opened:
        yield opened
