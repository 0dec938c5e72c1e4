"""What a run was about to do can be read whatever ended it, and nothing is begun that could not be written down."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runbook_lib.errors import DamagedArtefact, Denied, NoRoom, NotPermitted, RunbookError
from runbook_lib.safety import journal
from runbook_lib.safety.journal import Header, Journal, Record
from tests.small_disk import small_disk

RECOVER = "runbook recover --env here"
HEADER = Header.here_and_now(cluster="here", profile="here.toml", system_identifier="7", reason="a test")


def announce(opened: Journal, number: int, **before: Any) -> int:
    told = {"says": f"do {number}", "undoing": f"undo {number}"}
    return opened.announce("a procedure", "an act", {"name": f"n{number}"}, before, **told)


def written(folder: Path) -> Path:
    """A journal of three acts: one taken back, one done, one only announced."""
    with journal.opened(folder, HEADER, recover=RECOVER) as opened:
        for number in (1, 2):
            announce(opened, number, was="ö\n\u2028")
            opened.note("done", number)
        opened.note("undone", 2, "it is back")
        announce(opened, 3)
    (path,) = folder.glob("*.jsonl")
    return path


def only(folder: Path) -> Record:
    (record,) = journal.read_all(folder)
    return record


class TestWhatIsWrittenIsRead:
    def test_whole(self, tmp_path: Path) -> None:
        record = journal.read(written(tmp_path))
        assert record is not None
        assert record.header == HEADER
        assert [(each.number, each.state, each.last) for each in record.entries] == [
            (1, "done", ""),
            (2, "undone", "it is back"),
            (3, "intent", ""),
        ]
        first = record.entries[0]
        assert (first.procedure, first.kind, first.says, first.undoing) == ("a procedure", "an act", "do 1", "undo 1")
        assert (first.arguments, first.before) == ({"name": "n1"}, {"was": "ö\n\u2028"})
        assert [each.number for each in record.outstanding] == [3, 1]

    @settings(max_examples=50, deadline=None)
    @given(
        st.dictionaries(
            st.text(st.characters(codec=None), max_size=5),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.text(st.characters(codec=None)), st.lists, max_leaves=5
            ),
        )
    )
    def test_every_value_that_json_keeps(self, before: dict[str, Any]) -> None:
        """Half characters too, which is how Python shows bytes of a command line that are no text."""
        with tempfile.TemporaryDirectory() as folder:
            with journal.opened(Path(folder), HEADER, recover=RECOVER) as opened:
                announce(opened, 1, **before)
            assert only(Path(folder)).entries[0].before == before

    def test_what_json_does_not_keep_is_not_begun(self, tmp_path: Path) -> None:
        """Written down as something else, another process would take back something else."""
        with journal.opened(tmp_path, HEADER, recover=RECOVER) as opened, pytest.raises(TypeError):
            announce(opened, 1, was=tmp_path)
        assert only(tmp_path).entries == ()

    def test_nobody_else_may_read_it(self, tmp_path: Path) -> None:
        folder = tmp_path / "of" / "ours"
        path = written(folder)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {stat.S_IMODE(each.stat().st_mode) for each in folder.iterdir()} == {0o600}
        assert path.parent == folder

    def test_what_was_kept_is_not_outstanding(self, tmp_path: Path) -> None:
        with journal.opened(tmp_path, HEADER, recover=RECOVER) as opened:
            for number, state in enumerate(("undone", "stuck", "failed", "done", "done", "done"), start=1):
                announce(opened, number)
                opened.note(state, number)
            opened.keep([5, 6])
        assert [each.state for each in only(tmp_path).outstanding] == ["done", "failed", "stuck"]


class TestTheDiskHasItFirst:
    def test_every_row_is_synced_before_anything_goes_on(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        synced: list[bytes] = []
        fsync = os.fsync

        def watched(descriptor: int) -> None:
            fsync(descriptor)
            found = Path(f"/proc/self/fd/{descriptor}").resolve()
            synced.append(found.read_bytes() if found.is_file() else os.fsencode(found))

        monkeypatch.setattr(os, "fsync", watched)
        folder = tmp_path / "new" / "folder"
        with journal.opened(folder, HEADER, recover=RECOVER) as opened:
            assert {os.fsencode(tmp_path), os.fsencode(tmp_path / "new"), os.fsencode(folder)} <= set(synced)
            assert synced[-1].count(b"\n") == 1
            announce(opened, 1)
            assert json.loads(synced[-1].splitlines()[-1])["row"] == "intent"
            opened.note("done", 1)
            assert json.loads(synced[-1].splitlines()[-1])["row"] == "done"


class TestCutShort:
    """Wherever the last line ends, the rows before it are read, and the next writer is not swallowed by it."""

    def test_the_last_line_at_every_byte(self, tmp_path: Path) -> None:
        whole = written(tmp_path / "whole").read_bytes()
        last = whole[:-1].rindex(b"\n") + 1
        path = tmp_path / "cut.jsonl"
        for end in range(last, len(whole) + 1):
            path.write_bytes(whole[:end])
            record = journal.read(path)
            assert record is not None
            complete = end >= len(whole) - 1
            assert [each.number for each in record.outstanding] == ([3, 1] if complete else [1]), end
            with journal.reopened(record) as again:
                for entry in record.outstanding:
                    again.note("undone", entry.number)
            healed = journal.read(path)
            assert healed is not None
            assert list(healed.outstanding) == [], end

    def test_the_first_line_at_every_byte(self, tmp_path: Path) -> None:
        with journal.opened(tmp_path / "whole", HEADER, recover=RECOVER) as opened:
            whole = opened.path.read_bytes()
        path = tmp_path / "cut.jsonl"
        for end in range(len(whole) + 1):
            path.write_bytes(whole[:end])
            record = journal.read(path)
            assert (record is None) == (end < len(whole) - 1), end

    def test_zeros_at_its_end(self, tmp_path: Path) -> None:
        """As some file systems leave it after a power cut."""
        path = written(tmp_path)
        path.write_bytes(path.read_bytes() + b"\0" * 500)
        assert [each.number for each in only(tmp_path).outstanding] == [3, 1]

    @pytest.mark.parametrize("line", range(7))
    def test_a_damaged_line_in_the_middle_is_never_passed_over(self, line: int, tmp_path: Path) -> None:
        """Refused, unless it only said what became of an act: then the act counts as outstanding."""
        path = written(tmp_path)
        lines = path.read_bytes().splitlines(keepends=True)
        assert len(lines) == 7
        healthy = journal.read(path)
        assert healthy is not None
        lines[line] = b"#" + lines[line][1:]
        path.write_bytes(b"".join(lines))
        if line == 6:
            assert [each.number for each in only(tmp_path).outstanding] == [1]
        else:
            with pytest.raises(DamagedArtefact, match=f"line {line + 1} of 7 is no row"):
                journal.read_all(tmp_path)

    def test_a_lost_announcement_whose_outcome_is_there(self, tmp_path: Path) -> None:
        path = written(tmp_path)
        lines = path.read_bytes().splitlines(keepends=True)[:3]
        path.write_bytes(lines[0] + lines[1][:30] + b"\n" + lines[2])
        with pytest.raises(DamagedArtefact, match="line 2 of 3 is no row"):
            journal.read_all(tmp_path)

    @pytest.mark.parametrize("row", [b'{"row":"intent"}', b'{"row":"run","format":1}', b"[]", b'{"row":"done"}'])
    def test_rows_that_lack_something(self, row: bytes, tmp_path: Path) -> None:
        (tmp_path / "x.jsonl").write_bytes(row + b"\n" + row + b"\n")
        if row == b"[]":
            assert journal.read_all(tmp_path) == []
        else:
            with pytest.raises(DamagedArtefact):
                journal.read_all(tmp_path)

    def test_a_later_form_is_refused(self, tmp_path: Path) -> None:
        path = written(tmp_path)
        path.write_bytes(path.read_bytes().replace(b'"format": 1', b'"format": 2'))
        with pytest.raises(DamagedArtefact, match="format 2"):
            journal.read_all(tmp_path)


class TestAlone:
    def test_two_runs_at_once(self, tmp_path: Path) -> None:
        with journal.opened(tmp_path, HEADER, recover=RECOVER):
            with (
                pytest.raises(NotPermitted, match=f"process {os.getpid()} on") as raised,
                journal.opened(tmp_path, HEADER, recover=RECOVER),
            ):
                pass
            assert "another run is altering the same cluster" in raised.value.why
        with journal.opened(tmp_path, HEADER, recover=RECOVER):
            pass

    def test_a_killed_run_holds_nothing(self, tmp_path: Path) -> None:
        code = (
            "import os, sys, pathlib; from runbook_lib.safety import journal\n"
            "with journal.alone_in(pathlib.Path(sys.argv[1])): os.kill(os.getpid(), 9)"
        )
        ran = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=Path(__file__).parents[2], check=False)
        assert ran.returncode == -9
        with journal.alone_in(tmp_path):
            pass

    def test_outstanding_acts_refuse_a_new_run(self, tmp_path: Path) -> None:
        written(tmp_path)
        with pytest.raises(NotPermitted) as raised, journal.opened(tmp_path, HEADER, recover=RECOVER):
            pass
        assert raised.value.remedy == f"if it is not running any more, type: {RECOVER}"
        assert "2 of its acts are outstanding, the last one: do 3" in raised.value.why
        assert len(list(tmp_path.glob("*.jsonl"))) == 1

    def test_nothing_outstanding_lets_a_new_run_in(self, tmp_path: Path) -> None:
        written(tmp_path)
        record = only(tmp_path)
        with journal.alone_in(tmp_path), journal.reopened(record) as again:
            for entry in record.outstanding:
                again.note("undone", entry.number)
        with journal.opened(tmp_path, HEADER, recover=RECOVER):
            pass
        assert len(journal.read_all(tmp_path)) == 2


class TestWhereNothingCanBeWritten:
    def test_the_folder_is_a_file(self, tmp_path: Path) -> None:
        file = tmp_path / "file"
        file.touch()
        for folder in (file, file / "below"):
            with pytest.raises(NotPermitted), journal.opened(folder, HEADER, recover=RECOVER):
                pass
            with pytest.raises(Denied):
                journal.read_all(folder)

    def test_no_folder_holds_no_journal(self, tmp_path: Path) -> None:
        assert journal.read_all(tmp_path / "none") == []

    @pytest.mark.parametrize(
        ("mode", "said"),
        [
            (0o000, ["Denied", "NotPermitted"]),
            (0o300, ["Denied", "Denied"]),
            (0o500, ["1 read", "NotPermitted"]),
        ],
    )
    def test_a_closed_folder(self, mode: int, said: list[str], tmp_path: Path) -> None:
        """Nobody says "nothing is outstanding" of a folder that could not be read, or begins where it cannot write."""
        written(tmp_path / "journal")
        (tmp_path / "journal").chmod(mode)
        told = as_nobody(
            "import sys, pathlib; from runbook_lib.safety import journal; from runbook_lib.errors import RunbookError\n"
            "folder = pathlib.Path(sys.argv[1])\n"
            "try: print(len(journal.read_all(folder)), 'read')\n"
            "except RunbookError as error: print(type(error).__name__)\n"
            "try:\n"
            "  with journal.opened(folder, journal.Header('a', 'b', 'c', 'd'), recover='r'): print('opened')\n"
            "except RunbookError as error: print(type(error).__name__)\n",
            tmp_path / "journal",
        )
        (tmp_path / "journal").chmod(0o700)
        assert told == said

    def test_a_journal_of_somebody_else(self, tmp_path: Path) -> None:
        written(tmp_path / "journal").chmod(0o000)
        told = as_nobody(
            "import sys, pathlib; from runbook_lib.safety import journal; from runbook_lib.errors import RunbookError\n"
            "try: print(len(journal.read_all(pathlib.Path(sys.argv[1]))), 'read')\n"
            "except RunbookError as error: print(type(error).__name__)\n",
            tmp_path / "journal",
        )
        assert told == ["Denied"]


class TestAFullDisk:
    def test_an_act_that_cannot_be_announced(self, disk: Path) -> None:
        """The torn row is no row, and what follows when there is room again stands in a line of its own."""
        with journal.opened(disk / "journal", HEADER, recover=RECOVER) as opened:
            announce(opened, 1)
            fill(disk)
            with pytest.raises(NoRoom):
                announce(opened, 2, was="x" * 100_000)
            (disk / "filler").unlink()
            opened.note("done", 1)
            assert announce(opened, 3) == 3
            opened.note("undone", 3)
            opened.note("undone", 1)
        with pytest.raises(DamagedArtefact):  # somebody announced an act after a disk that failed: looked at by people
            journal.read_all(disk / "journal")

    def test_what_was_done_is_taken_back_and_read(self, disk: Path) -> None:
        with journal.opened(disk / "journal", HEADER, recover=RECOVER) as opened:
            announce(opened, 1)
            fill(disk)
            with pytest.raises(NoRoom):
                announce(opened, 2, was="x" * 100_000)
            (disk / "filler").unlink()
            opened.note("undone", 1)
        assert list(only(disk / "journal").outstanding) == []

    def test_a_run_that_cannot_begin(self, disk: Path) -> None:
        fill(disk)
        with pytest.raises((NoRoom, NotPermitted)), journal.opened(disk / "journal", HEADER, recover=RECOVER):
            pass
        (disk / "filler").unlink()
        assert journal.read_all(disk / "journal") == []


def fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as filler:
        try:
            while filler.write(b"\0" * 4096) == 4096:
                pass
        except OSError:
            return


@pytest.fixture
def disk() -> Iterator[Path]:
    """A disk of 64 KiB."""
    with small_disk("64k") as mounted:
        yield mounted


def as_nobody(code: str, folder: Path) -> list[str]:
    """Run code as a user whom file modes bind, with the folder handed to that user, and return what it printed.

    It may see no more than we do: a child of ours that gives up root after it has imported the library.
    """
    drop = ""
    if os.geteuid() == 0:
        for each in (folder, *folder.glob("*")):
            os.chown(each, 65534, 65534)
        for parent in folder.parents:
            if str(parent).startswith(tempfile.gettempdir()) and parent != Path(tempfile.gettempdir()):
                parent.chmod(0o711)
        drop = "import os; import runbook_lib.safety.journal, runbook_lib.errors\nos.setgid(65534); os.setuid(65534)\n"
    argv = [sys.executable, "-c", drop + code, str(folder)]
    ran = subprocess.run(argv, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    return ran.stdout.splitlines()


def test_errors_say_all_four_things(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(RunbookError) as raised, journal.alone_in(file):
        pass
    assert all((raised.value.sought, raised.value.where, raised.value.why, raised.value.remedy))
