"""Starting the clusters of a sandbox, and what their owner may do that no user of the API can."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import secrets
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Self

from runbook_lib.errors import NotFound, ToolFailed, WaitTimedOut
from runbook_lib.reach import programs
from runbook_lib.reach.workspace import Workspace
from runbook_lib.sandbox import interpreter
from runbook_lib.sandbox.kubernetes import serve
from runbook_lib.sandbox.kubernetes.certificates import Authority
from runbook_lib.sandbox.kubernetes.faults import Fault
from runbook_lib.sandbox.kubernetes.topology import Pod, Rule, Serving, Topology, User
from runbook_lib.waiting import wait_for

OPERATOR = "sandbox-operator"
"""The user who may do everything; the contexts of the first kubeconfig log in as this one."""
READER = "sandbox-reader"
"""The user who may look at everything and do nothing, not even run a command in a pod."""

_START_SECONDS = 30.0
_STOP_SECONDS = 10.0
_CONTROL_SECONDS = 20.0


class KubernetesApi:
    """The API servers of some clusters, running in a workspace."""

    def __init__(self, workspace: Workspace, clusters: Sequence[Topology], *, name: str = "kubernetes") -> None:
        """Lay out what the servers need; use `start` instead."""
        self.workspace = workspace
        """The workspace that they run in."""
        self.folder = workspace.folder(name)
        """The folder that holds everything of theirs."""
        self.authority = Authority()
        """Who issues their certificates, and users' where a test wants one."""
        self.kubeconfig = self.folder / "kubeconfig"
        """The kubeconfig of the operator, with one context for each cluster, named like it."""
        self.kubeconfig_reader = self.folder / "kubeconfig-reader"
        """The kubeconfig of the reader, with the same contexts."""
        self.users = (
            User(OPERATOR, secrets.token_urlsafe(24), (Rule(("*",), ("*",)),)),
            User(READER, secrets.token_urlsafe(24), (Rule(("get", "list", "watch"), ("*",)),)),
        )
        """Who may log in."""
        self.clusters = {cluster.name: cluster for cluster in clusters}
        """The clusters, by name, as they were at the beginning."""
        self._ports: dict[str, int] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @classmethod
    def start(cls, workspace: Workspace, clusters: Sequence[Topology], *, name: str = "kubernetes") -> Self:
        """Start a server for each cluster; return them when all answer.

        Raise `ToolFailed` or `WaitTimedOut`, with the end of its log, where one does not come up.
        """
        api = cls.launch(workspace, clusters, name=name)
        api.await_ready()
        return api

    @classmethod
    def launch(cls, workspace: Workspace, clusters: Sequence[Topology], *, name: str = "kubernetes") -> Self:
        """Begin what `start` does, and return at once; `await_ready` ends it."""
        api = cls(workspace, clusters, name=name)
        try:
            for cluster in clusters:
                api.resume(cluster.name)
        except BaseException:
            api.stop()
            raise
        return api

    def await_ready(self) -> None:
        """Wait until all servers answer, and write the kubeconfigs."""
        try:
            for cluster in self.clusters:
                self._await(cluster)
            self._write_kubeconfigs()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop all servers, with all that runs in their pods. Stopping twice is no error."""
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        for process in self._processes.values():
            try:
                process.wait(timeout=_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=_STOP_SECONDS)
        self._processes.clear()

    def suspend(self, cluster: str) -> None:
        """Stop the server of one cluster, as if the whole cluster were gone."""
        process = self._processes.pop(cluster)
        process.terminate()
        process.wait(timeout=_STOP_SECONDS)

    def resume(self, cluster: str) -> None:
        """Start the server of one cluster, at the port that it had, and begin from its beginning."""
        folder = self.folder / cluster
        if not folder.exists():
            folder.mkdir(mode=0o700)
            pair = self.authority.server()
            for name, content in (
                ("ca.crt", self.authority.certificate),
                ("server.crt", pair.certificate),
                ("server.key", pair.key),
            ):
                (folder / name).touch(mode=0o600)
                (folder / name).write_bytes(content)
        for left in serve.PORT_FILE, serve.CONTROL_SOCKET:
            (folder / left).unlink(missing_ok=True)
        told = Serving(
            self.clusters[cluster],
            self.users,
            str(folder),
            {**self.workspace.environment(), **interpreter.environment()},
            self._ports.get(cluster, 0),
        )
        configuration = folder / "configuration.json"
        configuration.touch(mode=0o600)
        configuration.write_text(told.to_json())
        self.workspace.give(folder)
        self._processes[cluster] = interpreter.start(
            self.workspace, serve.__name__, [configuration], log=folder / "log", env={}
        )
        if cluster in self._ports:
            self._await(cluster)

    def server_url(self, cluster: str) -> str:
        """Return where the API of a cluster answers."""
        return f"https://127.0.0.1:{self._ports[cluster]}"

    def log_tail(self, cluster: str, lines: int = 15) -> str:
        """Return the last lines of a server's log."""
        with contextlib.suppress(FileNotFoundError):
            return programs.tail((self.folder / cluster / "log").read_text(errors="replace"), lines)
        return ""

    @contextmanager
    def fault(self, cluster: str, fault: Fault) -> Iterator[None]:
        """Have something go wrong for as long as the block lasts."""
        self._control(cluster, "fault", asdict(fault))
        try:
            yield
        finally:
            self._control(cluster, "well", None)

    def speak_only(self, cluster: str, *protocols: str) -> None:
        """Have a server know these protocols for commands in pods alone, until the next fault ends."""
        self._control(cluster, "protocols", protocols)

    def requests(self, cluster: str) -> list[str]:
        """Return what was requested since this was last asked, a line each."""
        return list(self._control(cluster, "requests", None))

    def processes(self, cluster: str) -> Mapping[str, Any]:
        """Return the process ids of all commands (``execs``) and of the deployments' pods (``pods``, by name)."""
        found = self._control(cluster, "processes", None)
        assert isinstance(found, dict)
        return found

    def put_pod(self, cluster: str, pod: Pod) -> None:
        """Add a pod that somebody else looks after, or say how it is now."""
        self._control(cluster, "put_pod", asdict(pod))
        known = self.clusters[cluster]
        others = tuple(other for other in known.pods if other.name != pod.name)
        self.clusters[cluster] = replace(known, pods=(*others, pod))

    def remove_pod(self, cluster: str, name: str) -> None:
        """Remove such a pod; commands in it are killed, and nobody says how they ended."""
        self._control(cluster, "remove_pod", name)
        known = self.clusters[cluster]
        self.clusters[cluster] = replace(known, pods=tuple(pod for pod in known.pods if pod.name != name))

    def replace_pod(self, cluster: str, name: str) -> None:
        """Put another pod of the same name in the place of one, as a node that fails does."""
        self._control(cluster, "replace_pod", name)

    def scale(self, cluster: str, name: str, replicas: int) -> None:
        """Scale a deployment as another hand would."""
        self._control(cluster, "scale", {"name": name, "replicas": replicas})

    def kubeconfig_text(self, user: User, *, credentials: Mapping[str, str] | None = None) -> str:
        """Return a kubeconfig in which a user logs in to all clusters.

        :param credentials: what stands under ``user`` instead of the token
        """
        authority = base64.b64encode(self.authority.certificate).decode()
        # JSON is YAML, and needs no library to be written right.
        return json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "",  # whoever wants a cluster has to name it
                "clusters": [
                    {
                        "name": cluster,
                        "cluster": {
                            "server": self.server_url(cluster),
                            "certificate-authority-data": authority,
                        },
                    }
                    for cluster in self.clusters
                ],
                "users": [{"name": user.name, "user": dict(credentials or {"token": user.token})}],
                "contexts": [
                    {
                        "name": cluster.name,
                        "context": {"cluster": cluster.name, "user": user.name, "namespace": "default"},
                    }
                    for cluster in self.clusters.values()
                ],
            },
            indent=2,
        )

    def _write_kubeconfigs(self) -> None:
        for path, user in zip((self.kubeconfig, self.kubeconfig_reader), self.users, strict=True):
            path.touch(mode=0o600)
            path.write_text(self.kubeconfig_text(user))

    def _await(self, cluster: str) -> None:
        process = self._processes[cluster]
        port_file = self.folder / cluster / serve.PORT_FILE

        def answers() -> bool:
            if process.poll() is not None:
                raise ToolFailed(
                    "starting a Kubernetes API server",
                    where=cluster,
                    why=f"it ended with code {process.returncode}; the end of its log:\n{self.log_tail(cluster)}",
                    remedy="correct what its log complains of",
                )
            return port_file.exists()

        try:
            wait_for(
                "a Kubernetes API server to answer",
                answers,
                where=cluster,
                within_seconds=_START_SECONDS,
                every_seconds=0.02,
            )
        except WaitTimedOut as late:
            raise WaitTimedOut(
                late.sought,
                where=late.where,
                why=f"{late.why}; the end of its log:\n{self.log_tail(cluster)}",
                remedy="correct what its log complains of, or free the machine's processors",
            ) from late
        self._ports[cluster] = int(port_file.read_text())

    def _control(self, cluster: str, what: str, told: Any) -> Any:
        """Tell a server something through its control socket; nobody but us and its account can reach that."""
        connection = _OverUnixSocket(self.folder / cluster / serve.CONTROL_SOCKET)
        try:
            body = json.dumps(told)
            connection.request("POST", f"/{what}", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.status != http.HTTPStatus.OK:
            raise NotFound(
                f"to {what} {told}",
                where=f"the control socket of {cluster}",
                why=f"{answer.status}; the end of its log:\n{self.log_tail(cluster)}",
                remedy="look at what is asked for",
            )
        return json.loads(content)


class _OverUnixSocket(http.client.HTTPConnection):
    """HTTP to a server that listens on a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_CONTROL_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(os.fspath(self._path))
