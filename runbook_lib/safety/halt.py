"""The brake.

Somebody sees that a change does harm and cannot reach the terminal it runs in. A halt is a thing that everybody who
works on the cluster can lay down, a file or a key in a ConfigMap, and that every change looks for before each of its
steps. Where nobody can tell whether it is there, it counts as there: a brake that fails must hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from runbook_lib.errors import RunbookError

KEY = "halt"
"""The key in the ConfigMap; whatever stands there is told as the reason."""

ReadConfigMap = Callable[[], Mapping[str, str] | None]
"""Reads the ConfigMap; None where there is none."""


@dataclass(frozen=True)
class Halt:
    """Where a halt may be laid down."""

    file: Path | None = None
    """A file that is there while nothing may be changed; None where the profile names none."""
    config_map: str = ""
    """The ConfigMap as people write it, ``namespace/name``; empty where the profile names none."""
    read_config_map: ReadConfigMap | None = None
    """How to read it."""

    def why(self) -> str:
        """Return why nothing may be changed now, in the words of whoever laid the halt down; empty where none is."""
        return self._in_the_file() or self._in_the_config_map()

    def _in_the_file(self) -> str:
        if self.file is None:
            return ""
        try:
            said = self.file.read_text(encoding="utf-8", errors="replace").strip()
        except FileNotFoundError:
            if not self.file.is_symlink():
                return ""
            return f"whether there is a halt cannot be told: {self.file} is a link that leads nowhere"
        except OSError as unreadable:
            return f"whether there is a halt cannot be told: {self.file}: {unreadable.strerror}"
        return f"a halt lies in {self.file}: {said.splitlines()[0] if said else 'it says no more'}"

    def _in_the_config_map(self) -> str:
        if self.read_config_map is None:
            return ""
        try:
            found = self.read_config_map()
        except RunbookError as unreadable:
            return f"whether there is a halt cannot be told: {unreadable.sought}: {unreadable.why}"
        if found is None or KEY not in found:
            return ""
        return f"a halt stands in the ConfigMap {self.config_map}: {found[KEY].strip() or 'it says no more'}"
