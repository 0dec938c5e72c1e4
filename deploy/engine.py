"""Run a command with a Docker engine: the one that answers, or a private one for as long as the command runs.

    python deploy/engine.py [--install] [--folder DIR] -- COMMAND...

For CI, and for root on Debian. A private engine is started only where none answers. It lives in namespaces of its own:
its processes, its containers and every mount of theirs are gone with its first process, which the kernel kills with
this one. It makes no firewall rule and turns nothing on in the kernel: its containers are reached through Docker's own
proxy. What namespaces do not take away (a bridge, a socket, some control groups) bears a name made from its folder, and
is removed at the end, or by the next start after a ``kill -9``. Images stay in the folder, so that only the first run
has to build them.

Exit status: the command's own; 5 where there is no engine and none can be started.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import docker

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from runbook_lib.errors import RunbookError, ToolMissing, Unproven  # noqa: E402
from runbook_lib.reach import programs, wheels  # noqa: E402
from runbook_lib.sandbox import engine  # noqa: E402
from runbook_lib.waiting import wait_for  # noqa: E402

UNPROVEN = 5
"""The exit status of "could not be checked", as pytest and the README have it."""
PACKAGES = ("docker.io", "debootstrap")
_NEEDED = ("dockerd", "unshare", "setpriv")
_INSTALL_SECONDS = 900.0
_ANSWER_SECONDS = 10
_START_SECONDS = 60.0
_STOP_SECONDS = 30.0
_KILLED_SECONDS = 10.0
_TURN_SECONDS = 1800.0
"""How long another run's engine is waited for: they share the folder with the images."""
_COMMAND_SECONDS = 180.0
"""How long the command has, once it was told to stop, to clean up."""
_LONGEST_SOCKET_PATH_BYTES = 107
_ADD_BRIDGE, _REMOVE_BRIDGE, _SET_FLAGS = 0x89A0, 0x89A1, 0x8914  # <linux/sockios.h>
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """A signal asked us to stop."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(number)


class PrivateEngine:
    """A Docker engine of our own, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        """Where its images and its log are."""
        self.name = f"tensafe-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:6]}"
        """What its bridge and its control groups are called; an interface's name has at most 15 characters."""
        self.socket = folder / "docker.sock"
        """Where it answers."""
        self._first: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        """What ``DOCKER_HOST`` is to be."""
        return f"unix://{self.socket}"

    @contextlib.contextmanager
    def up(self) -> Iterator[None]:
        """Start it, and take it down at the end of the block, whatever happens in it."""
        with self._alone():
            try:
                self.sweep()
                self._start()
                yield
            finally:
                for number in _STOPPING:  # everything below is bounded
                    signal.signal(number, signal.SIG_IGN)
                self._stop()
                self.sweep()

    def sweep(self) -> None:
        """Remove what is left of it, or of one that was killed in the same folder."""
        for left in _engines_in(self.folder):
            with contextlib.suppress(ProcessLookupError):
                os.kill(left, signal.SIGKILL)  # the first process of its namespace, and so all of them
        wait_for(
            "killed engines to be gone",
            lambda: list(_engines_in(self.folder)),
            until=lambda left: not left,
            where=str(self.folder),
            within_seconds=_KILLED_SECONDS,
        )
        self.socket.unlink(missing_ok=True)
        _remove_bridge(self.name)
        groups = Path("/sys/fs/cgroup")
        for group in [*groups.glob(self.name), *groups.glob(f"*/{self.name}")]:
            for below in [*sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True), group]:
                with contextlib.suppress(OSError):
                    below.rmdir()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the folder: one engine at a time lives in it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if len(os.fsencode(self.socket)) > _LONGEST_SOCKET_PATH_BYTES or self.folder.is_relative_to("/run"):
            raise Unproven(
                "a place for a private Docker engine",
                where=str(self.folder),
                why="its path is too long for a socket, or below /run, which the engine has a private one of",
                remedy="name another folder with --folder, or another cache in RUNBOOK_CACHE",
            )
        lock = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            wait_for(
                "our turn to start an engine",
                lambda: fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB),
                where=str(self.folder),
                within_seconds=_TURN_SECONDS,
                until=lambda _: True,
                every_seconds=0.5,
                ignoring=(BlockingIOError,),
                remedy="end the other run, or name another folder with --folder",
            )
            yield
        finally:
            os.close(lock)

    def _start(self) -> None:
        _add_bridge(self.name)
        inside = 'mount -t tmpfs tmpfs /run && exec "$@"'
        daemon = [
            "dockerd",
            f"--data-root={self.folder / 'data'}",
            f"--host={self.host}",
            f"--bridge={self.name}",
            "--iptables=false",
            "--ip6tables=false",
            "--ip-forward=false",
            "--ip-masq=false",
            f"--cgroup-parent=/{self.name}",
            "--shutdown-timeout=3",
        ]
        namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        log = self.folder / "log"
        with log.open("wb") as opened:
            self._first = first = subprocess.Popen(
                [*_dying_with_us("KILL"), *namespaces, "sh", "-c", inside, "sh", *daemon],
                stdin=subprocess.DEVNULL,
                stdout=opened,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a terminal's Ctrl-C is not for it
            )

        def answers() -> bool:
            if first.poll() is not None:
                said = programs.tail(log.read_text(errors="replace"), 3)
                raise Unproven(
                    "a private Docker engine",
                    where=str(self.folder),
                    why=f"dockerd ended with code {first.returncode}: {said}",
                    remedy="correct what it complains of; in a container it needs --privileged",
                )
            with contextlib.closing(docker.DockerClient(base_url=self.host, timeout=_ANSWER_SECONDS)) as client:
                # What a killed run left in this folder is nobody's. This client asks this engine and no other.
                client.containers.prune()
                client.volumes.prune()
            return True

        wait_for(
            "a private Docker engine to answer",
            answers,
            where=str(self.folder),
            within_seconds=_START_SECONDS,
            every_seconds=0.2,
            ignoring=(docker.errors.DockerException, OSError),
            remedy=f"see {log}",
        )

    def _stop(self) -> None:
        if self._first is None:
            return
        for daemon in _engines_in(self.folder):
            with contextlib.suppress(ProcessLookupError):
                os.kill(daemon, signal.SIGTERM)
        try:
            self._first.wait(timeout=_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._first.kill()
            self._first.wait(timeout=_KILLED_SECONDS)


def _engines_in(folder: Path) -> Iterator[int]:
    """Yield the engines whose data are in this folder; there is one at most, but who knows."""
    bears = os.fsencode(f"--data-root={folder / 'data'}")
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            argv = (process / "cmdline").read_bytes().split(b"\0")
            if os.path.basename(argv[0]) == b"dockerd" and bears in argv:  # noqa: PTH119
                yield int(process.name)


def _add_bridge(name: str) -> None:
    with socket.socket() as any_socket:
        try:
            fcntl.ioctl(any_socket, _ADD_BRIDGE, name.encode() + b"\0")
        except OSError as refused:
            raise Unproven(
                "a network for a private Docker engine",
                where=f"bridge {name}",
                why=refused.strerror or str(refused),
                remedy="run it where root may administer the network; in a container that takes --privileged",
            ) from refused


def _remove_bridge(name: str) -> None:
    if Path("/sys/class/net", name).exists():
        with socket.socket() as any_socket:
            fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sh14x", name.encode(), 0))  # down, or it is busy
            fcntl.ioctl(any_socket, _REMOVE_BRIDGE, name.encode() + b"\0")


def _dying_with_us(name: str) -> list[str]:
    return ["setpriv", "--pdeathsig", name, "--"]


def run(command: list[str]) -> int:
    """Run a command to its end; signals are passed on to it, once, and it is waited for.

    On a terminal it stays in the foreground with us, where Ctrl-C reaches it anyway.
    """
    foreground = os.isatty(0)
    child = subprocess.Popen([*_dying_with_us("TERM"), *command], start_new_session=not foreground)
    try:
        return child.wait()
    except Stopped as asked:
        for number in _STOPPING:
            signal.signal(number, signal.SIG_IGN)
        if not (foreground and asked.number == signal.SIGINT):
            child.send_signal(asked.number)
        try:
            return child.wait(timeout=_COMMAND_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            return child.wait()


def must_be_startable(why_none: str) -> None:
    """Raise `Unproven` unless a private engine can be started here."""
    lacking = [name for name in _NEEDED if shutil.which(name) is None]
    if sys.platform != "linux":
        why, remedy = "a private one needs Linux", "start Docker"
    elif os.geteuid() != 0:
        why, remedy = "a private one needs root", "start Docker, name an engine in DOCKER_HOST, or run this as root"
    elif lacking:
        why = f"{', '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} not installed"
        remedy = f"add --install, or install {' and '.join(PACKAGES)}, or name an engine in DOCKER_HOST"
    else:
        return
    raise Unproven("a Docker engine", where=engine.address(), why=f"{why_none}; {why}", remedy=remedy)


def install() -> None:
    """Install what is missing, by apt."""
    if os.geteuid() != 0 or not (missing := [name for name in (*_NEEDED, "debootstrap") if shutil.which(name) is None]):
        return
    if shutil.which("apt-get") is None:
        raise ToolMissing(
            ", ".join(missing), where="PATH", why="apt-get is not there either", remedy="install them by hand"
        )
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update"], ["install", "--yes", "--no-install-recommends", *PACKAGES]):
        programs.run(
            ["apt-get", "-qq", *arguments],
            sought=f"apt-get {arguments[0]}",
            env=env,
            timeout_seconds=_INSTALL_SECONDS,
        ).must("let apt reach its mirror")


def _asked_to_stop(number: int, _: FrameType | None) -> None:
    raise Stopped(number)


def _why_no_engine() -> str:
    try:
        with engine.connected():
            return ""
    except Unproven as none:
        return none.why


def main(arguments: list[str]) -> int:
    """Do what the command line says, and return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--install", action="store_true", help=f"install {' and '.join(PACKAGES)} if they are missing")
    parser.add_argument("--folder", type=Path, help="where a private engine keeps its images")
    parser.add_argument("command", nargs="+", help="what to run, after --")
    told = parser.parse_args(arguments)
    for number in _STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _asked_to_stop)
    try:
        why = _why_no_engine()
        if why and told.install:
            install()
            why = _why_no_engine()  # what was installed may have started one
        if not why:
            os.execvp(told.command[0], told.command)  # noqa: S606  (the engine is not ours to stop)
        must_be_startable(why)
        private = PrivateEngine((told.folder or wheels.cache_folder() / "engine").resolve())
        with private.up():
            os.environ["DOCKER_HOST"] = private.host
            # Even where this is a container itself, the engine is in it.
            os.environ["TESTCONTAINERS_HOST_OVERRIDE"] = "127.0.0.1"
            os.environ["TESTCONTAINERS_CONNECTION_MODE"] = "docker_host"
            return run(told.command)
    except Stopped as asked:
        return 128 + asked.number
    except RunbookError as error:
        sys.stderr.write(f"{error}\n")
        return UNPROVEN if isinstance(error, Unproven) else 1
    except OSError as error:
        sys.stderr.write(f"{told.command[0]}: {error.strerror}\n")
        return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
