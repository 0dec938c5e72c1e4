"""What a dump file says of itself, and what pg_restore says of it.

The header of pg_dump's custom format names the database, the server it came from and the program that wrote it, long
before anything is restored. ``pg_restore --list`` reads no more than that and is therefore no test of a dump: it
accepts every truncation of one.

The form is that of PostgreSQL's src/bin/pg_dump/pg_backup_archiver.c, ReadHead().
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import BinaryIO

from runbook_lib.errors import DamagedArtefact, Unproven
from runbook_lib.outcome import Finding, Outcome
from runbook_lib.reach import programs
from runbook_lib.restore.target import Target
from runbook_lib.secrecy import said_by_postgresql

_MAGIC = b"PGDMP"
_CUSTOM = 1
_FORMATS = frozenset({_CUSTOM, 3, 5})
"""Custom, tar and directory; the table of contents of the last calls itself the second."""
_LONGEST_TEXT = 10_000
_COMPRESSION_AS_BYTE = (1, 15)
"""From this archive version on (PostgreSQL 16) the kind of compression is one byte; before it was a level."""


@dataclass(frozen=True)
class Header:
    """The beginning of a dump in custom format."""

    database: str
    """The database it was taken of."""
    server_version: str
    """The version of that server, such as ``17.11``."""
    tool_version: str
    """The version of the pg_dump that wrote it."""

    @property
    def major(self) -> int:
        """The major version of the server it was taken of."""
        return int(re.match(r"\d+", self.server_version)[0])  # type: ignore[index]


def read_header(dump: Path, *, where: str) -> Header:
    """Read a dump's header.

    :param where: the dump's address, for the error

    Raise `DamagedArtefact` if it is no dump at all, or ends within its header; `Unproven` if it is one of another form.
    """
    with dump.open("rb") as file:
        beginning = file.read(512)
        file.seek(0)
        if not beginning:
            raise _damaged(where, "it is empty: 0 bytes")
        if not beginning.startswith(_MAGIC):
            if form := _another_form(beginning):
                raise _no_custom_format(where, form)
            raise _damaged(where, f"it begins with {beginning[:8]!r} instead of {_MAGIC!r}")
        try:
            header, code = _header(file)
        except (EOFError, ValueError, TypeError) as short:
            raise _damaged(where, f"its header cannot be read: {short}") from short
    if code != _CUSTOM:
        raise _no_custom_format(where, "it is the table of contents of a dump in directory format, without its rows")
    return header


def _another_form(beginning: bytes) -> str:
    """Say of what other form a backup is, by its first bytes; empty where it is of none that we know."""
    if beginning.startswith(b"toc.dat\0") and b"ustar" in beginning:
        return "it is a dump in tar format, of which pg_restore takes one that was cut short for a whole one"
    if beginning.startswith(b"\x1f\x8b"):
        return "it is compressed by gzip as a whole, and what is in it cannot be seen without unpacking it"
    if b"PostgreSQL database" in beginning or beginning.lstrip().startswith((b"--", b"SET ", b"CREATE ")):
        return "it is plain SQL: nothing tells a whole one from one that was cut short, and to restore it is to run it"
    return ""


def _no_custom_format(where: str, why: str) -> Unproven:
    sought = "to restore a dump in pg_dump's custom format"
    return Unproven(sought, where=where, why=why, remedy="dump with pg_dump --format=custom")


def _header(file: BinaryIO) -> tuple[Header, int]:
    file.seek(len(_MAGIC))
    major, minor, _revision, int_bytes, _offset_bytes, form = _take(file, 6)
    if form not in _FORMATS or not 1 <= int_bytes <= 8:
        msg = f"format {form}, integers of {int_bytes} bytes"
        raise ValueError(msg)
    if (major, minor) >= _COMPRESSION_AS_BYTE:
        _take(file, 1)
    else:
        _int(file, int_bytes)
    for _ in range(7):  # the moment it was written, in local time
        _int(file, int_bytes)
    header = Header(_text(file, int_bytes), _text(file, int_bytes), _text(file, int_bytes))
    if not re.match(r"\d+", header.server_version):
        msg = f"server version {header.server_version!r}"
        raise ValueError(msg)
    return header, form


def _take(file: BinaryIO, size: int) -> bytes:
    taken = file.read(size)
    if len(taken) != size:
        msg = "it ends there"
        raise EOFError(msg)
    return taken


def _int(file: BinaryIO, size: int) -> int:
    sign = _take(file, 1)[0]
    value = int.from_bytes(_take(file, size), "little")
    return -value if sign else value


def _text(file: BinaryIO, int_bytes: int) -> str:
    length = _int(file, int_bytes)
    if not 0 <= length <= _LONGEST_TEXT:
        msg = f"a text of {length} bytes"
        raise ValueError(msg)
    return _take(file, length).decode(errors="replace")


def _damaged(where: str, why: str) -> DamagedArtefact:
    remedy = "do not rely on it; take the next older proven backup, and find out what wrote these bytes"
    return DamagedArtefact("a dump of PostgreSQL", where=where, why=why, remedy=remedy)


def table_of_contents_without(
    dump: Path, foreign_keys: Collection[str], target: Target, *, rows_of: Collection[tuple[str, str]] = ()
) -> Path:
    """Write the dump's table of contents without some of its entries, for ``pg_restore --use-list``.

    :param foreign_keys: those to leave out, as ``schema.table constraint``
    :param rows_of: the tables, as schema and name, whose rows to keep; none for those of all. Large objects and the
        rows of materialized views are left out with those of the other tables

    ``pg_restore --list`` writes an entry as ``4242; 2606 16999 FK CONSTRAINT schema table constraint owner``.
    """
    listed = programs.run(
        [target.tools.program("pg_restore"), "--list", dump],
        sought="the dump's table of contents",
        timeout_seconds=300,
        workspace=target.workspace,
    ).must("look at the dump: pg_restore cannot list it")
    unwanted = {name.replace(".", " ", 1).replace('"', "") for name in foreign_keys}
    # Line breaks in a name are written as blanks.
    wanted = tuple(re.sub(r"[\r\n]", " ", f"{schema} {name} ") for schema, name in rows_of)

    def stays(line: str) -> bool:
        if foreign_key := re.match(r"\d+; \d+ \d+ FK CONSTRAINT (.*) \S+$", line):
            return foreign_key[1] not in unwanted
        if wanted and (rows := _ROWS.match(line)):
            return bool(rows[1]) and line[rows.end() :].startswith(wanted)
        return True

    kept = [line for line in listed.stdout.splitlines() if stays(line)]
    path = dump.with_suffix(".list")
    path.write_text("\n".join(kept) + "\n", encoding="utf-8")
    if target.workspace is not None:
        target.workspace.give(path)
    return path


_ROWS = re.compile(
    r"\d+; \d+ \d+ (?:(TABLE DATA)|MATERIALIZED VIEW DATA|BLOBS?(?: METADATA)?|"
    r"(?:ACL|COMMENT|SECURITY LABEL) \S+ LARGE OBJECTS?) "
)
"""The entries of a table of contents that stand for rows; the first group says that they are a table's."""


