"""Loads a database that somebody else made, so that the drill is not tuned to the sandbox's own.

What kind of file it is, its first bytes say; its name is not asked. A load that went wrong must not look like a small
database, and neither psql nor pg_restore sees to that. psql reaches the end of a file that was cut off in the middle of
its rows without a complaint; pg_restore, in every version from 14 to 18, does the same with a cut tar-format dump and
with a cut file of a directory-format dump unless it is compressed by gzip: exit code 0, and half of the rows. So the
bytes are looked at first, and the result afterwards.

Dumps are code. Given a workspace, whatever is in the file runs as the workspace's unprivileged account, in an
environment without credentials.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

import psycopg

from runbook_lib.errors import DamagedArtefact, NotFound, ToolFailed
from runbook_lib.reach import programs
from runbook_lib.reach.binaries import PostgresTools
from runbook_lib.reach.postgres import describe, libpq_environment
from runbook_lib.reach.workspace import Workspace

_LOAD_SECONDS = 4 * 3600.0
"""The longest that a load may take: the restore's own maximum, 4 h."""
_LOOKED_AT_BYTES = 4096
"""How much of a file's beginning and end is looked at."""
_TAR_MAGIC = slice(257, 262)
_TABLE_DATA = re.compile(r"^\d+; \d+ \d+ TABLE DATA ", re.MULTILINE)
"""How pg_restore lists the rows of a table."""
_COMPLETE = {
    b"-- PostgreSQL database dump\n": b"-- PostgreSQL database dump complete",
    b"-- PostgreSQL database cluster dump\n": b"-- PostgreSQL database cluster dump complete",
}
"""What pg_dump and pg_dumpall write at the beginning of a plain dump, and at its end."""


class Kind(Enum):
    """What a database can be loaded from."""

    SQL = "SQL"
    """Statements, for psql."""
    CUSTOM = "custom-format dump"
    """``pg_dump -Fc``."""
    DIRECTORY = "directory-format dump"
    """``pg_dump -Fd``."""
    TAR = "tar-format dump"
    """``pg_dump -Ft``."""


