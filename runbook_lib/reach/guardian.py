"""The tiny program that clears a workspace when its owner is gone.

A ``finally`` runs only in a process that is still there. The owner of a workspace may be killed with a signal that
nobody can catch, or by the machine's memory keeper, and would leave servers, ports and gigabytes behind. So each
workspace has a guardian: a process of its own session, which a Ctrl-C does not reach, holding the reading end of a
pipe whose writing end only the owner has. The end of the pipe is the end of the owner, however it came. The guardian
then kills what runs in the workspace and removes the folder.

It imports the standard library alone and is started by path (``python -I guardian.py ROOT``), so that it does not
depend on the environment which it may have to clean up. `Workspace` calls `clear` itself where the guardian was killed
as well.

Processes are recognised by what they are, never by a remembered process id, which may long belong to somebody else:

- their working directory or root directory lies inside the folder (PostgreSQL moves into its data directory, and
  overwrites its environment with its title),
- or they bear the folder's name in their environment,
- or they run under the account that was made up for this workspace alone, which is the owner of ``home`` in it. That
  one works in a container, where root may not look at other accounts' working directories.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

MARK = "TENSAFE_WORKSPACE"
"""The environment variable that says which workspace a process belongs to; its value is the folder's name."""
HOME = "home"
"""The folder inside a workspace whose owner is the account that the workspace's processes run under."""
LIST = ".tensafe-workspace"
"""The file that makes a folder a workspace: without it nothing is ever removed. It lists files elsewhere that are to be
removed with the workspace, each ended by a NUL byte."""
WATCHING = b"watching\n"
"""What the guardian says as soon as nothing but SIGKILL can stop it from doing its work."""

_OWNER_LOOK_SECONDS = 1.0
_KILL_SECONDS = 20.0


def clear(root: Path) -> list[str]:
    """Kill everything that runs in the workspace, remove it, and return what could not be done, a sentence each.

    :param root: the workspace's folder, as a real path without symbolic links
    """
    account = _account(root)
    problems = _kill_all(root, account)
    for path in _listed(root):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            problems.append(f"{path} could not be removed: {error.strerror}")
    return problems + _remove_shared_memory(root, account) + _remove(root)


def _account(root: Path) -> int | None:
    """Return the uid that belongs to this workspace alone; None where its processes run as we do."""
    with contextlib.suppress(OSError):
        uid = (root / HOME).stat().st_uid
        if uid != os.geteuid():
            return uid
    return None


def _listed(root: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return [Path(os.fsdecode(name)) for name in (root / LIST).read_bytes().split(b"\0") if name]
    return []


def _kill_all(root: Path, account: int | None) -> list[str]:
    """Kill what belongs to the workspace until one look finds nothing: a process may fork while it is being killed."""
    deadline = time.monotonic() + _KILL_SECONDS
    while True:
        found = list(_inhabitants(root, account))
        if not found:
            return []
        if time.monotonic() > deadline:
            return [f"these processes of {root} could not be killed: {', '.join(map(str, found))}"]
        for pid in found:
            _kill(pid, root, account)
        time.sleep(0.02)


def _kill(pid: int, root: Path, account: int | None) -> None:
    """Kill one process, holding on to it while it is recognised: its number may have gone to another one by now."""
    if sys.platform != "linux":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        handle = os.pidfd_open(pid)
        try:
            if _belongs(pid, root, account):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)


def _inhabitants(root: Path, account: int | None) -> Iterator[int]:
    """Yield the ids of all processes that belong to the workspace, except this one and the one that started it."""
    spared = {os.getpid(), os.getppid()}
    if sys.platform != "linux":
        yield from _inhabitants_by_lsof(root, spared)
        return
    for process in Path("/proc").glob("[0-9]*"):
        pid = int(process.name)
        if pid not in spared and _belongs(pid, root, account):
            yield pid


