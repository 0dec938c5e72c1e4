"""A cluster of a sandbox: its members, its etcd, and how it comes up.

Patroni makes it, as it does everywhere: the first member runs initdb and gives itself roles, the others take base
backups of it. Only what would be waited for in turn happens at the same time. All Patronis are started at once, and
initdb is run for the first while it still loads; what all share is in etcd before any of them looks, so that the
others wait for a leader with the cluster's own patience, and wake when there is one.

A standby cluster, for the region that waits, has its own etcd and its own scope, and follows another cluster.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Self

import psycopg
import urllib3

from runbook_lib.errors import Unproven, WaitTimedOut
from runbook_lib.phases import Phase, Stopwatch
from runbook_lib.reach import postgres
from runbook_lib.reach.binaries import PostgresTools
from runbook_lib.reach.patroni import MemberReport, PatroniApi, ask_any
from runbook_lib.reach.server import SUPERUSER, make_cluster
from runbook_lib.reach.workspace import Workspace
from runbook_lib.sandbox.patroni.addresses import NETWORK, addresses, port_of_all
from runbook_lib.sandbox.patroni.etcd import USER as ETCD_USER
from runbook_lib.sandbox.patroni.etcd import Etcd
from runbook_lib.sandbox.patroni.member import Member, Place
from runbook_lib.waiting import wait_for

SCOPE = "tensafe"
"""What the cluster is called in etcd."""
DR_SCOPE = "tensafe-dr"
"""What the standby cluster is called."""
MEMBERS = ("postgres-0", "postgres-1", "postgres-2")
DR_MEMBERS = ("postgres-dr-0",)
REPLICATION_USER = "replicator"
API_USER = "patroni"

MIB = 1 << 20
_PORT, _API_PORT = 5432, 8008
"""Where PostgreSQL and Patroni are where everybody expects them."""
_UP_SECONDS = 120.0
_LIBPQ_NAME = "pgpass"


@dataclass(frozen=True)
class Timing:
    """How fast the cluster notices: what decides how long a failover takes."""

    ttl_seconds: int = 20
    """How long a leader's lease lasts. Patroni raises less than 20 to 20."""
    loop_wait_seconds: int = 1
    """How often Patroni looks, at least."""
    retry_timeout_seconds: int = 3
    """How long an operation on etcd or PostgreSQL is tried again. Patroni wants at least 3, and
    ``loop_wait + 2 * retry_timeout <= ttl``; else it changes them, so that `Timing` refuses."""
    primary_start_timeout_seconds: int = 0
    """How long a primary that crashed may take to come back before another one is chosen; Patroni's default is 300."""

    def __post_init__(self) -> None:
        """Refuse what Patroni would change in silence."""
        if self.ttl_seconds < 20 or self.loop_wait_seconds < 1 or self.retry_timeout_seconds < 3:
            msg = f"Patroni raises these: ttl below 20 s, loop_wait below 1 s, retry_timeout below 3 s: {self}"
            raise ValueError(msg)
        if self.loop_wait_seconds + 2 * self.retry_timeout_seconds > self.ttl_seconds:
            msg = f"Patroni changes these: loop_wait + 2 * retry_timeout must not exceed ttl: {self}"
            raise ValueError(msg)


@dataclass(frozen=True)
class Mode:
    """What the cluster promises."""

    synchronous: bool = False
    """Whether a commit is acknowledged only when a quorum of replicas has it, and never without (quorum and strict)."""
    maximum_lag_on_failover_bytes: int = MIB
    """How far behind a replica may be and still be chosen; Patroni's default."""
    failsafe: bool = False
    """Whether a leader goes on without etcd as long as it reaches all members."""
    timing: Timing = field(default_factory=Timing)
    """How fast it notices."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Settings of PostgreSQL, over ours."""


_PARAMETERS: Mapping[str, str] = {
    # Killed processes lose nothing by it; only a machine that goes down would.
    "fsync": "off",
    "shared_buffers": "32MB",
    "wal_keep_size": "256MB",
    "max_wal_senders": "10",
    "max_replication_slots": "10",
    "wal_log_hints": "on",
    "unix_socket_permissions": "0700",
    # Anything else would leave files in /dev/shm when the server is killed.
    "dynamic_shared_memory_type": "mmap",
    "logging_collector": "off",
    "log_destination": "stderr",
    "lc_messages": "C",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "wal_receiver_timeout": "10s",
    "wal_sender_timeout": "10s",
    # A replica asks before its slot was made; the default would have it wait for 5 s then.
    "wal_retrieve_retry_interval": "500ms",
}


