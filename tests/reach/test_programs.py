"""A program's end is seen, whether it comes by itself, by failure or by the deadline."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from runbook_lib.errors import ToolFailed, ToolMissing, WaitTimedOut
from runbook_lib.reach.programs import run, tail
from runbook_lib.waiting import wait_for


def python(program: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", program, *arguments]


def test_what_it_said_is_kept() -> None:
    ran = run(
        python("import sys; print(sys.stdin.read()); print('careful', file=sys.stderr)"),
        sought="an echo",
        stdin="grüß".encode(),
        env={"PYTHONUTF8": "1"},
        timeout_seconds=30,
    )
    assert ran.succeeded
    assert ran.must("nothing") is ran
    assert (ran.stdout, ran.stderr) == ("grüß\n", "careful\n")
    assert 0 < ran.seconds < 30


def test_failure_is_told_with_the_end_of_its_errors() -> None:
    program = "import sys; print(*range(100), sep='\\n', file=sys.stderr); sys.exit('disk on fire')"
    ran = run(python(program), sought="copying the disk", timeout_seconds=30)
    assert not ran.succeeded
    with pytest.raises(ToolFailed) as failed:
        ran.must("put the fire out")
    told = str(failed.value)
    for part in "copying the disk", sys.executable, "exit code 1", "disk on fire", "put the fire out":
        assert part in told
    assert "\n5\n" not in told


def test_a_signal_is_told_as_such() -> None:
    ran = run(python("import os; os.kill(os.getpid(), 9)"), sought="dying", timeout_seconds=30)
    assert ran.returncode == -9
    with pytest.raises(ToolFailed, match="signal 9: it said nothing"):
        ran.must("")


def test_a_missing_program_is_told() -> None:
    with pytest.raises(ToolMissing, match="no-such-program"):
        run(["no-such-program"], sought="nothing", timeout_seconds=30)


def test_the_deadline_ends_it_and_its_children(tmp_path: Path) -> None:
    child_id = tmp_path / "child"
    program = (
        "import subprocess, sys, pathlib; print('half way', file=sys.stderr, flush=True);"
        "child = subprocess.Popen(['sleep', '1000']);"
        "pathlib.Path(sys.argv[1]).write_text(str(child.pid)); child.wait()"
    )
    began = time.monotonic()
    with pytest.raises(WaitTimedOut, match=r"waiting for Godot.*2 s.*half way"):
        run(python(program, str(child_id)), sought="waiting for Godot", timeout_seconds=2)
    assert time.monotonic() - began < 20

    def gone() -> bool:
        try:
            os.kill(int(child_id.read_text()), 0)
        except ProcessLookupError:
            return True
        state = Path("/proc", child_id.read_text(), "stat")
        return state.exists() and state.read_text().rsplit(")", 1)[1].split()[0] == "Z"

    wait_for("the child to be gone", gone, where="this machine", within_seconds=10)


def test_the_deadline_holds_although_a_daemon_keeps_the_output_open() -> None:
    program = "import subprocess; subprocess.Popen(['sleep', '10'], start_new_session=True)"
    began = time.monotonic()
    with pytest.raises(WaitTimedOut):
        run(python(program), sought="starting a daemon", timeout_seconds=2)
    assert time.monotonic() - began < 20


def test_arguments_are_never_a_shells(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    hostile = f"; touch {victim} $(touch {victim}) `touch {victim}`"
    assert (
        run(python("import sys; print(sys.argv[1])", hostile), sought="", timeout_seconds=30).stdout == hostile + "\n"
    )
    assert not victim.exists()


def test_it_speaks_one_language_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("KEPT", "yes")
    told = run(["env"], sought="", env={"ADDED": "yes"}, timeout_seconds=30).stdout.splitlines()
    assert {"LC_ALL=C", "TZ=UTC", "KEPT=yes", "ADDED=yes"} <= set(told)
    assert "KEPT=yes" not in run(["env"], sought="", inherit=False, timeout_seconds=30).stdout


def test_tail_leaves_blank_lines_out() -> None:
    assert tail("a\n\nb\n\n  \nc\n", 2) == "b\nc"
    assert tail("") == ""
