"""One cluster for all tests here, brought back to its steady state before each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from runbook_lib.failover.members import MemberAddress
from runbook_lib.failover.steady_state import SteadyState, steady_state
from runbook_lib.reach import binaries
from runbook_lib.reach.binaries import PostgresTools
from runbook_lib.reach.workspace import Workspace
from runbook_lib.sandbox.patroni.cluster import MIB, PatroniCluster

MAJOR = 17
HEALED_SECONDS = 60.0


@pytest.fixture(scope="package")
def tools() -> PostgresTools:
    return binaries.find(MAJOR)


@pytest.fixture(scope="package")
def running(tools: PostgresTools) -> Iterator[PatroniCluster]:
    with Workspace.open() as workspace, PatroniCluster.up(workspace, tools) as cluster:
        yield cluster


@pytest.fixture
def cluster(running: PatroniCluster) -> PatroniCluster:
    running.await_steady(within_seconds=HEALED_SECONDS)
    return running


def addresses_of(cluster: PatroniCluster) -> list[MemberAddress]:
    return [MemberAddress(member.name, member.dsn()) for member in cluster.members]


def state_of(cluster: PatroniCluster, *more: MemberAddress, follows: bool = False) -> SteadyState:
    return steady_state(
        [cluster.api(member.name, timeout_seconds=2) for member in cluster.members],
        [*addresses_of(cluster), *more],
        maximum_lag_bytes=MIB,
        follows=follows,
        within_seconds=2,
    )


def spoken(state: SteadyState) -> set[tuple[str, str, str]]:
    """What speaks against it: check, subject, outcome."""
    return {(finding.check, finding.subject, finding.outcome.value) for finding in state.findings}
