"""What acts are done to.

An act is written down as plain data, and may have to be taken back by another process on another day. So it never
holds a connection: whoever does it or takes it back hands it the systems, reached anew from the same profile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from runbook_lib.errors import NotFound, ProfileInvalid
from runbook_lib.reach import postgres
from runbook_lib.reach.kubernetes import Cluster
from runbook_lib.reach.objects import Bucket
from runbook_lib.reach.postgres import Session

CONTROL_DATABASES = ("postgres", "template1")
"""Where to connect to in order to alter a database from outside; the first that is there."""


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

    @contextmanager
    def control(self, *, read_only: bool = False) -> Iterator[Session]:
        """Open a session that may write, beside the database and not in it, so that the database can be altered.

        :param read_only: have PostgreSQL refuse every write of it after all
        """
        last: NotFound | None = None
        opened = False
        for name in CONTROL_DATABASES:
            try:
                with postgres.session(
                    postgres.with_database(self.dsn, name), application_name="runbook/control", read_only=read_only
                ) as session:
                    self.established(session)
                    opened = True
                    yield session
                    return
            except NotFound as missing:
                if opened:
                    raise
                last = missing
        assert last is not None
        raise last

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


def _not_named(what: str, section: str) -> ProfileInvalid:
    return ProfileInvalid(what, where="the profile", why="it names none", remedy=f"fill in {section} in the profile")
