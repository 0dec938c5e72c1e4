"""The sections of a profile.

Their defaults are the runbook's own numbers, so that a profile only says what differs from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pydantic

from runbook_lib.backup.catalog import Schedule
from runbook_lib.errors import ProfileInvalid
from runbook_lib.safety.windows import Moment, Window, overlaps

_STRICT = pydantic.ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Database:
    """The database that the runbook is about."""

    __pydantic_config__ = _STRICT

    dsn: str
    """A libpq connection string. What it leaves out comes from libpq's own files and variables (``PGSERVICE``,
    ``PGPASSFILE``); a password in it is refused."""
    system_identifier: str = ""
    """The cluster's identity: ``SELECT system_identifier FROM pg_control_system()``; empty to accept any."""
    audit_log: bool = True
    """Whether it has TenSafe's hash-chained ``public.audit_logs``."""
    statement_timeout_seconds: int = 60
    """How long one statement of a check may take, held by PostgreSQL itself."""
    lock_timeout_seconds: int = 5
    """How long a check may wait for a lock, and keep others waiting behind it."""


@dataclass(frozen=True)
class Backups:
    """Where its backups are, and how often they are taken."""

    __pydantic_config__ = _STRICT

    bucket: str
    """The S3 bucket."""
    prefix: str = "postgres/"
    """What the keys of dumps begin with; below it ``daily/``, ``manual/`` and ``tables/``."""
    endpoint_url: str = ""
    """Where S3 answers; empty for the AWS chain's own choice."""
    region: str = ""
    """The region; empty for the AWS chain's own choice."""
    daily_at: time = time(2, 0)
    """When the daily backup begins, in UTC (runbook 1.1)."""
    ready_within_minutes: int = 60
    """How long it may take before it counts as missed."""
    retention_days: int = 30
    """For how many days every night's backup is kept (runbook 1.1)."""
    compression: str = ""
    """As ``pg_dump --compress`` takes it; empty for zstd where pg_dump has it, else gzip:1."""

    @property
    def schedule(self) -> Schedule:
        """When a backup is due."""
        return Schedule(self.daily_at, timedelta(minutes=self.ready_within_minutes))


@dataclass(frozen=True)
class Archiving:
    """Continuous archiving of WAL."""

    __pydantic_config__ = _STRICT

    rpo_seconds: int = 300
    """How old the last archived segment should be at most: the recovery point objective, 5 minutes."""
    rpo_maximum_seconds: int = 900
    """How old it may be at most, 15 minutes."""
    wal_prefix: str = "wal/"
    """What the keys of WAL begin with, in the bucket of the backups; empty where it is archived by other means, so
    that nothing can be said of it."""
    base_prefix: str = "base/"
    """What the keys of base backups begin with, in the same bucket; empty where they are kept by other means."""
    base_within_days: int = 7
    """How old the newest base backup may be: a recovery replays all WAL since then."""
    patience_seconds: int = 60
    """How long a recovery goes on asking for WAL while S3 fails, before it stops where it is."""


@dataclass(frozen=True)
class Restore:
    """How a restore is rehearsed."""

    __pydantic_config__ = _STRICT

    rto_target_seconds: int = 3600
    """What a restore should take at most: the recovery time objective, 1 hour."""
    rto_maximum_seconds: int = 4 * 3600
    """What a restore may take at most, 4 hours."""
    jobs: int = 2
    """How many tables and indexes are restored at once, and how many tables are compared at once."""
    keep_replaced_days: int = 7
    """For how long a database that was replaced by a backup is kept, at the least."""
    folder: str = ""
    """Where the throwaway server lives while the drill runs: room for dump and database. Empty for TMPDIR."""

    @property
    def limits(self) -> Mapping[str, float]:
        """Target and maximum, as a timeline takes them."""
        return {"target_seconds": self.rto_target_seconds, "maximum_seconds": self.rto_maximum_seconds}


@dataclass(frozen=True)
class Changes:
    """What a run may alter, and where it writes down what it is about to do."""

    __pydantic_config__ = _STRICT

    granted: bool = False
    """Whether changes are granted without being typed. Only a sandbox may say so: a file that does is refused."""
    window: str = ""
    """The operation whose maintenance window must be open; empty for changes at any time."""
    halt_file: str = ""
    """A file that stops every change while it is there; empty for none."""
    halt_config_map: str = ""
    """A ConfigMap of the primary's Kubernetes cluster, ``namespace/name``, whose key ``halt`` does the same."""
    journal: str = ""
    """The folder of the journal; empty for one of the user's own, below ``$XDG_STATE_HOME/tensafe-runbook``. A runner
    that may disappear with its disk (a pod, a CI job) needs a folder that stays."""


