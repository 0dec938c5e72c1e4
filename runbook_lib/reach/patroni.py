"""How to reach Patroni.

Through its REST API and nothing else: ``patronictl`` exits with 0 when a switchover was refused, and falls back to
writing into etcd where nobody answers. The API's status codes tell apart what must be: it was done, it was refused, it
failed, and nobody knows.

What an answer says is still Patroni's word alone. A label is what a member wrote into etcd some time ago, up to a
lease's length; "switched over" says that the leader's key has moved. Whether somebody takes writes is PostgreSQL's to
say (see `runbook_lib.failover.steady_state`).
"""

from __future__ import annotations

import json
import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from typing import Any, TypeVar

import urllib3

from runbook_lib.errors import Denied, NotFound, RunbookError, TargetRefused, ToolFailed, Unproven, Unreachable

LEADERS = frozenset({"leader", "standby_leader"})
"""The roles of whoever holds the leader's key, in a cluster and in a standby cluster."""

_MOST_BYTES = 4 << 20
"""More than a cluster of a thousand members says."""
_SWITCHING_SECONDS = 60.0
"""Patroni itself watches a switchover for ``2 * max(10, loop_wait)`` seconds, and then says that it does not know."""
_RESTARTING_SECONDS = 300.0

T = TypeVar("T")


@dataclass(frozen=True)
class MemberReport:
    """What is said of one member in etcd."""

    name: str
    """What it is called: ``postgres-0``."""
    role: str
    """``leader``, ``standby_leader``, ``sync_standby``, ``quorum_standby`` or ``replica``: a claim."""
    state: str
    """``running``, ``streaming``, ``starting``, ``stopped``, ``crashed`` and others: a claim too."""
    api_url: str
    """Where its REST API is, as it says itself."""
    host: str
    """Where its PostgreSQL is; empty where it does not say so."""
    port: int
    """The port of it; 0 where it does not say so."""
    timeline: int | None
    """The timeline that it said to be on; None where that is not known."""
    lag_bytes: int | None
    """How far it was behind what the leader had last said; None for the leader, and where it is not known."""
    tags: Mapping[str, Any] = field(default_factory=dict)
    """Its tags, such as ``nofailover``."""

    @property
    def leads(self) -> bool:
        """Whether it is called the leader."""
        return self.role in LEADERS

    @property
    def works(self) -> bool:
        """Whether it is said to do what it is there for: to run as the leader of all, else to stream from somebody."""
        return self.state == ("running" if self.role == "leader" else "streaming")


@dataclass(frozen=True)
class Topology:
    """What ``GET /cluster`` says: a copy of what is in etcd."""

    scope: str
    """What the cluster is called in etcd."""
    members: tuple[MemberReport, ...]
    """Whoever has a key there, by name. A member that is gone disappears when its lease runs out."""
    paused: bool
    """Whether Patroni was told to keep its hands off: nobody is elected then."""
    scheduled_switchover: str
    """When a switchover is to happen, as Patroni writes it; empty where none is scheduled."""
    said_by: str
    """The API that said so."""

    @property
    def leader(self) -> MemberReport | None:
        """Who is called the leader; None where nobody is."""
        return next((member for member in self.members if member.leads), None)

    def member(self, name: str) -> MemberReport | None:
        """Return what is said of a member; None where nothing is."""
        return next((member for member in self.members if member.name == name), None)


@dataclass(frozen=True)
class Status:
    """What ``GET /patroni`` says: what one member knows of itself."""

    name: str
    """What it is called."""
    scope: str
    """What its cluster is called."""
    version: str
    """Patroni's version: ``4.1.5``."""
    state: str
    """``running`` and others; ``unknown`` where it could not ask its own PostgreSQL."""
    role: str
    """``primary``, ``standby_leader`` or ``replica``."""
    timeline: int | None
    """The timeline that it is on."""
    system_identifier: str
    """The cluster's identity as initdb made it; empty where it is not known."""
    replication_state: str
    """``streaming``, ``in archive recovery``, or empty."""
    paused: bool
    """Whether the cluster is paused."""
    unlocked: bool
    """Whether, as far as it knows, nobody holds the leader's key."""
    failsafe_active: bool
    """Whether it goes on without etcd because it reaches all others."""
    dcs_last_seen: int
    """When it last reached etcd, in seconds since 1970 by its own clock."""
    pending_restart: bool
    """Whether a setting waits for a restart."""