def load(dsn: str, path: Path, *, tools: PostgresTools, workspace: Workspace | None = None) -> Kind:
    """Load an SQL file or a dump of any format into an existing, empty database, and return what it was.

    :param dsn: libpq connection string of the database, as a role that may make everything that is in the file
    :param path: the file, or for a directory-format dump the folder
    :param tools: psql and pg_restore, not older than the dump
    :param workspace: where to run them unprivileged; by default they run as we do

    Raise `NotFound` where there is no such file, `DamagedArtefact` where it is empty, cut off or no dump at all, and
    `ToolFailed` where psql or pg_restore fails, or leaves no table behind. The database is to be dropped then.
    """
    kind = kind_of(path)
    command: list[str | Path]
    with _scratch(workspace) as folder:
        artefact = _within_reach(path, folder, workspace)
        if kind is Kind.SQL:
            _must_be_complete(path)
            command = [tools.program("psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", artefact]
        else:
            _must_decode(path, artefact, folder, tools, workspace)
            command = [tools.program("pg_restore"), "--exit-on-error", "-d", "", artefact]
        programs.run(
            command,
            sought=f"loading {path.name} ({kind.value}) into {describe(dsn)}",
            timeout_seconds=_LOAD_SECONDS,
            env=libpq_environment(dsn),
            workspace=workspace,
        ).must("look at the statement that failed; if a role is missing, load the dump of the roles (globals) first")
    _must_hold_a_table(dsn, path)
    return kind


def kind_of(path: Path) -> Kind:
    """Say by its first bytes what a file, or a folder, is.

    Raise `NotFound` where there is none, and `DamagedArtefact` where it is empty or of no known kind.
    """
    if not path.exists():
        raise NotFound(
            "a database to load",
            where=str(path),
            why="there is no such file or folder",
            remedy="give the path of an SQL file, or of a dump made by pg_dump",
        )
    if path.is_dir():
        if _beginning(path / "toc.dat").startswith(b"PGDMP"):
            return Kind.DIRECTORY
        raise _damaged(path, "the folder holds no table of contents (toc.dat) as pg_dump -Fd writes it")
    begins = _beginning(path)
    if not begins:
        raise _damaged(path, "it is empty")
    if begins.startswith(b"PGDMP"):
        return Kind.CUSTOM
    if begins[_TAR_MAGIC] == b"ustar":
        if begins.startswith(b"toc.dat\0"):
            return Kind.TAR
        raise _damaged(path, "it is a tar archive, but none that pg_dump -Ft made: its first member is not toc.dat")
    if begins.startswith(b"\x1f\x8b"):
        raise _damaged(path, "it is compressed by gzip as a whole, which neither psql nor pg_restore reads")
    if b"\0" in begins:
        raise _damaged(path, f"it is neither text nor a dump; it begins with the bytes {begins[:8].hex(' ')}")
    return Kind.SQL


def _beginning(file: Path) -> bytes:
    if not file.is_file():
        return b""
    with file.open("rb") as opened:
        return opened.read(_LOOKED_AT_BYTES)


def _damaged(path: Path, why: str) -> DamagedArtefact:
    return DamagedArtefact(
        "a database to load",
        where=str(path),
        why=why,
        remedy="give an SQL file, or a dump made by pg_dump; fetch or make it again if it should be one",
    )


def _must_be_complete(path: Path) -> None:
    """Hold a plain dump to its last line; psql would take what is there for all there is."""
    begins = _beginning(path)
    expected = next((end for start, end in _COMPLETE.items() if start in begins), None)
    if expected is None:
        return  # written by hand, or by another program: nothing says how it ends
    with path.open("rb") as opened:
        opened.seek(max(0, path.stat().st_size - _LOOKED_AT_BYTES))
        if expected not in opened.read():
            raise _damaged(
                path, f"it is cut off: it begins as a plain dump, and does not end with {expected.decode()!r}"
            )


def _must_decode(path: Path, artefact: Path, folder: Path, tools: PostgresTools, workspace: Workspace | None) -> None:
    """Read a dump from its beginning to its end before anything of it reaches the database.

    That it can be read is not enough: every table's rows end with a line of their own, which a dump that was cut off
    lacks. No row can look like that line, because COPY writes a backslash twice.
    """

    def read(*arguments: str | Path) -> programs.CommandResult:
        done = programs.run(
            [tools.program("pg_restore"), *arguments, artefact],
            sought=f"reading {path.name} to its end",
            timeout_seconds=_LOAD_SECONDS,
            workspace=workspace,
        )
        if "unsupported version" in done.stderr or "not built with" in done.stderr:
            done.must(f"use the programs of a newer PostgreSQL than {tools.version}, or of a build that can read it")
        if not done.succeeded:
            raise _damaged(path, f"pg_restore cannot read it to its end: {programs.tail(done.stderr)}")
        return done

    tables = len(_TABLE_DATA.findall(read("--list").stdout))
    rows = folder / "rows.sql"
    read("--data-only", "-f", rows)
    copied = ended = 0
    with rows.open("rb") as lines:
        for line in lines:
            copied += line.startswith(b"COPY ") and line.endswith(b" FROM stdin;\n")
            ended += line == b"\\.\n"
    rows.unlink()
    if copied and ended < tables:
        raise _damaged(path, f"it is cut off: of the rows of {tables} tables, those of {tables - ended} have no end")


def _must_hold_a_table(dsn: str, path: Path) -> None:
    with psycopg.connect(dsn) as connection:
        found = connection.execute(
            """SELECT FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
               WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^(pg_|information_schema$)' LIMIT 1"""
        ).fetchone()
    if found is None:
        raise ToolFailed(
            f"loading {path.name}",
            where=describe(dsn),
            why="every statement succeeded, and the database holds not one table",
            remedy="check that it is the right file, and that it does not load into a database of another name",
        )


@contextlib.contextmanager
def _scratch(workspace: Workspace | None) -> Iterator[Path]:
    """Make a folder that the programs can write to, and remove it with all that is in it."""
    if workspace is None:
        with tempfile.TemporaryDirectory(prefix="loading-") as made:
            yield Path(made)
        return
    folder = workspace.folder("loading")
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _within_reach(path: Path, folder: Path, workspace: Workspace | None) -> Path:
    """Give a path by which the programs can read the file: its own, or that of a copy where they run as another."""
    if workspace is None or workspace.account is None:
        return path.absolute()
    copy = folder / path.name
    if path.is_dir():
        shutil.copytree(path, copy)
    else:
        shutil.copyfile(path, copy)
    workspace.give(copy)
    return copy
