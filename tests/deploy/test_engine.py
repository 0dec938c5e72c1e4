"""A private engine is there for one command, and then nothing of it is, however it ended."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from runbook_lib.waiting import wait_for
from tests.deploy.engines import ENGINE, NOWHERE, STARTABLE, private, short_folder, some_engine

STRANGER = 12345
"""A user id without an account."""
UP_SECONDS = 60
GONE_SECONDS = 60
SAYS_HOST = "import os; print(os.environ['DOCKER_HOST'])"
STARTS_A_CONTAINER = """
import io, signal, sys, tarfile, time, docker
client = docker.from_env()
empty = io.BytesIO()
tarfile.open(fileobj=empty, mode="w").close()
client.api.import_image_from_data(empty.getvalue(), repository="nothing", tag="here")
client.containers.create("nothing:here", command=["never"], volumes=["/data"])
def stop(number, _):
    print(f"told {number}", flush=True)
    sys.exit(3)
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)
print("up", flush=True)
while True:
    time.sleep(1)
"""


def command(folder: Path, *inside: str) -> list[str]:
    return [sys.executable, str(ENGINE), "--folder", str(folder), "--", *inside]


def without_one(**extra: str) -> dict[str, str]:
    return {**os.environ, "DOCKER_HOST": NOWHERE, **extra}


@dataclass(frozen=True)
class Traces:
    """What an engine could leave on a machine."""

    processes: frozenset[str]
    """The command lines that name the folder."""
    interfaces: frozenset[str]
    """Its bridge."""
    mounts: frozenset[str]
    """Mounts of an engine's, which are to be seen by nobody outside of it."""
    rules: str
    """The firewall's rules."""
    forwarding: str
    """Whether this machine passes packets on."""
    groups: frozenset[str]
    """Its control groups."""
    sockets: frozenset[str]
    """Sockets in the folder, and what Docker has in /run."""

    @classmethod
    def of(cls, folder: Path) -> Traces:
        """Look for them."""
        found = set()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(folder) in line and int(process.name) != os.getpid():
                found.add(line)
        saved = subprocess.run(["iptables-save"], capture_output=True, text=True, check=False) if STARTABLE else None
        rules = [line for line in (saved.stdout if saved else "").splitlines() if line.startswith("-A")]
        name = f"tensafe-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:6]}"  # others may have one at this moment
        groups = Path("/sys/fs/cgroup")
        mounted = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        return cls(
            frozenset(found),
            frozenset(path.name for path in Path("/sys/class/net").glob(name)),
            frozenset(path for path in mounted if path.startswith((f"{folder}/", "/run/docker", "/run/containerd"))),
            "\n".join(rules),
            Path("/proc/sys/net/ipv4/ip_forward").read_text(),
            frozenset(str(path) for path in [*groups.glob(name), *groups.glob(f"*/{name}")]),
            frozenset(str(path) for path in [*folder.glob("*.sock"), *Path("/run").glob("docker*")]),
        )


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as made:
        yield made


class Held:
    """An engine that is up with a container in it, and its command waits."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            command(folder, sys.executable, "-c", STARTS_A_CONTAINER),
            env=without_one(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "up\n"

    def stop(self, number: signal.Signals) -> str:
        """Send it a signal, and return what the command said to that."""
        self.process.send_signal(number)
        return self.process.communicate(timeout=GONE_SECONDS)[0]


@private
class TestPrivateEngine:
    def test_is_there_for_the_command_and_then_gone(self, folder: Path) -> None:
        before = Traces.of(folder)
        ran = subprocess.run(
            command(folder, sys.executable, "-c", f"{SAYS_HOST}; import docker; print(docker.from_env().ping())"),
            env=without_one(),
            capture_output=True,
            text=True,
            timeout=UP_SECONDS,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.split() == [f"unix://{folder}/docker.sock", "True"]
        assert Traces.of(folder) == before

    def test_passes_the_exit_status_on(self, folder: Path) -> None:
        ran = subprocess.run(command(folder, "sh", "-c", "exit 42"), env=without_one(), timeout=UP_SECONDS, check=False)
        assert ran.returncode == 42

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_told_to_stop_lets_the_command_clean_up_first(self, folder: Path, number: signal.Signals) -> None:
        before = Traces.of(folder)
        held = Held(folder)
        assert Traces.of(folder) != before
        assert held.stop(number) == f"told {number.value}\n"
        assert held.process.returncode == 3
        assert Traces.of(folder) == before

    def test_killed_is_gone_at_once_and_swept_by_the_next(self, folder: Path) -> None:
        before = Traces.of(folder)
        held = Held(folder)
        assert held.stop(signal.SIGKILL) == f"told {signal.SIGTERM.value}\n"
        wait_for(
            "its processes to be gone",
            lambda: Traces.of(folder).processes,
            until=lambda left: not left,
            where=str(folder),
            within_seconds=GONE_SECONDS,
        )
        assert Traces.of(folder).mounts == before.mounts
        assert Traces.of(folder).interfaces != before.interfaces
        counts = (
            "import docker; c = docker.from_env(); print(len(c.containers.list(all=True)), len(c.volumes.list()),"
            " c.images.list()[0].tags)"
        )
        ran = subprocess.run(
            command(folder, sys.executable, "-c", counts),
            env=without_one(),
            capture_output=True,
            text=True,
            timeout=UP_SECONDS,
            check=False,
        )
        assert ran.stdout == "0 0 ['nothing:here']\n", ran.stderr
        assert Traces.of(folder) == before

    def test_that_cannot_be_had_by_an_ordinary_user_is_told(self, folder: Path) -> None:
        reads = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
        ran = subprocess.run(
            [
                *("setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups", *reads),
                *command(folder, "touch", "/tmp/must-not-run"),
            ],
            env=without_one(HOME="/nonexistent", PYTHONDONTWRITEBYTECODE="1"),
            capture_output=True,
            text=True,
            timeout=UP_SECONDS,
            check=False,
        )
        assert ran.returncode == 5
        assert ran.stderr.startswith(f"a Docker engine, {NOWHERE}: could not be checked: ")
        assert "a private one needs root. To fix this: start Docker" in ran.stderr
        assert ran.stderr.count("\n") == 1
        assert not Path("/tmp/must-not-run").exists()


def test_one_that_is_not_installed_is_told(folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("an ordinary user is told something else")
    ran = subprocess.run(
        command(folder, "true"),
        env=without_one(PATH=str(folder)),
        capture_output=True,
        text=True,
        timeout=UP_SECONDS,
        check=False,
    )
    assert ran.returncode == 5
    assert "dockerd, unshare, setpriv are not installed. To fix this: add --install" in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_one_that_answers_already_is_used_and_left_alone(folder: Path) -> None:
    with some_engine() as told:
        asked = [command(folder, sys.executable, "-c", SAYS_HOST), [sys.executable, "-c", "import docker;"]]
        asked[1][-1] += "print(docker.from_env().ping())"
        said = [
            subprocess.run(argv, env={**os.environ, **told}, capture_output=True, text=True, check=True).stdout
            for argv in asked
        ]
    assert said == [f"{told['DOCKER_HOST']}\n" if "DOCKER_HOST" in told else said[0], "True\n"]
    assert list(folder.iterdir()) == []
