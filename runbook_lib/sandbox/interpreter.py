"""Running our own Python in a workspace, unprivileged, wherever that Python is installed.

Some of what a sandbox consists of is Python. A workspace's processes run under an account that nobody else has, and an
interpreter in somebody's home cannot be entered by it; copying one takes longer than a sandbox may take to come up.
Where it is so (and only there), the process is given one capability, to read what it may not: it still owns nothing
and can write nowhere else. It gives that up for whatever it starts, except for programs of that same interpreter.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

from runbook_lib.reach.workspace import Account, Workspace

_PROJECT = Path(__file__).parents[2]
_CAP_DAC_READ_SEARCH = 2
_PR_CAP_AMBIENT = 47
_RAISE, _CLEAR_ALL = 2, 4


def argv(module: str) -> list[str]:
    """Return the command line of one of this project's modules; `environment` belongs to it."""
    return [sys.executable, "-P", "-m", module]


def environment() -> dict[str, str]:
    """Return what our Python needs in its environment to find this project."""
    return {"PYTHONPATH": str(_PROJECT), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}


def start(
    workspace: Workspace, module: str, arguments: Sequence[str | Path] = (), *, log: Path, env: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start one of this project's modules in a workspace, as `Workspace.start` does.

    :param log: the file that its output is appended to
    """
    command: list[str | Path] = [*argv(module), *arguments]
    account = None
    if workspace.account is not None and any(map(_is_closed, (Path(sys.executable), _PROJECT, *_libraries()))):
        own, account = workspace.account, Account(0, 0)
        capability = "+dac_read_search"
        command = [
            *("setpriv", f"--reuid={own.uid}", f"--regid={own.gid}", "--clear-groups"),
            *(f"--inh-caps={capability}", f"--ambient-caps={capability}", "--", *command),
        ]
    return workspace.start(command, log=log, env={**environment(), **env}, account=account)


def give_up_capability() -> None:
    """Have no program that this process starts from now on inherit what it was given to reach its interpreter."""
    _ambient(_CLEAR_ALL, 0)


def pass_on_capability() -> None:
    """Let the program that this process is about to become reach the interpreter as well; between fork and exec."""
    _ambient(_RAISE, _CAP_DAC_READ_SEARCH)


_prctl = ctypes.CDLL(None, use_errno=True).prctl if sys.platform == "linux" else None


def _ambient(what: int, capability: int) -> None:
    """Ask the kernel; where the process has no such capability, it refuses, and there is nothing to be done."""
    if _prctl is not None:
        _prctl(_PR_CAP_AMBIENT, what, capability, 0, 0)


def _libraries() -> list[Path]:
    return [Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")]


def _is_closed(path: Path) -> bool:
    with contextlib.suppress(OSError):
        real = Path(os.path.realpath(path))
        return any(not step.stat().st_mode & 0o001 for step in (real, *real.parents))
    return True
