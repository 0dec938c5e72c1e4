"""The image that the containers profile runs PostgreSQL from, built where it is used.

A backup is proven by programs of its own version, and no registry promises to have an image of just that. So the image
is built from the pinned wheel that the programs on this machine come from. Its base, Debian, is pulled where a registry
answers; where none does, root on Debian makes a stand-in by debootstrap. What was built stays in the engine under names
of ours, so that only the first run pays for it; an image that somebody else made is never replaced.

``python -m runbook_lib.sandbox.images MAJOR`` writes the build context as a tar archive, for whoever wants to build it
elsewhere.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import IO

import docker
from docker.errors import DockerException, ImageNotFound
from requests import RequestException
from testcontainers.core.config import testcontainers_config

from runbook_lib.errors import ToolFailed, Unproven
from runbook_lib.reach import binaries, guardian, programs
from runbook_lib.reach.binaries import PostgresTools
from runbook_lib.reach.workspace import Workspace
from runbook_lib.sandbox import engine

BASE = "debian:bookworm-slim"
"""What the image is built upon."""
STAND_IN = "tensafe-runbook/debian:bookworm-slim"
"""What is built upon instead where no registry has it to give."""
POSTGRES = "tensafe-runbook/postgres"
"""The repository of the built images; their tags say the version and what they were made from."""
SUITE = "bookworm"
_FILES = Path(__file__).parents[2] / "deploy" / "postgres"
_DEBOOTSTRAP_SECONDS = 600.0
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
"""What some engines say, and what the kernel says."""


def postgres(client: docker.DockerClient, major: int, workspace: Workspace) -> str:
    """Return the name of the image of a major version, which is built where the engine does not have it.

    :param workspace: where what is needed for that lies meanwhile

    Raise `Unproven` or an error below it where its programs or its base are not to be had.
    """
    with engine.errors("which machine the engine runs on", remedy="see what the engine says"):
        machine = str(client.info()["Architecture"])
    tools = binaries.for_linux(major, _MACHINES.get(machine, machine))
    name = f"{POSTGRES}:{tools.version}-{_fingerprint(tools)}"
    with engine.errors(f"an image of PostgreSQL {tools.version}", remedy="see what the engine says; free its disk"):
        if not _is_there(client, name):
            base = _base(client, workspace)
            with tempfile.TemporaryFile(dir=workspace.path) as context:
                write_context(tools, context)
                context.seek(0)
                client.images.build(
                    fileobj=context,
                    custom_context=True,
                    tag=name,
                    buildargs={"BASE": base, "MAJOR": str(major)},
                    network_mode="host",  # needed where the base lacks a library; some engines have no other way out
                    rm=True,
                    forcerm=True,
                )
    return name


def write_context(tools: PostgresTools, to: IO[bytes]) -> None:
    """Write everything that the image is built from, as a tar archive."""
    # Docker takes an archive for one by its first block alone, which the pax format has its own use for.
    with tarfile.open(fileobj=to, mode="w|", format=tarfile.GNU_FORMAT) as context:
        for file in sorted(_FILES.iterdir()):
            context.add(file, file.name, filter=_anybodys)
        for part in ("bin", "lib", "share"):
            context.add(tools.bin.parent / part, f"programs/{part}", filter=_anybodys)


def _anybodys(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Have a file belong to root and be readable by all, whoever unpacked it here."""
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    member.mode |= 0o755 if member.isdir() or member.mode & 0o100 else 0o644
    return member


def _fingerprint(tools: PostgresTools) -> str:
    parts = [tools.bin.parent.name.encode(), *(file.read_bytes() for file in sorted(_FILES.iterdir()))]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]


def _is_there(client: docker.DockerClient, name: str) -> bool:
    try:
        client.images.get(name)
    except ImageNotFound:
        return False
    return True


def _base(client: docker.DockerClient, workspace: Workspace) -> str:
    """Return the name of the base: what is there already, what can be pulled, or the stand-in."""
    wanted = testcontainers_config.hub_image_name_prefix + BASE
    for name in (wanted, STAND_IN):
        if _is_there(client, name):
            return name
    try:
        client.images.pull(wanted)
    except (DockerException, RequestException) as refused:
        lacks = _what_debootstrap_lacks()
        if lacks:
            raise Unproven(
                f"the base image {wanted}",
                where=engine.address(),
                why=f"it cannot be pulled ({' '.join(str(refused).split())}), and cannot be made here: {lacks}",
                remedy=f"let the engine reach a registry, or load the image into it (docker load), or name a mirror in"
                f" TESTCONTAINERS_HUB_IMAGE_NAME_PREFIX, or run as root where debootstrap is installed ({SUITE})",
            ) from refused
        _make_stand_in(client, workspace)
        return STAND_IN
    return wanted


def _what_debootstrap_lacks() -> str:
    if os.geteuid() != 0:
        return "that takes root"
    missing = [name for name in ("debootstrap", "unshare") if shutil.which(name) is None]
    return f"{' and '.join(missing)} is not installed" if missing else ""


def _make_stand_in(client: docker.DockerClient, workspace: Workspace) -> None:
    """Make a small Debian that has what PostgreSQL is linked with, and give it to the engine.

    It is made in namespaces of its own, so that neither a mount nor a process is left of it when it is killed.
    """
    root = workspace.path / "base"
    packed = workspace.path / "base.tar"
    libraries = ",".join((_FILES / "libraries.txt").read_text().split())
    try:
        programs.run(
            [
                *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
                *("debootstrap", "--variant=minbase", f"--include={libraries}", SUITE, root),
            ],
            sought=f"making {BASE} by debootstrap",
            env={guardian.MARK: workspace.id},
            timeout_seconds=_DEBOOTSTRAP_SECONDS,
        ).must("let debootstrap reach a Debian mirror, or load the image into the engine (docker load)")
        left_out = ("./var/cache/apt/*", "./var/lib/apt/lists/*", "./proc/*", "./sys/*", "./dev/*")
        programs.run(
            ["tar", "--create", "--numeric-owner", f"--file={packed}", f"--directory={root}"]
            + [f"--exclude={pattern}" for pattern in left_out]
            + ["."],
            sought="packing a base image",
            timeout_seconds=_DEBOOTSTRAP_SECONDS,
        ).must("see what it says; free the disk")
        repository, _, tag = STAND_IN.partition(":")
        client.api.import_image_from_file(str(packed), repository=repository, tag=tag)
    finally:
        shutil.rmtree(root, ignore_errors=True)
        packed.unlink(missing_ok=True)
    if not _is_there(client, STAND_IN):  # an import that failed is an answer, not an error, of the engine's
        raise ToolFailed(
            f"giving {STAND_IN} to the engine",
            where=engine.address(),
            why="it was sent, and is not there",
            remedy="see the engine's log",
        )


def main(major: str) -> None:
    """Write the context for a major version to the standard output."""
    machine = os.uname().machine
    with io.FileIO(sys.stdout.fileno(), "w", closefd=False) as out, io.BufferedWriter(out) as buffered:
        write_context(binaries.for_linux(int(major), {"arm64": "aarch64"}.get(machine, machine)), buffered)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "17")
