"""Running the runbook, and keeping everything that it told anybody: on paper, and while it ran in its process list."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from runbook_lib.reach import guardian
from tests.bad_input.running import PROJECT

_LOOK_SECONDS = 0.02
_RUN_SECONDS = 120
LOUD = ("-vv", "--full-trace", "--showlocals", "--log-level=DEBUG")
"""All that pytest has to be told more than is good for anybody."""


@dataclass(frozen=True)
class Told:
    """What a run told."""

    exit_code: int
    places: Mapping[str, bytes]
    """By place: ``terminal``, ``argv``, ``environment``, and every file that was written."""

    @property
    def terminal(self) -> str:
        return self.places["terminal"].decode(errors="replace")


class _ProcessList:
    """What anybody on the machine can see of the processes that come and go."""

    def __init__(self) -> None:
        self.argv: set[bytes] = set()
        self.environment: set[bytes] = set()
        """Of the processes in a private workspace alone: the others run as whoever runs the runbook."""
        self._seen: set[str] = set()
        self._over = threading.Event()
        self._looking = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> _ProcessList:
        self._looking.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._looking.join()

    def _look(self) -> None:
        while not self._over.wait(_LOOK_SECONDS):
            for process in os.scandir("/proc"):
                if process.name.isdecimal():
                    self._look_at(process.name)

    def _look_at(self, pid: str) -> None:
        try:
            self.argv.add(Path(f"/proc/{pid}/cmdline").read_bytes())
            if pid not in self._seen:
                environment = Path(f"/proc/{pid}/environ").read_bytes()
                if f"{guardian.MARK}=".encode() in environment:
                    self.environment.add(environment)
                    self._seen.add(pid)  # before it became another program, it had its parent's environment
        except OSError:
            return


def run(
    *arguments: str | Path,
    folder: Path,
    temporary: Path,
    env: Mapping[str, str],
    project: Path = PROJECT,
    program: Sequence[str] = ("pytest",),
    interrupt: Callable[[int], bool] | None = None,
) -> Told:
    """Run pytest on a project, and keep what it tells.

    :param folder: where its reports, its journals and its Allure results go
    :param temporary: its folder for temporary files, which is searched for what is left there
    :param interrupt: asked again and again whether the moment for Ctrl-C has come
    """
    reports = (
        ["--reports", folder / "reports", "--alluredir", folder / "allure", "--junitxml", folder / "junit.xml"]
        if program == ("pytest",)
        else []
    )
    output = folder / "terminal"
    with _ProcessList() as seen, output.open("wb") as written:
        process = subprocess.Popen(
            [sys.executable, "-m", *program, *map(str, arguments), *map(str, reports)],
            cwd=project,
            env={**env, "XDG_STATE_HOME": str(folder / "state")},
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=subprocess.STDOUT,
        )
        try:
            waited = 0.0
            while interrupt is not None and process.poll() is None and waited < _RUN_SECONDS:
                if interrupt(process.pid):
                    process.send_signal(signal.SIGINT)
                    break
                seen._over.wait(0.1)
                waited += 0.1
            code = process.wait(timeout=_RUN_SECONDS)
        finally:
            process.kill()
            process.wait()
    places = {"argv": b"\n".join(seen.argv), "environment": b"\n".join(seen.environment)}
    for root in (folder, temporary):
        places |= {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        places[f"names in {root.name}"] = "\n".join(map(str, root.rglob("*"))).encode()
    return Told(code, places)
