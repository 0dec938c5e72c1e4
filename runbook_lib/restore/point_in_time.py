"""The cluster as it was at one moment, in an instance of its own.

The living one is not touched: what is left of it may be all that there is. A base backup is unpacked into a private
place, the archive's WAL is replayed up to the moment, and there the server pauses, so that it can be looked at before
it becomes anything else. It is promoted only when it stands exactly where the plan said that it would, to the record;
and it archives nothing, because a copy that writes into its source's archive spoils every later recovery.

PostgreSQL promotes in silence where it believes that the WAL has come to its end. So no recovery here goes without a
target, each has exactly one, and its timeline is named.
"""

from __future__ import annotations

import errno
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC
from pathlib import Path

from runbook_lib.errors import (
    DamagedArtefact,
    Denied,
    NoRoom,
    RunbookError,
    TargetRefused,
    ToolFailed,
    Unreachable,
    WaitTimedOut,
)
from runbook_lib.outcome import Check, Finding, Outcome
from runbook_lib.phases import Phase, Progress, Stopwatch, Watcher, nobody
from runbook_lib.reach import postgres
from runbook_lib.reach.binaries import PostgresTools
from runbook_lib.reach.postgres import Session
from runbook_lib.reach.server import PostgresServer
from runbook_lib.reach.workspace import Workspace
from runbook_lib.restore.base_copy import BaseCopy, unpack
from runbook_lib.restore.recovery_plan import RecoveryPlan
from runbook_lib.restore.recovery_target import time_text
from runbook_lib.restore.wal_endings import WalEnding
from runbook_lib.safety import ownership
from runbook_lib.waiting import wait_for
from runbook_lib.wal.archive import WalArchive
from runbook_lib.wal.segment import history_of, lsn_of, lsn_text
from runbook_lib.wal.service import WalService

_STALLED_SECONDS = 120.0
"""How long nothing may move, beyond the patience of what fetches, before a recovery counts as stuck."""
_LONGEST_SECONDS = 7 * 24 * 3600.0
_PROMOTED_SECONDS = 120
_LOOK_SECONDS = 0.1
_SILENT = {
    "hot_standby": "on",
    "archive_mode": "off",
    "archive_command": "",
    "wal_level": "replica",
    "max_standby_archive_delay": "0",
    "recovery_target_action": "pause",
    "cluster_name": ownership.SCRATCH_CLUSTER,
    # Nothing of it is to survive a crash.
    "fsync": "off",
    "synchronous_commit": "off",
    "autovacuum": "off",
    "shared_buffers": "256MB",
    "jit": "off",
    # What the source may have had to make and this machine may not: an extension's library, a certificate.
    "shared_preload_libraries": "",
    "ssl": "off",
}
_REPLAY = "replay"
_COMMITTED, _FORGOTTEN = "committed", "forgotten"
_DISK_FULL = re.compile(r".*(?:No space left on device|Check free disk space|Disk quota exceeded).*")
_WHAT_FETCHES_SAYS: tuple[type[RunbookError], ...] = (DamagedArtefact, NoRoom, Denied, Unreachable)
"""The errors by which what fetches can have ended a recovery, the worst first; it says them in their own words."""


@dataclass(frozen=True)
class Fetching:
    """How the archive is reached by the process that fetches from it."""

    endpoint_url: str | None = None
    """By default the AWS chain's choice."""
    region: str | None = None
    """By default the AWS chain's choice."""
    patience_seconds: float = 60.0
    """How long failures are answered by trying again."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Further options of `runbook_lib.wal.serve`."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to its environment."""


@dataclass(frozen=True)
class RecoveredDatabase:
    """One database of a recovered instance."""

    name: str
    """Its name."""
    dsn: str
    """How to connect to it, as the server's superuser."""
    server_version: str
    """The version of the server it is on."""
    stopwatch: Stopwatch
    """Times what is done with it."""

    @property
    def phases(self) -> tuple[Phase, ...]:
        """What the time was spent on so far."""
        return self.stopwatch.phases

    def session(self) -> AbstractContextManager[Session]:
        """Open a session on it that PostgreSQL holds read-only."""
        return postgres.session(self.dsn, application_name="runbook/compare")


@dataclass(frozen=True)
class RecoveredTable:
    """One table of a recovered instance, to be compared with the living one."""

    database: RecoveredDatabase
    """Where it is."""
    table: str
    """Its name as it is typed in SQL, with its schema."""


