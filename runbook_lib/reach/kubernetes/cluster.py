"""One namespace of one cluster: what is in it, and the few things that a runbook does to it.

Nothing here trusts that what was asked for has happened: a scale names the version it was decided on and is not
carried out over somebody else's, and a wait for it ends with the pods themselves, not with a number in a status.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from kubernetes import client
from kubernetes.client.exceptions import ApiException

from runbook_lib.errors import Denied, NotFound, ProfileInvalid
from runbook_lib.reach.kubernetes import configuration, copying, streams
from runbook_lib.reach.kubernetes.calls import GuardedClient
from runbook_lib.reach.programs import CommandResult
from runbook_lib.waiting import wait_for

_CONFLICTS = 10
"""How often a write is decided anew because something else, such as a status, was written in between."""
_LOG_BYTES = 1 << 20
_COPY_SECONDS = 3600.0


@dataclass(frozen=True)
class Pod:
    """One pod, as it was seen."""

    name: str
    """Its name, which another pod may have tomorrow."""
    uid: str
    """What no other pod will ever have."""
    phase: str
    """Pending, Running, Succeeded, Failed or Unknown."""
    ready: bool
    """Whether it says that it can do its work."""
    terminating: bool
    """Whether it was told to end."""
    containers: tuple[str, ...]
    """The names of its containers, the main one first."""
    restarts: int
    """How often its containers were started again, in all."""
    labels: Mapping[str, str]
    """Its labels."""


@dataclass(frozen=True)
class Deployment:
    """One deployment, as it was seen."""

    name: str
    """Its name."""
    replicas: int
    """How many pods it is to have."""
    current_replicas: int
    """How many it has, by its status."""
    ready_replicas: int
    """How many of them are ready, by its status."""
    updated: int
    """How many of them are of its latest template, by its status."""
    generation: int
    """Counts the changes to what it is to be."""
    observed_generation: int
    """The generation that its status speaks of."""
    resource_version: str
    """Changes with every write to it, of its status too."""
    uid: str
    """What no other deployment will ever have."""
    selector: str
    """Selects its pods: ``app=tensafe-api``."""


class Cluster:
    """A namespace in a cluster; use `connect`."""

    def __init__(self, guarded: GuardedClient, namespace: str) -> None:
        self.namespace = namespace
        """The namespace that everything is looked for in."""
        self._client = guarded
        self._core = client.CoreV1Api(guarded)
        self._apps = client.AppsV1Api(guarded)

    @classmethod
    def connect(
        cls,
        context: str,
        *,
        namespace: str,
        kubeconfig: str = "",
        read_only: bool = True,
        timeout_seconds: float = 10,
    ) -> Self:
        """Read how the cluster is reached; nothing is connected to before something is asked.

        :param context: the context's name, never the current one; ``in-cluster`` for the service account of our pod
        :param namespace: the namespace that everything is looked for in
        :param kubeconfig: its path, or several as in ``KUBECONFIG``; empty for that, or its default
        :param read_only: whether all that writes, and all commands in pods, are refused before they are sent
        :param timeout_seconds: how long one answer may take

        Raise `ProfileInvalid` where the kubeconfig cannot be understood or is ambiguous, `Denied` where the
        credentials in it have run out.
        """
        if not context:
            raise ProfileInvalid(
                "the cluster to act on",
                where="the profile",
                why="it names no context, and the current one is whatever somebody used last",
                remedy="name the context (kubectl config get-contexts)",
            )
        access = configuration.load(context, kubeconfig)
        return cls(GuardedClient(access, read_only=read_only, timeout_seconds=timeout_seconds), namespace)

    def __str__(self) -> str:
        """Return the namespace, the context and the server's address."""
        return f"namespace {self.namespace} of {self._client.access.where}"

    __repr__ = __str__

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that are open. Closing twice is no error."""
        self._client.close()  # type: ignore[no-untyped-call]

    @property
    def context(self) -> str:
        """The name of the context."""
        return self._client.access.context

    @property
    def read_only(self) -> bool:
        """Whether all that writes is refused before it is sent."""
        return self._client.read_only

    def identity(self) -> str:
        """Return the uid of the namespace kube-system, which stands for the cluster: it is made and lost with it."""
        found: Any = self._client.perform(
            lambda: self._core.read_namespace("kube-system"),
            sought="the cluster's identity, the uid of the namespace kube-system",
            verb="get",
            resource="namespaces",
        )
        return str(found.metadata.uid)

    def version(self) -> str:
        """Return the API server's version: ``v1.35.2``."""
        found = self._client.perform(
            lambda: client.VersionApi(self._client).get_code(),
            sought="the cluster's version",
            verb="get",
            resource="/version",
        )
        return str(found.git_version)

    def pods(self, selector: str = "") -> list[Pod]:
        """List the pods that a label selector chooses, by name; all of them where it is empty."""
        found = self._client.perform(
            lambda: [
                _pod(item) for item in self._core.list_namespaced_pod(self.namespace, label_selector=selector).items
            ],
            sought=f"the pods {selector}".rstrip(),
            verb="list",
            resource="pods",
        )
        return sorted(found, key=lambda pod: pod.name)

    def pod(self, name: str) -> Pod:
        """Return one pod. Raise `NotFound` where it is not there."""
        return self._client.perform(
            lambda: _pod(self._core.read_namespaced_pod(name, self.namespace)),
            sought=f"the pod {name}",
            verb="get",
            resource="pods",
        )

    def deployment(self, name: str) -> Deployment:
        """Return one deployment. Raise `NotFound` where it is not there."""
        return self._client.perform(
            lambda: _deployment(self._apps.read_namespaced_deployment(name, self.namespace)),
            sought=f"the deployment {name}",
            verb="get",
            resource="deployments",
            group="apps",
        )

    def config_map(self, name: str) -> Mapping[str, str] | None:
        """Return what a ConfigMap holds; None where there is none of that name."""
        try:
            found = self._client.perform(
                lambda: self._core.read_namespaced_config_map(name, self.namespace),
                sought=f"the config map {name}",
                verb="get",
                resource="configmaps",
            )
        except NotFound:
            return None
        return dict(found.data or {})

    def may(self, verb: str, resource: str, *, subresource: str = "", group: str = "") -> bool:
        """Ask the cluster whether we may do something in the namespace.

        :param verb: ``get``, ``list``, ``create``, ``update``, ``patch``, ``delete``
        :param resource: in the plural: ``deployments``
        :param group: the API group: ``apps``; empty for the core
        """
        attributes = client.V1ResourceAttributes(
            namespace=self.namespace, verb=verb, resource=resource, subresource=subresource, group=group
        )
        review = client.V1SelfSubjectAccessReview(
            spec=client.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes)
        )
        found: Any = self._client.perform(
            lambda: client.AuthorizationV1Api(self._client).create_self_subject_access_review(review),
            sought=f"whether we may {verb} {resource}{f'/{subresource}' if subresource else ''}",
            verb="create",
            resource="selfsubjectaccessreviews",
            group="authorization.k8s.io",
        )
        return bool(found.status.allowed)

    def scale(self, name: str, replicas: int, *, expected: Deployment | None) -> Deployment:
        """Say how many pods a deployment is to have, and return it as it is then; `wait_for_replicas` waits for them.

        :param expected: the deployment as it was when this was decided; None to scale it whatever it is

        What is written in between is looked at: a status is passed over, but where the deployment is another one or
        somebody else has scaled it, nothing is done. Raise `Denied` then, and where we may not scale it.
        """
        version = expected.resource_version if expected else ""
        repeated = False
        for _ in range(_CONFLICTS):
            if not version:
                seen = self._scale_of(name)
                if expected is not None:
                    if repeated and int(seen.spec.replicas or 0) == replicas and seen.metadata.uid == expected.uid:
                        break  # an earlier attempt of this very request was obeyed, and its answer was lost
                    self._must_be_as_expected(seen, name, expected)
                version = seen.metadata.resource_version
            if self._put_scale(name, replicas, version):
                break
            repeated = repeated or self._client.attempts > 1
            version = ""
        else:
            raise Denied(
                f"to scale {name} to {replicas}",
                where=str(self),
                why=f"something else wrote to it in between, {_CONFLICTS} times in a row",
                remedy="find out what writes to it all the time (kubectl get deployment -w --show-managed-fields)",
            )
        return self.deployment(name)

    def wait_for_replicas(self, name: str, replicas: int, *, within_seconds: float) -> Deployment:
        """Wait until a deployment has exactly so many pods, all of them ready and none of them ending.

        What it is to be, its status, the generation that this speaks of and the pods themselves must all say so. Raise
        `WaitTimedOut`, with what was seen last, where they do not in time.
        """

        def look() -> _Settled:
            deployment = self.deployment(name)
            return _Settled(deployment, tuple(self.pods(deployment.selector)))

        settled = wait_for(
            f"the deployment {name} to have {replicas} pods",
            look,
            where=str(self),
            within_seconds=within_seconds,
            until=lambda seen: seen.at(replicas),
            every_seconds=0.2,
            remedy=f"look at its pods and events (kubectl --context {self.context} -n {self.namespace} describe)",
        )
        return settled.deployment

    def exec(
        self,
        pod: str,
        argv: Sequence[str],
        *,
        container: str = "",
        stdin: BinaryIO | None = None,
        stdout: BinaryIO | None = None,
        timeout_seconds: float,
        sought: str = "",
    ) -> CommandResult:
        """Run a command in a container to its end, never through a shell.

        :param pod: the pod's name
        :param container: the container's; by default the pod's first
        :param stdin: what the command reads, to its end; nothing by default
        :param stdout: where its output is written as it comes, in constant memory; by default it is kept as text
        :param timeout_seconds: how long it may take in all
        :param sought: what it is run for, as the object of a sentence, for the errors

        The exit code is the container's: a command that a signal ended has 128 and the signal's number. Raise
        `Unreachable` where the stream ends and nobody said how the command did, `ToolMissing` where there is no such
        program, `WaitTimedOut` where it does not end in time, `NotFound` where there is no such pod or container.
        """
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/exec"
        self._client.must_be_allowed("POST", path)
        chosen = self._container(self.pod(pod), container)
        return streams.run_in_pod(
            self._client,
            path,
            argv,
            container=chosen,
            sought=sought or f"running {argv[0]} in {pod}",
            stdin=stdin,
            stdout=stdout,
            timeout_seconds=timeout_seconds,
        )

    def logs(self, pod: str, container: str = "", *, tail_lines: int, limit_bytes: int = _LOG_BYTES) -> str:
        """Return the end of what a container has printed.

        :param container: by default the pod's first
        :param tail_lines: how many lines of it at most
        :param limit_bytes: how many bytes of it at most, counted from the first of those lines
        """
        chosen = self._container(self.pod(pod), container)
        answer = self._client.perform(
            lambda: self._core.read_namespaced_pod_log_with_http_info(
                pod, self.namespace, container=chosen, tail_lines=tail_lines, limit_bytes=limit_bytes
            ),
            sought=f"what {pod}/{chosen} has printed",
            verb="get",
            resource="pods/log",
        )
        return str(answer[0] or "")

    def copy_out(
        self, pod: str, path: str, into: Path, container: str = "", *, timeout_seconds: float = _COPY_SECONDS
    ) -> str:
        """Copy a file out of a container into one that is not there yet, and return its sha256.

        Raise `DamagedArtefact` where what arrived is not what is there, `NoRoom` where the disk is full, `NotFound`
        where there is no such file; then nothing of it is left.
        """
        return copying.copy_out(self._runner(pod, container, timeout_seconds), path, into, where=f"{pod}, {self}")

    def copy_in(
        self, pod: str, source: Path, path: str, container: str = "", *, timeout_seconds: float = _COPY_SECONDS
    ) -> str:
        """Copy a file into a container, and return its sha256; see `copy_out`."""
        return copying.copy_in(self._runner(pod, container, timeout_seconds), source, path, where=f"{pod}, {self}")

    def _runner(self, pod: str, container: str, timeout_seconds: float) -> copying.Exec:
        def run(
            argv: list[str], *, sought: str, stdin: BinaryIO | None = None, stdout: BinaryIO | None = None
        ) -> CommandResult:
            return self.exec(
                pod,
                argv,
                container=container,
                sought=sought,
                stdin=stdin,
                stdout=stdout,
                timeout_seconds=timeout_seconds,
            )

        return run

    def _container(self, pod: Pod, wanted: str) -> str:
        if not wanted and pod.containers:
            return pod.containers[0]
        if wanted in pod.containers:
            return wanted
        raise NotFound(
            f"the container {wanted} of the pod {pod.name}",
            where=str(self),
            why=f"it has {', '.join(pod.containers) or 'none'}",
            remedy="correct the container's name",
        )

    def _scale_of(self, name: str) -> Any:
        return self._client.perform(
            lambda: self._apps.read_namespaced_deployment_scale(name, self.namespace),
            sought=f"the scale of {name}",
            verb="get",
            resource="deployments/scale",
            group="apps",
        )

    def _put_scale(self, name: str, replicas: int, version: str) -> bool:
        """Write the scale over the version that was seen; return whether it was still that one."""
        wanted = client.V1Scale(
            metadata=client.V1ObjectMeta(name=name, namespace=self.namespace, resource_version=version),
            spec=client.V1ScaleSpec(replicas=replicas),
        )
        with self._client.errors(
            sought=f"to scale {name} to {replicas}", verb="update", resource="deployments/scale", group="apps"
        ):
            try:
                self._apps.replace_namespaced_deployment_scale(name, self.namespace, wanted)
            except ApiException as answered:
                if answered.status == 409:
                    return False
                raise
        return True

    def _must_be_as_expected(self, seen: Any, name: str, expected: Deployment) -> None:
        found = int(seen.spec.replicas or 0)
        if seen.metadata.uid != expected.uid:
            why = "it was deleted and made anew meanwhile"
        elif found != expected.replicas:
            why = f"it was changed by another hand: it is to have {found} pods now, and had {expected.replicas}"
        else:
            return
        raise Denied(
            f"to scale {name}",
            where=str(self),
            why=why,
            remedy="nothing was changed: find out who scaled it (an autoscaler, a pipeline, somebody), and decide anew",
        )