def roles_in(dump: Path, target: Target) -> set[str]:
    """Return the roles that a dump's definitions name, as owners and in grants, policies and default privileges.

    A dump of a database carries no roles; one that comes without them can only be restored as it was if they are there.
    """
    read = programs.run(
        [target.tools.program("pg_restore"), "--schema-only", "--file=-", dump],
        sought="the roles that the dump names",
        timeout_seconds=600,
        workspace=target.workspace,
    )
    named = re.findall(
        rf"^(?:ALTER .* OWNER TO|ALTER DEFAULT PRIVILEGES FOR ROLE|(?:GRANT|REVOKE) .* (?:TO|FROM)|CREATE POLICY .* TO"
        rf"|SET SESSION AUTHORIZATION|CREATE USER MAPPING FOR) ({_ROLE}(?:, {_ROLE})*)",
        read.stdout,
        re.MULTILINE,
    )
    named += re.findall(rf"^ALTER DEFAULT PRIVILEGES .* (?:TO|FROM) ({_ROLE})", read.stdout, re.MULTILINE)
    roles = {role for listed in named for role in re.findall(_ROLE, listed)}
    return {role[1:-1].replace('""', '"') if role.startswith('"') else role for role in roles} - _NO_ROLES


_ROLE = r'(?:"(?:[^"]|"")+"|[a-z_][a-z0-9_$]*)'
_NO_ROLES = {"PUBLIC", "public", "current_user", "session_user"}

_DEADLOCK = "deadlock detected"
_LACKS = re.compile(
    r'role "[^"]*" does not exist'
    r'|extension "[^"]*" is not available|could not open extension control file|required extension "[^"]*"'
    r"|could not access file|unrecognized configuration parameter|unsupported XML feature|ICU is not supported"
    r'|tablespace "[^"]*" does not exist|could not load library|compression method \S+ not supported'
)
"""What a server says when it lacks something that the dump takes for granted: no fault of the dump."""


def complaints(said: str) -> Iterator[Finding]:
    """Turn what pg_restore wrote into findings: every error and warning, with the object it was about.

    What PostgreSQL quotes of the rows is left out; the number of the line in the table's rows is kept. An error for
    something that the target alone lacks, or that pg_restore's jobs made for each other, leaves the backup unproven;
    any other is a failure.
    """
    subject = ""
    lines = said_by_postgresql(said).splitlines()
    for number, line in enumerate(lines, start=1):
        if about := re.match(r"pg_restore: from TOC entry \d+; \d+ \d+ (.*)", line):
            subject = about[1]
        elif error := re.match(r"pg_restore: (?:error|warning): (.*)", line):
            says = error[1].removeprefix("could not execute query: ")
            if says.startswith("errors ignored on restore"):
                continue
            says += _place(lines[number:])
            yield _complaint(subject or "pg_restore", says)


def _complaint(subject: str, says: str) -> Finding:
    if _DEADLOCK in says:
        # Attaching the indexes of partitions, pg_restore's own jobs can wait for each other: no fault of the dump.
        remedy = "run it again, with jobs = 1 under [restore] in the profile if it happens again"
        return Finding("restore.deadlock", subject, says, Outcome.UNPROVEN, remedy)
    if _LACKS.search(says):
        remedy = "give the drill's machine what the source has, and run the drill again"
        return Finding("restore.target_lacks", subject, says, Outcome.UNPROVEN, remedy)
    return Finding("restore.error", subject, says, Outcome.FAILED)


def _place(following: Iterable[str]) -> str:
    """Return where in a table's rows an error was, by what stands below it."""
    beside = takewhile(lambda line: not line.startswith("pg_restore: "), following)
    found = (re.match(r"CONTEXT:  (COPY .*)", line) for line in beside)
    return next((f" ({place[1]})" for place in found if place), "")
