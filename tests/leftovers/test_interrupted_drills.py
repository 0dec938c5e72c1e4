"""A drill that is stopped, at whatever moment and by whatever signal, leaves nothing behind and never looks green.

The moments are held still by the database that is drilled: it waits in the middle of its own load, of its restore, or
of its comparison. So the signal arrives while the real work is under way, however fast or slow the machine is.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from runbook_lib.reach.binaries import find
from runbook_lib.waiting import wait_for
from tests.bad_input.running import PROJECT, environment, processes_with

REACHED_SECONDS = 120
ENDED_SECONDS = 90
SOCKETS = Path("/tmp")
"""Where SeaweedFS leaves its sockets."""
STRANGER = 12345
"""A user id without an account."""

COMPARING = "current_setting('application_name') = 'runbook/compare'"


@dataclass(frozen=True)
class Moment:
    """A point at which the drill stands still."""

    sql: str
    """The database that is drilled."""
    seen: tuple[bytes, ...]
    """What the title of the server process that waits has in it."""


SLEEPS = """
CREATE TABLE public.t (n int);
INSERT INTO public.t VALUES (1);
CREATE FUNCTION public.waits() RETURNS bool LANGUAGE plpgsql AS $$
BEGIN
    IF current_database() = 'tensafe_verify' AND {condition} THEN PERFORM pg_catalog.pg_sleep(1000); END IF;
    RETURN true;
END $$;
"""
MOMENTS = {
    "the sandbox comes up": Moment(
        SLEEPS.format(condition="false") + "SELECT pg_sleep(1000);", (b" tensafe ", b"SELECT")
    ),
    "the restore": Moment(
        SLEEPS.format(condition="true") + "ALTER TABLE public.t ADD CHECK (public.waits());",
        (b" tensafe_verify ", b"COPY"),
    ),
    "the comparison": Moment(
        SLEEPS.format(condition=COMPARING)
        + "CREATE MATERIALIZED VIEW public.m AS SELECT n FROM public.t WHERE public.waits();",
        (b" tensafe_verify ", b"SELECT"),
    ),
}


class Drill:
    """A drill that runs in a process of its own."""

    def __init__(self, folder: Path, moment: Moment, *, project: Path = PROJECT, stranger: bool = False) -> None:
        self.temporary = folder / "t"
        self.reports = folder / "reports"
        self.home = folder / "home"
        for made in (self.temporary, self.reports, self.home):
            made.mkdir()
            if stranger:
                os.chown(made, STRANGER, STRANGER)
        database = folder / "given.sql"
        database.write_text(moment.sql)
        argv = [
            sys.executable,
            "-m",
            "pytest",
            "features/backup/backup_verification.feature",
            "-k",
            "without_an_audit_log",
        ]
        argv += ["--database", str(database), "--reports", str(self.reports), "--pg-bin", str(find(17).bin)]
        if stranger:
            read_all = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
            argv = ["setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups", *read_all, *argv]
        self.log = folder / "log"
        self._sockets_of_others = set(SOCKETS.glob("seaweedfs-*.sock"))
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                argv,
                cwd=project,
                env=environment(self.temporary, HOME=str(self.home)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._moment = moment

    def wait_until_there(self) -> None:
        """Wait until the drill stands still."""

        def there() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return any(self._title(pid) for pid in processes_with(f"TMPDIR={self.temporary}"))

        wait_for("the drill to stand still", there, where=str(self.log), within_seconds=REACHED_SECONDS)

    def _title(self, pid: int) -> bool:
        try:
            title = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return False
        return title.startswith(b"postgres: ") and all(word in title for word in self._moment.seen)

    def ports(self) -> set[int]:
        """The TCP ports that its processes listen on."""
        inodes = set()
        for pid in processes_with(f"TMPDIR={self.temporary}"):
            for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
                try:
                    inodes.add(str(descriptor.readlink()))
                except OSError:
                    continue
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
        sockets = [line.split() for line in lines]
        return {
            int(each[1].split(":")[1], 16) for each in sockets if each[3] == "0A" and f"socket:[{each[9]}]" in inodes
        }

    def must_leave_nothing(self, ports: set[int]) -> None:
        """See that, within a bound, no process, port or file of it is there any more."""

        def left() -> list[str]:
            found = [f"process {pid}" for pid in processes_with(f"TMPDIR={self.temporary}")]
            found += [str(path) for path in self.temporary.iterdir()]
            found += [f"port {port}" for port in listening() & ports]
            sockets = {path for port in ports for path in SOCKETS.glob(f"seaweedfs-*-{port}.sock")}
            return found + [str(path) for path in sorted(sockets - self._sockets_of_others)]

        wait_for(
            "everything to be gone",
            left,
            until=lambda found: not found,
            where=str(self.temporary),
            within_seconds=ENDED_SECONDS,
        )
        assert [path.name for path in self.home.iterdir()] == []

    @property
    def outcome(self) -> str:
        """What the summary says."""
        path = self.reports / "summary.json"
        return str(json.loads(path.read_text())["outcome"])


def listening() -> set[int]:
    sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(each[1].split(":")[1], 16) for each in sockets if each[3] == "0A"}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path, because unix sockets are in it."""
    made = Path(tempfile.mkdtemp(prefix="left", dir="/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def stop(drill: Drill, number: signal.Signals) -> None:
    try:
        drill.wait_until_there()
        ports = drill.ports()
        assert ports, "the sandbox's S3 server listens"
        drill.process.send_signal(number)
        code = drill.process.wait(timeout=ENDED_SECONDS)
        drill.must_leave_nothing(ports)
    finally:
        drill.process.kill()
        drill.process.wait()
    if number is signal.SIGKILL:
        assert (code, drill.outcome) == (-signal.SIGKILL, "running")
    else:
        assert (code, drill.outcome) == (int(pytest.ExitCode.INTERRUPTED), "interrupted"), drill.log.read_text()
        assert "Traceback" not in drill.log.read_text()


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_drill(number: signal.Signals, moment: str, folder: Path) -> None:
    stop(Drill(folder, MOMENTS[moment]), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_drill_of_an_ordinary_user(number: signal.Signals, folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("these tests run as an ordinary user already")
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not there, which starts a program as another user")
    project = folder / "project"
    shutil.copytree(PROJECT, project, ignore=shutil.ignore_patterns(".*", "reports", "tests", "__pycache__"))
    stop(Drill(folder, MOMENTS["the restore"], project=project, stranger=True), number)


def test_a_drill_that_ends_by_itself(folder: Path) -> None:
    drill = Drill(folder, Moment("CREATE TABLE public.t (n int);", ()))
    code = drill.process.wait(timeout=REACHED_SECONDS)
    drill.must_leave_nothing(set())
    assert (code, drill.outcome) == (0, "proven"), drill.log.read_text()
