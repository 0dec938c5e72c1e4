"""A private place on this machine for servers that are thrown away, and the certainty that they are.

Restored production data is production data: it must be readable by nobody else while it is there, and gone when the
drill is over, also when the drill was killed. So everything a drill starts or writes lives in one workspace:

- a folder that only we (and, where we are root, one account made up for it) can enter;
- the processes started in it. PostgreSQL refuses to run as root, and a dump is code that runs in the process which
  restores it (CVE-2025-8714, CVE-2026-18408); so as root all of them run under a numeric user id that has no account
  on this machine, owns nothing else and is not kept. No ``useradd``: nothing may be left behind;
- a guardian (see `runbook_lib.reach.guardian`) that kills those processes and removes the folder when its owner is
  gone, in whatever way;
- a lock on the folder, held by the owner and by the guardian. Where both were killed the lock is free, and the next
  workspace that is opened beside it sweeps it up.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import pwd
import select
import shutil
import stat
import subprocess
import sys
import tempfile
import weakref
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from runbook_lib.errors import Denied, NoRoom, NotFound, ToolFailed, ToolMissing, Unproven
from runbook_lib.reach import guardian

PREFIX = "tensafe-"
"""How the name of every workspace's folder begins."""

_MADE_UP_UIDS = range(61_000, 65_000)
"""Above what any distribution gives to people and services, below the 65,536 ids that a container usually has."""
_GUARDIAN_READY_SECONDS = 20.0
_CLEARED_SECONDS = 120.0

_log = logging.getLogger(__name__)
_open_here: weakref.WeakSet[Workspace] = weakref.WeakSet()


@dataclass(frozen=True)
class Account:
    """Whom the processes of a workspace run as, where we are root."""

    uid: int
    """The numeric user id."""
    gid: int
    """The numeric group id; there are no further groups."""


