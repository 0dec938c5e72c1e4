"""From the name of an environment to its settings.

The one place that knows both kinds: a profile that describes what is there, and a sandbox that is built first and
handed out as a profile like any other. Whoever gets the settings cannot tell which it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runbook_lib.environment import Environment
from runbook_lib.errors import RunbookError
from runbook_lib.evidence.redaction import redacted
from runbook_lib.safety.permit import Asked
from runbook_lib.sandbox import DEFAULT_MAJOR
from runbook_lib.settings import Settings, load

if TYPE_CHECKING:
    from runbook_lib.sandbox.sandbox import Sandbox, Serving

SANDBOX = "sandbox"
"""The name of the environment that is built on this machine."""
CONTAINERS = "containers"
"""The name of the same environment with PostgreSQL in a container."""

GettingReady = Callable[[str], AbstractContextManager[None]]
"""Tells of work that belongs to no scenario."""


@dataclass(frozen=True)
class Wanted:
    """What was asked for."""

    name: str = SANDBOX
    """``sandbox``, ``containers``, the name of a shipped profile, or the path of one."""
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


def described(wanted: Wanted, asked: Asked) -> Mapping[str, str]:
    """Say what an environment is before anything is done to it; what cannot be told yet is said to be so.

    A sandbox is only named: it is built when the first scenario needs it.
    """
    if wanted.name in (SANDBOX, CONTAINERS):
        return {"environment": f"{wanted.name}, built for the first scenario, with PostgreSQL {wanted.major}"}
    try:
        return Environment.of(load(wanted.name), asked=asked, tools_directory=wanted.tools_directory).describe()
    except RunbookError as unusable:
        return {"environment": redacted(str(unusable))}


@contextmanager
def settings_of(wanted: Wanted, *, telling: GettingReady) -> Iterator[Settings]:
    """Yield the settings of an environment, which is built first if it is a sandbox, and taken down afterwards."""
    if wanted.name not in (SANDBOX, CONTAINERS):
        yield load(wanted.name)
        return
    with ExitStack() as stack:
        with telling("the sandbox comes up"):
            sandbox = stack.enter_context(_sandbox(wanted))
        yield sandbox.settings
        with telling("the sandbox goes down"):
            stack.close()


def _sandbox(wanted: Wanted) -> AbstractContextManager[Sandbox]:
    # What a sandbox is built of is for those who ask for one: production needs none of it.
    from runbook_lib.sandbox.sandbox import Sandbox, on_this_machine

    serving: Serving = on_this_machine
    if wanted.name == CONTAINERS:
        from runbook_lib.sandbox.containers import in_a_container

        serving = in_a_container
    return Sandbox.up(
        major=wanted.major,
        scale=wanted.scale,
        seed=wanted.seed,
        database=wanted.database,
        tools_directory=wanted.tools_directory,
        name=wanted.name,
        serving=serving,
    )
