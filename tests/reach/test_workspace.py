"""A workspace leaves nothing behind, however its owner ends, and touches nothing that is not its own."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from runbook_lib.errors import Denied, RunbookError, ToolFailed, ToolMissing
from runbook_lib.reach import guardian, workspace
from runbook_lib.reach.programs import run
from runbook_lib.reach.workspace import Workspace, sweep
from runbook_lib.waiting import wait_for

PROJECT = Path(__file__).parents[2]
SLEEP = shutil.which("sleep") or "/bin/sleep"
GONE_SECONDS = 10.0

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives its processes another account")


@pytest.fixture
def parent() -> Iterator[Path]:
    """A folder for workspaces that every account may enter, with a short path."""
    folder = Path(tempfile.mkdtemp(prefix="ws-"))
    folder.chmod(0o755)
    yield folder
    for left in folder.glob("*"):
        with contextlib.suppress(OSError):
            subprocess.run(["chattr", "-R", "-i", left], check=False, capture_output=True)
    shutil.rmtree(folder, ignore_errors=True)


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    return False


def gone(*pids: int) -> bool:
    return not any(map(alive, pids))


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    wait_for(f"process {pid} to end", lambda: gone(pid), where="this machine", within_seconds=GONE_SECONDS)


def start_owner(parent: Path, body: str, *, new_session: bool = False) -> tuple[subprocess.Popen[str], list[str]]:
    """Start a process that opens a workspace ``ws``, runs the body, prints words of it on one line, and waits."""
    program = f"""
    import sys, os, signal, subprocess
    sys.path.insert(0, {str(PROJECT)!r})
    from pathlib import Path
    from runbook_lib.reach.workspace import Workspace
    with Workspace.open(parent=Path({str(parent)!r})) as ws:
        {textwrap.indent(textwrap.dedent(body), " " * 8).strip()}
        sys.stdin.read()
    """
    owner = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=new_session,
    )
    assert owner.stdout is not None
    words = owner.stdout.readline().split()
    assert words, "the owner did not get as far as printing"
    return owner, words


def end(owner: subprocess.Popen[str]) -> None:
    owner.kill()
    owner.communicate()


ONE_CHILD = f"""
child = ws.start([{SLEEP!r}, "1000"], log=ws.path / "log")
print(ws.path, ws._guardian.pid, child.pid, flush=True)
"""


class TestThePlace:
    def test_is_private_and_short(self, parent: Path) -> None:
        with Workspace.open(parent=parent) as ws:
            folder = ws.folder("data")
            assert len(ws.path.name) == len("tensafe-ab12cd34")
            assert ws.path.stat().st_mode & 0o077 == (0o011 if ws.account else 0)
            assert folder.stat().st_mode & 0o077 == 0
            assert folder.stat().st_uid == (ws.account.uid if ws.account else os.geteuid())
            assert ws.folder("data") == folder
            assert ws.free_bytes > 0

    def test_has_folders_of_one_level_only(self, parent: Path) -> None:
        with Workspace.open(parent=parent) as ws:
            for name in "..", ".", "", "a/b", "/etc":
                with pytest.raises(ValueError, match="directly inside"):
                    ws.folder(name)

    @as_root
    def test_runs_its_processes_unprivileged_as_root(self, parent: Path) -> None:
        with Workspace.open(parent=parent) as ws:
            assert ws.account is not None
            told = run(["id"], sought="who it is", timeout_seconds=10, workspace=ws).stdout
            assert told.strip() == f"uid={ws.account.uid} gid={ws.account.gid} groups={ws.account.gid}"
            capabilities = run(["cat", "/proc/self/status"], sought="", timeout_seconds=10, workspace=ws).stdout
            assert "CapEff:\t0000000000000000" in capabilities

    @as_root
    def test_gives_every_workspace_an_account_of_its_own(self, parent: Path) -> None:
        with contextlib.ExitStack() as stack:
            opened = [stack.enter_context(Workspace.open(parent=parent)) for _ in range(5)]
            assert len({ws.account for ws in opened}) == 5

    def test_keeps_credentials_from_its_processes(self, parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in "AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "KUBECONFIG", "HOME":
            monkeypatch.setenv(name, "the real one")
        with Workspace.open(parent=parent) as ws:
            told = run(["env"], sought="", timeout_seconds=10, workspace=ws, env={"GIVEN": "yes"}).stdout
            assert "the real one" not in told
            assert "GIVEN=yes" in told
            assert f"HOME={ws.home}" in told
            assert f"{guardian.MARK}={ws.id}" in told

    def test_lets_its_processes_run_a_program_that_only_we_can_reach(self, parent: Path) -> None:
        with Workspace.open(parent=parent) as ws:
            private = parent / "private"
            private.mkdir(mode=0o700)
            program = Path(shutil.copy(shutil.which("true") or "/bin/true", private))
            if ws.account:
                with pytest.raises(ToolMissing, match=f"may not enter or execute {private}"):
                    run([program], sought="", timeout_seconds=10, workspace=ws)
            assert run([ws.within_reach(program)], sought="", timeout_seconds=10, workspace=ws).succeeded
            public = Path(shutil.which("true") or "/bin/true")
            assert ws.within_reach(public) == public

    @as_root
    def test_is_refused_where_its_processes_cannot_go(self, parent: Path) -> None:
        closed = parent / "closed"
        closed.mkdir(mode=0o700)
        with pytest.raises(Denied, match="TMPDIR"):
            Workspace.open(parent=closed)
        assert list(closed.iterdir()) == []

    def test_says_where_it_cannot_be_made(self, parent: Path) -> None:
        with pytest.raises(RunbookError, match=r"no/such.*No such file.*TMPDIR"):
            Workspace.open(parent=parent / "no/such")


class TestLeaving:
    def test_ends_every_process_however_it_hides_and_spares_the_others(self, parent: Path) -> None:
        hidden = f"""
            import os, subprocess, sys
            devnull = subprocess.DEVNULL
            clean = dict(env={{}}, start_new_session=True)
            marked = dict(env={{"{guardian.MARK}": os.environ["{guardian.MARK}"]}}, cwd="/", start_new_session=True)
            for how in clean, marked:
                print(subprocess.Popen([{SLEEP!r}, "1000"], stdout=devnull, stderr=devnull, **how).pid, flush=True)
        """
        bystander = subprocess.Popen([SLEEP, "1000"], cwd=parent, start_new_session=True)
        try:
            with Workspace.open(parent=parent) as ws:
                python = "/usr/bin/python3" if ws.account else sys.executable
                if not Path(python).exists():
                    pytest.skip("no Python that every account may run")
                argv = [python, "-c", textwrap.dedent(hidden)]
                pids = [int(pid) for pid in run(argv, sought="", timeout_seconds=20, workspace=ws).stdout.split()]
                pids.append(ws.start([SLEEP, "1000"], log=ws.path / "log").pid)
                assert len(pids) == 3
                assert all(map(alive, pids))
            assert gone(*pids)
            assert not ws.path.exists()
            assert alive(bystander.pid)
        finally:
            bystander.kill()
            bystander.wait()

    def test_removes_what_was_registered_elsewhere_and_nothing_beside_it(self, parent: Path) -> None:
        with Workspace.open(parent=parent) as ws:
            registered, other = parent / "a socket", parent / "other"
            registered.touch()
            other.touch()
            ws.also_remove(registered)
            ws.also_remove(parent / "never made")
        assert not registered.exists()
        assert other.exists()

    def test_follows_no_link_out_of_the_folder(self, parent: Path) -> None:
        treasure = parent / "treasure"
        treasure.mkdir()
        (treasure / "gold").touch()
        with Workspace.open(parent=parent) as ws:
            (ws.folder("data") / "link").symlink_to(treasure)
        assert (treasure / "gold").exists()

    def test_twice_is_no_error(self, parent: Path) -> None:
        ws = Workspace.open(parent=parent)
        ws.close()
        ws.close()

    def test_works_without_the_guardian(self, parent: Path) -> None:
        with Workspace.open(parent=parent) as ws:
            child = ws.start([SLEEP, "1000"], log=ws.path / "log")
            ws._guardian.kill()
            ws._guardian.wait()
        assert gone(child.pid)
        assert not ws.path.exists()

    def test_says_what_it_cannot_remove(self, parent: Path) -> None:
        with contextlib.closing(Workspace.open(parent=parent)) as ws:
            stubborn = ws.folder("stubborn")
            with unremovable(stubborn):
                with pytest.raises(ToolFailed, match=r"stubborn.*(not permitted|Permission denied).*restored data"):
                    ws.close()
                assert stubborn.exists()
        # Whoever comes next clears it, now that it can be.
        assert sweep(parent) == [ws.path]
        assert not ws.path.exists()

    def test_does_not_hide_the_error_it_was_left_by(self, parent: Path) -> None:
        def leave() -> None:
            with Workspace.open(parent=parent) as ws:
                stack.enter_context(unremovable(ws.folder("stubborn")))
                raise KeyError("the real reason")

        with contextlib.ExitStack() as stack:
            with pytest.raises(KeyError, match="the real reason") as raised:
                leave()
            assert "stubborn" in raised.value.__notes__[0]


@contextlib.contextmanager
def unremovable(folder: Path) -> Iterator[None]:
    """Make what is in a folder unremovable for us."""
    (folder / "file").touch()
    if os.geteuid() == 0:
        made = subprocess.run(["chattr", "+i", folder], check=False, capture_output=True, text=True)
        if made.returncode:
            pytest.skip(f"this file system knows no immutable folders: {made.stderr}")
    else:
        folder.chmod(0o500)
    try:
        yield
    finally:
        if os.geteuid() == 0:
            subprocess.run(["chattr", "-i", folder], check=True)
        else:
            folder.chmod(0o700)


class TestDyingOwner:
    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
    def test_leaves_nothing(self, parent: Path, number: signal.Signals) -> None:
        owner, (path, watcher, child) = start_owner(parent, ONE_CHILD)
        try:
            owner.send_signal(number)
            nothing_left(Path(path), int(watcher), int(child))
        finally:
            end(owner)

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_leaves_nothing_when_its_whole_group_is_signalled(self, parent: Path, number: signal.Signals) -> None:
        owner, (path, watcher, child) = start_owner(parent, ONE_CHILD, new_session=True)
        try:
            os.killpg(owner.pid, number)
            nothing_left(Path(path), int(watcher), int(child))
        finally:
            end(owner)

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
    def test_guardian_itself_is_not_to_be_stopped(self, parent: Path, number: signal.Signals) -> None:
        owner, (path, watcher, child) = start_owner(parent, ONE_CHILD)
        try:
            os.kill(int(watcher), number)
            owner.kill()
            nothing_left(Path(path), int(watcher), int(child))
        finally:
            end(owner)

    def test_is_noticed_although_its_forked_child_lives(self, parent: Path) -> None:
        body = """
            forked = os.fork()
            if not forked:
                os.chdir("/")
                signal.pause()
            """ + textwrap.indent(ONE_CHILD.replace("child.pid", "child.pid, forked"), " " * 12)
        owner, (path, watcher, child, forked) = start_owner(parent, body)
        try:
            owner.kill()
            nothing_left(Path(path), int(watcher), int(child))
            assert alive(int(forked))
        finally:
            os.kill(int(forked), signal.SIGKILL)
            end(owner)

    def test_forked_child_does_not_close_the_workspace(self, parent: Path) -> None:
        with Workspace.open(parent=parent) as ws:
            process = multiprocessing.get_context("fork").Process(target=ws.close)
            process.start()
            process.join(20)
            assert process.exitcode == 0
            assert ws.path.exists()
            assert sweep(parent) == []

    def test_and_dying_guardian_are_swept_up_by_the_next_workspace(self, parent: Path) -> None:
        owner, (path, watcher, child) = start_owner(parent, ONE_CHILD)
        kill(int(watcher))
        end(owner)
        assert Path(path).exists()
        assert alive(int(child))
        with Workspace.open(parent=parent) as ws:
            assert ws.path.exists()
            assert not Path(path).exists()
            assert gone(int(child))

    def test_that_lives_is_never_swept(self, parent: Path) -> None:
        owner, (path, watcher, child) = start_owner(parent, ONE_CHILD)
        try:
            with Workspace.open(parent=parent) as one, Workspace.open(parent=parent) as other:
                assert one.path != other.path
                assert sweep(parent) == []
            assert Path(path).exists()
            assert alive(int(child))
            kill(int(watcher))  # the owner alone is enough
            assert sweep(parent) == []
            assert alive(int(child))
        finally:
            end(owner)
        assert sweep(parent) == [Path(path)]
        assert gone(int(child))

    def test_folders_that_are_no_workspaces_are_never_swept(self, parent: Path) -> None:
        somebodys = parent / "tensafe-abcdefgh"
        somebodys.mkdir()
        (somebodys / "thesis").touch()
        (parent / "tensafe-file").touch()
        (parent / "tensafe-link").symlink_to(somebodys)
        assert sweep(parent) == []
        assert (somebodys / "thesis").exists()
        assert (parent / "tensafe-link").is_symlink()

    @as_root
    def test_workspaces_of_others_are_never_swept(self, parent: Path) -> None:
        foreign = parent / "tensafe-abcdefgh"
        foreign.mkdir()
        (foreign / guardian.LIST).touch()
        os.chown(foreign, 12345, 12345)
        assert sweep(parent) == []
        assert foreign.exists()


def nothing_left(path: Path, *pids: int) -> None:
    wait_for(
        "the workspace to be gone",
        lambda: (path.exists(), [pid for pid in pids if alive(pid)]),
        until=lambda left: left == (False, []),
        where=str(path),
        within_seconds=GONE_SECONDS,
    )


def test_processes_are_found_where_there_is_no_proc(parent: Path) -> None:
    if not shutil.which("lsof"):
        pytest.skip("lsof is not installed")
    child = subprocess.Popen([SLEEP, "1000"], cwd=parent)
    bystander = subprocess.Popen([SLEEP, "1000"], cwd="/")
    try:
        found = list(guardian._inhabitants_by_lsof(parent, set()))
        assert child.pid in found
        assert bystander.pid not in found
        assert list(guardian._inhabitants_by_lsof(parent, {child.pid})) == []
    finally:
        for process in child, bystander:
            process.kill()
            process.wait()


def test_a_program_that_is_missing_is_named(parent: Path) -> None:
    with Workspace.open(parent=parent) as ws, pytest.raises(ToolMissing, match="no-such-program"):
        ws.start(["no-such-program"], log=ws.path / "log")


def test_prefix_is_what_the_sweep_looks_for() -> None:
    assert workspace.PREFIX == "tensafe-"
