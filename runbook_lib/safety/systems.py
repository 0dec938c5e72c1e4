"""What acts are done to.

An act is written down as plain data, and may have to be taken back by another process on another day. So it never
holds a connection: whoever does it or takes it back hands it the systems, reached anew from the same profile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from runbook_lib.errors import (
    Denied,
    NoRoom,
    NotFound,
    ProfileInvalid,
    RunbookError,
    ToolFailed,
    Unreachable,
    WaitTimedOut,
)
from runbook_lib.reach import postgres
from runbook_lib.reach.kubernetes import Cluster
from runbook_lib.reach.objects import Bucket
from runbook_lib.reach.postgres import DriverError, Session

CONTROL_DATABASES = ("postgres", "template1")
"""Where to connect to in order to alter a database from outside; the first that is there."""
_LOCK_NOT_AVAILABLE = "55P03"
_MAY_NOT = "42501"
_DISK_FULL = "53100"


@dataclass(frozen=True)
class Systems:
    """The systems that a profile names, through clients that may write."""

    dsn: str = ""
    """The database, as the profile names it; empty where there is none."""
    bucket: Bucket | None = None
    """The bucket that backups are in; None where there is none."""
    clusters: Mapping[str, Callable[[], Cluster]] = field(default_factory=dict)
    """How to reach the Kubernetes clusters by region, ``primary`` and ``dr``; each compares identities first."""
    established: Callable[[Session], None] = lambda _: None
    """Compares identities on every session that may write, before its first statement; raises `TargetRefused`."""

    straggling_seconds: float = 0.0
    """For how long requests of a run that was killed may still arrive; 0 where no run was killed."""

    @contextmanager
    def control(self, *, read_only: bool = False) -> Iterator[Session]:
        """Open a session that may write, beside the database and not in it, so that the database can be altered.

        :param read_only: have PostgreSQL refuse every write of it after all

        What the server refuses in the block, and the block does not explain, is raised as `Denied`, `NoRoom`,
        `Unreachable` or `ToolFailed`.
        """
        last: NotFound | None = None
        opened = False
        # A database can be neither shut nor renamed from inside.
        for name in (each for each in CONTROL_DATABASES if each != postgres.database_of(self.dsn)):
            try:
                with postgres.session(
                    postgres.with_database(self.dsn, name), application_name="runbook/control", read_only=read_only
                ) as session:
                    opened = True
                    self.established(session)
                    yield session
                    return
            except NotFound as missing:
                if opened:
                    raise
                last = missing
            except DriverError as refused:
                raise _told(self.dsn, refused) from refused
        assert last is not None
        raise last

    @contextmanager
    def inside(self, *, read_only: bool = False) -> Iterator[Session]:
        """Open a session in the database itself, once its identity is established.

        What the server refuses in the block, and the block does not explain, is raised as by `control`.
        """
        try:
            with postgres.session(self.dsn, application_name="runbook/inside", read_only=read_only) as session:
                self.established(session)
                yield session
        except DriverError as refused:
            raise _told(self.dsn, refused) from refused

    @contextmanager
    def alone(self, what: str, *, inside: bool = False) -> Iterator[Session]:
        """Open a session as `control` does, and hold a lock of the server's as long as it lives.

        A server goes on with a statement whose client was killed: what is not there yet may be there a moment later. So
        an act and its undoing take the same lock, and the undoing begins when nothing of the act is under way.

        :param what: what is altered; two sessions of the same are never open at the same time
        :param inside: open it in the database itself, for what is altered in there

        Raise `WaitTimedOut` where another one holds it for too long.
        """
        with self.inside() if inside else self.control() as session:
            try:
                session.execute("SELECT pg_catalog.pg_advisory_lock(pg_catalog.hashtextextended(%s, 0))", what)
            except DriverError as refused:
                if refused.sqlstate != _LOCK_NOT_AVAILABLE:
                    raise
                raise WaitTimedOut(
                    f"the end of what is being done to {what}",
                    where=postgres.describe(session.dsn),
                    why=str(refused).splitlines()[0],
                    remedy="wait, or end the other session: SELECT * FROM pg_stat_activity"
                    " WHERE application_name = 'runbook/control'",
                ) from refused
            yield session

    def must_have_bucket(self) -> Bucket:
        """Return the bucket; raise `ProfileInvalid` where the profile names none."""
        if self.bucket is None:
            raise _not_named("a bucket", "[backups]")
        return self.bucket

    def cluster(self, region: str) -> Cluster:
        """Return the Kubernetes cluster of a region; raise `ProfileInvalid` where the profile names none."""
        if region not in self.clusters:
            raise _not_named(f"the Kubernetes cluster of the region {region!r}", f"[kubernetes.{region}]")
        return self.clusters[region]()


def _told(dsn: str, refused: DriverError) -> RunbookError:
    """Tell what the driver says in words of ours: a refusal, a connection that broke, or a statement that failed."""
    where, why = postgres.describe(dsn), (str(refused).splitlines() or [type(refused).__name__])[0]
    if refused.sqlstate == _MAY_NOT:
        return Denied("to alter the database", where=where, why=why, remedy="connect as a role that may")
    if refused.sqlstate == _DISK_FULL:
        remedy = "make room on the database's own disk, for it and everybody who writes; then try again"
        return NoRoom("to alter the database", where=where, why=why, remedy=remedy)
    if refused.sqlstate is None or refused.sqlstate.startswith(("08", "57P")):
        remedy = "look at the server's log, and try again when it answers"
        return Unreachable("to alter the database", where=where, why=why, remedy=remedy)
    return ToolFailed("to alter the database", where=where, why=why, remedy="look at the server's log")


def _not_named(what: str, section: str) -> ProfileInvalid:
    return ProfileInvalid(what, where="the profile", why="it names none", remedy=f"fill in {section} in the profile")