@dataclass(frozen=True)
class Recovery:
    """An instance that came to its target and pauses there, or was promoted since."""

    plan: RecoveryPlan
    """What was to be done."""
    server: PostgresServer
    """The instance."""
    stopwatch: Stopwatch
    """Times what is done with it."""

    @property
    def phases(self) -> tuple[Phase, ...]:
        """What the time was spent on so far."""
        return self.stopwatch.phases

    @property
    def recovered_seconds(self) -> float:
        """Seconds from the first byte fetched until it paused at its target."""
        return max(phase.ended_seconds for phase in self.phases if phase.name == _REPLAY)

    @property
    def room_bytes(self) -> int:
        """How many bytes all its databases take."""
        with self.session() as session:
            return int(session.value("SELECT sum(pg_catalog.pg_database_size(oid)) FROM pg_catalog.pg_database"))

    @property
    def is_gone(self) -> bool:
        """Whether neither its server nor any of its files is there any more."""
        return not self.server.is_running and not self.server.folder.exists()

    def session(self, database: str = "postgres") -> AbstractContextManager[Session]:
        """Open a session on one of its databases that PostgreSQL holds read-only."""
        return postgres.session(self.server.dsn(database), application_name="runbook/recovery")

    def database(self, name: str) -> RecoveredDatabase:
        """Return one of its databases. Raise `NotFound` where it had none of that name then."""
        dsn = self.server.dsn(name)
        with postgres.session(dsn) as session:
            return RecoveredDatabase(name, dsn, session.server().version, self.stopwatch)

    @property
    def replayed_lsn(self) -> int:
        """How far it has replayed; 0 where it was started anew since."""
        with self.session() as session:
            return lsn_of(session.value("SELECT coalesce(pg_catalog.pg_last_wal_replay_lsn(), '0/0')::text"))

    def is_paused(self) -> Check:
        """Say whether it pauses, and takes no writes."""
        with self.session() as session:
            row = session.row(
                "SELECT pg_catalog.pg_is_in_recovery() AS recovering,"
                " CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_get_wal_replay_pause_state() END AS state"
            )
        findings = []
        if not row["recovering"]:
            findings.append(Finding("recovery.promoted", self._name, "it is promoted, and takes writes"))
        elif row["state"] != "paused":
            findings.append(Finding("recovery.pause", self._name, f"its replay is {row['state']}"))
        return Check("it pauses at its target", self._where, str(row["state"]), tuple(findings))

    def stopped_where_planned(self, plan: RecoveryPlan | None = None) -> Check:
        """Look at both sides of the boundary: the last transaction before it is there, the first after it is not.

        The position, the time of the last transaction and the state of the two transactions are three things that the
        server says of itself; the plan knows all of them from the archive alone.

        :param plan: another plan to hold it against than its own
        """
        plan = plan or self.plan
        boundary, findings = plan.boundary, []
        with self.session() as session:
            row = session.row(
                "SELECT pg_catalog.pg_last_wal_replay_lsn()::text AS lsn,"
                " pg_catalog.pg_last_xact_replay_timestamp() AS at"
            )
            replayed = lsn_of(row["lsn"])
            if not boundary.holds(replayed):
                least = f"after {lsn_text(boundary.last_lsn)}"
                most = f" and up to {lsn_text(boundary.next_lsn)}" if boundary.next_lsn is not None else ""
                says = f"it replayed up to {row['lsn']}, and {least}{most} was planned"
                findings.append(Finding("boundary.position", self._name, says))
            expected = boundary.last_ending.at if boundary.last_ending else None
            found = row["at"].astimezone(UTC) if row["at"] else None
            if found != expected:
                told, wanted = (time_text(each) if each else "none" for each in (found, expected))
                says = f"the last transaction that it replayed ended at {told}, and {wanted} was planned"
                findings.append(Finding("boundary.time", self._name, says))
            findings += _state_of(session, boundary.last_commit, should_be_there=True)
            findings += _state_of(session, boundary.next_commit, should_be_there=False)
        return Check("it stopped where it was to stop", self._where, str(boundary), tuple(findings))

    def has_committed(self, session: Session, xid: int) -> bool:
        """Return whether a transaction of the source had committed at the moment; True where it is long forgotten.

        :param session: a session on this instance, while it is in recovery
        """
        return _status(session, xid) in (_COMMITTED, _FORGOTTEN)

    def is_apart(self) -> Check:
        """Say whether it archives nothing and listens to nobody, by what the server itself says."""
        expected = {"archive_mode": "off", "archive_command": "", "listen_addresses": ""}
        names = ", ".join(postgres.literal(name) for name in (*expected, "archive_library"))
        with self.session() as session:
            found = {
                row["name"]: row["setting"]
                for row in session.rows(f"SELECT name, setting FROM pg_catalog.pg_settings WHERE name IN ({names})")
            }
        # With archive_mode off the server shows "(disabled)" instead of a command.
        findings = [
            Finding("recovery.apart", name, f"it is {found[name]!r}, and should be {expected.get(name, '')!r}")
            for name in found
            if found[name] not in (expected.get(name, ""), "(disabled)")
        ]
        return Check("it archives nothing and listens to nobody", self._where, str(found), tuple(findings))

    def promote(self) -> None:
        """Have it take writes, on a timeline of its own.

        Raise `TargetRefused` where it is not exactly where it was to be; `ToolFailed` where it is not what a promoted
        instance has to be.
        """
        for check in (self.is_paused(), self.stopped_where_planned(), self.is_apart()):
            if not check.holds():
                raise TargetRefused(
                    "to promote a recovered instance",
                    where=self._where,
                    why=check.explain(),
                    remedy="look at what is there read-only; recover anew, with a plan of its own",
                )
        with (
            self.stopwatch.phase("promote"),
            postgres.session(self.server.dsn(), read_only=False, application_name="runbook/recovery") as session,
        ):
            session.value("SELECT pg_catalog.pg_promote(true, %s)", _PROMOTED_SECONDS)
        if problems := self._why_not_promoted():
            raise ToolFailed(
                "promoting a recovered instance",
                where=self._where,
                why=f"{'; '.join(problems)}; the end of its log:\n{self.server.log_tail()}",
                remedy="do not use it; recover anew",
            )

    def is_promoted(self) -> Check:
        """Say whether it takes writes, on the timeline that follows, forked from exactly where it stopped."""
        problems = self._why_not_promoted()
        findings = tuple(Finding("recovery.promoted", self._name, each) for each in problems)
        return Check("it is promoted", self._where, f"timeline {self.plan.next_timeline}", findings)

    def _why_not_promoted(self) -> list[str]:
        timeline, replayed = self.plan.next_timeline, self.replayed_lsn
        with self.session() as session:
            if session.value("SELECT pg_catalog.pg_is_in_recovery()"):
                return ["it is still in recovery"]
            problems = []
            current = session.value("SELECT pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn())")
            if int(current[:8], 16) != timeline:
                problems.append(f"it is on timeline {int(current[:8], 16)}, and {timeline} follows")
            else:
                name = f"{timeline:08X}.history"
                content = session.value("SELECT pg_catalog.pg_read_file(%s)", f"pg_wal/{name}")
                fork = history_of(content.encode(), timeline, where=name)[-1]
                expected = (self.plan.timeline, replayed or fork.lsn)
                if (fork.parent, fork.lsn) != expected or not self.plan.boundary.holds(fork.lsn):
                    problems.append(
                        f"it left timeline {fork.parent} at {lsn_text(fork.lsn)}, and it had stopped on timeline"
                        f" {self.plan.timeline} at {lsn_text(replayed)}"
                    )
        apart = self.is_apart()
        return [*problems, *(str(each) for each in apart.findings)]

    @property
    def _name(self) -> str:
        return str(self.plan.target)

    @property
    def _where(self) -> str:
        return str(self.server.folder)


