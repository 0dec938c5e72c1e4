"""Is this the target that was named?

The commands of a drill and of a disaster are the same; what differs is where they go. So before anything else is asked
of a system it is asked who it is, and the answer is compared with what the profile says: a database cluster by the
identifier that initdb gave it, a Kubernetes cluster by the uid of its kube-system namespace. And because a copy of a
cluster, made from its files, keeps the identifier, a database that bears the mark of a restored copy is refused where
the real one is expected.
"""

from __future__ import annotations

from dataclasses import dataclass

from runbook_lib.errors import TargetRefused
from runbook_lib.reach import postgres
from runbook_lib.reach.kubernetes import Cluster
from runbook_lib.reach.postgres import Session
from runbook_lib.safety import ownership


@dataclass(frozen=True)
class Identity:
    """Who a database cluster is, as a profile names it."""

    environment: str
    """The environment's name, for the sentence."""
    system_identifier: str
    """What ``pg_control_system()`` must say; empty to accept any."""

    def must_be(self, session: Session) -> None:
        """Return if this is the database that was named, else raise `TargetRefused`. Costs two statements."""
        found = session.row(postgres.load_sql(__package__, "identity"))
        if self.system_identifier and found["system_identifier"] != self.system_identifier:
            its = found["system_identifier"]
            raise self._refused(
                session, f"its system identifier is {its}, and the profile names {self.system_identifier}"
            )
        if found["cluster_name"].startswith(ownership.SCRATCH_CLUSTER):
            raise self._refused(session, f"it is a throwaway copy: its cluster_name is {found['cluster_name']!r}")
        if ownership.owner_of(session, found["database"]):
            raise self._refused(session, f"the database {found['database']} bears the mark of a restored copy")

    def _refused(self, session: Session, why: str) -> TargetRefused:
        return TargetRefused(
            f"the database of {self.environment}",
            where=postgres.describe(session.dsn),
            why=why,
            remedy="correct the connection string, or the profile if the cluster was made anew",
        )


def must_be_cluster(cluster: Cluster, uid: str, *, environment: str) -> None:
    """Return if this is the Kubernetes cluster that was named, else raise `TargetRefused`.

    :param uid: the uid of its namespace kube-system; empty to accept any
    """
    if not uid:
        return
    found = cluster.identity()
    if found != uid:
        raise TargetRefused(
            f"the Kubernetes cluster of {environment}",
            where=str(cluster),
            why=f"the uid of its namespace kube-system is {found}, and the profile names {uid}",
            remedy="correct the context, or the profile if the cluster was made anew:"
            " kubectl get namespace kube-system -o jsonpath={.metadata.uid}",
        )