@dataclass(frozen=True)
class KubernetesCluster:
    """One region's Kubernetes cluster."""

    __pydantic_config__ = _STRICT

    context: str
    """The context in the kubeconfig, or ``in-cluster`` for the service account of the pod we run in. There is no
    current context: it is whatever somebody used last."""
    cluster_uid: str = ""
    """The cluster's identity, empty to accept any:
    ``kubectl get namespace kube-system -o jsonpath={.metadata.uid}``."""
    namespace: str = "tensafe"
    """The namespace that everything is in."""
    api_deployment: str = "tensafe-api"
    """The application's Deployment."""
    database_selector: str = "app=postgres"
    """The label selector of the database's pods."""
    database_container: str = "postgres"
    """The container that PostgreSQL runs in."""
    patroni_container: str = "patroni"
    """The container whose log is Patroni's."""
    kubeconfig: str = ""
    """The kubeconfig; empty for ``KUBECONFIG``, else the usual place."""


@dataclass(frozen=True)
class Kubernetes:
    """The Kubernetes clusters."""

    __pydantic_config__ = _STRICT

    primary: KubernetesCluster | None = None
    """The primary region's."""
    dr: KubernetesCluster | None = None
    """The second region's."""
    ready_within_seconds: int = 300
    """How long pods may take to come or to go."""

    def region(self, name: str) -> KubernetesCluster:
        """Return one region's cluster. Raise `ProfileInvalid` where the profile names none."""
        if name not in self.regions:
            raise ProfileInvalid(
                f"the Kubernetes cluster of the region {name!r}",
                where="the profile",
                why="it names none",
                remedy=f"fill in [kubernetes.{name}], as runbook_lib/profiles/production.example.toml explains",
            )
        return self.regions[name]

    @property
    def regions(self) -> Mapping[str, KubernetesCluster]:
        """Those that there are, by region."""
        named = {"primary": self.primary, "dr": self.dr}
        return {region: cluster for region, cluster in named.items() if cluster is not None}


@dataclass(frozen=True)
class Patroni:
    """The high-availability manager."""

    __pydantic_config__ = _STRICT

    scope: str = ""
    """The cluster's name in Patroni; empty where there is none."""
    dr_scope: str = ""
    """The standby cluster's in the second region; empty where there is none."""
    rest_port: int = 8008
    """The port of every member's REST API."""


@dataclass(frozen=True)
class Dns:
    """The name that applications connect to, in Route 53."""

    __pydantic_config__ = _STRICT

    name: str = ""
    """The name: ``db.tensafe.io``; empty where there is none."""
    zone_id: str = ""
    """The hosted zone's id."""
    primary_target: str = ""
    """What it points to in normal times."""
    dr_target: str = ""
    """What it points to after a failover to the second region."""
    endpoint_url: str = ""
    """Where Route 53 answers; empty for the AWS chain's own choice."""


@dataclass(frozen=True)
class Contact:
    """Somebody to turn to (runbook 6)."""

    __pydantic_config__ = _STRICT

    role: str
    """Who: ``DBA On-Call``."""
    address: str
    """Where they read: an e-mail address."""
    escalation: str = ""
    """How to reach them when they do not: ``PagerDuty``, ``Slack #platform``."""


@dataclass(frozen=True)
class MaintenanceWindow:
    """When an operation may be done (runbook 7)."""

    __pydantic_config__ = _STRICT

    operation: str
    """What: ``VACUUM FULL``."""
    opens: str
    """When the window opens every week: ``Sunday 02:00``."""
    closes: str
    """When it closes."""
    zone: str = "UTC"
    """The time zone of both, by its IANA name: ``America/New_York``."""
    duration_minutes: int = 0
    """How long the operation takes at most; 0 where nobody knows."""
    impact: str = ""
    """What users notice: ``Table locked``."""

    def __post_init__(self) -> None:
        """Refuse what is no window."""
        _ = self.window

    @property
    def window(self) -> Window:
        """The window itself. Raise `ValueError` where it makes no sense."""
        try:
            zone = ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            msg = f"there is no time zone {self.zone!r}: write its IANA name, such as UTC or America/New_York"
            raise ValueError(msg) from None
        return Window(self.operation, Moment.parse(self.opens), Moment.parse(self.closes), zone)


@dataclass(frozen=True)
class Maintenance:
    """The maintenance windows (runbook 7)."""

    __pydantic_config__ = _STRICT

    windows: tuple[MaintenanceWindow, ...] = ()
    """The windows. An operation may have several."""

    def __post_init__(self) -> None:
        """Refuse windows of one operation that overlap: one of them is a slip of the pen."""
        if found := list(overlaps([each.window for each in self.windows], datetime.now(UTC))):
            raise ValueError("; ".join(found))