@contextmanager
def recover(
    plan: RecoveryPlan,
    *,
    archive: WalArchive,
    workspace: Workspace,
    tools: PostgresTools,
    fetching: Fetching,
    stopwatch: Stopwatch | None = None,
    stalled_seconds: float = _STALLED_SECONDS,
    watch: Watcher = nobody,
) -> Iterator[Recovery]:
    """Recover a cluster as it is planned, and yield it when it pauses at its target; it is gone at the block's end.

    :param archive: where its WAL and, in the same bucket, its base backup is
    :param workspace: where it is put; it goes away with that at the latest
    :param stalled_seconds: how long nothing may move before it counts as stuck

    Raise what ended it where it does not come to its target: `DamagedArtefact` (the base backup, or WAL that is
    missing or not what was archived), `NoRoom`, `Denied`, `Unreachable`, else `ToolFailed` with the end of its log;
    `WaitTimedOut` where it is stuck. None of these leaves a server behind, and none promotes one.
    """
    stopwatch = stopwatch or Stopwatch()
    folder = workspace.folder("recovered")
    try:
        yield from _recovering(folder, plan, archive, workspace, tools, fetching, stopwatch, stalled_seconds, watch)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _recovering(
    folder: Path,
    plan: RecoveryPlan,
    archive: WalArchive,
    workspace: Workspace,
    tools: PostgresTools,
    fetching: Fetching,
    stopwatch: Stopwatch,
    stalled_seconds: float,
    watch: Watcher,
) -> Iterator[Recovery]:
    copy = unpack(
        plan.backup,
        archive.bucket,
        folder / "data",
        workspace=workspace,
        tools=tools,
        stopwatch=stopwatch,
        watch=watch,
    )
    with WalService.start(
        workspace.folder("wal"),
        _pg_wal(copy, workspace),
        bucket=archive.bucket.name,
        prefix=archive.prefix,
        system_identifier=plan.backup.system_identifier,
        endpoint_url=fetching.endpoint_url,
        region=fetching.region,
        patience_seconds=fetching.patience_seconds,
        options={"segment-bytes": str(plan.backup.segment_bytes), **fetching.options},
        env=fetching.env,
    ) as service:
        with stopwatch.phase(_REPLAY):
            server = _begin(plan, copy, service, tools, workspace)
            try:
                replaying = _Replaying(plan, server, service, fetching.patience_seconds + stalled_seconds, watch)
                replaying.must_come_to_its_target()
                recovery = Recovery(plan, server, stopwatch)
                _must_be_where_planned(recovery)
            except BaseException:
                server.stop()
                raise
        try:
            yield recovery
        finally:
            server.stop()


