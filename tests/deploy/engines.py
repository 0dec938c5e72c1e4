"""Engines for tests: the one that answers, else a private one where that can be had; in CI that is no question."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
ENGINE = PROJECT / "deploy" / "engine.py"
NOWHERE = "unix:///nonexistent/docker.sock"
VARIABLES = ("DOCKER_HOST", "TESTCONTAINERS_HOST_OVERRIDE", "TESTCONTAINERS_CONNECTION_MODE")
IN_CI = os.environ.get("CI") == "true"
STARTABLE = os.geteuid() == 0 and all(shutil.which(name) for name in ("dockerd", "unshare", "setpriv"))
private = pytest.mark.skipif(not (STARTABLE or IN_CI), reason="a private engine needs root and docker.io")
_TELL = """
import json, os, sys
print(json.dumps({name: os.environ[name] for name in sys.argv[1:] if name in os.environ}), flush=True)
sys.stdin.read()
"""
_DOWN_SECONDS = 90


@contextmanager
def short_folder() -> Iterator[Path]:
    """Make a folder with a short path, because sockets are in it, that every account may enter."""
    with tempfile.TemporaryDirectory(prefix="engine", dir="/tmp") as made:
        Path(made).chmod(0o755)
        yield Path(made)


@contextmanager
def some_engine() -> Iterator[Mapping[str, str]]:
    """Hand out the variables that say where an engine answers; skip where there is none, unless this is CI."""
    held = subprocess.Popen(
        [sys.executable, ENGINE, *(["--install"] if IN_CI else []), "--", sys.executable, "-c", _TELL, *VARIABLES],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert held.stdout is not None
    try:
        told = held.stdout.readline()
        if not told:
            why = held.communicate()[1]
            assert not IN_CI, why
            pytest.skip(f"no Docker engine: {why}")
        yield json.loads(told)
    finally:
        held.communicate(timeout=_DOWN_SECONDS)
    assert held.returncode == 0
