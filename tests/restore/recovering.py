"""A primary that archives, with two base backups and a few transactions whose moments are known; and its recoveries."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from runbook_lib.phases import Watcher, nobody
from runbook_lib.reach import binaries, postgres
from runbook_lib.reach.workspace import Workspace
from runbook_lib.restore import point_in_time
from runbook_lib.restore.point_in_time import Fetching, Recovery
from runbook_lib.restore.recovery_plan import RecoveryPlan, plan_recovery
from runbook_lib.restore.recovery_target import RecoveryTarget
from runbook_lib.safety.permit import Permit
from runbook_lib.wal import base_backup_taking
from runbook_lib.wal.archive import WalArchive
from runbook_lib.wal.base_backup import BaseBackup, BaseBackups
from runbook_lib.wal.segment import Segment, lsn_of
from tests.wal import place
from tests.wal.place import MAJOR, SEGMENT_BYTES, Primary, await_archived

PREFIX, BASE_PREFIX = "moments/", "moments-base/"
PERMIT = Permit("a test's own archive", granted=True, reason="the test made it")
CUT = "cut"
"""The database whose audit log is cut."""
_LOG = "(sequence bigint PRIMARY KEY, record_hash text NOT NULL)"
STEPS = 12
"""How many transactions there are whose moments are known."""
LATE_BASE_AT = 4
"""After which of them the later base backup was taken."""
NAMED_AT = 7
"""After which of them the restore point was laid."""


@dataclass(frozen=True)
class Step:
    """A transaction that inserted one row of ``public.steps``."""

    number: int
    xid: int
    before_lsn: int
    """A position at which it had not committed."""
    after_lsn: int
    """A position at which it had."""
    before: datetime
    """A moment at which it had not committed, by the server's clock."""
    after: datetime
    """A moment at which it had."""


@dataclass(frozen=True)
class World:
    primary: Primary
    bases: BaseBackups
    early: BaseBackup
    late: BaseBackup
    steps: tuple[Step, ...]
    """From the first, which has number 1."""
    too_late: datetime
    """A moment after everything that was archived."""

    @property
    def archive(self) -> WalArchive:
        return self.primary.archive

    def step(self, number: int) -> Step:
        return self.steps[number - 1]

    def segment(self, number: int) -> str:
        """Return the name of the segment that a step lies in."""
        return Segment.at(1, self.step(number).before_lsn, SEGMENT_BYTES).name


@contextmanager
def world(store: place.Store) -> Iterator[World]:
    with place.primary(store, steps=5, prefix=PREFIX, name="moments") as primary:
        bases = BaseBackups(store.bucket(), BASE_PREFIX)
        _cut_log(primary)
        early = _base(primary, bases)
        steps: list[Step] = []
        with postgres.session(primary.server.dsn(), read_only=False) as session:
            session.execute("CREATE TABLE public.steps (number int PRIMARY KEY)")
            session.execute(f"CREATE TABLE public.audit_logs {_LOG}")
            late = early
            for number in range(1, STEPS + 1):
                steps.append(_step(session, number))
                if number == LATE_BASE_AT:
                    late = _base(primary, bases)
                if number == NAMED_AT:
                    session.execute("SELECT pg_create_restore_point('before release')")
                if number in (2, STEPS):
                    session.execute("SELECT pg_create_restore_point('twice')")
                if number == 9:
                    session.execute("SELECT pg_create_restore_point('thrice'), pg_create_restore_point('thrice')")
                _fill(session, number)
            last = session.value("SELECT pg_walfile_name(pg_switch_wal())")
            await_archived(session, last)
            too_late = session.value("SELECT clock_timestamp()").astimezone(UTC)
        yield World(primary, bases, early, late, tuple(steps), too_late)


def hash_of(number: int) -> str:
    """Return the hash of a row of the audit log."""
    return hashlib.sha256(str(number).encode()).hexdigest()


