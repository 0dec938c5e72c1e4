"""The two clusters that TenSafe's runbook speaks of: the primary's, and the one for disaster recovery.

``postgres-0`` is the sandbox's PostgreSQL server seen as a pod: a command in it finds that server's programs and its
socket. ``tensafe-api`` writes to it. In the other region everything is laid out and nothing runs.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from runbook_lib.reach.server import SUPERUSER, PostgresServer
from runbook_lib.reach.workspace import Workspace
from runbook_lib.sandbox import application, interpreter
from runbook_lib.sandbox.kubernetes.api import KubernetesApi
from runbook_lib.sandbox.kubernetes.topology import Container, Pod, Topology, Workload

PRIMARY = "primary-cluster"
DR = "dr-cluster"
NAMESPACE = "tensafe"
DEPLOYMENT = application.NAME
REPLICAS = 3
"""How many the runbook's own text brings back after a restore."""
DATABASE = "tensafe"


@dataclass(frozen=True)
class Clusters:
    """The two clusters, with what a profile says of them."""

    api: KubernetesApi
    """Their API servers, for tests that break something."""
    kubeconfig: Path
    """The kubeconfig of a user who may do everything."""
    kubeconfig_reader: Path
    """The kubeconfig of a user who may look at everything and do nothing."""
    primary_context: str = PRIMARY
    """The context of the cluster that the application writes in."""
    dr_context: str = DR
    """The context of the cluster that waits."""
    namespace: str = NAMESPACE
    """The namespace of both."""
    deployment: str = DEPLOYMENT
    """The application's deployment, in both."""
    replicas: int = REPLICAS
    """How many pods the application has in the primary's cluster when all is well."""
    primary_pods: tuple[str, ...] = ("postgres-0",)
    """The pods of PostgreSQL in the primary's cluster at the beginning."""
    dr_pods: tuple[str, ...] = ("postgres-dr-0",)
    """Those in the other one."""
    postgres_container: str = "postgres"
    """Their container that has PostgreSQL's programs."""
    patroni_container: str = "patroni"
    """Their container that has Patroni's."""

    @classmethod
    def launch(cls, workspace: Workspace, server: PostgresServer) -> Self:
        """Begin to start both, and return at once; `KubernetesApi.await_ready` ends it. The application stands still.

        :param server: the PostgreSQL server that stands behind ``postgres-0``
        """
        root = workspace.folder("pods")
        there = {
            "PGHOST": str(server.folder),
            "PGPORT": "5432",
            "PGUSER": SUPERUSER,
            "PGDATABASE": DATABASE,
            "PATH": f"{server.tools.bin}{os.pathsep}{workspace.environment()['PATH']}",
        }
        nowhere = {**there, "PGHOST": str(root / DR / "no-server-yet")}  # and not a server of this machine
        api = KubernetesApi.launch(
            workspace,
            [
                Topology(
                    PRIMARY,
                    str(uuid.uuid4()),
                    NAMESPACE,
                    (postgres_pod("postgres-0", root / PRIMARY, there, log=server.log, role="master"),),
                    (_application(root / PRIMARY, there),),
                ),
                Topology(
                    DR,
                    str(uuid.uuid4()),
                    NAMESPACE,
                    (postgres_pod("postgres-dr-0", root / DR, nowhere, role="replica"),),
                    (_application(root / DR, nowhere),),
                ),
            ],
        )
        return cls(api, api.kubeconfig, api.kubeconfig_reader)

    def stop(self) -> None:
        """Stop both, with all that runs in their pods."""
        self.api.stop()

    @contextmanager
    def in_environment(self) -> Iterator[None]:
        """Have this process, and whatever it starts, find these two clusters and nobody's real ones."""
        before = os.environ.get("KUBECONFIG")
        os.environ["KUBECONFIG"] = str(self.kubeconfig)
        try:
            yield
        finally:
            del os.environ["KUBECONFIG"]
            if before is not None:
                os.environ["KUBECONFIG"] = before


def postgres_pod(
    name: str, root: Path, environment: Mapping[str, str], *, log: Path | None = None, role: str = "replica"
) -> Pod:
    """Return a pod of PostgreSQL, with Patroni beside it.

    :param root: the folder that gets the pod's own
    :param environment: how its commands find the server and its programs
    :param role: what Patroni's label says of it: ``master`` or ``replica``
    """
    folder = str(root / name)
    return Pod(
        name,
        (
            Container("postgres", folder, environment, log=str(log or root / name / "postgres.log")),
            Container("patroni", folder, environment, log=str(root / name / "patroni.log"), uses_interpreter=True),
        ),
        {"app": "postgres", "cluster-name": "tensafe", "role": role},
    )


def _application(root: Path, environment: Mapping[str, str]) -> Workload:
    return Workload(
        DEPLOYMENT,
        tuple(interpreter.argv(application.__name__)),
        str(root / DEPLOYMENT),
        env={**environment, "PGUSER": application.ROLE},
    )