class Workspace:
    """A private folder, and every process that runs inside it.

    Use it as a context manager::

        with Workspace.open() as workspace:
            workspace.start(["postgres", "-D", ...], log=workspace.path / "postgres.log")

    Leaving the block, dying, and being killed all end the same way: no process, no folder.
    """

    def __init__(self, path: Path, lock: int) -> None:
        """Take possession of a folder that is locked already; use `open` instead."""
        self.path = path
        """The folder, as a real path short enough for unix sockets in it, such as ``/tmp/tensafe-ab12cd34``."""
        self._lock = lock
        self._owner = os.getpid()
        self._children: list[subprocess.Popen[bytes]] = []
        self._closed = False
        self.account = self._settle()
        """Whom the processes run as; None where we are an ordinary user and they run as we do."""
        self._guardian = self._post_guardian()
        _open_here.add(self)

    @classmethod
    def open(cls, *, parent: Path | None = None) -> Self:
        """Sweep abandoned workspaces in the parent folder, and make a new one there.

        :param parent: the folder to make it in; by default the machine's temporary folder

        Raise `Unproven` or an error below it where no private place can be had there.
        """
        parent = Path(os.path.realpath(parent or _temporary_folder()))
        _must_be_enterable(parent)
        sweep(parent)
        try:
            path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        except OSError as error:
            kind = NoRoom if error.errno in {errno.ENOSPC, errno.EDQUOT} else Unproven
            raise kind(
                "making a private folder for throwaway servers",
                where=str(parent),
                why=error.strerror or str(error),
                remedy="set TMPDIR to a folder with room that you may write to",
            ) from error
        lock = _lock(path)
        assert lock is not None, "nobody else knows this folder yet"
        try:
            return cls(path, lock)
        except BaseException:
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)
            raise

    @property
    def id(self) -> str:
        """The name of the folder, which all processes of the workspace bear in their environment."""
        return self.path.name

    @property
    def home(self) -> Path:
        """The folder that the processes start in and find in ``HOME``; they may write to it."""
        return self.path / guardian.HOME

    @property
    def free_bytes(self) -> int:
        """How many bytes may still be written into the workspace."""
        return shutil.disk_usage(self.path).free

    def folder(self, name: str) -> Path:
        """Return the sub-folder of this name, which is made (private, owned by the account) where it is missing."""
        path = self.path / name
        if path.parent != self.path or name in {"", ".", ".."}:
            raise ValueError(f"the name of a folder directly inside the workspace is needed, not {name!r}")
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
            self.give(path)
        return path

    def give(self, path: Path) -> None:
        """Hand a file, or a folder with all that is in it, to the account, so that its processes can use it."""
        account = self.account
        if account is None:
            return
        for folder, _, files, handle in os.fwalk(path, follow_symlinks=False) if path.is_dir() else ():
            os.chown(folder, account.uid, account.gid, follow_symlinks=False)
            for name in files:
                os.chown(name, account.uid, account.gid, dir_fd=handle, follow_symlinks=False)
        os.chown(path, account.uid, account.gid, follow_symlinks=False)

    def within_reach(self, program: Path) -> Path:
        """Return a path by which the workspace's processes can run this program: its own, or that of a copy here."""
        if self._can_reach(program):
            return program
        copy = self.folder("programs") / program.name
        if not copy.exists():
            shutil.copyfile(program, copy)
            copy.chmod(0o700)
            self.give(copy)
        return copy

    def also_remove(self, path: Path) -> None:
        """Have a file outside the folder, such as a socket whose place cannot be chosen, removed with the workspace."""
        with (self.path / guardian.LIST).open("ab") as listed:
            listed.write(os.fsencode(path.absolute()) + b"\0")

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return what the workspace's processes find in their environment: no credentials, no language, no surprises.

        :param extra: variables to add; they win over the workspace's own, except over the mark
        """
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.home),
            "TMPDIR": str(self.home),
            "LANG": "C",
            "LC_ALL": "C",
            "TZ": "UTC",
            **(extra or {}),
            guardian.MARK: self.id,
        }

    def start(
        self,
        argv: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        account: Account | None = None,
        pass_fds: Sequence[int] = (),
    ) -> subprocess.Popen[bytes]:
        """Start a program in the workspace, unprivileged, in a session of its own, and return it running.

        :param argv: the program and its arguments; never a shell's
        :param log: the file that its output is appended to; it is private, and may lie inside the workspace
        :param env: added to the scrubbed environment
        :param account: whom to run it as instead of the workspace's own account, where we are root
        :param pass_fds: open files that it inherits

        Raise `ToolMissing` where the program is not there, or cannot be reached by the account.
        """
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            child = self.spawn(
                argv,
                env=env,
                account=account,
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                pass_fds=pass_fds,
            )
        finally:
            os.close(descriptor)
        self._children.append(child)
        return child

    def spawn(
        self,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        account: Account | None = None,
        **streams: Any,
    ) -> subprocess.Popen[bytes]:
        """Start a program as `start` does, with the streams that the caller gives it.

        :param account: whom to run it as instead of the workspace's own account, where we are root
        :param streams: ``stdin``, ``stdout``, ``stderr`` and ``pass_fds`` of `subprocess.Popen`
        """
        account = account or self.account
        as_account: dict[str, Any] = {}
        if self.account is not None and account is not None:
            as_account = {"user": account.uid, "group": account.gid, "extra_groups": []}
        arguments = [os.fspath(argument) for argument in argv]
        try:
            child = subprocess.Popen(
                arguments,
                env=self.environment(env),
                cwd=self.home,
                umask=0o077,
                start_new_session=True,
                **as_account,
                **streams,
            )
        except OSError as error:
            raise ToolMissing(
                f"running {Path(arguments[0]).name} in a private workspace",
                where=arguments[0],
                why=self._why_not(Path(arguments[0]), error),
                remedy="install it where every account of this machine may execute it, or give its folder",
            ) from error
        return child

    def close(self) -> None:
        """Kill what runs in the workspace, remove it, and return when it is gone. Closing twice is no error.

        Raise `ToolFailed` where something could not be removed.
        """
        if self._closed or os.getpid() != self._owner:
            return
        self._closed = True
        _open_here.discard(self)
        problems = self._dismiss_guardian()
        if os.path.lexists(self.path):
            problems = guardian.clear(self.path)
        for child in self._children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout=5)
        os.close(self._lock)
        if problems:
            raise ToolFailed(
                "removing a private workspace",
                where=str(self.path),
                why="; ".join(problems),
                remedy=f"end what still uses it and remove {self.path}: it may hold restored data",
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except ToolFailed as left:
            if error is None:
                raise
            error.add_note(str(left))

    def _settle(self) -> Account | None:
        """Make the folder a workspace with its ``home``, and as root choose the account that will own that."""
        (self.path / guardian.LIST).touch(mode=0o600)
        self.home.mkdir(mode=0o700)
        if os.geteuid() != 0:
            return None
        self.path.chmod(0o711)  # the account may pass through, and see no names
        refused = set(_uids_of_processes())
        while True:
            account = _made_up_account(self.path.name, refused)
            try:
                os.chown(self.home, account.uid, account.gid)
            except PermissionError as error:
                raise Denied(
                    "giving a folder to an unprivileged account for throwaway servers",
                    where=str(self.home),
                    why="we are root in name only, and may not",
                    remedy="run as an ordinary user, or with the capabilities CHOWN, SETUID, SETGID and DAC_OVERRIDE",
                ) from error
            # Claim first, look afterwards: of two that claim the same at the same time, one at least sees the other.
            homes = [
                home
                for folder in {self.path.parent, Path(tempfile.gettempdir())}
                for home in folder.glob(f"{PREFIX}*/{guardian.HOME}")
            ]
            others = {_owner(home) for home in homes if home != self.home}
            if account.uid not in others:
                return account
            refused.add(account.uid)

    def _post_guardian(self) -> subprocess.Popen[bytes]:
        watcher = subprocess.Popen(
            [sys.executable, "-I", "-S", guardian.__file__, str(self.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
            env={name: value for name, value in os.environ.items() if name != guardian.MARK},
            pass_fds=[self._lock],
            start_new_session=True,
        )
        assert watcher.stdout is not None
        said = b""
        if select.select([watcher.stdout], [], [], _GUARDIAN_READY_SECONDS)[0]:
            said = watcher.stdout.readline()
        if said != guardian.WATCHING:
            watcher.kill()
            watcher.communicate()
            raise ToolFailed(
                "starting the guardian of a private workspace",
                where=guardian.__file__,
                why=f"it said {said!r} within {_GUARDIAN_READY_SECONDS:.0f} s",
                remedy="run it by hand with this interpreter and look at its message",
            )
        return watcher

    def _dismiss_guardian(self) -> list[str]:
        """Let the guardian do its work, and return what it could not do."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            said, _ = self._guardian.communicate(timeout=_CLEARED_SECONDS)
            return os.fsdecode(said).splitlines()
        self._guardian.kill()
        self._guardian.communicate()
        return [f"the guardian had not finished after {_CLEARED_SECONDS:.0f} s"]

    def _can_reach(self, program: Path) -> bool:
        return self.account is None or not _closed_to_others(program)

    def _why_not(self, program: Path, error: OSError) -> str:
        if self.account is not None and program.exists() and (closed := _closed_to_others(program)):
            return f"account {self.account.uid}, which it must run as, may not enter or execute {closed}"
        return error.strerror or str(error)

    def _forget_in_forked_child(self) -> None:
        """Let go of what keeps the workspace alive: that is the owner's alone, not its forked children's."""
        with contextlib.suppress(OSError):
            os.close(self._lock)
        if self._guardian.stdin is not None:
            self._guardian.stdin.close()


