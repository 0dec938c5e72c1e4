"""The front door: what can be asked for, what it acts on, and where the sentences are defined."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

from runbook_lib.environment import Environment
from runbook_lib.evidence.environment import describe_environment, getting_ready
from runbook_lib.sandbox.sandbox import Sandbox, Serving, on_this_machine
from runbook_lib.settings import Settings, load

pytest_plugins = ["runbook_lib.gherkin.feature_files", "runbook_lib.evidence.plugin", "steps.backup", "pytester"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that say what a run acts on."""
    group = parser.getgroup("runbook")
    group.addoption(
        "--env", default="sandbox", metavar="NAME", help="what to act on: sandbox, containers, or a profile's path"
    )
    group.addoption("--scale", type=float, default=1.0, help="size of the sandbox's database; 1 is about 90 MB")
    group.addoption("--seed", type=int, default=1, help="which of the sandbox's databases")
    group.addoption("--major", type=int, default=17, help="the sandbox's PostgreSQL, 14 to 18")
    group.addoption("--database", type=Path, metavar="FILE", help="an SQL file or a dump to drill in the sandbox")
    group.addoption("--pg-bin", type=Path, metavar="DIR", help="where PostgreSQL's programs are")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Reach the environment before a scenario's first step, so that no step is charged with it."""
    for item in items:
        if item.path.suffix == ".feature" and isinstance(item, pytest.Function):
            item.fixturenames.insert(0, "environment")


@pytest.fixture(scope="session")
def environment(pytestconfig: pytest.Config) -> Iterator[Environment]:
    """What the run acts on."""
    with _settings(pytestconfig) as settings:
        reached = Environment.of(settings, tools_directory=pytestconfig.option.pg_bin)
        describe_environment(pytestconfig, reached.describe())
        yield reached


@contextmanager
def _settings(config: pytest.Config) -> Iterator[Settings]:
    if config.option.env not in {"sandbox", "containers"}:
        yield load(config.option.env)
        return
    with ExitStack() as stack:
        with getting_ready(config, "the sandbox comes up"):
            sandbox = stack.enter_context(_sandbox(config.option))
        yield sandbox.settings
        with getting_ready(config, "the sandbox goes down"):
            stack.close()


def _sandbox(option: Namespace) -> AbstractContextManager[Sandbox]:
    serving: Serving = on_this_machine
    if option.env == "containers":
        from runbook_lib.sandbox.containers import in_a_container  # Docker's libraries are for those who ask for it

        serving = in_a_container
    return Sandbox.up(
        major=option.major,
        scale=option.scale,
        seed=option.seed,
        database=option.database,
        tools_directory=option.pg_bin,
        name=option.env,
        serving=serving,
    )