@dataclass(frozen=True)
class _Secrets:
    """The passwords of one cluster and of the one that follows it."""

    superuser: str
    replication: str
    api: str

    @classmethod
    def made_up(cls) -> Self:
        return cls(*(secrets.token_urlsafe(24) for _ in range(3)))


class PatroniCluster:
    """A cluster that is up.

    Use it as a context manager::

        with Workspace.open() as workspace, PatroniCluster.up(workspace, tools) as cluster:
            cluster.leader().dsn()
    """

    def __init__(self, scope: str, etcd: Etcd, members: Sequence[Member], mode: Mode, known: _Secrets) -> None:
        """Stand for the cluster; use `up` instead."""
        self.scope = scope
        """What it is called in etcd."""
        self.etcd = etcd
        """Its etcd, for tests that take it away."""
        self.members = tuple(members)
        """Its members, in the order of their names."""
        self.mode = mode
        """What it promises."""
        self.phases: tuple[Phase, ...] = ()
        """What its start was spent on."""
        self._secrets = known

    @classmethod
    @contextmanager
    def up(
        cls,
        workspace: Workspace,
        tools: PostgresTools,
        *,
        scope: str = "",
        members: Sequence[str] = (),
        mode: Mode | None = None,
        follows: PatroniCluster | None = None,
        initdb_args: Sequence[str] = (),
    ) -> Iterator[Self]:
        """Start a new cluster, and stop it at the end of the block.

        :param scope: what it is called in etcd; by default `SCOPE`, and `DR_SCOPE` for one that follows
        :param members: their names, each once in a workspace; by default `MEMBERS`, or `DR_MEMBERS`
        :param mode: what it promises, and how fast it notices
        :param follows: the cluster that it is a standby of
        :param initdb_args: arguments for initdb, for a cluster that follows nobody

        It is up when the first member leads, and takes writes unless it follows, and all others stream from it. Raise
        `ToolFailed` or `WaitTimedOut`, with the ends of the logs, where it does not get there.
        """
        scope = scope or (DR_SCOPE if follows else SCOPE)
        mode = mode or (replace(follows.mode, synchronous=False) if follows else Mode())
        known = follows._secrets if follows else _Secrets.made_up()
        places = addresses(f"{workspace.id}/{scope}")
        stopwatch = Stopwatch()
        with ExitStack() as started:
            etcd = Etcd.launch(workspace, host=next(places), name=f"etcd-{scope}")
            started.callback(etcd.stop)
            names = members or (DR_MEMBERS if follows else MEMBERS)
            hosts = [next(places) for _ in names]
            port, api_port = port_of_all(hosts, _PORT), port_of_all(hosts, _API_PORT)
            made = [
                Member(workspace, tools, Place(name, host, port, api_port), password=known.superuser)
                for name, host in zip(names, hosts, strict=True)
            ]
            cluster = cls(scope, etcd, made, mode, known)
            started.callback(cluster.stop)
            cluster._start(follows, initdb_args, stopwatch)
            cluster.phases = stopwatch.phases
            yield cluster

    @property
    def api_credentials(self) -> tuple[str, str]:
        """User and password of the REST APIs, for everything that is not a question."""
        return API_USER, self._secrets.api

    @property
    def api_urls(self) -> tuple[str, ...]:
        """Where the members' REST APIs are, in the order of the members."""
        return tuple(member.place.api_url for member in self.members)

    def member(self, name: str) -> Member:
        """Return the member of this name."""
        return next(member for member in self.members if member.name == name)

    def leader(self) -> Member:
        """Return who holds the leader's key; raise `Unproven` where nobody does."""
        name = self.etcd.get(self._key("leader"))
        if name is None:
            raise Unproven(
                "the leader of a cluster",
                where=f"{self._key('leader')} in {self.etcd.url}",
                why="there is no such key: nobody leads",
                remedy="wait until somebody was elected",
            )
        return self.member(name)

    def stop(self) -> None:
        """Stop all members, whatever state they are in, by killing them. Stopping twice is no error."""
        with ExitStack() as all_of_them:
            for member in self.members:
                all_of_them.callback(member.crash)

    def api(self, name: str = "", *, read_only: bool = True, timeout_seconds: float = 5.0) -> PatroniApi:
        """Return the REST API of a member; by default of the first."""
        place = (self.member(name) if name else self.members[0]).place
        return PatroniApi(
            place.api_url, credentials=self.api_credentials, read_only=read_only, timeout_seconds=timeout_seconds
        )

    def await_leader(self, *, within_seconds: float, other_than: str = "") -> Member:
        """Wait until somebody holds the leader's key, and return who it is.

        :param other_than: who it must not be
        """
        found = self._await(
            "a leader", self.leader, within_seconds, until=lambda it: it.name != other_than, ignoring=(Unproven,)
        )
        assert isinstance(found, Member)
        return found

    def await_steady(self, *, within_seconds: float) -> None:
        """Wait until all members stream from the leader, and Patroni has noticed."""

        def missing() -> list[str]:
            topology = ask_any(
                [self.api(member.name, timeout_seconds=2) for member in self.members], PatroniApi.topology
            )
            leader = self.leader()
            ready = _streaming(leader, synchronous=self.mode.synchronous)
            up = {report.name for report in topology.members if report.works and self._counts(report)}
            return [
                member.name
                for member in self.members
                if member.name not in up or (member is not leader and member.name not in ready)
            ]

        self._await(
            "all members to work",
            missing,
            within_seconds,
            until=lambda left: not left,
            ignoring=(Unproven, psycopg.OperationalError),
        )

    def _counts(self, report: MemberReport) -> bool:
        """Say whether Patroni would choose a member: of a synchronous cluster, only who confirms what is written."""
        return report.leads or not self.mode.synchronous or report.role in {"sync_standby", "quorum_standby"}

    def _start(self, follows: PatroniCluster | None, initdb_args: Sequence[str], stopwatch: Stopwatch) -> None:
        first, *others = self.members
        seed = None if follows else first.workspace.folder(f"seed-{self.scope}") / "data"
        shared = self._shared_configuration(follows)
        first.configure({**self._configuration(first), "bootstrap": {"dcs": shared}}, seed=seed)
        for member in others:
            member.configure(self._configuration(member))  # without "bootstrap", so that they leave it to the first
        with stopwatch.phase("etcd"):
            self.etcd.await_ready()
            self.etcd.put(self._key("config"), json.dumps(shared))
        for member in self.members:
            member.start()
        if seed is not None:
            with stopwatch.phase("initdb"):
                make_cluster(first.workspace, first.tools, seed, initdb_args=("--data-checksums", *initdb_args))
        with stopwatch.phase("leader"):
            self._await(
                f"{first.name} to lead", lambda: _leads(first, follows), _UP_SECONDS, ignoring=_NOT_YET, starting=True
            )
        with stopwatch.phase("replicas"):
            self.await_steady(within_seconds=_UP_SECONDS)

    def _await(
        self,
        what: str,
        look: Callable[[], Any],
        within_seconds: float,
        *,
        until: Callable[[Any], bool] = bool,
        ignoring: tuple[type[Exception], ...] = (),
        starting: bool = False,
    ) -> Any:
        def alive() -> Any:
            if starting:
                for member in self.members:
                    member.must_be_running()
            return look()

        try:
            return wait_for(
                f"{what} in {self.scope}",
                alive,
                where=self.etcd.url,
                within_seconds=within_seconds,
                until=until,
                ignoring=ignoring,
            )
        except WaitTimedOut as late:
            logs = "\n".join(f"{member.name}:\n{member.log_tail()}" for member in self.members)
            raise WaitTimedOut(
                late.sought,
                where=late.where,
                why=f"{late.why}; the ends of the logs:\n{logs}",
                remedy="correct what the logs complain of, or free the machine's processors",
            ) from late

    def _key(self, name: str) -> str:
        return f"/service/{self.scope}/{name}"

    def _configuration(self, member: Member) -> dict[str, Any]:
        """Return what stands in ``patroni.yml``."""
        place, known = member.place, self._secrets
        return {
            "scope": self.scope,
            "name": place.name,
            "log": {"level": "INFO"},
            "restapi": {
                "listen": f"{place.host}:{place.api_port}",
                "connect_address": f"{place.host}:{place.api_port}",
                "authentication": {"username": API_USER, "password": known.api},
            },
            "ctl": {"authentication": {"username": API_USER, "password": known.api}},
            "etcd3": {
                "host": f"{self.etcd.host}:{self.etcd.port}",
                "username": ETCD_USER,
                "password": self.etcd.password,
            },
            "watchdog": {"mode": "off"},
            "postgresql": {
                "listen": f"{place.host}:{place.port}",
                "connect_address": f"{place.host}:{place.port}",
                "data_dir": str(member.data_directory),
                "bin_dir": str(member.tools.bin),
                "bin_name": {name: str(path) for name, path in member.programs.items()},
                "pgpass": str(member.folder / _LIBPQ_NAME),
                "use_unix_socket": True,
                "use_unix_socket_repl": True,
                "basebackup": [{"checkpoint": "fast"}, "no-sync"],
                "authentication": {
                    "superuser": {"username": SUPERUSER, "password": known.superuser, "sslmode": "disable"},
                    "replication": {"username": REPLICATION_USER, "password": known.replication, "sslmode": "disable"},
                },
                "parameters": {"unix_socket_directories": str(member.folder)},
                "pg_hba": [
                    "local all all trust",  # the socket's folder is closed to everybody else
                    "local replication all trust",
                    f"host all all {NETWORK} scram-sha-256",
                    f"host replication {REPLICATION_USER} {NETWORK} scram-sha-256",
                ],
            },
        }

    def _shared_configuration(self, follows: PatroniCluster | None) -> dict[str, Any]:
        """Return what Patroni keeps in etcd for all members."""
        mode, timing = self.mode, self.mode.timing
        shared: dict[str, Any] = {
            "ttl": timing.ttl_seconds,
            "loop_wait": timing.loop_wait_seconds,
            "retry_timeout": timing.retry_timeout_seconds,
            "primary_start_timeout": timing.primary_start_timeout_seconds,
            "maximum_lag_on_failover": mode.maximum_lag_on_failover_bytes,
            "failsafe_mode": mode.failsafe,
            "check_timeline": True,
            "postgresql": {
                "use_pg_rewind": True,
                "use_slots": True,
                "parameters": {**_PARAMETERS, **mode.parameters},
            },
        }
        if mode.synchronous:
            shared |= {"synchronous_mode": "quorum", "synchronous_mode_strict": True}
        if follows is not None:
            # Whoever leads there is among them, and a replica's stream is as good; libpq takes the first that answers.
            shared["standby_cluster"] = {
                "host": ",".join(member.place.host for member in follows.members),
                "port": str(follows.members[0].place.port),  # the same everywhere: Patroni knows only one
                "create_replica_methods": ["basebackup"],
            }
        return shared


