"""What becomes of a deployment: processes, as many as it is to have, and a status that says how they really are."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import string
from collections.abc import Mapping
from pathlib import Path
from secrets import choice

from runbook_lib.sandbox import interpreter
from runbook_lib.sandbox.kubernetes.objects import Json, Store, now
from runbook_lib.sandbox.kubernetes.topology import Container, Pod, Workload

_GRACE_SECONDS = 3.0
_FIRST_RESTART_SECONDS = 0.2
_LONGEST_RESTART_SECONDS = 10.0


def pod_object(namespace: str, pod: Pod, *, owner: Json | None = None, running: bool = True, restarts: int = 0) -> Json:
    """Return a pod as the API shows it."""
    meta: Json = {"name": pod.name, "namespace": namespace, "labels": dict(pod.labels)}
    if owner is not None:
        meta["ownerReferences"] = [
            {
                **{"apiVersion": "apps/v1", "kind": "Deployment", "name": owner["metadata"]["name"]},
                **{"uid": owner["metadata"]["uid"], "controller": True},
            }
        ]
    ready = pod.ready and running
    state = {"running": {"startedAt": now()}} if running else {"waiting": {"reason": "CrashLoopBackOff"}}
    conditions = [
        {"type": kind, "status": "True" if holds else "False"}
        for kind, holds in (("Initialized", True), ("Ready", ready), ("ContainersReady", ready), ("PodScheduled", True))
    ]
    return {
        "metadata": meta,
        "spec": {
            "nodeName": "sandbox",
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": int(_GRACE_SECONDS),
            "containers": [{"name": container.name, "image": "sandbox"} for container in pod.containers],
        },
        "status": {
            "phase": "Running",
            "podIP": "127.0.0.1",
            "hostIP": "127.0.0.1",
            "startTime": now(),
            "conditions": conditions,
            "containerStatuses": [
                {
                    **{"name": container.name, "image": "sandbox", "imageID": "", "ready": ready, "started": running},
                    **{"restartCount": restarts, "state": state, "lastState": {}},
                }
                for container in pod.containers
            ],
        },
    }


class Member:
    """One pod of a deployment, with its process."""

    def __init__(self, pod: Pod, store: Store, namespace: str, owner: Json) -> None:
        self.pod = pod
        self.ready = False
        self.running = False
        self.restarts = 0
        self.ending = asyncio.Event()
        self.process: asyncio.subprocess.Process | None = None
        self._store = store
        self._namespace = namespace
        self._owner = owner

    def show(self) -> None:
        """Write down how it is."""
        pod = Pod(self.pod.name, self.pod.containers, self.pod.labels, ready=self.ready and not self.ending.is_set())
        shown = pod_object(
            self._namespace, pod, owner=self._owner, running=self.running or self.restarts == 0, restarts=self.restarts
        )
        before = self._store.find("pods", self._namespace, self.pod.name)
        if before is not None:
            shown["status"]["startTime"] = before["status"]["startTime"]
            statuses = (found["status"]["containerStatuses"] for found in (before, shown))
            for old, new in zip(*statuses, strict=True):
                if old["restartCount"] == new["restartCount"] and old["state"].keys() == new["state"].keys():
                    new["state"] = old["state"]
            if stamp := before["metadata"].get("deletionTimestamp"):
                shown["metadata"]["deletionTimestamp"] = stamp
        if self.ending.is_set():
            shown["metadata"].setdefault("deletionTimestamp", now())
        self._store.write("pods", shown)


class Controller:
    """Keeps one deployment as it is to be."""

    def __init__(self, workload: Workload, store: Store, namespace: str, environment: Mapping[str, str]) -> None:
        self._workload = workload
        self._store = store
        self._namespace = namespace
        self._environment = environment
        self._members: dict[str, Member] = {}
        self._lives: set[asyncio.Task[None]] = set()
        self._template = "".join(choice("bcdf2456789") for _ in range(9))

    @property
    def members(self) -> Mapping[str, Member]:
        """Its pods that are there, those that are ending too, by name."""
        return self._members

    def create(self) -> None:
        """Make the deployment."""
        workload = self._workload
        container = {"name": workload.container, "image": "sandbox", "command": list(workload.argv)}
        self._store.write(
            "deployments",
            {
                "metadata": {"name": workload.name, "namespace": self._namespace, "labels": dict(workload.labels)},
                "spec": {
                    "replicas": workload.replicas,
                    "selector": {"matchLabels": dict(workload.labels)},
                    "strategy": {"type": "Recreate"},
                    "template": {
                        "metadata": {"labels": dict(workload.labels)},
                        "spec": {"restartPolicy": "Always", "containers": [container]},
                    },
                },
                "status": {},
            },
        )
        self.reconcile()

    def reconcile(self) -> None:
        """Start and end processes until there are as many as there are to be, and write down how it is."""
        deployment = self._store.get("deployments", self._namespace, self._workload.name)
        wanted = deployment["spec"]["replicas"]
        staying = [member for member in self._members.values() if not member.ending.is_set()]
        for member in staying[wanted:]:
            member.ending.set()
            member.show()
        for _ in range(wanted - len(staying)):
            member = self._new_member(deployment)
            life = asyncio.create_task(self._live(member))
            self._lives.add(life)
            life.add_done_callback(self._lives.discard)
        self._show()

    async def end(self) -> None:
        """End all processes at once."""
        for member in self._members.values():
            member.ending.set()
            _kill(member.process, signal.SIGKILL)
        await asyncio.gather(*self._lives, return_exceptions=True)

    def _new_member(self, deployment: Json) -> Member:
        alphabet = string.ascii_lowercase + string.digits
        name = f"{self._workload.name}-{self._template}-{''.join(choice(alphabet) for _ in range(5))}"
        folder = Path(self._workload.folder, name)
        folder.mkdir(mode=0o700, parents=True)
        container = Container(self._workload.container, str(folder), self._workload.env, log=str(folder / "log"))
        member = Member(Pod(name, (container,), self._workload.labels), self._store, self._namespace, deployment)
        self._members[name] = member
        member.show()
        return member

    async def _live(self, member: Member) -> None:
        pause_seconds = _FIRST_RESTART_SECONDS
        while not member.ending.is_set():
            was_ready = await self._run_once(member)
            if member.ending.is_set():
                break
            member.restarts += 1
            self._changed(member)
            pause_seconds = _FIRST_RESTART_SECONDS if was_ready else min(2 * pause_seconds, _LONGEST_RESTART_SECONDS)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(member.ending.wait(), pause_seconds)
        del self._members[member.pod.name]
        self._store.remove("pods", self._namespace, member.pod.name)
        self._show()

    async def _run_once(self, member: Member) -> bool:
        """Run a pod's process to its end, and return whether it was ever ready."""
        container = member.pod.containers[0]
        told, tells = os.pipe()
        log = os.open(container.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            process = await asyncio.create_subprocess_exec(
                *self._workload.argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=container.folder,
                env={
                    **self._environment,
                    **container.env,
                    "POD_NAME": member.pod.name,
                    "RESTARTS": str(member.restarts),
                    "READINESS_FD": str(tells),
                },
                pass_fds=(tells,),
                start_new_session=True,
                preexec_fn=interpreter.pass_on_capability,
            )
        except OSError as failed:
            os.write(log, f"it cannot be started: {failed}\n".encode())
            os.close(told)
            return False
        finally:
            os.close(tells)
            os.close(log)
        member.process, member.running = process, True
        self._changed(member)
        listening = asyncio.create_task(self._hear(member, told))
        ending = asyncio.create_task(_end_on(member.ending, process))
        try:
            await process.wait()
        finally:
            ending.cancel()
            _kill(process, signal.SIGKILL)
            was_ready = await listening
            await asyncio.gather(ending, return_exceptions=True)
        member.process, member.running, member.ready = None, False, False
        return was_ready

    async def _hear(self, member: Member, told: int) -> bool:
        """Listen to what a process says of itself, until it has ended; return whether it was ever ready."""
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(told, "rb", buffering=0)
        )
        was_ready = False
        try:
            while line := await reader.readline():
                member.ready = line.strip() == b"ready"
                was_ready = was_ready or member.ready
                self._changed(member)
        finally:
            transport.close()
        return was_ready

    def _changed(self, member: Member) -> None:
        member.show()
        self._show()

    def _show(self) -> None:
        """Write down how the deployment is."""
        deployment = self._store.get("deployments", self._namespace, self._workload.name)
        staying = [member for member in self._members.values() if not member.ending.is_set()]
        ready = sum(member.ready for member in staying)
        status: Json = {"observedGeneration": deployment["metadata"]["generation"]}
        # As in a real cluster, what is zero is not there at all.
        counts = {
            "replicas": len(staying),
            "updatedReplicas": len(staying),
            "readyReplicas": ready,
            "availableReplicas": ready,
            "unavailableReplicas": deployment["spec"]["replicas"] - ready,
        }
        status |= {name: count for name, count in counts.items() if count > 0}
        enough = ready >= deployment["spec"]["replicas"]
        status["conditions"] = [
            {"type": "Available", "status": "True" if enough else "False", "reason": "MinimumReplicasAvailable"},
            {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"},
        ]
        deployment["status"] = status
        self._store.write("deployments", deployment)


async def _end_on(ending: asyncio.Event, process: asyncio.subprocess.Process) -> None:
    await ending.wait()
    _kill(process, signal.SIGTERM)
    await asyncio.sleep(_GRACE_SECONDS)
    _kill(process, signal.SIGKILL)


def _kill(process: asyncio.subprocess.Process | None, number: int) -> None:
    if process is not None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
