"""What gives a server its restore_command and its archive_command, and takes them away again.

The work is done by a process of its own (`runbook_lib.wal.serve`), started here and ended here; what PostgreSQL runs
for each file is a shell that first takes what lies ready, proven and under its own name, by a rename; else it asks by
a few lines (`runbook_lib.wal.asking`), and trusts no exit code but theirs:

==================================  ===============  ===============
what happened                       restore_command  archive_command
==================================  ===============  ===============
proven to be done                   0                0
proven not to be in the archive     1                -
anything else, a crash included     255              1
==================================  ===============  ===============

255 stops a recovery (every code above 125 does); 1 ends it, as does 0 without a file. An archive_command is the other
way round: from 126 on PostgreSQL restarts its archiver and counts no failure, so that nobody hears of it.
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from runbook_lib.errors import ToolFailed, ToolMissing
from runbook_lib.reach import programs
from runbook_lib.wal import asking, serve

_READY_SECONDS = 30.0
_STOP_SECONDS = 30.0
_MARGIN_SECONDS = 60.0
"""How much longer than the fetcher's patience an asker waits for an answer."""
_LONGEST_SOCKET_PATH_BYTES = 103


class WalService:
    """A running process that fetches from and puts into a WAL archive for one server.

    Use it as a context manager. Where we are root the server may run under another account: it needs to reach the
    folder given, and nothing else.
    """

    def __init__(self, folder: Path, process: subprocess.Popen[bytes], client: Path, patience_seconds: float) -> None:
        """Stand for a process that is ready; use `start` instead."""
        self.folder = folder
        """The folder with the socket, the asker's script and the log."""
        self._process = process
        self._client = client
        self._wait_seconds = patience_seconds + _MARGIN_SECONDS

    @classmethod
    def start(
        cls,
        folder: Path,
        pg_wal: Path,
        *,
        bucket: str,
        system_identifier: str,
        prefix: str = "wal/",
        endpoint_url: str | None = None,
        region: str | None = None,
        fetches: bool = True,
        patience_seconds: float = 60.0,
        options: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Self:
        """Start the process and return it when it can be asked.

        :param folder: a folder of the server's account, with a short path: ``workspace.folder("wal")``
        :param pg_wal: the server's ``pg_wal``, which must be there
        :param bucket: the archive's bucket; with prefix, endpoint and region as of `WalArchive` and `Bucket`
        :param system_identifier: the identity that every segment must bear
        :param fetches: whether it fetches, too, or only archives
        :param patience_seconds: how long failures are answered by trying again
        :param options: further options of `runbook_lib.wal.serve`, such as ``{"segments-ahead": "4"}``
        :param env: added to our environment, from which the AWS chain takes its credentials

        Raise `ToolFailed` where it does not come up, `ToolMissing` where there is no Python that the server can run.
        """
        socket = folder / "socket"
        if len(os.fsencode(socket)) > _LONGEST_SOCKET_PATH_BYTES:
            raise ToolFailed(
                "a socket to ask for WAL at",
                where=str(socket),
                why="its path is too long",
                remedy="give a folder with a shorter path",
            )
        socket.unlink(missing_ok=True)
        spool = folder / "spool"
        command = [sys.executable, "-P", "-m", serve.__name__, "--bucket", bucket, "--prefix", prefix]
        command += ["--system-identifier", system_identifier, "--folder", str(pg_wal), "--socket", str(socket)]
        command += ["--patience-seconds", str(patience_seconds)]
        command += ["--spool", str(spool)] * fetches
        command += ["--endpoint-url", endpoint_url] if endpoint_url else []
        command += ["--region", region] if region else []
        for name, value in (options or {}).items():
            command += [f"--{name}", value]
        client = _asker(folder)
        log = folder / "log"
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=descriptor,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **(env or {})},
                start_new_session=True,
            )
        finally:
            os.close(descriptor)
        service = cls(folder, process, client, patience_seconds)
        service._must_be_ready(log)
        return service

    @property
    def restore_command(self) -> str:
        """What ``restore_command`` is to be set to."""
        # What lies ready is proven, whole and under its own name: taking it is a rename, and no process asks anybody.
        # The pipe is opened for reading, too, so that a note into it never waits for a reader who may be gone.
        ready, taken = (_quoted(self.folder / "spool" / name) for name in (serve.READY_FOLDER, serve.TAKEN))
        told = f"test -p {taken} && echo '%f' 1<>{taken}"
        take = f"mv -f {ready}/'%f' '%p' 2>/dev/null && test -s '%p' && {{ {told}; exit 0; }}"
        return f"{take}; " + self._command("fetch", f"{asking.DONE}) exit 0;; {asking.ABSENT}) exit 1;; *) exit 255;;")

    @property
    def archive_command(self) -> str:
        """What ``archive_command`` is to be set to."""
        return self._command("push", f"{asking.DONE}) exit 0;; *) exit 1;;")

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    def log_tail(self, lines: int = 15) -> str:
        """Return the last lines of what the process said."""
        with contextlib.suppress(FileNotFoundError):
            return programs.tail((self.folder / "log").read_text(errors="replace"), lines)
        return ""

    def stop(self) -> None:
        """End the process, by the end of its standard input; by killing it where that is not enough."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        try:
            self._process.wait(timeout=_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(timeout=_STOP_SECONDS)
        shutil.rmtree(self.folder / "spool", ignore_errors=True)
        (self.folder / "socket").unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _command(self, verb: str, codes: str) -> str:
        interpreter, script, socket = (_quoted(part) for part in (_interpreter(), self._client, self.folder / "socket"))
        asked = f"{interpreter} -I -S {script} {socket} {self._wait_seconds:.0f} {verb} '%f' '%p'"
        return f"{asked}; case $? in {codes} esac"

    def _must_be_ready(self, log: Path) -> None:
        assert self._process.stdout is not None
        said = b""
        if select.select([self._process.stdout], [], [], _READY_SECONDS)[0]:
            said = self._process.stdout.readline()
        if said != serve.READY:
            self._process.kill()
            self.stop()
            raise ToolFailed(
                "starting what fetches and archives WAL",
                where=str(self.folder),
                why=f"it said {said!r}; the end of its log:\n{self.log_tail()}",
                remedy=f"correct what {log} complains of",
            )


def _asker(folder: Path) -> Path:
    """Put the asker's script where the server's account can read it: the project itself may lie where it cannot."""
    script = folder / "asking.py"
    script.write_bytes(Path(asking.__file__).read_bytes())
    owner = folder.stat()
    if os.geteuid() == 0:
        os.chown(script, owner.st_uid, owner.st_gid)
    script.chmod(0o500)
    return script


def _interpreter() -> Path:
    """Return a Python that another account can run, where we are root; ours may lie in a home."""
    ours = Path(os.path.realpath(sys.executable))
    candidates = [ours, Path("/usr/bin/python3"), Path("/usr/local/bin/python3"), *map(Path, _on_path())]
    for candidate in candidates:
        if os.access(candidate, os.X_OK) and (os.geteuid() != 0 or _open_to_others(candidate)):
            return candidate
    raise ToolMissing(
        "a Python that the server's account can run",
        where=", ".join(map(str, candidates)),
        why="each lies in a folder that other accounts may not enter",
        remedy="install python3 for every account of this machine, or run as an ordinary user",
    )


def _on_path() -> list[str]:
    return [found for name in ("python3",) if (found := shutil.which(name))]


def _open_to_others(program: Path) -> bool:
    real = Path(os.path.realpath(program))
    with contextlib.suppress(OSError):
        return all(step.stat().st_mode & stat.S_IXOTH for step in (real, *real.parents))
    return False


def _quoted(part: Path) -> str:
    """Quote a path for the shell, and its per cent signs for PostgreSQL."""
    return shlex.quote(str(part)).replace("%", "%%")