def _cut_log(primary: Primary) -> None:
    """Make a database beside the one with the steps, whose audit log has the first three rows alone."""
    with postgres.session(primary.server.dsn(), read_only=False) as session:
        session.execute(f"CREATE DATABASE {CUT}")
    with postgres.session(primary.server.dsn(CUT), read_only=False) as session:
        session.execute(f"CREATE TABLE public.audit_logs {_LOG}")
        for number in (1, 2, 3):
            session.execute("INSERT INTO public.audit_logs VALUES (%s, %s)", number, hash_of(number))


def _base(primary: Primary, bases: BaseBackups) -> BaseBackup:
    tools = binaries.find(MAJOR)
    return base_backup_taking.take(
        primary.server.dsn(), bases, permit=PERMIT, archive=primary.archive, tools=tools
    ).backup


def _step(session: postgres.Session, number: int) -> Step:
    now = "SELECT clock_timestamp() AS at, pg_current_wal_insert_lsn()::text AS lsn"
    before = session.row(now)
    with session.transaction():
        session.execute("INSERT INTO public.steps VALUES (%s)", number)
        session.execute("INSERT INTO public.audit_logs VALUES (%s, %s)", number, hash_of(number))
        xid = session.value("SELECT pg_current_xact_id()::text::bigint")
    session.execute("SELECT pg_sleep(0.002)")
    after = session.row(now)
    return Step(
        number,
        xid,
        lsn_of(before["lsn"]),
        lsn_of(after["lsn"]),
        before["at"].astimezone(UTC),
        after["at"].astimezone(UTC),
    )


def _fill(session: postgres.Session, number: int) -> None:
    """Write more than a segment, in a transaction that is rolled back: it ends, and is not there."""
    session.execute("BEGIN")
    session.execute(
        "INSERT INTO public.t SELECT %s, n, repeat(md5(n::text), 40) FROM generate_series(1, 800) n", number
    )
    session.execute("ROLLBACK")


def plan(
    world: World,
    workspace: Workspace,
    target: str | None,
    *,
    archive: WalArchive | None = None,
    bases: BaseBackups | None = None,
    timeline: int | None = None,
    now: datetime | None = None,
) -> RecoveryPlan:
    return plan_recovery(
        RecoveryTarget.parse(target) if target is not None else None,
        archive=archive or world.archive,
        base_backups=bases or world.bases,
        workspace=workspace,
        timeline=timeline,
        now=now or datetime.now(UTC) + timedelta(minutes=1),
    )


@contextmanager
def recovered(
    world: World,
    workspace: Workspace,
    planned: RecoveryPlan,
    *,
    archive: WalArchive | None = None,
    stalled_seconds: float = 20.0,
    watch: Watcher = nobody,
    **options: str,
) -> Iterator[Recovery]:
    """Recover through the proxy, with little patience."""
    store = world.primary.store
    fetching = Fetching(
        store.proxy.url,
        store.store.region,
        patience_seconds=0.4,
        options={"request-seconds": "1", "segments-ahead": "4", **options},
        env=store.env,
    )
    with point_in_time.recover(
        planned,
        archive=archive or world.archive,
        workspace=workspace,
        tools=binaries.find(planned.backup.major),
        fetching=fetching,
        stalled_seconds=stalled_seconds,
        watch=watch,
    ) as recovery:
        yield recovery


def last_step(recovery: Recovery) -> int:
    """Return the last step that is there, when none before it is missing."""
    with recovery.session() as session:
        found = [row["number"] for row in session.rows("SELECT number FROM public.steps ORDER BY number")]
    assert found == list(range(1, len(found) + 1))
    return len(found)


def through_proxy(world: World) -> tuple[WalArchive, BaseBackups]:
    """Return the same archive and base backups, reached by a line that can fail, and tries once."""
    bucket = world.primary.store.bucket(through_proxy=True, attempts=1, timeout_seconds=5)
    archive = WalArchive(bucket, PREFIX, system_identifier=world.archive.system_identifier, segment_bytes=SEGMENT_BYTES)
    return archive, BaseBackups(bucket, BASE_PREFIX)


def processes_in(path: Path) -> list[str]:
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            told = each.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(path) in told:
            found.append(told)
    return found
