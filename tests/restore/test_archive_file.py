"""What a dump says of itself, whatever version wrote it; and what is none says so."""

from __future__ import annotations

import gzip
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runbook_lib.errors import DamagedArtefact, Unproven
from runbook_lib.outcome import Outcome
from runbook_lib.reach.binaries import find
from runbook_lib.restore import archive_file
from tests.backup import real


@pytest.fixture(scope="module")
def oldest() -> Iterator[real.Databases]:
    """A server that every version of pg_dump can read."""
    with real.databases(14) as started:
        started.make("CREATE TABLE public.t AS SELECT generate_series(1, 10) AS n")
        yield started


def dump(oldest: real.Databases, path: Path, major: int, *options: str) -> Path:
    program = find(major).program("pg_dump")
    subprocess.run([program, *options, "-f", path, "-d", oldest.server.dsn("made1")], check=True, capture_output=True)
    return path


class TestHeader:
    @pytest.mark.parametrize("major", [14, 15, 16, 17, 18])
    def test_of_every_version(self, major: int, oldest: real.Databases, tmp_path: Path) -> None:
        header = archive_file.read_header(dump(oldest, tmp_path / "x", major, "-Fc"), where="here")
        assert header.database == "made1"
        assert header.major == 14
        assert header.server_version == find(14).version
        assert header.tool_version == find(major).version

    @pytest.mark.parametrize("compression", ["none", "gzip:1", "lz4", "zstd"])
    def test_of_every_compression(self, compression: str, oldest: real.Databases, tmp_path: Path) -> None:
        path = dump(oldest, tmp_path / "x", 17, "-Fc", "-Z", compression)
        assert archive_file.read_header(path, where="here").database == "made1"

    def test_cut_off_anywhere_in_it(self, oldest: real.Databases, tmp_path: Path) -> None:
        whole = dump(oldest, tmp_path / "x", 17, "-Fc").read_bytes()
        short = tmp_path / "short"
        for size in (5, 6, 10, 12, 30, 50):
            short.write_bytes(whole[:size])
            with pytest.raises(DamagedArtefact, match="its header cannot be read: it ends there"):
                archive_file.read_header(short, where="here")

    @pytest.mark.parametrize(("at", "value"), [(10, 99), (8, 200), (8, 0)])
    def test_nonsense_in_it(self, at: int, value: int, oldest: real.Databases, tmp_path: Path) -> None:
        content = bytearray(dump(oldest, tmp_path / "x", 17, "-Fc").read_bytes())
        content[at] = value
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(DamagedArtefact, match="its header cannot be read"):
            archive_file.read_header(tmp_path / "x", where="here")

    @pytest.mark.parametrize(
        ("content", "why"),
        [
            (b"", "it is empty: 0 bytes"),
            (b"\0" * 100, "it begins with"),
            (b"PGD", "it begins with b'PGD'"),
            (b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>", "it begins with b'<?xml ve'"),
        ],
    )
    def test_of_what_is_no_dump(self, content: bytes, why: str, tmp_path: Path) -> None:
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(DamagedArtefact) as raised:
            archive_file.read_header(tmp_path / "x", where="s3://b/x")
        assert why in raised.value.why
        assert raised.value.where == "s3://b/x"

    @pytest.mark.parametrize(
        ("form", "file", "why"),
        [("-Fp", "", "plain SQL"), ("-Ft", "", "tar format"), ("-Fd", "toc.dat", "directory format")],
    )
    def test_of_another_form_is_no_damage(
        self, form: str, file: str, why: str, oldest: real.Databases, tmp_path: Path
    ) -> None:
        path = dump(oldest, tmp_path / "x", 17, form) / file
        with pytest.raises(Unproven, match=f"{why}.* To fix this: dump with pg_dump --format=custom"):
            archive_file.read_header(path, where="here")

    def test_compressed_as_a_whole_is_no_damage(self, tmp_path: Path) -> None:
        (tmp_path / "x").write_bytes(gzip.compress(b"SELECT 1"))
        with pytest.raises(Unproven, match="compressed by gzip as a whole"):
            archive_file.read_header(tmp_path / "x", where="here")


SAID = """\
pg_restore: connecting to database for restore
pg_restore: creating TABLE "public.t"
pg_restore: while PROCESSING TOC:
pg_restore: from TOC entry 215; 1259 16388 TABLE t owner
pg_restore: error: could not execute query: ERROR:  {error}
Command was: CREATE TABLE public.t (n int);
pg_restore: warning: errors ignored on restore: 1
"""


class TestComplaints:
    @pytest.mark.parametrize(
        "error",
        [
            'role "clerk" does not exist',
            'extension "postgis" is not available',
            'could not access file "$libdir/timescaledb": No such file or directory',
            'tablespace "fast" does not exist',
            'unrecognized configuration parameter "transaction_timeout"',
            "compression method lz4 not supported",
            "ICU is not supported in this build",
        ],
    )
    def test_what_the_target_lacks_is_unproven(self, error: str) -> None:
        (found,) = archive_file.complaints(SAID.format(error=error))
        assert (found.outcome, found.subject) == (Outcome.UNPROVEN, "TABLE t owner")
        assert found.says == f"ERROR:  {error}"
        assert found.remedy

    @pytest.mark.parametrize(
        "error",
        [
            'relation "t" already exists',
            'syntax error at or near "nonsense"',
            'invalid input syntax for type integer: "x"',
            'could not create unique index "t_pkey"',
            'insert or update on table "t" violates foreign key constraint "f"',
        ],
    )
    def test_any_other_error_is_a_failure(self, error: str) -> None:
        (found,) = archive_file.complaints(SAID.format(error=error))
        assert (found.outcome, found.check) == (Outcome.FAILED, "restore.error")

    def test_every_error_is_told_with_its_own_object(self) -> None:
        said = SAID.format(error="first") + SAID.format(error="second").replace("TABLE t owner", "TABLE u owner")
        assert [found.subject for found in archive_file.complaints(said)] == ["TABLE t owner", "TABLE u owner"]

    def test_jobs_that_wait_for_each_other_are_no_fault_of_the_dump(self) -> None:
        (found,) = archive_file.complaints(SAID.format(error="deadlock detected"))
        assert (found.check, found.outcome) == ("restore.deadlock", Outcome.UNPROVEN)
        assert "jobs = 1" in found.remedy

    def test_an_error_before_any_object(self) -> None:
        (found,) = archive_file.complaints("pg_restore: error: could not read from input file: end of file\n")
        assert found.subject == "pg_restore"

    def test_remarks_are_no_complaint(self) -> None:
        said = 'pg_restore: creating TABLE "public.error"\npg_restore: processing data for table "public.warning"\n'
        assert list(archive_file.complaints(said)) == []