def _pg_wal(copy: BaseCopy, workspace: Workspace) -> Path:
    pg_wal = copy.data / "pg_wal"
    if not pg_wal.exists():
        pg_wal.mkdir(mode=0o700)
        workspace.give(pg_wal)
    return pg_wal


def _begin(
    plan: RecoveryPlan, copy: BaseCopy, service: WalService, tools: PostgresTools, workspace: Workspace
) -> PostgresServer:
    signal = copy.data / "recovery.signal"
    try:
        signal.touch(mode=0o600)
        workspace.give(signal)
        return PostgresServer.begin_on_data(
            workspace,
            tools,
            copy.data.parent,
            settings={
                **_SILENT,
                **copy.needed,
                **plan.target.settings,
                "recovery_target_timeline": str(plan.timeline),
                "restore_command": service.restore_command,
            },
        )
    except OSError as failed:
        if failed.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _no_room(plan, str(copy.data), failed.strerror or str(failed)) from failed


class _Replaying:
    """A server that replays, looked at until it pauses or ends."""

    def __init__(
        self,
        plan: RecoveryPlan,
        server: PostgresServer,
        service: WalService,
        stalled_seconds: float,
        watch: Watcher,
    ) -> None:
        self._plan = plan
        self._server = server
        self._service = service
        self._stalled_seconds = stalled_seconds
        self._watch = watch
        self._seen: tuple[int, int] = (0, 0)
        self._moved = time.monotonic()

    def must_come_to_its_target(self) -> None:
        """Return when it pauses. Raise what ended it, or `WaitTimedOut` where nothing moves any more."""
        wait_for(
            f"a recovery to {self._plan.target} to pause",
            self._pauses,
            where=str(self._server.folder),
            within_seconds=_LONGEST_SECONDS,
            every_seconds=_LOOK_SECONDS,
        )

    def _pauses(self) -> bool:
        replayed, paused = 0, False
        try:
            with postgres.session(self._server.dsn(), application_name="runbook/recovery") as session:
                row = session.row(
                    "SELECT pg_catalog.pg_is_in_recovery() AS recovering,"
                    " pg_catalog.pg_last_wal_replay_lsn()::text AS lsn,"
                    " CASE WHEN pg_catalog.pg_is_in_recovery()"
                    " THEN pg_catalog.pg_get_wal_replay_pause_state() END AS state"
                )
            if not row["recovering"]:
                raise ToolFailed(
                    f"a recovery to {self._plan.target} that pauses",
                    where=str(self._server.folder),
                    why=f"it promoted itself; the end of its log:\n{self._server.log_tail()}",
                    remedy="do not use it: find out who changed recovery_target_action",
                )
            replayed, paused = lsn_of(row["lsn"] or "0/0"), row["state"] == "paused"
        except (RunbookError, postgres.DriverError) as not_yet:
            if isinstance(not_yet, ToolFailed):
                raise
            if self._server.exit_code is not None:
                raise self._why_it_ended() from not_yet
        self._must_move(replayed)
        return paused

    def _must_move(self, replayed: int) -> None:
        start = self._plan.backup.start_lsn
        # Before it answers, each segment that it takes changes pg_wal.
        seen = (replayed, (self._server.data_directory / "pg_wal").stat().st_mtime_ns)
        if seen != self._seen:
            self._seen, self._moved = seen, time.monotonic()
        done = max(replayed - start, 0)
        self._watch(Progress(_REPLAY, done, max(self._plan.boundary.last_lsn - start, done), "bytes"))
        waited = time.monotonic() - self._moved
        if waited > self._stalled_seconds:
            raise WaitTimedOut(
                f"a recovery to {self._plan.target} to go on",
                where=str(self._server.folder),
                why=f"nothing moved for {waited:.0f} s, at {lsn_text(replayed)}; the end of its log:\n"
                f"{self._server.log_tail()}",
                remedy="look at what it waits for: the archive, a disk, a lock of a session on it",
            )

    def _why_it_ended(self) -> RunbookError:
        sought, where = f"a recovery to {self._plan.target}", str(self._server.folder)
        log, code = self._server.log_tail(), self._server.exit_code
        told = f"{self._server.log_tail(200)}\n{self._service.log_tail(200)}"
        if full := _DISK_FULL.search(told):
            return _no_room(self._plan, where, full[0].strip())
        why = f"it ended with {f'signal {-code}' if code and code < 0 else f'code {code}'}; the end of its log:\n{log}"
        for kind in _WHAT_FETCHES_SAYS:
            said = [line.strip() for line in told.splitlines() if f": {kind.says}: " in line]
            if said:
                remedy = f"correct that, and recover anew; {said[-1].rpartition('To fix this: ')[2]}"
                return kind(sought, where=where, why=f"{said[-1]}; {why}", remedy=remedy)
        if not self._service.is_running:
            why = f"what fetches its WAL is gone; {why}"
        return ToolFailed(sought, where=where, why=why, remedy="correct what its log complains of, and recover anew")