@dataclass(frozen=True)
class Configuration:
    """What ``GET /config`` says: the settings that all members share, as they are and not as they were sent."""

    ttl_seconds: float
    """How long a leader's lease lasts."""
    loop_wait_seconds: float
    """How often each member looks, at least."""
    retry_timeout_seconds: float
    """How long an operation is tried again."""
    primary_start_timeout_seconds: float
    """How long a primary that crashed may take to come back before another one is chosen."""
    maximum_lag_on_failover_bytes: int
    """How far behind a replica may be and still be chosen."""
    synchronous_mode: str
    """``off``, ``on`` or ``quorum``."""
    synchronous_mode_strict: bool
    """Whether nothing is acknowledged while no replica can confirm it."""
    failsafe_mode: bool
    """Whether a leader may go on without etcd."""
    paused: bool
    """Whether Patroni was told to keep its hands off."""
    standby_cluster: Mapping[str, Any] | None
    """Whom the whole cluster follows; None where it follows nobody."""
    everything: Mapping[str, Any]
    """All of it, as Patroni says it."""


@dataclass(frozen=True)
class TimelineChange:
    """One line of ``GET /history``: a promotion."""

    timeline: int
    """The timeline that ended."""
    lsn: int
    """Where it ended, in bytes."""
    reason: str
    """PostgreSQL's words."""
    at: datetime | None
    """When the new one began; None where it was not noted."""
    new_leader: str
    """Who began it; empty where it was not noted."""


@dataclass(frozen=True)
class Claim:
    """What Patroni answers when it says that it did what it was told."""

    says: str
    """Its own words."""
    leader: str = ""
    """Who it says leads now, which need not be who was asked for; empty where that was not the question."""


