"""Running the runbook as a user does, and seeing how it ended and what it left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[2]
_RUN_SECONDS = 240


@dataclass(frozen=True)
class Ran:
    """A run that has ended."""

    exit_code: int
    """What pytest returned."""
    output: str
    """All that it wrote to the terminal."""
    summary: Mapping[str, Any]
    """``summary.json``; empty where there is none."""

    @property
    def outcome(self) -> str:
        """The outcome that the summary tells."""
        return str(self.summary.get("outcome", "none"))

    @property
    def reasons(self) -> list[str]:
        """Why the scenarios did not end well."""
        return [each["reason"] for each in self.summary.get("scenarios", []) if each["reason"]]


def environment(temporary: Path, **extra: str) -> dict[str, str]:
    """The environment of a user who has configured nothing.

    :param temporary: the folder for temporary files
    """
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "RUNBOOK_CACHE") if name in os.environ}
    return {
        **kept,
        "TMPDIR": str(temporary),
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "PYTHONDONTWRITEBYTECODE": "1",
        **extra,
    }


def runbook(*arguments: str | Path, reports: Path, env: Mapping[str, str], project: Path = PROJECT) -> Ran:
    """Run the runbook with some options, in a process of its own."""
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *map(str, arguments), "--reports", str(reports)],
        cwd=project,
        env=dict(env),
        capture_output=True,
        text=True,
        timeout=_RUN_SECONDS,
        check=False,
    )
    path = reports / "summary.json"
    summary = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return Ran(ran.returncode, ran.stdout + ran.stderr, summary)


def processes_with(variable: str) -> Iterator[int]:
    """Yield the ids of the processes that bear a variable, written ``NAME=value``, or live below its value."""
    folder = variable.partition("=")[2]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            bears = os.fsencode(variable) in (process / "environ").read_bytes().split(b"\0")
            inside = str((process / "cwd").readlink()).startswith(f"{folder}/")
        except OSError:
            continue
        if bears or inside:
            yield int(process.name)


def left_in(folder: Path) -> list[str]:
    """Everything in a folder, by name."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