def _must_be_where_planned(recovery: Recovery) -> None:
    """Raise where it pauses anywhere else than planned: nobody is to look at it and believe what is there."""
    check = recovery.stopped_where_planned()
    if check.outcome is not Outcome.PROVEN:
        raise ToolFailed(
            f"a recovery to {recovery.plan.target}",
            where=str(recovery.server.folder),
            why=f"{check.explain()}\nthe end of its log:\n{recovery.server.log_tail()}",
            remedy="do not use it; look why it paused there (a setting that must be as high as the source's stops a"
            " recovery, too), and recover anew",
        )


def _state_of(session: Session, ending: WalEnding | None, *, should_be_there: bool) -> Iterator[Finding]:
    """Ask the server for a transaction by its id."""
    if ending is None:
        return
    state = _status(session, ending.xid)
    if state == _FORGOTTEN:
        says = f"the server does not know any more what became of {ending}"
        yield Finding("boundary.transaction", f"xid {ending.xid}", says, Outcome.UNPROVEN, "look for its rows")
    elif (state == _COMMITTED) != should_be_there:
        expected = "should be there" if should_be_there else "should not be there"
        says = f"{ending}, {expected}, and the server says that it is {state}"
        yield Finding("boundary.transaction", f"xid {ending.xid}", says)


def _status(session: Session, xid: int) -> str:
    """Return what a server knows of a transaction, told by the lower half of its id."""
    following = int(session.value("SELECT pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text"))
    # The WAL, and every row, has the lower half alone; it is near the newest one that the server knows.
    distance = (xid - following + (1 << 31)) % (1 << 32) - (1 << 31)
    if distance >= 0:
        return "not begun"
    return (
        session.value("SELECT pg_catalog.pg_xact_status(%s::pg_catalog.xid8)", str(following + distance)) or _FORGOTTEN
    )


def _no_room(plan: RecoveryPlan, where: str, why: str) -> NoRoom:
    return NoRoom(
        f"room for a recovery to {plan.target}",
        where=where,
        why=f"{why}; about {plan.disk_bytes:,} bytes are needed",
        remedy="free space there, or name a folder with room: folder under [restore] in the profile, or TMPDIR",
    )
