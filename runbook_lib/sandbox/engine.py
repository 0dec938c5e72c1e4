"""Whether there is a Docker engine, and how what it says is told.

A ``docker`` program on PATH says nothing: it is there on machines without an engine, and its engine may be elsewhere.
Only an answer counts. Where the engine is, testcontainers finds out: the same place is asked here that a container
would be started at.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import docker
from docker.errors import BuildError, DockerException
from requests import RequestException
from testcontainers.core.docker_client import DockerClient, get_docker_host
from testcontainers.core.exceptions import ContainerConnectException, ContainerStartException

from runbook_lib.errors import Denied, ToolFailed, Unreachable

_ANSWER_SECONDS = 10
_WORK_SECONDS = 600
_LAST_LINES = 6
_USUAL = "unix:///var/run/docker.sock"


def address() -> str:
    """Return where the engine is looked for: what ``DOCKER_HOST`` or Docker's context names, else the usual socket."""
    return get_docker_host() or _USUAL


@contextmanager
def connected() -> Iterator[docker.DockerClient]:
    """Hand out a client of the engine, which has answered.

    Raise `Unreachable` where nothing answers, and `Denied` where we may not ask.
    """
    with _unreachable("a Docker engine"):
        client = DockerClient(timeout=_ANSWER_SECONDS).client
        client.ping()
    client.api.timeout = _WORK_SECONDS
    try:
        yield client
    finally:
        client.close()


@contextmanager
def errors(sought: str, *, remedy: str) -> Iterator[None]:
    """Have what Docker and testcontainers raise in this block told as `ToolFailed`; a dead engine as `Unreachable`."""
    with _unreachable(sought):
        pass
    try:
        yield
    except BuildError as failed:
        said = "".join(str(line.get("stream") or line.get("error") or "") for line in failed.build_log)
        why = "\n".join([_reason(failed), *said.strip().splitlines()[-_LAST_LINES:]])
        raise ToolFailed(sought, where=address(), why=why, remedy=remedy) from failed
    except (
        DockerException,
        RequestException,
        TimeoutError,
        ContainerStartException,
        ContainerConnectException,
    ) as failed:
        raise ToolFailed(sought, where=address(), why=_reason(failed), remedy=remedy) from failed


@contextmanager
def _unreachable(sought: str) -> Iterator[None]:
    """Connect to the engine's socket once, and have it told where that, or what is done in this block, fails.

    Docker's client leaves a socket open for each that it cannot connect to, so it is not asked to where nobody listens.
    """
    where = address()
    try:
        _knock(where)
        yield
    except PermissionError as refused:
        remedy = "join the group docker, or run as root"
        raise Denied(sought, where=where, why=_reason(refused), remedy=remedy) from refused
    except (DockerException, RequestException, OSError, ValueError) as silent:
        raise Unreachable(
            sought,
            where=where,
            why=_reason(silent),
            remedy="start Docker, or name an engine in DOCKER_HOST, or as root on Debian run this behind"
            " `python deploy/engine.py --install --`; the profile sandbox (the default) needs none",
        ) from silent


def _knock(where: str) -> None:
    kind, _, path = where.partition("://")
    if kind == "unix":
        with socket.socket(socket.AF_UNIX) as knocking:
            knocking.settimeout(_ANSWER_SECONDS)
            knocking.connect(path)


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    said = [str(error), *getattr(error, "__notes__", [])]
    return " ".join(" ".join(said).split()) or type(error).__name__
