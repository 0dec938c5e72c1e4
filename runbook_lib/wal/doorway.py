"""The door at which PostgreSQL asks for WAL files and hands them in: a unix socket beside one server's ``pg_wal``.

Whoever serves here holds the credentials of the archive; the server does not, and need not: what replays somebody's
WAL, or has been given a dump to run, is the last process that should find them in its environment. For the same reason
the door serves one folder alone, which it opened at the beginning: no request names a path.

A request that was overtaken delivers nothing. PostgreSQL asks for every segment under one and the same name
(``RECOVERYXLOG``); a request of a server that was killed since may still be under way, and must not put its segment
where its successor waits for another one.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import shutil
import socketserver
import stat
import threading
from pathlib import Path

from runbook_lib.errors import DamagedArtefact, NoRoom, RunbookError, TargetRefused
from runbook_lib.wal.archive import Absence, WalArchive
from runbook_lib.wal.fetching import Fetched, Fetcher

_LONGEST_REQUEST_BYTES = 512
_log = logging.getLogger(__name__)


class Doorway:
    """Serves one server's restore_command and archive_command.

    :param folder: the server's ``pg_wal``, which is there already
    :param socket: where the socket is made; owner and root alone may use it
    :param archive: what is archived to
    :param fetcher: what fetches; None where nothing is fetched
    :param taken: where a pipe is made into which the server writes the name of each segment that it took by itself
    """

    def __init__(
        self, folder: Path, socket: Path, archive: WalArchive, fetcher: Fetcher | None, *, taken: Path | None = None
    ) -> None:
        self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._where = str(folder)
        self._archive = archive
        self._fetcher = fetcher
        self._tickets: dict[str, int] = {}
        self._delivering = threading.Lock()
        owner = os.fstat(self._folder)
        self._owner = (owner.st_uid, owner.st_gid)
        self._server = _Server(str(socket), self)
        if os.geteuid() == 0:
            os.chown(socket, *self._owner)
        socket.chmod(0o600)
        self._socket = socket
        self._taken: int | None = None
        if taken is not None:
            taken.unlink(missing_ok=True)
            os.mkfifo(taken, 0o600)
            self._taken = os.open(taken, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
            if os.geteuid() == 0:
                os.fchown(self._taken, *self._owner)
        self._stopping = threading.Event()
        self._listening = threading.Thread(target=self._listen, name="wal-taken")

    def serve(self) -> None:
        """Answer requests, each in a thread of its own, until `stop` is called from another thread."""
        self._listening.start()
        self._server.serve_forever(poll_interval=0.1)

    def stop(self) -> None:
        """Have `serve` return."""
        self._stopping.set()
        self._server.shutdown()
        self._listening.join()

    def close(self) -> None:
        """Take the socket away."""
        self._server.server_close()
        self._socket.unlink(missing_ok=True)
        os.close(self._folder)
        if self._taken is not None:
            os.close(self._taken)

    def _listen(self) -> None:
        """Hear what the server takes by itself, and have more fetched."""
        if self._taken is None or self._fetcher is None:
            return
        heard = b""
        while not self._stopping.is_set():
            if select.select([self._taken], [], [], 0.2)[0]:
                heard += os.read(self._taken, 4096)
                *names, heard = heard[-_LONGEST_REQUEST_BYTES * 8 :].split(b"\n")
                for name in names:
                    self._fetcher.taken(name.decode(errors="replace"))

    def answer(self, request: bytes) -> tuple[str, str]:
        """Carry out one request and return one word, ``done``, ``absent`` or ``unknown``, and what there is to say."""
        try:
            verb, name, basename, device, inode = request.decode("ascii").split()
            if "/" in basename or basename in {".", ".."}:
                return "unknown", f"a name of a file is needed, not {basename!r}"
            self._must_be_here(int(device), int(inode))
            if verb == "fetch":
                return self._fetch(name, basename)
            if verb == "push":
                return self._push(name, basename)
            return "unknown", f"no such request: {verb}"
        except RunbookError as failed:
            return "unknown", str(failed)
        except Exception as failed:  # noqa: BLE001 - whatever it was, nothing can be told, and that must be told
            _log.exception("answering %r", request)
            return "unknown", f"{type(failed).__name__}: {failed}"

    def _must_be_here(self, device: int, inode: int) -> None:
        ours = os.fstat(self._folder)
        if (device, inode) != (ours.st_dev, ours.st_ino):
            raise TargetRefused(
                "to serve WAL",
                where=self._where,
                why="whoever asks stands in another folder: its configuration was copied from this server's",
                remedy="give it a restore_command and an archive_command of its own, or set archive_mode = off",
            )

    def _fetch(self, name: str, basename: str) -> tuple[str, str]:
        if self._fetcher is None:
            return "unknown", "nothing is fetched here; this is the archiving side"
        with self._delivering:
            ticket = self._tickets[basename] = self._tickets.get(basename, 0) + 1
        answer = self._fetcher.fetch(name)
        if isinstance(answer, Absence):
            return "absent", answer.proof
        try:
            with self._delivering:
                if self._tickets[basename] != ticket:
                    return "unknown", f"another request for {basename} came after this one"
                self._put_in_place(answer, basename)
        finally:
            answer.received.path.unlink(missing_ok=True)
        return "done", f"{name} {'ahead' if answer.ahead else 'now'}"

    def _put_in_place(self, fetched: Fetched, basename: str) -> None:
        """Rename the proven file to its place, at once and whole; through a copy where it is on another file system."""
        path = fetched.received.path
        if os.geteuid() == 0:
            os.chown(path, *self._owner, follow_symlinks=False)
        try:
            os.rename(path, basename, dst_dir_fd=self._folder)
            return
        except OSError as failed:
            if failed.errno != errno.EXDEV:
                raise
        beside = f"{basename}.{os.getpid()}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside, dir_fd=self._folder)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(beside, flags, 0o600, dir_fd=self._folder)
        try:
            with path.open("rb") as source, os.fdopen(descriptor, "wb") as into:
                shutil.copyfileobj(source, into, 1 << 20)
                into.flush()
                os.fsync(into.fileno())
                if os.geteuid() == 0:
                    os.fchown(into.fileno(), *self._owner)
            os.rename(beside, basename, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        except OSError as failed:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(beside, dir_fd=self._folder)
            raise NoRoom(
                f"to put {fetched.received.name} into place",
                where=self._where,
                why=failed.strerror or str(failed),
                remedy="free space there",
            ) from failed

    def _push(self, name: str, basename: str) -> tuple[str, str]:
        descriptor = os.open(basename, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._folder)
        with os.fdopen(descriptor, "rb") as source:
            if not stat.S_ISREG(os.fstat(source.fileno()).st_mode):
                raise DamagedArtefact(
                    f"to archive {name}",
                    where=self._where,
                    why=f"{basename} is no file",
                    remedy="look at what it is, and who made it",
                )
            archived = self._archive.put_from(source, name)
        return "done", f"{archived.object.url}{' was there already' if archived.repeated else ''}"


class _Request(socketserver.StreamRequestHandler):
    """One request, one answer, a line each."""

    server: _Server

    def handle(self) -> None:
        request = self.rfile.readline(_LONGEST_REQUEST_BYTES)
        if not request.endswith(b"\n"):
            return
        word, said = self.server.doorway.answer(request)
        if word == "unknown":
            _log.error("%s: %s", request.decode(errors="replace").strip(), said)
        with contextlib.suppress(OSError):  # whoever asked may be gone
            self.wfile.write(f"{word} {' '.join(said.split())[:4000]}\n".encode())


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """A thread for each request; those under way are waited for at the end."""

    request_queue_size = 64

    def __init__(self, path: str, doorway: Doorway) -> None:
        self.doorway = doorway
        super().__init__(path, _Request)
