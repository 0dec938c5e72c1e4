"""The sandbox whose PostgreSQL runs in a container, for those who have a Docker engine.

It is the same sandbox: the same database, bucket and backups, handed out as an ordinary profile. What differs is what a
container makes real: a server of another machine's kind, reached over TCP with a password that libpq takes from a
password file, and whose files nobody on this side can touch.

testcontainers starts it. Its reaper, Ryuk, is switched off: it needs an image of its own from a registry, and the
engine's socket inside a container. Instead the server itself holds on to us: we keep one session open, the *lease*,
which the kernel ends with our process in whatever way that ends, and a server whose lease has ended stops, and its
container is removed by the engine (see ``deploy/postgres/entrypoint``). That needs nobody on either side to survive.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import docker
from docker.errors import APIError, DockerException, NotFound
from psycopg.conninfo import make_conninfo
from testcontainers.community.postgres import PostgresContainer
from testcontainers.core.config import ConnectionMode, testcontainers_config

from runbook_lib.errors import RunbookError, ToolFailed, Unreachable, WaitTimedOut
from runbook_lib.reach import postgres as sessions
from runbook_lib.reach.binaries import PostgresTools
from runbook_lib.reach.postgres import Session
from runbook_lib.reach.server import SUPERUSER
from runbook_lib.reach.workspace import Workspace
from runbook_lib.sandbox import engine, images
from runbook_lib.sandbox.sandbox import into_a_folder, primary
from runbook_lib.waiting import wait_for

LABEL = "tensafe.runbook.sandbox"
"""What every container of ours is labelled with; its value is the workspace that it belongs to."""
LEASE = "runbook/lease"
"""The application name of the session that keeps the server up."""
_LEASE_SECONDS = 120
"""How long a server waits for its first lease."""
LEASED = "COPY (SELECT 'leased') TO '/tmp/runbook-leased'"
"""Tells the server's entrypoint that there was a lease, should it end before the entrypoint looks."""
_ABANDONED = timedelta(minutes=10)
"""How old a container is that was made and never started, because whoever made it was killed in between."""
_START_SECONDS = 100.0
_GONE_SECONDS = 60.0
_LOG_LINES = 15
_PORT = 5432
_WAL_ARCHIVE = "/var/lib/postgresql/wal_archive"
_HERE = {"localhost", "127.0.0.1"}


@dataclass(frozen=True)
class ContainerServer:
    """A PostgreSQL server in a container."""

    container: PostgresContainer
    """The container."""
    tools: PostgresTools
    """Programs of its major version, on this machine."""
    host: str
    """Where it answers."""
    port: int
    """At which port."""
    workspace: Workspace
    """The workspace that its password is in."""

    @property
    def password_file(self) -> Path:
        """What libpq takes its superuser's password from."""
        return self.workspace.path / "pgpass"

    def dsn(self, dbname: str = "postgres") -> str:
        """Return the connection string of one database, as its superuser and without a password."""
        return make_conninfo(
            host=self.host, port=self.port, user=SUPERUSER, dbname=dbname, passfile=str(self.password_file)
        )


class _Container(PostgresContainer):
    """A container that is waited for by us: testcontainers' own wait, giving up, tells the password and no reason."""

    def _connect(self) -> None:
        """Wait for nothing."""


@contextmanager
def in_a_container(tools: PostgresTools, workspace: Workspace) -> Iterator[ContainerServer]:
    """Serve from an image of the same major version, which is built where the engine lacks it.

    Raise `Unproven` or an error below it where there is no engine, or no image to be had for it.
    """
    with engine.connected() as client:
        _sweep(client)
        with _served(client, images.postgres(client, tools.major, workspace), tools, workspace) as server:
            yield server


