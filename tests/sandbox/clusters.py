"""A PostgreSQL server with the two clusters around it, for the proofs of the sandbox's Kubernetes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from runbook_lib.reach import binaries
from runbook_lib.reach.kubernetes import Cluster
from runbook_lib.reach.postgres import session
from runbook_lib.reach.server import FAST, PostgresServer
from runbook_lib.reach.workspace import Workspace
from runbook_lib.sandbox import application
from runbook_lib.sandbox.kubernetes.tensafe import DATABASE, Clusters


@dataclass(frozen=True)
class Place:
    """What is up."""

    workspace: Workspace
    server: PostgresServer
    clusters: Clusters
    cluster: Cluster
    dr: Cluster

    @property
    def dsn(self) -> str:
        return self.server.dsn(DATABASE)

    def rows(self) -> int:
        with session(self.dsn) as connected:
            return int(connected.value(f"SELECT count(*) FROM {application.TABLE}"))

    def scale(self, replicas: int) -> None:
        self.cluster.scale(application.NAME, replicas, expected=None)
        self.cluster.wait_for_replicas(application.NAME, replicas, within_seconds=30)


@contextmanager
def place() -> Iterator[Place]:
    with Workspace.open() as workspace:
        server = PostgresServer.start(workspace, binaries.find(17), name="primary", settings=FAST)
        with session(server.dsn(), read_only=False) as connected:
            connected.execute(f"CREATE ROLE {application.ROLE} LOGIN")
            connected.execute(f"CREATE DATABASE {DATABASE}")
        with session(server.dsn(DATABASE), read_only=False) as connected:
            for statement in application.PREPARE:
                connected.execute(statement)
        clusters = Clusters.launch(workspace, server)
        clusters.api.await_ready()
        try:
            config = str(clusters.kubeconfig)
            with (
                Cluster.connect("primary-cluster", namespace="tensafe", kubeconfig=config, read_only=False) as cluster,
                Cluster.connect("dr-cluster", namespace="tensafe", kubeconfig=config, read_only=False) as dr,
            ):
                yield Place(workspace, server, clusters, cluster, dr)
        finally:
            clusters.stop()
            server.stop()
