"""Maintenance mode: the application out of service, the database shut, and room beside it.

What every dangerous procedure begins with and ends with. It is rehearsed by itself, because the day it is needed is
not the day to find out that a Deployment has an autoscaler or that a role may not shut the door.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from runbook_lib.outcome import Check, Finding
from runbook_lib.reach import postgres
from runbook_lib.reach.kubernetes import Cluster
from runbook_lib.reach.postgres import Session
from runbook_lib.restore.application import TakeApplicationOut
from runbook_lib.restore.fence import FenceDatabase
from runbook_lib.restore.made_database import MakeDatabase
from runbook_lib.safety import ownership
from runbook_lib.safety.act import Act, Before


@dataclass(frozen=True)
class MaintenanceMode:
    """The acts of entering it, in their order."""

    application: TakeApplicationOut
    """The application goes first: it would only fill its log with failed connections."""
    fence: FenceDatabase
    """Then everybody else."""
    beside: MakeDatabase
    """Then there is peace to work beside it."""

    @classmethod
    def of(cls, *, region: str, deployment: str, database: str, within_seconds: float) -> Self:
        """Return the acts for one application and its database."""
        token = secrets.token_hex(8)
        return cls(
            TakeApplicationOut(region, deployment, within_seconds),
            FenceDatabase(database),
            MakeDatabase(f"{database}_rehearsal", token),
        )

    @property
    def acts(self) -> tuple[Act, ...]:
        """All of them, in their order."""
        return (self.application, self.fence, self.beside)

    def application_is_in_service(self, cluster: Cluster) -> Check:
        """Say whether every replica that is wanted is ready, and any is wanted."""
        found = cluster.deployment(self.application.deployment)
        looked_at = f"{found.ready_replicas} of {found.replicas} replicas ready"
        findings = (
            () if found.replicas and found.ready_replicas == found.replicas else (self._not_in_service(looked_at),)
        )
        return Check("the application is in service", str(cluster), looked_at, findings)

    def application_has(self, cluster: Cluster, before: Before) -> Check:
        """Say whether the application has as many replicas as before, all of them ready."""
        found = cluster.deployment(self.application.deployment)
        looked_at = f"{found.ready_replicas} of {found.replicas} replicas ready; it had {before['replicas']}"
        whole = found.replicas == found.ready_replicas == before["replicas"]
        findings = () if whole else (self._not_in_service(looked_at),)
        return Check("the application has its former replicas", str(cluster), looked_at, findings)

    def no_pod_is_left(self, cluster: Cluster) -> Check:
        """Say whether the application has no pod, whatever its Deployment's status says."""
        deployment = cluster.deployment(self.application.deployment)
        pods = cluster.pods(deployment.selector)
        findings = tuple(
            Finding("application.pod", pod.name, f"is {pod.phase}", remedy="see why it does not end") for pod in pods
        )
        return Check("no pod of the application is left", str(cluster), f"{len(pods)} pods", findings)

    def nobody_is_connected(self, session: Session) -> Check:
        """Say whether the database is shut and empty."""
        row = self._door(session)
        findings = tuple(self._door_findings(allows=row["allows"], connected=row["connected"], shut=True))
        looked_at = f"{row['connected']} sessions, datallowconn = {row['allows']}"
        return Check("nobody is connected to the database", postgres.describe(session.dsn), looked_at, findings)

    def everybody_may_connect(self, session: Session) -> Check:
        """Say whether the database lets everybody in."""
        row = self._door(session)
        findings = tuple(self._door_findings(allows=row["allows"], connected=0, shut=False))
        looked_at = f"datallowconn = {row['allows']}"
        return Check("everybody may connect to the database", postgres.describe(session.dsn), looked_at, findings)

    def nothing_is_left_beside(self, session: Session) -> Check:
        """Say whether neither of the names of the database beside is there."""
        left = [name for name in (self.beside.database, self.beside.born_as) if ownership.exists(session, name)]
        findings = tuple(
            Finding("database.left", name, "is still there", remedy=f"DROP DATABASE {name}") for name in left
        )
        return Check("no database was left beside it", postgres.describe(session.dsn), "pg_database", findings)

    def _door(self, session: Session) -> postgres.Row:
        return session.row(postgres.load_sql(__package__, "fence"), database=self.fence.database)

    def _door_findings(self, *, allows: bool, connected: int, shut: bool) -> Iterator[Finding]:
        if allows == shut:
            state = "open" if allows else "shut"
            remedy = f"ALTER DATABASE {postgres.identifier(self.fence.database)} WITH ALLOW_CONNECTIONS {not shut}"
            yield Finding("database.door", self.fence.database, f"its door is {state}", remedy=remedy)
        if connected:
            remedy = "look at pg_stat_activity"
            yield Finding("database.sessions", self.fence.database, f"{connected} sessions are in it", remedy=remedy)

    def _not_in_service(self, says: str) -> Finding:
        name = self.application.deployment
        return Finding("application.replicas", name, says, remedy=f"kubectl describe deployment {name}")