@contextmanager
def _served(
    client: docker.DockerClient, image: str, tools: PostgresTools, workspace: Workspace
) -> Iterator[ContainerServer]:
    """Run a server, and remove its container at the end of the block."""
    testcontainers_config.ryuk_disabled = True
    password = secrets.token_urlsafe(24)
    settings = {
        **primary(),
        # What archives into the bucket runs beside its server; in a container there is nothing but PostgreSQL. So the
        # WAL stays there, and the profile says that none of it is in the bucket.
        "archive_command": f"mkdir -p {_WAL_ARCHIVE} && {into_a_folder(_WAL_ARCHIVE)}",
    }
    sought = f"PostgreSQL {tools.major} in a container"
    with engine.errors(sought, remedy="see what the engine and the container's log say"):
        container = _Container(
            image,
            port=_PORT,
            username=SUPERUSER,
            password=password,
            dbname="postgres",
            driver=None,
            command=["postgres", *(f"--{name.replace('_', '-')}={value}" for name, value in settings.items())],
            labels={LABEL: workspace.id},
            auto_remove=True,
            shm_size="256m",
        )
        container.image = image  # it was built here: a mirror's prefix is not for it
        container.with_env("RUNBOOK_LEASE_SECONDS", str(_LEASE_SECONDS))
        asked = container.get_docker_client()
        if asked.get_connection_mode() is ConnectionMode.docker_host and asked.host() in _HERE:
            # Docker takes an address as well as a number, and gives it any free port there.
            container.ports[str(_PORT)] = ("127.0.0.1", None)  # type: ignore[assignment]
    try:
        with engine.errors(sought, remedy="see what the engine and the container's log say"):
            container.start()
            host = container.get_container_host_ip()
            port = container.get_exposed_port(_PORT)
        server = ContainerServer(container, tools, "127.0.0.1" if host in _HERE else host, port, workspace)
        server.password_file.touch(mode=0o600)
        server.password_file.write_text(f"*:*:*:{SUPERUSER}:{password}\n")
        workspace.give(server.password_file)
        with ExitStack() as lease:
            _hold(server, lease)
            yield server
    except BaseException as error:
        try:
            _remove(client, container)
        except RunbookError as left:  # what went wrong first is what is to be told
            error.add_note(str(left))
        raise
    else:
        _remove(client, container)


def _hold(server: ContainerServer, lease: ExitStack) -> None:
    """Wait for the server to answer, and keep the session it answers in until the lease ends."""
    sought, where = f"PostgreSQL {server.tools.major} in a container", sessions.describe(server.dsn())
    said = ""

    def answers() -> Session:
        nonlocal said
        try:
            said = server.container.get_wrapped_container().logs(tail=_LOG_LINES).decode(errors="replace").strip()
        except DockerException as gone:
            raise ToolFailed(
                sought,
                where=where,
                why=f"its container has ended; the end of its log:\n{said}",
                remedy="correct what its log complains of",
            ) from gone
        session = lease.enter_context(sessions.session(server.dsn(), read_only=False, application_name=LEASE))
        session.execute(LEASED)
        return session

    try:
        wait_for(
            f"{sought} to answer",
            answers,
            where=where,
            within_seconds=_START_SECONDS,
            until=lambda _: True,
            every_seconds=0.2,
            ignoring=(Unreachable,),
        )
    except WaitTimedOut as late:
        why = f"{late.why}; the end of its log:\n{said}"
        raise WaitTimedOut(late.sought, where=where, why=why, remedy=late.remedy) from late


def _remove(client: docker.DockerClient, container: PostgresContainer) -> None:
    """Remove the container with its volumes, and wait until the engine has; it may be at it already."""
    container.get_docker_client().client.close()
    if container._container is None:
        return
    identifier = container.get_container_id()
    with engine.errors(
        f"removing container {identifier[:12]}", remedy=f"docker rm --force --volumes {identifier[:12]}"
    ):
        with suppress(NotFound, APIError):  # "already in progress" is one; whether it is gone is asked below
            client.api.remove_container(identifier, force=True, v=True)
        wait_for(
            f"container {identifier[:12]} to be gone",
            lambda: client.containers.list(all=True, filters={"id": identifier}, ignore_removed=True),
            until=lambda left: not left,
            where=engine.address(),
            within_seconds=_GONE_SECONDS,
        )


def _sweep(client: docker.DockerClient) -> None:
    """Remove containers of ours that were made and never started: only those cannot end by themselves."""
    with engine.errors("sweeping abandoned containers", remedy=f"docker ps --all --filter label={LABEL}"):
        for left in client.containers.list(
            all=True, filters={"label": LABEL, "status": ["created", "exited", "dead"]}, ignore_removed=True
        ):
            made = datetime.fromisoformat(left.attrs["Created"][:19]).replace(tzinfo=UTC)
            if datetime.now(UTC) - made > _ABANDONED:
                with suppress(NotFound, APIError):
                    left.remove(force=True, v=True)
