"""What PostgreSQL runs answers 0 and 1 for what is proven, and nothing that crashes or is missing answers so."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runbook_lib.errors import ToolFailed
from runbook_lib.reach import postgres
from runbook_lib.waiting import wait_for
from runbook_lib.wal import asking
from runbook_lib.wal.service import WalService
from tests.wal import made
from tests.wal.made import IDENTIFIER, SMALL_BYTES
from tests.wal.place import BUCKET, Primary, Store, await_archived
from tests.wal.s3_proxy import Fault, Kind

PREFIX = "service/"


@pytest.fixture(scope="module")
def data(store: Store) -> Path:
    """A data directory, as far as the door is concerned."""
    folder = store.workspace.folder("service-data")
    (folder / "pg_wal").mkdir()
    store.workspace.give(folder)
    return folder


def start(store: Store, data: Path, name: str, **told: bool) -> WalService:
    return WalService.start(
        store.workspace.folder(name),
        data / "pg_wal",
        bucket=BUCKET,
        prefix=PREFIX,
        endpoint_url=store.proxy.url,
        region=store.store.region,
        system_identifier=IDENTIFIER,
        patience_seconds=0.3,
        options={"segment-bytes": str(SMALL_BYTES), "request-seconds": "1"},
        env=store.env,
        **told,
    )


@pytest.fixture(scope="module")
def started(store: Store, data: Path) -> Iterator[WalService]:
    with start(store, data, "service") as service:
        yield service


@pytest.fixture
def service(started: WalService, store: Store) -> Iterator[WalService]:
    store.proxy.reset()
    yield started
    store.proxy.reset()


def run(command: str, name: str, place: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command as PostgreSQL does: by a shell, in the data directory."""
    line = command.replace("%f", name).replace("%p", place).replace("%%", "%")
    return subprocess.run(["/bin/sh", "-c", line], cwd=cwd, capture_output=True, text=True, timeout=60)


def restore(service: WalService, name: str, cwd: Path, place: str = "pg_wal/RECOVERYXLOG") -> int:
    return run(service.restore_command, name, place, cwd).returncode


def push(service: WalService, data: Path, name: str, content: bytes) -> int:
    (data / "pg_wal" / name).write_bytes(content)
    return run(service.archive_command, name, f"pg_wal/{name}", data).returncode


def test_there_and_back(service: WalService, data: Path) -> None:
    name, content = made.segment(1, 1)
    assert push(service, data, name, content) == 0
    assert push(service, data, name, content) == 0
    assert restore(service, name, data) == 0
    placed = data / "pg_wal" / "RECOVERYXLOG"
    assert placed.read_bytes() == content
    assert placed.stat().st_uid == data.stat().st_uid
    assert placed.stat().st_mode & 0o777 == 0o600


def test_absent(service: WalService, data: Path) -> None:
    assert restore(service, made.segment(1, 200)[0], data) == 1
    assert restore(service, "00000009.history", data, "pg_wal/RECOVERYHISTORY") == 1


@pytest.mark.parametrize("status", [500, 503, 403])
def test_cannot_tell(service: WalService, data: Path, store: Store, status: int) -> None:
    store.proxy.faults = [Fault(Kind.STATUS, status=status)]
    name, content = made.segment(1, 30)
    assert restore(service, name, data) == 255
    assert push(service, data, name, content) == 1


def test_other_bytes_under_the_same_name(service: WalService, data: Path) -> None:
    name, content = made.segment(1, 40)
    assert push(service, data, name, content) == 0
    assert push(service, data, name, made.segment(1, 40, seed=1)[1]) == 1
    assert restore(service, name, data) == 0
    assert (data / "pg_wal" / "RECOVERYXLOG").read_bytes() == content


def test_what_is_not_there_to_be_archived(service: WalService, data: Path) -> None:
    name = made.segment(1, 50)[0]
    assert run(service.archive_command, name, f"pg_wal/{name}", data).returncode == 1


def test_a_link_is_not_followed(service: WalService, data: Path, tmp_path: Path) -> None:
    name, content = made.segment(1, 51)
    (data / "pg_wal" / name).symlink_to(made.file(tmp_path, content))
    assert run(service.archive_command, name, f"pg_wal/{name}", data).returncode == 1


@pytest.mark.parametrize("name", ["nonsense", "../000000010000000000000001", "000000010000000000000001.gz", "a b"])
def test_names_that_are_none(service: WalService, data: Path, name: str) -> None:
    assert restore(service, name, data) == 255


@pytest.mark.parametrize("place", ["pg_wal/..", "pg_wal/.", "pg_wal/"])
def test_places_that_are_none(service: WalService, data: Path, place: str) -> None:
    assert restore(service, made.segment(1, 1)[0], data, place) == 255


def test_a_configuration_that_was_copied(service: WalService, data: Path, tmp_path: Path) -> None:
    """A restored server keeps production's archive_command: it must not archive production's files for its own."""
    name, content = made.segment(1, 60)
    (tmp_path / "pg_wal").mkdir()
    made.file(tmp_path / "pg_wal", content, name)
    made.file(data / "pg_wal", content, name)
    answered = run(service.archive_command, name, f"pg_wal/{name}", tmp_path)
    assert answered.returncode == 1
    assert "configuration was copied" in answered.stderr
    assert restore(service, made.segment(1, 1)[0], tmp_path) == 255


