"""A brake that fails holds: where nobody can tell whether there is a halt, there is one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from runbook_lib.errors import Unreachable
from runbook_lib.safety.halt import Halt


class TestFile:
    def test_none_is_named(self) -> None:
        assert Halt().why() == ""

    def test_is_not_there(self, tmp_path: Path) -> None:
        assert Halt(tmp_path / "halt").why() == ""
        assert Halt(tmp_path / "no" / "folder" / "halt").why() == ""

    @pytest.mark.parametrize(
        ("said", "told"),
        [
            (b"", "it says no more"),
            (b"\n", "it says no more"),
            (b"restore under way, ask Ann\nmore", "restore under way, ask Ann"),
            (b"\xff\xfe", "\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}"),
        ],
    )
    def test_lies_there(self, said: bytes, told: str, tmp_path: Path) -> None:
        file = tmp_path / "halt"
        file.write_bytes(said)
        assert Halt(file).why() == f"a halt lies in {file}: {told}"

    def test_cannot_be_read(self, tmp_path: Path) -> None:
        """A folder of that name, a file where its folder should be: whatever it is, it holds."""
        (tmp_path / "file").touch()
        for path in (tmp_path, tmp_path / "file" / "halt"):
            assert Halt(path).why().startswith(f"whether there is a halt cannot be told: {path}: ")

    def test_a_link_that_leads_nowhere(self, tmp_path: Path) -> None:
        """Somebody laid something down there."""
        link = tmp_path / "halt"
        link.symlink_to(tmp_path / "gone")
        assert Halt(link).why().startswith("whether there is a halt cannot be told: ")


class TestConfigMap:
    @staticmethod
    def why(found: Mapping[str, str] | None) -> str:
        return Halt(config_map="ops/brake", read_config_map=lambda: found).why()

    def test_there_is_none(self) -> None:
        assert self.why(None) == ""
        assert self.why({}) == ""
        assert self.why({"halted": "no", "HALT": "x"}) == ""

    def test_it_stands_there(self) -> None:
        assert self.why({"halt": "ask Ann"}) == "a halt stands in the ConfigMap ops/brake: ask Ann"
        assert self.why({"halt": " "}) == "a halt stands in the ConfigMap ops/brake: it says no more"

    def test_cannot_be_read(self) -> None:
        def silent() -> Mapping[str, str]:
            raise Unreachable("the config map brake", where="there", why="no route", remedy="wait")

        told = Halt(config_map="ops/brake", read_config_map=silent).why()
        assert told == "whether there is a halt cannot be told: the config map brake: no route"

    def test_a_file_is_enough(self, tmp_path: Path) -> None:
        (tmp_path / "halt").touch()
        assert Halt(tmp_path / "halt", "ops/brake", lambda: None).why().startswith("a halt lies in")
