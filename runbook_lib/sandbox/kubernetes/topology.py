"""What a cluster consists of, as data: written by whoever starts one, read by its server's process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self


@dataclass(frozen=True)
class Container:
    """One container of a pod: where its commands run, and what they find there."""

    name: str
    """Its name."""
    folder: str
    """The folder that commands start in; the workspace's account can write to it."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Its environment, over the workspace's scrubbed one."""
    log: str = ""
    """The file that its process writes its log to; one that is not there is an empty log."""
    uses_interpreter: bool = False
    """Whether its programs are Python's (such as patronictl), which may lie where the account cannot look."""


@dataclass(frozen=True)
class Pod:
    """A pod whose process is looked after by somebody else, such as a PostgreSQL server of the sandbox."""

    name: str
    """Its name."""
    containers: tuple[Container, ...]
    """Its containers, the main one first."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Its labels."""
    ready: bool = True
    """Whether it says that it can do its work."""

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Self:
        """Read one as `dataclasses.asdict` wrote it."""
        return cls(**{**told, "containers": tuple(Container(**container) for container in told["containers"])})


@dataclass(frozen=True)
class Workload:
    """A deployment, whose pods are processes that the server itself starts and ends."""

    name: str
    """Its name."""
    argv: tuple[str, ...]
    """The program that each of its pods is. It learns its pod's name from ``POD_NAME``, says ``ready`` and
    ``unready``, a line each, on the descriptor ``READINESS_FD``, and ends when its standard input does."""
    folder: str
    """Where its pods get their folders; the workspace's account can write to it."""
    replicas: int = 0
    """How many it begins with."""
    env: Mapping[str, str] = field(default_factory=dict)
    """The environment of its program, over the workspace's scrubbed one."""
    container: str = "api"
    """The name of the container of each pod."""

    @property
    def labels(self) -> Mapping[str, str]:
        """What its pods are chosen by."""
        return {"app": self.name}


@dataclass(frozen=True)
class Rule:
    """Something that a user may do."""

    verbs: tuple[str, ...]
    """``get``, ``list``, ``watch``, ``create``, ``update``, ``patch``, ``delete``; ``*`` for all."""
    resources: tuple[str, ...]
    """In the plural, with the subresource: ``pods/exec``; ``*`` for all."""

    def allows(self, verb: str, resource: str) -> bool:
        """Say whether this rule allows it."""
        return bool({"*", verb} & set(self.verbs)) and bool({"*", resource} & set(self.resources))


@dataclass(frozen=True)
class User:
    """Somebody who may log in, with a token or a client certificate of that name."""

    name: str
    """Their name."""
    token: str
    """Their bearer token."""
    rules: tuple[Rule, ...]
    """What they may do."""


@dataclass(frozen=True)
class Topology:
    """One cluster."""

    name: str
    """Its name, and that of the context that leads to it."""
    uid: str
    """The uid of its namespace kube-system, by which it is recognised."""
    namespace: str
    """The one namespace that holds something."""
    pods: tuple[Pod, ...] = ()
    """The pods that are looked after by somebody else."""
    workloads: tuple[Workload, ...] = ()
    """The deployments."""
    config_maps: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """The config maps that are there from the beginning."""
    version: str = "v1.35.0"
    """The version that it says it has."""


@dataclass(frozen=True)
class Serving:
    """Everything that the process of one cluster's server is told."""

    topology: Topology
    """The cluster."""
    users: tuple[User, ...]
    """Who may log in."""
    folder: str
    """The server's own folder: its certificate, its control socket, and the file that says its port."""
    environment: Mapping[str, str]
    """The scrubbed environment of the workspace, for the processes in pods."""
    port: int = 0
    """The port; 0 for any that is free."""

    def to_json(self) -> str:
        """Write it down."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        told = json.loads(text)
        cluster = told["topology"]
        topology = Topology(
            **{
                **cluster,
                "pods": tuple(Pod.from_json(pod) for pod in cluster["pods"]),
                "workloads": tuple(
                    Workload(**{**workload, "argv": tuple(workload["argv"])}) for workload in cluster["workloads"]
                ),
            }
        )
        users = tuple(
            User(
                user["name"],
                user["token"],
                tuple(Rule(tuple(rule["verbs"]), tuple(rule["resources"])) for rule in user["rules"]),
            )
            for user in told["users"]
        )
        return cls(topology, users, told["folder"], told["environment"], told["port"])
