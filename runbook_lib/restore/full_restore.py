"""The whole database is replaced by a backup of it, and nothing is lost on the way.

The order is everything. What can fail without harm, and what takes long, comes first: the backup and the room for it
are looked at, and it is restored beside the living database and compared with its manifest, while that still serves.
Then the application goes and the door is shut, so that what is in the database is all there will be; and the two change
places, in one transaction, in as many seconds for a large database as for a small one. What was replaced stays, shut,
under a name that says since when. Until that moment everything is taken back by itself; from then on the application is
brought back to the new database, whatever happens.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from runbook_lib.backup import retention
from runbook_lib.backup.catalog import Backup
from runbook_lib.backup.manifest import DatabaseIdentity
from runbook_lib.errors import TargetRefused, Unproven
from runbook_lib.outcome import Check, Finding, Outcome
from runbook_lib.reach import postgres
from runbook_lib.reach.kubernetes import Cluster
from runbook_lib.reach.postgres import Session
from runbook_lib.restore.application import TakeApplicationOut
from runbook_lib.restore.fence import FenceDatabase
from runbook_lib.restore.made_database import MakeDatabase
from runbook_lib.restore.swap import KEPT_AS, KeptDatabase, SwapDatabases, kept
from runbook_lib.safety.act import Act
from runbook_lib.waiting import wait_for


@dataclass(frozen=True)
class Place:
    """What is replaced, and who writes to it."""

    database: str
    """The living database's name."""
    region: str
    """The region whose cluster the application runs in."""
    deployment: str
    """The application's Deployment."""
    within_seconds: float
    """How long its pods may take to go and to come back."""
    keep_for: timedelta
    """For how long what was replaced is kept."""

    def out_of_service(self) -> TakeApplicationOut:
        """Return the act that takes the application out."""
        return TakeApplicationOut(self.region, self.deployment, self.within_seconds)

    def swap_in(self, incoming: str, now: datetime) -> SwapDatabases:
        """Return the act that puts another database in the living one's place, which is kept under a dated name."""
        until = (now + self.keep_for).isoformat(timespec="seconds")
        return SwapDatabases(self.database, incoming, f"{self.database}{KEPT_AS}{now:%Y%m%d_%H%M%S}", until)


@dataclass(frozen=True)
class FullRestore:
    """The acts of replacing a database by a backup of it, in their order."""

    make: MakeDatabase
    """What the backup is restored into."""
    application: TakeApplicationOut
    """Nobody writes any more."""
    fence: FenceDatabase
    """Nobody can."""
    swap: SwapDatabases
    """It takes the database's place."""

    @classmethod
    def of(cls, backup: Backup, place: Place, now: datetime, identity: DatabaseIdentity) -> Self:
        """Return the acts for one backup.

        :param identity: the living database's

        Raise `Unproven` for one without a manifest: nothing can vouch for it; `TargetRefused` for one of another
        database, which would be restored without a fault.
        """
        if backup.manifest is None:
            raise Unproven(
                f"to replace {place.database} by {backup.dump.url}",
                where="the backup",
                why="it has no manifest: what it should hold, nobody wrote down, so that nothing could be compared",
                remedy="choose a backup with a manifest, or restore this one to scratch and look at it yourself",
            )
        if foreign := retention.is_of(backup, identity).findings:
            raise TargetRefused(
                f"to replace {place.database} by {backup.dump.url}",
                where="the backup",
                why=foreign[0].says,
                remedy="choose a backup of this database; to look at this one, restore it to scratch",
            )
        new = f"{place.database}_new_{now:%Y%m%d_%H%M%S}"
        return cls(
            MakeDatabase(new, secrets.token_hex(8), backup.manifest.properties.options),
            place.out_of_service(),
            FenceDatabase(place.database),
            place.swap_in(new, now),
        )

    @property
    def acts(self) -> tuple[Act, ...]:
        """All of them, in their order."""
        return (self.make, self.application, self.fence, self.swap)

    @property
    def to_stay(self) -> tuple[Act, ...]:
        """Those that stay once the databases have changed places; the application alone is brought back."""
        return (self.make, self.fence, self.swap)

    def replaced_is_kept(self, session: Session, oid: int) -> Check:
        """Say whether what was replaced is there under its new name, and nobody can get in."""
        question = "the database that it replaced is kept, and shut"
        found = next((each for each in kept(session) if each.name == self.swap.kept_as), None)
        looked_at = f"{found.name}, kept until {found.until}" if found else "no such database"
        findings: list[Finding] = []
        if found is None or found.oid != oid:
            findings.append(Finding("restore.kept", self.swap.kept_as, "it is not the database that was replaced"))
        elif found.allows:
            remedy = f"ALTER DATABASE {postgres.identifier(found.name)} WITH ALLOW_CONNECTIONS false"
            findings.append(Finding("restore.kept", found.name, "its door is open", remedy=remedy))
        return Check(question, postgres.describe(session.dsn), looked_at, tuple(findings))


@dataclass(frozen=True)
class PutBack:
    """The acts of putting a database back that was replaced."""

    application: TakeApplicationOut
    """Nobody writes any more."""
    fence: FenceDatabase
    """Nobody can."""
    swap: SwapDatabases
    """It takes its old place."""

    @classmethod
    def of(cls, replaced: KeptDatabase, place: Place, now: datetime) -> Self:
        """Return the acts for one database that is kept."""
        return cls(place.out_of_service(), FenceDatabase(place.database), place.swap_in(replaced.name, now))

    @property
    def acts(self) -> tuple[Act, ...]:
        """All of them, in their order."""
        return (self.application, self.fence, self.swap)

    @property
    def to_stay(self) -> tuple[Act, ...]:
        """Those that stay once the databases have changed places."""
        return (self.fence, self.swap)


def application_writes(session: Session, cluster: Cluster, deployment: str, *, within_seconds: float) -> Check:
    """Say whether the application writes to the database again: that it is ready is its own word.

    Seen from the database: rows that are inserted, updated or deleted in it, by whomever. Where nobody uses the
    application just then, nothing is seen, and the check is unproven.
    """
    question = "the application answers writes"
    found = cluster.deployment(deployment)
    replicas = f"{found.ready_replicas} of {found.replicas} replicas ready"
    if not found.replicas or found.ready_replicas != found.replicas:
        finding = Finding(
            "application.replicas", deployment, replicas, remedy=f"kubectl describe deployment {deployment}"
        )
        return Check(question, str(cluster), replicas, (finding,))
    first = _written(session)
    try:
        now = wait_for(
            "rows to be written",
            lambda: _written(session),
            where=postgres.describe(session.dsn),
            within_seconds=within_seconds,
            until=lambda rows: rows > first,
            every_seconds=0.2,
        )
    except Unproven as unseen:
        finding = Finding(
            "application.writes",
            deployment,
            f"no row was written within {within_seconds:.0f} s, although it is ready: {unseen.why}",
            Outcome.UNPROVEN,
            "use the application, and look again",
        )
        return Check(question, str(cluster), replicas, (finding,))
    return Check(question, str(cluster), f"{replicas}; {now - first} rows written since")


def _written(session: Session) -> int:
    # Statistics are kept for a transaction unless they are let go.
    session.rows("SELECT pg_catalog.pg_stat_clear_snapshot()")
    return int(session.value(postgres.load_sql(__package__, "written")))