def _belongs(pid: int, root: Path, account: int | None) -> bool:
    process = Path("/proc", str(pid))
    with contextlib.suppress(OSError):
        status = (process / "status").read_text(errors="replace")
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        if fields["State"][0] in "ZX":
            return False  # already dead, its parent has not asked yet
        if account is not None and int(fields["Uid"].split()[0]) == account:
            return True
    for link in "cwd", "root":
        with contextlib.suppress(OSError):
            where = str((process / link).readlink()).removesuffix(" (deleted)")
            if where == str(root) or where.startswith(f"{root}/"):
                return True
    with contextlib.suppress(OSError):
        return os.fsencode(f"{MARK}={root.name}") in (process / "environ").read_bytes().split(b"\0")
    return False


def _inhabitants_by_lsof(root: Path, spared: set[int]) -> Iterator[int]:
    """Yield those whose working directory is in the workspace, where there is no /proc to look at (macOS)."""
    pid = 0
    with os.popen("lsof -w -n -d cwd -F pn 2>/dev/null") as lines:  # noqa: S605  (a fixed command line)
        for line in lines:
            if line.startswith("p"):
                pid = int(line[1:])
            elif line.startswith("n") and f"{line[1:].strip()}/".startswith(f"{root}/") and pid not in spared:
                yield pid


def _remove_shared_memory(root: Path, account: int | None) -> list[str]:
    """Remove the System V segments that killed PostgreSQL servers leave: a few bytes each, but for ever.

    Each server names its segment in the seventh line of its postmaster.pid; under an account of our own every segment
    of that account is ours. Only segments that nobody is attached to any more are removed, and by the account that
    made them: root itself may not, where a container has taken that from it.
    """
    named = set()
    for lock_file in root.rglob("postmaster.pid"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            named.add(int(lock_file.read_text().splitlines()[6].split()[1]))
    left = []
    with contextlib.suppress(FileNotFoundError):
        table = [line.split() for line in Path("/proc/sysvipc/shm").read_text().splitlines()]
        column = {name: table[0].index(name) for name in ("shmid", "nattch", "cuid")}
        for row in table[1:]:
            segment, attached, creator = (int(row[column[name]]) for name in ("shmid", "nattch", "cuid"))
            if not attached and (creator == account or (segment in named and creator == os.geteuid())):
                left.append(segment)
    problems = []
    for segment in left:
        try:
            subprocess.run(["ipcrm", "-m", str(segment)], user=account, check=True, capture_output=True, timeout=20)
        except (OSError, subprocess.SubprocessError) as error:
            problems.append(f"the shared memory segment {segment} could not be removed: {error}")
    return problems


def _remove(root: Path) -> list[str]:
    """Remove the folder, its list last: while that is there, the next sweep knows what the folder is."""
    problems = []
    for entry in root.iterdir() if root.is_dir() else ():
        if entry.name == LIST:
            continue
        try:
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        except OSError as error:
            problems.append(f"{entry} could not be removed: {error.filename}: {error.strerror}")
            shutil.rmtree(entry, ignore_errors=True)  # as much of it as is possible
    if not problems:
        shutil.rmtree(root, ignore_errors=True)
        if os.path.lexists(root):
            problems.append(f"the folder {root} could not be removed")
    return problems


def _outlive(owner: int) -> None:
    """Wait for the end of the pipe, or for the owner to be gone although a stray child of it still holds the pipe."""
    while os.getppid() == owner:
        readable, _, _ = select.select([0], [], [], _OWNER_LOOK_SECONDS)
        if readable and not os.read(0, 1):
            return


def main() -> int:
    """Watch over the workspace named on the command line; 0 when it was cleared completely."""
    root = Path(sys.argv[1])
    owner = os.getppid()
    for ignored in signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE:
        signal.signal(ignored, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.write(1, WATCHING)
    _outlive(owner)
    problems = clear(root)
    if problems:
        text = os.fsencode("\n".join(problems) + "\n")
        try:
            os.write(1, text)  # the owner is closing the workspace and listens
        except OSError:
            with contextlib.suppress(OSError):
                os.write(2, text)  # the owner is gone
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
