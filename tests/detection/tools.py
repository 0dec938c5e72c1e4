"""PostgreSQL's programs in a folder of our own, where one of them can be replaced by one that misbehaves.

What stands in for a program is a shell script around the real one: it does part of its work, does it and then lies
about it, or writes down that it was called. Nothing of our own code is replaced.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from runbook_lib.reach import binaries, programs
from runbook_lib.reach.binaries import PostgresTools
from tests.detection.place import MAJOR


@dataclass(frozen=True)
class Tools:
    """An installation of PostgreSQL that was tampered with."""

    bin: Path
    """The folder with the programs."""
    share: Path
    """The folder with the extensions' control files; only in a copy of the whole installation a folder of its own."""
    notes: Path
    """A folder that scripts may write to, whoever runs them."""

    @property
    def found(self) -> PostgresTools:
        """The programs, as the project finds them when a user names the folder."""
        return binaries.find(MAJOR, directory=self.bin)

    def replace(self, program: str, script: str) -> None:
        """Put a shell script in the place of a program; ``REAL`` in it is the program itself."""
        path = self.bin / program
        real = path.resolve()
        path.unlink()
        path.write_text(f"#!/bin/sh\n{script.replace('REAL', str(real)).replace('NOTES', str(self.notes))}\n")
        path.chmod(0o755)


@contextmanager
def programs_alone() -> Iterator[Tools]:
    """Link all programs into a folder of our own."""
    with _folder() as folder:
        made = Tools(folder / "bin", folder, folder / "notes")
        _link(binaries.find(MAJOR).bin, made.bin)
        yield made


@contextmanager
def whole_installation() -> Iterator[Tools]:
    """Make an installation with its own list of extensions: ``postgres`` looks for it relative to where it lies."""
    real = binaries.find(MAJOR).bin
    with _folder() as folder:

        def place(option: str) -> tuple[Path, Path]:
            answer = programs.run([real / "pg_config", option], sought=option, timeout_seconds=30)
            path = Path(answer.must("install pg_config, too").stdout.strip())
            return path, folder / path.relative_to("/")

        bin_real, bin_made = place("--bindir")
        _link(bin_real, bin_made)
        (bin_made / "postgres").unlink()
        shutil.copy2(bin_real / "postgres", bin_made / "postgres")  # it looks where it really lies, not where a link is
        share_real, share_made = place("--sharedir")
        _link(share_real, share_made)
        (share_made / "extension").unlink()
        _link(share_real / "extension", share_made / "extension")
        for option in ("--pkglibdir", "--libdir"):
            library_real, library_made = place(option)
            if not library_made.exists():
                library_made.parent.mkdir(parents=True, exist_ok=True)
                library_made.symlink_to(library_real)
        yield Tools(bin_made, share_made, folder / "notes")


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tools-") as made:
        folder = Path(made)
        folder.chmod(0o755)  # the workspace's unprivileged account runs what is in it
        (folder / "notes").mkdir()
        (folder / "notes").chmod(0o1777)
        yield folder


def _link(real: Path, made: Path) -> None:
    made.mkdir(parents=True)
    for entry in real.iterdir():
        (made / entry.name).symlink_to(os.path.realpath(entry))