def sweep(parent: Path) -> list[Path]:
    """Clear every workspace of ours in this folder that neither its owner nor its guardian is left of.

    Return the folders that were cleared. What cannot be cleared is told to the log and left for the next sweep: whoever
    opens a workspace now has nothing to do with it.
    """
    swept = []
    for path in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            found = path.lstat()
            ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
            if ours and (path / guardian.LIST).is_file():
                lock = _lock(path)
                if lock is not None:
                    problems = guardian.clear(path)
                    os.close(lock)
                    if problems:
                        _log.warning("an abandoned workspace is in the way: %s", "; ".join(problems))
                    else:
                        swept.append(path)
    return swept


def _lock(path: Path) -> int | None:
    """Lock a folder for as long as the returned descriptor, or a copy of it, is open; None where somebody else has it.

    The lock is on the folder itself, so that there is no moment at which the folder is there and its lock is not. Where
    the folder was removed, or made anew, before we had the lock, somebody else has dealt with it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), path.lstat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None


def _made_up_account(name: str, refused: set[int]) -> Account:
    """Return a user id that no account, no process and no other workspace has, beginning where the name points."""
    begin = zlib.crc32(name.encode()) % len(_MADE_UP_UIDS)
    for uid in (*_MADE_UP_UIDS[begin:], *_MADE_UP_UIDS[:begin]):
        if uid not in refused and not _has_name(uid):
            return Account(uid, uid)
    raise NotFound(
        "an unused user id for throwaway servers",
        where=f"{_MADE_UP_UIDS.start} to {_MADE_UP_UIDS.stop - 1}",
        why="every one of them is in use",
        remedy="run as an ordinary user",
    )


def _temporary_folder() -> Path:
    """Return the machine's folder for temporary files, usable or not.

    Python passes over a TMPDIR that cannot be used, in silence. Somebody chose it, for its room or because restored
    data may lie nowhere else, so that another place is no answer.
    """
    return Path(os.environ.get("TMPDIR") or tempfile.gettempdir())


def _has_name(uid: int) -> bool:
    with contextlib.suppress(KeyError):
        return bool(pwd.getpwuid(uid))
    return False


def _owner(path: Path) -> int | None:
    with contextlib.suppress(OSError):
        return path.stat().st_uid
    return None


def _uids_of_processes() -> Iterator[int]:
    for process in Path("/proc").glob("[0-9]*"):
        uid = _owner(process)
        if uid is not None:
            yield uid


def _closed_to_others(path: Path) -> Path | None:
    """Return the first folder on the way to this file, or the file itself, that a stranger may not enter or execute."""
    path = Path(os.path.realpath(path))
    for step in (*reversed(path.parents), path):
        if not step.stat().st_mode & stat.S_IXOTH:
            return step
    return None


def _must_be_enterable(parent: Path) -> None:
    """Raise where root would make the workspace at a place that no unprivileged process can get to."""
    if os.geteuid() == 0 and parent.is_dir() and (closed := _closed_to_others(parent)):
        raise Denied(
            "making a private folder for throwaway servers",
            where=str(parent),
            why=f"they run unprivileged, and no other account may enter {closed}",
            remedy="set TMPDIR to a folder such as /tmp, or run as an ordinary user",
        )


def _let_go_in_forked_child() -> None:
    for workspace in list(_open_here):
        workspace._forget_in_forked_child()
    _open_here.clear()


os.register_at_fork(after_in_child=_let_go_in_forked_child)