class TestWhatMayHappenToTheAsker:
    """Each of these would end a recovery early, or stop an archiver, if its exit code were believed."""

    @pytest.mark.parametrize(
        "script",
        ["", "import sys; sys.exit(0)", "raise SystemExit(1)", "1/0", "this is no Python", "import os; os.abort()"],
        ids=["empty", "exits with 0", "exits with 1", "raises", "is none", "crashes"],
    )
    def test_its_script(self, service: WalService, data: Path, tmp_path: Path, script: str) -> None:
        broken = tmp_path / "asking.py"
        broken.write_text(script)
        ours = str(service.folder / "asking.py")
        name = made.segment(1, 1)[0]
        assert run(service.restore_command.replace(ours, str(broken)), name, "pg_wal/R", data).returncode == 255
        assert run(service.archive_command.replace(ours, str(broken)), name, "pg_wal/R", data).returncode == 1

    def test_its_interpreter_is_gone(self, service: WalService, data: Path) -> None:
        _, rest = service.restore_command.split(" -I ", 1)
        for interpreter in ("/nowhere/python3", "/bin/false", "/bin/true", "/dev/null"):
            assert run(f"{interpreter} -I {rest}", made.segment(1, 1)[0], "pg_wal/R", data).returncode == 255

    def test_it_is_killed(self, service: WalService, data: Path, store: Store) -> None:
        store.proxy.faults = [Fault(Kind.HANG, path="hang|0046")]
        line = service.restore_command.replace("%f", made.segment(1, 0x46)[0]).replace("%p", "pg_wal/R")
        with subprocess.Popen(["/bin/sh", "-c", line], cwd=data, stderr=subprocess.DEVNULL) as shell:
            children = Path(f"/proc/{shell.pid}/task/{shell.pid}/children")
            asker = wait_for("the asker to be there", children.read_text, where="/proc", within_seconds=10)
            os.kill(int(asker.split()[0]), signal.SIGKILL)
            assert shell.wait(timeout=10) == 255

    def test_nobody_answers(self, service: WalService, data: Path) -> None:
        command = service.restore_command.replace(str(service.folder / "socket"), "/nowhere/socket")
        answered = run(command, made.segment(1, 1)[0], "pg_wal/R", data)
        assert answered.returncode == 255
        assert "FileNotFoundError" in answered.stderr

    def test_it_stands_alone(self, tmp_path: Path) -> None:
        """It is run by whatever Python there is, and knows nothing of this project."""
        script = made.file(tmp_path, Path(asking.__file__).read_bytes(), "asking.py")
        ended = subprocess.run([sys.executable, "-I", "-S", script, "/nowhere", "1", "fetch", "a", "b"], check=False)
        assert ended.returncode == asking.CANNOT_TELL


def test_an_overtaken_request_delivers_nothing(service: WalService, data: Path, store: Store) -> None:
    """A server that was killed may have left a request: its segment must not come where another is waited for."""
    first, second = made.segment(1, 70), made.segment(1, 71)
    assert push(service, data, *first) == 0
    assert push(service, data, *second) == 0
    held = Fault(Kind.SLOW, path=first[0], method="GET")
    store.proxy.faults = [held]
    line = service.restore_command.replace("%f", first[0]).replace("%p", "pg_wal/RECOVERYXLOG")
    with subprocess.Popen(["/bin/sh", "-c", line], cwd=data, stderr=subprocess.PIPE, text=True) as slow:
        wait_for("the first request to be under way", lambda: held.hit, where="the proxy", within_seconds=10)
        assert restore(service, second[0], data) == 0
        _, said = slow.communicate(timeout=30)
    assert slow.returncode == 255
    assert "came after this one" in said
    assert (data / "pg_wal" / "RECOVERYXLOG").read_bytes() == second[1]


