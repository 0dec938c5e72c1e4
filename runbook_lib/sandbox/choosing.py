"""From the name of an environment to its settings.

The one place that knows both kinds: a profile that describes what is there, and a sandbox that is built first and
handed out as a profile like any other. Whoever gets the settings cannot tell which it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from runbook_lib.sandbox.sandbox import DEFAULT_MAJOR, Sandbox
from runbook_lib.settings import Settings, load

SANDBOX = "sandbox"
"""The name of the environment that is built on this machine."""

GettingReady = Callable[[str], AbstractContextManager[None]]
"""Tells of work that belongs to no scenario."""


@dataclass(frozen=True)
class Wanted:
    """What was asked for."""

    name: str = SANDBOX
    """``sandbox``, the name of a shipped profile, or the path of one."""
    major: int = DEFAULT_MAJOR
    """The sandbox's PostgreSQL."""
    scale: float = 1.0
    """The size of the sandbox's database; 1 is about 90 MB."""
    seed: int = 1
    """Which of the sandbox's databases."""
    database: Path | None = None
    """An SQL file or a dump to use in the sandbox instead."""
    tools_directory: Path | None = None
    """Where PostgreSQL's programs are; None to look for them."""


@contextmanager
def settings_of(wanted: Wanted, *, telling: GettingReady) -> Iterator[Settings]:
    """Yield the settings of an environment, which is built first if it is a sandbox, and taken down afterwards."""
    if wanted.name != SANDBOX:
        yield load(wanted.name)
        return
    with ExitStack() as stack:
        with telling("the sandbox comes up"):
            up = Sandbox.up(
                major=wanted.major,
                scale=wanted.scale,
                seed=wanted.seed,
                database=wanted.database,
                tools_directory=wanted.tools_directory,
            )
            sandbox = stack.enter_context(up)
        yield sandbox.settings
        with telling("the sandbox goes down"):
            stack.close()
