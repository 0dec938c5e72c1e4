"""What each member of a cluster is, asked of its PostgreSQL.

Patroni's labels are what a member wrote down some time ago; after SIGKILL they call a server a replica that takes
writes, and another one a leader that is dead. The server itself knows. So every member is asked, all at the same time
and each for no longer than is given, and one that cannot be asked is not passed over: whether nothing listens there or
something keeps silent are two different things, for only the second may still be taking writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil

from runbook_lib.errors import RunbookError, Unproven, Unreachable
from runbook_lib.reach import postgres
from runbook_lib.reach.patroni import Topology

ANSWER_SECONDS = 3.0
"""How long a member may take for its answer; on one that works it takes some milliseconds."""
_LEAST_CONNECT_SECONDS = 2
"""libpq takes no less."""


@dataclass(frozen=True)
class MemberAddress:
    """Where a member's PostgreSQL can be asked."""

    name: str
    """What Patroni calls it."""
    dsn: str
    """A connection string for its own address, and for nobody else's."""


@dataclass(frozen=True)
class Sighting:
    """What a member's PostgreSQL says of itself."""

    name: str
    """What Patroni calls it."""
    where: str
    """Where it was asked, without a password."""
    system_identifier: str
    """The cluster's identity, made by initdb."""
    in_recovery: bool
    """Whether it is a standby."""
    read_only: bool
    """Whether its sessions refuse writes unless they are told otherwise."""
    timeline: int
    """The newest timeline that it has written or received."""
    written_bytes: int | None
    """Where a primary writes, or up to where a standby has received; None where it has received nothing."""
    replayed_bytes: int | None
    """Up to where a standby has replayed; None of a primary."""
    receiver: str
    """What its WAL receiver does: ``streaming``, ``starting``, ...; ``hidden`` where we may not look, empty where there
    is none."""
    waits_for: str
    """Whom a commit waits for (``synchronous_standby_names``); empty where it waits for nobody."""
    confirming: int | None
    """How many standbys a commit is confirmed by at present; None where we may not look."""

    @property
    def takes_writes(self) -> bool:
        """Whether a client's write would be executed here."""
        return not self.in_recovery and not self.read_only


@dataclass(frozen=True)
class Absence:
    """A member that could not be asked."""

    name: str
    """What Patroni calls it."""
    where: str
    """Where it was asked, without a password."""
    error: RunbookError
    """Why there is no answer."""

    @property
    def nobody_listens(self) -> bool:
        """Whether nothing is there that could take a write; else it may be there and keep silent."""
        return isinstance(self.error, Unreachable) and postgres.nobody_listens(self.error)


@dataclass(frozen=True)
class Seen:
    """All members, as they were at about the same time."""

    sightings: tuple[Sighting, ...]
    """Those that answered."""
    absences: tuple[Absence, ...]
    """Those that did not."""
    written_afterwards_bytes: int | None
    """Where the one that takes writes was when all had answered, so that a lag is never said smaller than it was; None
    where it was not to be asked again, or where there is none or more than one."""

    @property
    def names(self) -> tuple[str, ...]:
        """Who was asked, in order."""
        return tuple(sorted([each.name for each in self.sightings] + [each.name for each in self.absences]))

    @property
    def where(self) -> str:
        """Who was asked, in words."""
        return ", ".join(self.names) or "no members"

    @property
    def writable(self) -> tuple[Sighting, ...]:
        """Those that take writes."""
        return tuple(sighting for sighting in self.sightings if sighting.takes_writes)


def addresses(topology: Topology, dsn: str) -> tuple[MemberAddress, ...]:
    """Return where the members are that Patroni knows of.

    :param dsn: database, user and password, which are the same everywhere
    """
    return tuple(
        MemberAddress(member.name, postgres.at_address(dsn, member.host, member.port))
        for member in topology.members
        if member.host
    )


def look(members: Sequence[MemberAddress], *, within_seconds: float = ANSWER_SECONDS) -> Seen:
    """Ask all members at the same time what they are, in sessions that PostgreSQL holds read-only.

    :param within_seconds: how long each may take to accept us, and as long again to answer

    Nobody's silence raises an error: it is part of what is seen.
    """
    with ThreadPoolExecutor(max_workers=max(1, len(members))) as pool:
        found = list(pool.map(lambda member: _ask(member, within_seconds), members))
    sightings = tuple(each for each in found if isinstance(each, Sighting))
    absences = tuple(each for each in found if isinstance(each, Absence))
    writable = [each.name for each in sightings if each.takes_writes]
    again: Sighting | Absence | None = None
    if len(writable) == 1:
        again = _ask(next(member for member in members if member.name == writable[0]), within_seconds)
    afterwards = again.written_bytes if isinstance(again, Sighting) and again.takes_writes else None
    return Seen(sightings, absences, afterwards)


def _ask(member: MemberAddress, within_seconds: float) -> Sighting | Absence:
    where = postgres.describe(member.dsn)
    try:
        with postgres.session(
            member.dsn,
            application_name="runbook/members",
            statement_timeout_seconds=within_seconds,
            answer_within_seconds=within_seconds,
            connect_timeout_seconds=max(_LEAST_CONNECT_SECONDS, ceil(within_seconds)),
        ) as session:
            row = session.row(postgres.load_sql(__package__, "member"))
    except RunbookError as unknown:
        return Absence(member.name, where, unknown)
    except postgres.DriverError as broken:
        why = str(broken).strip() or type(broken).__name__
        remedy = "look at the server's log: the connection broke, or the statement took too long"
        return Absence(member.name, where, Unproven("what a member is", where=where, why=why, remedy=remedy))
    return Sighting(
        name=member.name,
        where=where,
        system_identifier=row["system_identifier"],
        in_recovery=row["in_recovery"],
        read_only=row["read_only"],
        timeline=row["timeline"],
        written_bytes=row["written"],
        replayed_bytes=row["replayed"] if row["in_recovery"] else None,
        receiver=row["receiver"] or "",
        waits_for=row["waits_for"],
        confirming=None if row["hidden"] else row["confirming"],
    )
