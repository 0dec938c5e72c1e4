"""The front door: what can be asked for, what it acts on, and where the sentences are defined."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from runbook_lib.environment import Environment
from runbook_lib.evidence.collector import RECORD
from runbook_lib.evidence.environment import describe_environment, getting_ready
from runbook_lib.gherkin.effects import effect_of
from runbook_lib.safety.permit import Asked
from runbook_lib.sandbox.choosing import Wanted, described, settings_of

pytest_plugins = [
    "runbook_lib.gherkin.feature_files",
    "runbook_lib.evidence.plugin",
    "steps.proof",
    "steps.backup",
    "steps.wal",
    "steps.moment",
    "steps.restore",
    "steps.table",
    "steps.recovery",
    "steps.keeping",
    "steps.maintenance",
    "steps.reachability",
    "pytester",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that say what a run acts on, and what it may do to it."""
    group = parser.getgroup("runbook")
    group.addoption(
        "--env", default="sandbox", metavar="NAME", help="what to act on: sandbox, containers, or a profile's path"
    )
    group.addoption("--scale", type=float, default=1.0, help="size of the sandbox's database; 1 is about 90 MB")
    group.addoption("--seed", type=int, default=1, help="which of the sandbox's databases")
    group.addoption("--major", type=int, default=17, help="the sandbox's PostgreSQL, 14 to 18")
    group.addoption("--database", type=Path, metavar="FILE", help="an SQL file or a dump to drill in the sandbox")
    group.addoption("--pg-bin", type=Path, metavar="DIR", help="where PostgreSQL's programs are")
    group.addoption(
        "--to",
        default="",
        metavar="MOMENT",
        help="what to recover to: '2026-11-24 12:00:00+00', '0/3000060', 'xid 742'",
    )
    group.addoption("--timeline", type=int, metavar="N", help="the timeline to recover along; by default the newest")
    group.addoption(
        "--table", default="", metavar="TABLE", help="the table that rows vanished from; 'oid 16432' of a dropped one"
    )
    group.addoption(
        "--between",
        nargs=2,
        metavar="TIME",
        help="when they vanished: '2026-11-24 12:00+00' '2026-11-24 13:00+00'; by default within the last hour",
    )
    group.addoption("--allow-changes-to", default="", metavar="CLUSTER", help="the cluster's name, typed in full")
    group.addoption("--reason", default="", metavar="TEXT", help="why it has to be changed, for the journal")
    group.addoption(
        "--plan", action="store_true", help="say what would be changed and how it is taken back; do nothing"
    )


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say which environment, which cluster and which PostgreSQL this is, before anything is done to it."""
    return [f"{name}: {value}" for name, value in described(_wanted(config), _asked(config)).items()]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Reach the environment before a scenario's first step, so that no step is charged with it."""
    for item in items:
        if item.path.suffix == ".feature" and isinstance(item, pytest.Function):
            item.fixturenames.insert(0, "environment")


@pytest.fixture(scope="session")
def reached(pytestconfig: pytest.Config) -> Iterator[Environment]:
    """What the run acts on."""
    with settings_of(_wanted(pytestconfig), telling=partial(getting_ready, pytestconfig)) as settings:
        found = Environment.of(settings, asked=_asked(pytestconfig), tools_directory=pytestconfig.option.pg_bin)
        describe_environment(pytestconfig, found.describe())
        yield found


@pytest.fixture
def environment(reached: Environment, request: pytest.FixtureRequest) -> Environment:
    """What a scenario acts on, held to its tag; that it is what the profile names was compared first."""
    narrowed = reached.for_scenario(request.node.stash[RECORD].name, effect_of(request.node))
    narrowed.establish()
    return narrowed


@pytest.fixture
def moment(pytestconfig: pytest.Config) -> tuple[str, int | None]:
    """The moment to recover to, as it was typed, and the timeline; empty and None where none was."""
    return pytestconfig.option.to, pytestconfig.option.timeline


@pytest.fixture
def vanished(pytestconfig: pytest.Config) -> tuple[str, tuple[str, str] | None]:
    """The table that rows vanished from, and between which times, as they were typed; empty and None by default."""
    between = pytestconfig.option.between
    return pytestconfig.option.table, (between[0], between[1]) if between else None


def _wanted(config: pytest.Config) -> Wanted:
    told = config.option
    return Wanted(told.env, told.major, told.scale, told.seed, told.database, told.pg_bin)


def _asked(config: pytest.Config) -> Asked:
    return Asked(config.option.allow_changes_to, config.option.reason, config.option.plan)
