"""Files into and out of pods, with a digest on both sides.

``kubectl cp`` runs ``tar`` at the other end and exits 0 with half a file when the stream is cut. Here a file is
streamed as it is and counted on the way; what arrived is compared with what ``sha256sum`` says in the pod; and a file
gets its name only when both agree. No shell takes part: no path can become a command.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from runbook_lib.errors import DamagedArtefact, NoRoom, NotFound, RunbookError, TargetRefused, ToolFailed
from runbook_lib.reach.programs import CommandResult

_DIGEST_REMEDY = "look whether the file is there, and whether the container has sha256sum"


class Exec(Protocol):
    """Runs a command in the pod, as `Cluster.exec` does."""

    def __call__(
        self, argv: list[str], *, sought: str, stdin: BinaryIO | None = None, stdout: BinaryIO | None = None
    ) -> CommandResult:
        """Run it to its end."""
        ...


def copy_out(run: Exec, path: str, into: Path, *, where: str) -> str:
    """Copy a file out of a pod into one that is not there yet, and return its sha256.

    Raise `DamagedArtefact` where what arrived is not what is there, `NoRoom` where the disk is full.
    """
    sought = f"the file {path}"
    partial = into.with_name(f".{into.name}.{secrets.token_hex(4)}.partial")
    if into.exists():
        raise TargetRefused(
            sought, where=str(into), why="a file of that name is there", remedy="remove it, or choose another name"
        )
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            counted = _Counting(file)
            copied = run(["cat", "--", path], sought=sought, stdout=cast("BinaryIO", counted))
        if not copied.succeeded:
            if "No such file" in copied.stderr:
                raise NotFound(sought, where=where, why=copied.stderr.strip(), remedy="list what is there")
            copied.must("look whether the file is there, and may be read")
        there = _digest_there(run, path, sought)
        if there != counted.digest.hexdigest():
            raise DamagedArtefact(
                f"{sought}, whole",
                where=where,
                why=f"{counted.bytes:,} bytes of sha256 {counted.digest.hexdigest()} arrived, and there it is {there}",
                remedy="look whether somebody writes the file while it is copied; copy it again",
            )
        partial.rename(into)
    except OSError as failed:
        if failed.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise NoRoom(
                sought, where=str(into.parent), why=failed.strerror or "full", remedy="free space there"
            ) from failed
        raise ToolFailed(
            sought, where=str(into), why=failed.strerror or str(failed), remedy="choose a folder that we may write to"
        ) from failed
    finally:
        partial.unlink(missing_ok=True)
    return counted.digest.hexdigest()


def copy_in(run: Exec, source: Path, path: str, *, where: str) -> str:
    """Copy a file into a pod, over one that may be there, and return its sha256.

    Raise `DamagedArtefact` where what arrived is not what was sent; then nothing of it is left, and what was there
    under that name before is untouched.
    """
    sought = f"to write the file {path}"
    folder, _, name = path.rpartition("/")
    partial = f"{folder}/" if folder or path.startswith("/") else ""
    partial += f".{name}.{secrets.token_hex(4)}.partial"
    digest = hashlib.sha256()
    try:
        opened = source.open("rb")
    except OSError as failed:
        raise NotFound(
            sought, where=str(source), why=failed.strerror or str(failed), remedy="name a file that we may read"
        ) from failed
    with opened as file:
        size = os.fstat(file.fileno()).st_size
        # The count lets dd end where a cluster cannot tell it that its input has.
        writing = ["dd", f"of={partial}", "bs=65536", f"count={size}", "iflag=fullblock,count_bytes", "status=none"]
        try:
            feeding = _Feeding(file, digest)
            run(writing, sought=sought, stdin=cast("BinaryIO", feeding)).must("look for room and permission there")
            there = _digest_there(run, partial, sought)
            if there != digest.hexdigest() or feeding.bytes != size:
                raise DamagedArtefact(
                    f"{sought}, whole",
                    where=where,
                    why=f"{feeding.bytes:,} bytes with sha256 {digest.hexdigest()} were sent, and there it is {there}",
                    remedy="look at the room there, and whether the file is being written here; copy it again",
                )
            run(["mv", "-f", "--", partial, path], sought=sought).must("look whether the name is a folder's")
        except BaseException:
            with contextlib.suppress(RunbookError):  # the first error is the one to tell
                run(["rm", "-f", "--", partial], sought=f"to remove {partial}")
            raise
    return there


def _digest_there(run: Exec, path: str, sought: str) -> str:
    said = run(["sha256sum", "--", path], sought=f"the digest of {path}").must(_DIGEST_REMEDY).stdout
    digest = said.lstrip("\\").partition(" ")[0].strip()
    if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise ToolFailed(
            sought, where="sha256sum in the pod", why=f"it printed no digest: {said[:80]!r}", remedy=_DIGEST_REMEDY
        )
    return digest


class _Counting:
    """A file being written, and the digest of what was."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.bytes = 0

    def write(self, data: memoryview) -> int:
        self.digest.update(data)
        self.bytes += len(data)
        return self._file.write(data)


class _Feeding:
    """A file being read, and the digest of what was."""

    def __init__(self, file: BinaryIO, digest: hashlib._Hash) -> None:
        self._file = file
        self._digest = digest
        self.bytes = 0

    def read(self, size: int) -> bytes:
        piece = self._file.read(size)
        self._digest.update(piece)
        self.bytes += len(piece)
        return piece
