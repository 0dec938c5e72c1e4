"""Running a program to its end, with a deadline, and keeping what it said.

An exit code is a claim, and a tail of the error output is usually the only witness; so both are kept together in one
value, and whoever needs success says so with `CommandResult.must`. There is never a shell: no name of a table or a
database can become a command.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runbook_lib.errors import ToolFailed, ToolMissing, WaitTimedOut
from runbook_lib.reach.workspace import Account, Workspace
from runbook_lib.secrecy import said_by_postgresql

_TAIL_LINES = 15


@dataclass(frozen=True)
class CommandResult:
    """A program that has run to its end."""

    sought: str
    """What it was run for, as the object of a sentence: "listing the dump's table of contents"."""
    argv: tuple[str, ...]
    """The program and its arguments."""
    returncode: int
    """Its exit code; negative where a signal ended it."""
    stdout: str
    """What it printed."""
    stderr: str
    """What it printed as errors, warnings and remarks."""
    seconds: float
    """How long it ran."""

    @property
    def succeeded(self) -> bool:
        """Whether it claims success."""
        return self.returncode == 0

    def must(self, remedy: str) -> CommandResult:
        """Return this result where the program claims success, else raise `ToolFailed` with the end of its errors."""
        if self.succeeded:
            return self
        ended = f"exit code {self.returncode}" if self.returncode > 0 else f"signal {-self.returncode}"
        said = tail(self.stderr or self.stdout) or "it said nothing"
        raise ToolFailed(self.sought, where=self.argv[0], why=f"{ended}: {said}", remedy=remedy)


def run(
    argv: Sequence[str | Path],
    *,
    sought: str,
    timeout_seconds: float,
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    workspace: Workspace | None = None,
    account: Account | None = None,
    inherit: bool = True,
    on_start: Callable[[subprocess.Popen[bytes]], object] = lambda _: None,
) -> CommandResult:
    """Run a program to its end.

    :param argv: the program and its arguments
    :param sought: what it is run for, as the object of a sentence, for the error
    :param timeout_seconds: after which it and its children are killed
    :param env: variables to add to its environment
    :param stdin: what it reads; nothing by default
    :param workspace: where to run it, unprivileged and with a scrubbed environment; by default it runs as we do
    :param account: whom to run it as instead of the workspace's own account, where we are root
    :param inherit: whether it finds our environment, where it runs in no workspace, or ``PATH`` alone
    :param on_start: told of the process, for whoever may have to kill it from another thread

    Raise `ToolMissing` where it cannot be started, and `WaitTimedOut` where it does not end in time.
    """
    arguments = tuple(os.fspath(argument) for argument in argv)
    streams: dict[str, Any] = {
        "stdin": subprocess.DEVNULL if stdin is None else subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
    }
    began = time.monotonic()
    if workspace is not None:
        child = workspace.spawn(arguments, env=env, account=account, **streams)
    else:
        child = _spawn(arguments, sought, {**_surroundings(inherit=inherit), **(env or {})}, streams)
    on_start(child)
    with child:  # closes the pipes even where a stray grandchild still holds their other ends
        try:
            stdout, stderr = child.communicate(stdin, timeout=timeout_seconds)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)  # it leads a group of its own
            if isinstance(error, subprocess.TimeoutExpired):
                said = tail(_text(error.stderr)) or "nothing"
                raise WaitTimedOut(
                    sought,
                    where=arguments[0],
                    why=f"still running after {timeout_seconds:g} s, and killed; it said last: {said}",
                    remedy="find out what it waits for, or allow more time",
                ) from error
            raise
    return CommandResult(sought, arguments, child.returncode, _text(stdout), _text(stderr), time.monotonic() - began)


def start_as_we_are(
    argv: Sequence[str | Path], *, sought: str, env: Mapping[str, str], **streams: Any
) -> subprocess.Popen[bytes]:
    """Start a program with our own environment, less the cloud's credentials, in a session of its own.

    :param env: variables to add
    :param streams: ``stdin``, ``stdout`` and ``stderr`` of `subprocess.Popen`

    Raise `ToolMissing` where it cannot be started.
    """
    ours = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return _spawn(tuple(os.fspath(argument) for argument in argv), sought, {**ours, "LC_ALL": "C", **env}, streams)


def tail(text: str, lines: int = _TAIL_LINES) -> str:
    """Return the last lines of what a program said, without blank ones and without the rows that PostgreSQL quotes."""
    return "\n".join([line for line in said_by_postgresql(text).splitlines() if line.strip()][-lines:])


def _surroundings(*, inherit: bool) -> dict[str, str]:
    ours = os.environ if inherit else {"PATH": os.environ.get("PATH", os.defpath)}
    return {**ours, "LANG": "C", "LC_ALL": "C", "TZ": "UTC"}


def _spawn(
    arguments: tuple[str, ...], sought: str, env: Mapping[str, str], streams: dict[str, Any]
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(arguments, env=env, start_new_session=True, **streams)
    except OSError as error:
        raise ToolMissing(
            sought, where=arguments[0], why=error.strerror or str(error), remedy="install it, or give its folder"
        ) from error


def _text(output: bytes | None) -> str:
    return (output or b"").decode(errors="replace")