class TestWhatLiesReady:
    """A segment that was fetched ahead is taken by a rename, and nobody is asked."""

    @pytest.fixture
    def ready(self, service: WalService, data: Path) -> Path:
        for number in range(100, 106):
            assert push(service, data, *made.segment(1, number)) == 0
        assert restore(service, made.segment(1, 100)[0], data) == 0
        ready = service.folder / "spool" / "ready"
        self.must_lie_ready(ready, 101, 105)
        return ready

    def must_lie_ready(self, ready: Path, first: int, last: int) -> None:
        expected = {made.segment(1, number)[0] for number in range(first, last + 1)}
        wait_for(
            "segments to lie ready",
            lambda: {path.name for path in ready.iterdir()},
            where=str(ready),
            within_seconds=10,
            until=expected.issubset,
        )

    def test_is_taken(self, service: WalService, data: Path, ready: Path) -> None:
        name, content = made.segment(1, 101)
        nobody = service.restore_command.replace(str(service.folder / "socket"), "/nowhere/socket")
        assert run(nobody, name, "pg_wal/RECOVERYXLOG", data).returncode == 0
        assert (data / "pg_wal" / "RECOVERYXLOG").read_bytes() == content
        assert run(nobody, name, "pg_wal/RECOVERYXLOG", data).returncode == 255  # asked for twice, it is not there
        assert restore(service, name, data) == 0

    def test_has_more_fetched_when_it_is_taken(self, service: WalService, data: Path, ready: Path) -> None:
        assert push(service, data, *made.segment(1, 106)) == 0
        assert restore(service, made.segment(1, 101)[0], data) == 0
        self.must_lie_ready(ready, 102, 106)

    def test_is_not_believed_when_it_was_not_taken(self, service: WalService, data: Path, ready: Path) -> None:
        """A mv that claims success and did nothing must not end a recovery."""
        lying = service.restore_command.replace("mv -f", "true")
        name, content = made.segment(1, 102)
        (data / "pg_wal" / "RECOVERYXLOG").unlink(missing_ok=True)
        assert run(lying, name, "pg_wal/RECOVERYXLOG", data).returncode == 0
        assert (data / "pg_wal" / "RECOVERYXLOG").read_bytes() == content

    def test_is_no_link(self, service: WalService, data: Path, ready: Path, tmp_path: Path) -> None:
        """Whoever owns the folder might put something else there: it is fetched anew when it is asked for."""
        name, content = made.segment(1, 103)
        (ready / name).unlink()
        (ready / name).symlink_to(made.file(tmp_path, b"secret"))
        asked = service.restore_command.replace("mv -f", "false")
        assert run(asked, name, "pg_wal/RECOVERYXLOG", data).returncode == 0
        placed = data / "pg_wal" / "RECOVERYXLOG"
        assert not placed.is_symlink()
        assert placed.read_bytes() == content


def test_it_ends_with_its_owner(store: Store, data: Path) -> None:
    """Whoever started it is killed, and cannot clean up."""
    folder = store.workspace.folder("orphan")
    program = (
        "import os, sys, time\nfrom pathlib import Path\nfrom runbook_lib.wal.service import WalService\n"
        f"s = WalService.start(Path({str(folder)!r}), Path({str(data / 'pg_wal')!r}), bucket='b', region='r',"
        " system_identifier='1')\nprint(s.pid, flush=True)\nsys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **store.env, "PYTHONPATH": str(Path(__file__).parents[2])},
    ) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        owner.kill()
    wait_for("the process to end", lambda: not Path(f"/proc/{pid}").exists(), where=f"process {pid}", within_seconds=10)


def test_what_cannot_start_says_why(store: Store, data: Path) -> None:
    with pytest.raises(ToolFailed, match="No such file"):
        WalService.start(
            store.workspace.folder("unready"), data / "no-such-folder", bucket=BUCKET, system_identifier=IDENTIFIER
        )


def test_only_the_archiving_side(store: Store, data: Path) -> None:
    with start(store, data, "archiving-side", fetches=False) as service:
        assert push(service, data, *made.segment(1, 80)) == 0
        assert restore(service, made.segment(1, 80)[0], data) == 255


def test_asking_is_cheap(service: WalService, data: Path) -> None:
    """The asker's own time, beside an interpreter that does nothing: it imports nothing that takes time."""
    name = made.segment(1, 250)[0]
    interpreter = service.restore_command.split(" -I ")[0]

    def seconds(line: str) -> float:
        best = 1.0
        for _ in range(8):
            began = time.monotonic()
            subprocess.run(["/bin/sh", "-c", line], cwd=data, stderr=subprocess.DEVNULL, check=False)
            best = min(best, time.monotonic() - began)
        return best

    command = service.restore_command.replace("%f", name).replace("%p", "pg_wal/R")
    assert seconds(command) < 3 * seconds(f"{interpreter} -I -S -c pass; true") + 0.05


class TestARealPrimary:
    def test_outage_of_the_archive_loses_nothing(self, primary: Primary) -> None:
        """S3 refuses, PostgreSQL keeps its segment and comes again with it."""
        proxy = primary.store.proxy
        proxy.faults = [Fault(Kind.STATUS, method="PUT", status=503, times=2)]
        with postgres.session(primary.server.dsn(), read_only=False) as session:
            before = session.value("SELECT failed_count FROM pg_stat_archiver")
            session.execute("CREATE TABLE IF NOT EXISTS public.outage (n int)")
            session.execute("INSERT INTO public.outage SELECT generate_series(1, 1000)")
            last = session.value("SELECT pg_walfile_name(pg_switch_wal())")
            await_archived(session, last)
            assert session.value("SELECT failed_count FROM pg_stat_archiver") > before
            file = primary.server.data_directory / "pg_wal" / last
            if file.exists():  # it may have been recycled since
                content = file.read_bytes()
                _, told = primary.archive.bucket.head(primary.archive.key(last))
                assert told["sha256"] == hashlib.sha256(content).hexdigest()
            primary.archive.verify(last)
            session.execute("DROP TABLE public.outage")
            await_archived(session, session.value("SELECT pg_walfile_name(pg_switch_wal())"))

    def test_labels_are_archived(self, primary: Primary) -> None:
        assert len(primary.archive.listing().labels) == 2