_HTTP = urllib3.PoolManager(retries=urllib3.Retry(0), timeout=2)
_NOT_YET = (urllib3.exceptions.HTTPError, Unproven, psycopg.OperationalError)


def _streaming(leader: Member, *, synchronous: bool) -> set[str]:
    """Return who streams from a leader; of a synchronous one, whose confirmation counts."""
    counts = " AND sync_state IN ('sync', 'quorum')" if synchronous else ""
    with postgres.session(leader.local_dsn(), connect_timeout_seconds=5) as session:
        rows = session.rows(
            f"SELECT application_name FROM pg_catalog.pg_stat_replication WHERE state = 'streaming'{counts}"
        )
    return {str(row["application_name"]) for row in rows}


def _leads(member: Member, follows: PatroniCluster | None) -> bool:
    """Say whether a member leads: its own REST API says so, and it takes writes, or streams from whom it follows."""
    if _HTTP.request("GET", f"{member.place.api_url}/leader").status != 200:
        return False
    with postgres.session(member.local_dsn(), connect_timeout_seconds=5) as session:
        if follows is None:
            return not session.value("SELECT pg_catalog.pg_is_in_recovery()")
        return bool(session.value("SELECT count(*) FROM pg_catalog.pg_stat_wal_receiver WHERE status = 'streaming'"))