@dataclass(frozen=True)
class _Settled:
    """A deployment and its pods at one look."""

    deployment: Deployment
    """The deployment."""
    pods: tuple[Pod, ...]
    """Its pods, those that end too."""

    def at(self, replicas: int) -> bool:
        """Whether everything says that there are so many pods, ready, and no others."""
        told = self.deployment
        return (
            told.replicas == told.current_replicas == told.ready_replicas == replicas
            and told.updated == replicas
            and told.observed_generation >= told.generation
            and len(self.pods) == replicas
            and all(pod.ready and not pod.terminating for pod in self.pods)
        )

    def __repr__(self) -> str:
        """Return what an operator wants to know of it, on one line."""
        told = self.deployment
        pods = ", ".join(
            f"{pod.name} {'ending' if pod.terminating else 'ready' if pod.ready else pod.phase}"
            f"{f' ({pod.restarts} restarts)' if pod.restarts else ''}"
            for pod in self.pods
        )
        return (
            f"to have {told.replicas}, has {told.current_replicas}, ready {told.ready_replicas},"
            f" updated {told.updated}; generation {told.generation}, observed {told.observed_generation};"
            f" pods: {pods or 'none'}"
        )


def _pod(found: Any) -> Pod:
    status = found.status
    conditions = (status.conditions if status else None) or []
    statuses = (status.container_statuses if status else None) or []
    return Pod(
        name=str(found.metadata.name),
        uid=str(found.metadata.uid),
        phase=str((status.phase if status else None) or "Unknown"),
        ready=any(condition.type == "Ready" and condition.status == "True" for condition in conditions),
        terminating=found.metadata.deletion_timestamp is not None,
        containers=tuple(str(container.name) for container in (found.spec.containers if found.spec else None) or ()),
        restarts=sum(int(container.restart_count or 0) for container in statuses),
        labels=dict(found.metadata.labels or {}),
    )


def _deployment(found: Any) -> Deployment:
    spec, status = found.spec, found.status
    chosen = (spec.selector.match_labels if spec and spec.selector else None) or {}
    wanted = spec.replicas if spec else None
    return Deployment(
        name=str(found.metadata.name),
        replicas=1 if wanted is None else int(wanted),  # the API's own default; 0 is written as 0
        current_replicas=int((status.replicas if status else None) or 0),
        ready_replicas=int((status.ready_replicas if status else None) or 0),
        updated=int((status.updated_replicas if status else None) or 0),
        generation=int(found.metadata.generation or 0),
        observed_generation=int((status.observed_generation if status else None) or 0),
        resource_version=str(found.metadata.resource_version or ""),
        uid=str(found.metadata.uid),
        selector=",".join(f"{name}={value}" for name, value in sorted(chosen.items())),
    )