class PatroniApi:
    """The REST API of one member.

    :param url: its address, with or without ``/patroni`` at the end
    :param credentials: user and password, for all that is not a question; None where it asks for none
    :param timeout_seconds: how long an answer to a question may take, from the connection to its last byte
    :param read_only: whether everything that is not a question is refused before it is sent
    :param tls: how to check its certificate; None for the system's authorities
    """

    def __init__(
        self,
        url: str,
        *,
        credentials: tuple[str, str] | None = None,
        timeout_seconds: float = 5.0,
        read_only: bool = True,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.url = url.rstrip("/").removesuffix("/patroni")
        self.timeout_seconds = timeout_seconds
        self.read_only = read_only
        self._headers = urllib3.make_headers(basic_auth=":".join(credentials)) if credentials else {}
        self._http = urllib3.PoolManager(ssl_context=tls, retries=False)  # its errors come as they are, then

    def topology(self) -> Topology:
        """Return who is in the cluster, as etcd had it: where that is silent, Patroni may answer from memory."""
        found = self._ask("/cluster", dict)
        with self._telling_of("/cluster"):
            return Topology(
                scope=str(found.get("scope", "")),
                members=tuple(_member(each) for each in found["members"]),
                paused=bool(found.get("pause")),
                scheduled_switchover=str(found.get("scheduled_switchover", {}).get("at", "")),
                said_by=self.url,
            )

    def status(self) -> Status:
        """Return what this member knows of itself. It answers without etcd, and without its PostgreSQL."""
        found = self._ask("/patroni", dict)
        with self._telling_of("/patroni"):
            return Status(
                name=found["patroni"]["name"],
                scope=found["patroni"]["scope"],
                version=found["patroni"]["version"],
                state=found["state"],
                role=found["role"],
                timeline=found.get("timeline"),
                system_identifier=str(found.get("database_system_identifier", "")),
                replication_state=found.get("replication_state", ""),
                paused=bool(found.get("pause")),
                unlocked=bool(found.get("cluster_unlocked")),
                failsafe_active=bool(found.get("failsafe_mode_is_active")),
                dcs_last_seen=int(found.get("dcs_last_seen") or 0),
                pending_restart=bool(found.get("pending_restart")),
            )

    def configuration(self) -> Configuration:
        """Return the settings that all members share; what Patroni takes for granted is filled in."""
        found = self._ask("/config", dict)
        with self._telling_of("/config"):
            return _configuration(found)

    def history(self) -> tuple[TimelineChange, ...]:
        """Return the promotions that are remembered, the oldest first."""
        found = self._ask("/history", list)
        with self._telling_of("/history"):
            return tuple(_change(*line) for line in found)

    def switchover(
        self, leader: str, candidate: str = "", *, answer_within_seconds: float = _SWITCHING_SECONDS
    ) -> Claim:
        """Have the leader hand over to another member, while both are well.

        :param leader: who leads now; Patroni refuses where it is somebody else
        :param candidate: who is to lead; empty for whoever is best

        Raise `Denied` where Patroni refuses: nothing was changed. Raise `ToolFailed` where it says that it failed, and
        `Unproven` where it does not know, or did not answer in time: then it may still happen, and must not be
        repeated before the topology has come to rest.
        """
        wanted = {"leader": leader, **({"candidate": candidate} if candidate else {})}
        return self._switch("switchover", wanted, answer_within_seconds)

    def failover(self, candidate: str, *, answer_within_seconds: float = _SWITCHING_SECONDS) -> Claim:
        """Have a member take over where nobody leads, or where the leader is to be passed over; see `switchover`."""
        return self._switch("failover", {"candidate": candidate}, answer_within_seconds)

    def restart(self, *, answer_within_seconds: float = _RESTARTING_SECONDS) -> Claim:
        """Restart this member's PostgreSQL; raise `ToolFailed` where Patroni says that it failed."""
        return Claim(self._act("POST", "/restart", {}, "restarting PostgreSQL by Patroni", answer_within_seconds))

    def pause(self) -> Configuration:
        """Tell Patroni to keep its hands off. Each member obeys when it looks next."""
        return self.configure({"pause": True})

    def resume(self) -> Configuration:
        """Take back `pause`."""
        return self.configure({"pause": None})

    def configure(self, changes: Mapping[str, Any]) -> Configuration:
        """Change some of the shared settings, None to take one out, and return all of them as they are then."""
        said = self._act("PATCH", "/config", changes, "changing Patroni's shared settings", self.timeout_seconds)
        with self._telling_of("/config"):
            return _configuration(json.loads(said))

    def _switch(self, what: str, wanted: Mapping[str, str], answer_within_seconds: float) -> Claim:
        said = self._act("POST", f"/{what}", wanted, f"a {what} by Patroni", answer_within_seconds)
        moved = re.search(r'over to "([^"]*)"', said)
        return Claim(said, moved[1] if moved else "")

    def _ask(self, path: str, kind: type[T]) -> T:
        """Ask a question, and return what JSON the answer is."""
        sought = f"an answer of Patroni to GET {path}"
        try:
            status, content = self._send("GET", path, None, self.timeout_seconds)
        except (urllib3.exceptions.HTTPError, OSError) as silent:
            raise Unreachable(
                sought,
                where=self.url,
                why=_root(silent),
                remedy="look whether Patroni runs there, and reaches its etcd: GET /cluster needs it",
            ) from None
        if status == HTTPStatus.BAD_GATEWAY and path == "/config":
            raise NotFound(
                sought,
                where=self.url,
                why="Patroni has no shared settings: they are not in etcd",
                remedy="look whether the scope is right, and whether the cluster was ever made",
            )
        if status != HTTPStatus.OK:
            raise self._refused(sought, status, content)
        with self._telling_of(path):
            found = json.loads(content)
            if not isinstance(found, kind):
                raise TypeError(f"{type(found).__name__} instead of {kind.__name__}")
            return found

    def _act(self, method: str, path: str, told: Mapping[str, Any], sought: str, answer_within_seconds: float) -> str:
        """Have something done, once, and return what Patroni says when it says that it was."""
        if self.read_only:
            raise TargetRefused(
                sought,
                where=f"{method} {self.url}{path}",
                why="this client was opened to read only",
                remedy="nothing was sent; change a cluster only with a permit, through a client that may write",
            )
        began = time.monotonic()
        try:
            status, content = self._send(method, path, json.dumps(told), answer_within_seconds)
        except (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError) as silent:
            remedy = "nothing was sent; look whether Patroni runs there, or tell another member"
            raise Unreachable(sought, where=self.url, why=_root(silent), remedy=remedy) from None
        except (urllib3.exceptions.HTTPError, OSError) as silent:
            raise Unproven(
                sought,
                where=self.url,
                why=f"it was told, and no answer came in {time.monotonic() - began:.0f} s: {_root(silent)}",
                remedy="look at the members until they have come to rest; do not repeat it before: it may be under way",
            ) from None
        said = content.decode(errors="replace").strip()
        if status in {HTTPStatus.OK, HTTPStatus.ACCEPTED}:
            return said
        unknown = "status unknown" in said or "failed to write" in said
        if status == HTTPStatus.SERVICE_UNAVAILABLE and unknown:
            raise Unproven(
                sought,
                where=self.url,
                why=f"Patroni answers {status}: {said}",
                remedy="look at the members until they have come to rest; do not repeat it before: it may be under way",
            )
        raise self._refused(sought, status, content)

    def _refused(self, sought: str, status: int, content: bytes) -> RunbookError:
        """Return the error that an answer other than success amounts to."""
        said = " ".join(content.decode(errors="replace").split())[:300] or "nothing"
        why = f"Patroni answers {status}: {said}"
        if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            remedy = "give user and password of its REST API (restapi.authentication), or be on its allowlist"
            return Denied(sought, where=self.url, why=why, remedy=remedy)
        if status in {HTTPStatus.BAD_REQUEST, HTTPStatus.CONFLICT, HTTPStatus.PRECONDITION_FAILED, 422}:
            remedy = "nothing was changed: look at who leads, at the candidate's lag and tags, and whether it is paused"
            return Denied(sought, where=self.url, why=why, remedy=remedy)
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            return ToolFailed(sought, where=self.url, why=why, remedy="read Patroni's log on the members concerned")
        return Unreachable(
            sought, where=self.url, why=why, remedy="check that this is Patroni's address, and read its log"
        )

    def _send(self, method: str, path: str, body: str | None, within_seconds: float) -> tuple[int, bytes]:
        """Send a request, and return the status and the body of its answer, which has to end in time."""
        deadline = time.monotonic() + within_seconds
        answer = self._http.request(
            method,
            f"{self.url}{path}",
            body=body,
            headers=self._headers if body is not None else {},
            timeout=urllib3.Timeout(connect=min(within_seconds, self.timeout_seconds), read=within_seconds),
            redirect=False,
            preload_content=False,
        )
        content = bytearray()
        try:
            for piece in answer.stream(1 << 16):
                content += piece
                if len(content) > _MOST_BYTES or time.monotonic() > deadline:
                    raise urllib3.exceptions.HTTPError(f"its answer did not end in {within_seconds:g} s")
        finally:
            answer.close()
        return answer.status, bytes(content)

    @contextmanager
    def _telling_of(self, path: str) -> Iterator[None]:
        """Turn what reading an answer of another shape raises into an error that says so."""
        try:
            yield
        except (ValueError, TypeError, KeyError, AttributeError) as garbled:
            raise Unreachable(
                f"an answer of Patroni to GET {path}",
                where=self.url,
                why=f"what answers there is not Patroni: {type(garbled).__name__}: {garbled}",
                remedy="check the address, and what stands between it and us",
            ) from garbled


def ask_any(apis: Sequence[PatroniApi], question: Callable[[PatroniApi], T]) -> T:
    """Put a question to one member after the other, and return the first answer.

    Raise `Unreachable` with what each of them said where none answers.
    """
    unanswered = []
    for api in apis:
        try:
            return question(api)
        except Unreachable as silent:
            unanswered.append(silent)
    raise Unreachable(
        "an answer of any member's Patroni",
        where=", ".join(api.url for api in apis) or "no address",
        why="; ".join(f"{silent.where}: {silent.why}" for silent in unanswered) or "nobody was named to be asked",
        remedy=unanswered[-1].remedy if unanswered else "name the addresses of the REST APIs in the profile",
    )


def _member(said: Mapping[str, Any]) -> MemberReport:
    lag = said.get("lag")
    return MemberReport(
        name=str(said["name"]),
        role=str(said["role"]),
        state=str(said["state"]),
        api_url=str(said.get("api_url") or ""),
        host=str(said.get("host", "")),
        port=int(said.get("port", 0)),
        timeline=said.get("timeline"),
        lag_bytes=lag if isinstance(lag, int) else None,  # "unknown" where it is not known
        tags=dict(said.get("tags", {})),
    )


def _configuration(said: Mapping[str, Any]) -> Configuration:
    """Fill in what Patroni takes where nothing is said (its ``config.py`` and ``global_config.py``)."""
    synchronous = said.get("synchronous_mode", False)
    mode = "quorum" if str(synchronous).lower() == "quorum" else "on" if _is_on(synchronous) else "off"
    follows = said.get("standby_cluster")
    return Configuration(
        ttl_seconds=float(said.get("ttl", 30)),
        loop_wait_seconds=float(said.get("loop_wait", 10)),
        retry_timeout_seconds=float(said.get("retry_timeout", 10)),
        primary_start_timeout_seconds=float(said.get("primary_start_timeout", 300)),
        maximum_lag_on_failover_bytes=int(said.get("maximum_lag_on_failover", 1 << 20)),
        synchronous_mode=mode,
        synchronous_mode_strict=_is_on(said.get("synchronous_mode_strict", False)),
        failsafe_mode=_is_on(said.get("failsafe_mode", False)),
        paused=_is_on(said.get("pause", False)),
        standby_cluster=follows if isinstance(follows, dict) and follows else None,
        everything=said,
    )


def _is_on(value: object) -> bool:
    return str(value).lower() in {"true", "on", "yes", "1"}


def _change(timeline: int, lsn: int, reason: str, at: str = "", new_leader: str = "") -> TimelineChange:
    return TimelineChange(timeline, lsn, reason, datetime.fromisoformat(at) if at else None, new_leader)


def _root(error: BaseException) -> str:
    """Return the reason below urllib3's layers, in words."""
    reason = getattr(error, "reason", None)
    while isinstance(reason, BaseException):
        error, reason = reason, getattr(reason, "reason", None)
    return re.sub(r"<[^>]*>:? ?", "", str(error)).strip() or type(error).__name__
