"""What a run acts on, reached.

One frozen object holds everything a step can act on, made from a profile and handed to steps by a fixture. Nothing
below it knows where it came from: a drill in the sandbox and a check in production run the same code on two of these.

Each scenario gets one that is held to the scenario's own tag: one that is tagged @reads or @scratch finds sessions and
clients that cannot write to the target, and no permit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from runbook_lib.backup import dump
from runbook_lib.backup.addition import AddBackup
from runbook_lib.backup.catalog import Archive, Backup
from runbook_lib.backup.content import Content
from runbook_lib.backup.dump import Taken
from runbook_lib.backup.manifest import DatabaseIdentity
from runbook_lib.effect import Effect
from runbook_lib.errors import NotFound, Planned, RunbookError, Unproven
from runbook_lib.outcome import Check
from runbook_lib.phases import Watcher, nobody
from runbook_lib.reach import binaries, postgres
from runbook_lib.reach.kubernetes import Cluster
from runbook_lib.reach.objects import Bucket
from runbook_lib.reach.postgres import Session
from runbook_lib.reach.workspace import Workspace
from runbook_lib.restore import foreign_keys, living_table
from runbook_lib.restore.application import TakeApplicationOut
from runbook_lib.restore.beside import restore_beside
from runbook_lib.restore.expiry import DropKeptDatabase, DropMerge, Kept, drop
from runbook_lib.restore.fence import FenceDatabase
from runbook_lib.restore.full_restore import FullRestore, Place, PutBack
from runbook_lib.restore.made_database import MakeDatabase
from runbook_lib.restore.maintenance_mode import MaintenanceMode
from runbook_lib.restore.merge import MergeTable, TakeMergeBack
from runbook_lib.restore.point_in_time import Fetching, RecoveredDatabase, RecoveredTable, Recovery, recover
from runbook_lib.restore.recovery_plan import RecoveryPlan, plan_recovery
from runbook_lib.restore.recovery_target import RecoveryTarget
from runbook_lib.restore.restored import HeldTable, RestoredDatabase
from runbook_lib.restore.review import Review, review
from runbook_lib.restore.room import room_for_a_copy
from runbook_lib.restore.scratch import Scratch, into_scratch
from runbook_lib.restore.staging import Mark, StageRows, marks
from runbook_lib.restore.swap import KeptDatabase, SwapDatabases, kept
from runbook_lib.restore.table import DoneMerge, TableMerge, take_back
from runbook_lib.restore.table_backup import RestoredTable, TableBackup
from runbook_lib.safety import journal, recovery
from runbook_lib.safety.act import Undoable
from runbook_lib.safety.halt import Halt
from runbook_lib.safety.identity import Identity, must_be_cluster
from runbook_lib.safety.journal import Header, Journal
from runbook_lib.safety.permit import Asked, Permit, Procedure, refused, why_not_granted
from runbook_lib.safety.recovery import TakenBack
from runbook_lib.safety.systems import Systems
from runbook_lib.safety.windows import why_closed
from runbook_lib.settings import KubernetesCluster, Settings
from runbook_lib.wal import base_backup_taking, reachability, window
from runbook_lib.wal.archive import WalArchive
from runbook_lib.wal.base_backup import BaseBackups
from runbook_lib.wal.base_backup_taking import AddBaseBackup, TakenBaseBackup
from runbook_lib.wal.moment import Moment, Table, find_the_moment
from runbook_lib.wal.reachability import Reachability
from runbook_lib.wal.records import WalReader

KINDS_OF_ACTS: Sequence[type[Undoable]] = (
    AddBackup,
    AddBaseBackup,
    TakeApplicationOut,
    FenceDatabase,
    MakeDatabase,
    SwapDatabases,
    StageRows,
    MergeTable,
    TakeMergeBack,
    DropKeptDatabase,
    DropMerge,
)
"""Every kind of act that a journal can speak of."""

_IDLE_IN_TRANSACTION_SECONDS = 60
_IDLE_SECONDS = 600
_LONGEST_NAME_BYTES = 63
"""PostgreSQL cuts an application_name there."""
_ASKED_NOTHING = Asked()


@dataclass(frozen=True)
class Environment:
    """Everything that steps act on."""

    settings: Settings
    """The profile it was made from."""
    archive: Archive
    """Where the backups are."""
    permit: Permit
    """Whether anything may be altered."""
    systems: Systems
    """The systems that acts are done to, through clients that may write; a permit leads there, and nothing else."""
    effect: Effect
    """What the scenario's tag says it does to the target."""
    scenario: str = ""
    """The scenario's title, which the database sees as our ``application_name``; empty before the first one."""
    tools_directory: Path | None = None
    """Where PostgreSQL's programs are; None to look for them."""

    @classmethod
    def of(
        cls, settings: Settings, *, asked: Asked = _ASKED_NOTHING, tools_directory: Path | None = None
    ) -> Environment:
        """Make the environment that a profile describes. Nothing is connected to yet.

        :param asked: what the operator typed to have something altered
        """
        bucket = Bucket(
            settings.backups.bucket,
            endpoint_url=settings.backups.endpoint_url or None,
            region=settings.backups.region or None,
        )
        identity = Identity(settings.name, settings.database.system_identifier)
        systems = Systems(
            settings.database.dsn,
            bucket,
            {
                region: _reaching(settings, told, read_only=False)
                for region, told in settings.kubernetes.regions.items()
            },
            identity.must_be,
        )
        return cls(
            settings,
            Archive(bucket, settings.backups.prefix),
            _permit(settings, asked, systems),
            systems,
            Effect.CHANGES,
            tools_directory=tools_directory,
        )

    def for_scenario(self, title: str, effect: Effect) -> Environment:
        """Return this environment as one scenario may use it."""
        narrowed = replace(self, scenario=title, effect=effect)
        if effect is Effect.CHANGES:
            return narrowed
        return replace(
            narrowed,
            archive=Archive(self.archive.bucket.held_read_only(), self.archive.prefix),
            permit=refused(self.permit.target, effect, planning=self.permit.planning),
        )

    def establish(self) -> None:
        """Compare identities: the first thing any scenario does.

        Raise `TargetRefused` where the database is another one than the profile names. Where it cannot be asked, a
        scenario that alters something ends there; the others go on, for a backup can be proven while the database is
        down, and where they need the database they will say so themselves. Nothing is altered either while a killed
        run's acts are outstanding.
        """
        if self.effect is Effect.CHANGES:
            journal.must_be_settled(
                self.settings.journal_folder, self.settings.cluster_name, recover=self.settings.recover_command
            )
        try:
            with self.database():
                pass
        except Unproven:
            if self.effect is Effect.CHANGES:
                raise

    @property
    def wal_archive(self) -> WalArchive:
        """Where the cluster's WAL is. Raise `Unproven` where the profile says that it is not in the bucket."""
        archiving, identifier = self.settings.archiving, self.settings.database.system_identifier
        if not archiving.wal_prefix:
            raise _kept_elsewhere("the WAL archive", "wal_prefix")
        return WalArchive(self.archive.bucket, archiving.wal_prefix, system_identifier=identifier or None)

    @property
    def base_backups(self) -> BaseBackups:
        """Where its base backups are. Raise `Unproven` where the profile says that they are not in the bucket."""
        if not self.settings.archiving.base_prefix:
            raise _kept_elsewhere("the base backups", "base_prefix")
        return BaseBackups(self.archive.bucket, self.settings.archiving.base_prefix)

    def reachability(self, *, earlier_oldest: datetime | None = None) -> Reachability:
        """Lay out which moments of the retention window can be recovered; see `runbook_lib.wal.reachability.look`.

        :param earlier_oldest: the oldest one that could be at an earlier look, where that is known
        """
        return reachability.look(
            self.wal_archive,
            self.base_backups,
            now=self.now,
            retention=timedelta(days=self.settings.backups.retention_days),
            rpo=timedelta(seconds=self.settings.archiving.rpo_maximum_seconds),
            earlier_oldest=earlier_oldest,
        )

    def wal_is_continuous(self) -> Check:
        """Look whether the archive has all WAL of the retention window that a recovery can begin in."""
        backups, archive = self.base_backups.listing(), self.wal_archive
        retained_since = self.now - timedelta(days=self.settings.backups.retention_days)
        with self.database() as session:
            return window.wal_is_continuous(session, archive, backups, retained_since=retained_since)

    def find_the_moment(self, table: str, since: datetime, until: datetime | None = None) -> Moment:
        """Name the transactions that removed rows of a table, from the archived WAL.

        :param table: its name, without a schema public is meant; or ``oid 16432`` of one that was dropped
        :param since: the beginning of the window; it may lie before the oldest base backup, and so before any moment
            that can be recovered
        :param until: its end; by default the end of the archive

        Raise `Unproven`, or an error below it, where there is a hole in the window; `NotFound`, which says how its OID
        is found, where there is no table of that name.
        """
        bases = self.base_backups.listing().backups
        with self.database() as session:
            named, major = Table.asked_for(session, table), session.server().major
            segment_bytes = session.value("SELECT pg_catalog.pg_size_bytes(current_setting('wal_segment_size'))")
        parent = self.settings.restore.folder
        with Workspace.open(parent=Path(parent) if parent else None) as workspace:
            tools = binaries.find(major, directory=self.tools_directory)
            archive = self.wal_archive.of_segments(segment_bytes)
            reader = WalReader(archive, tools, workspace.folder("segments"))
            recoverable_lsn = min((each.start_lsn for each in bases), default=None)
            return find_the_moment(reader, named, since, until, recoverable_lsn=recoverable_lsn)

    @property
    def now(self) -> datetime:
        """The moment, in UTC."""
        return datetime.now(UTC)

    @contextmanager
    def database(self) -> Iterator[Session]:
        """Open a session on the database that PostgreSQL holds read-only, once its identity is established.

        Raise `TargetRefused` if it is not the cluster that the profile names.
        """
        told = self.settings.database
        with postgres.session(
            told.dsn,
            application_name=_clipped(f"runbook/{self.scenario}" if self.scenario else "runbook"),
            statement_timeout_seconds=told.statement_timeout_seconds,
            lock_timeout_seconds=told.lock_timeout_seconds,
            settings={
                "idle_in_transaction_session_timeout": f"{_IDLE_IN_TRANSACTION_SECONDS}s",
                "idle_session_timeout": f"{_IDLE_SECONDS}s",
            },
        ) as session:
            Identity(self.settings.name, told.system_identifier).must_be(session)
            yield session

    def kubernetes(self, region: str = "primary") -> Cluster:
        """Return a region's Kubernetes cluster, through a client that cannot write, once its identity is established.

        Raise `ProfileInvalid` where the profile names none, `TargetRefused` if it is another one.
        """
        return _reaching(self.settings, self.settings.kubernetes.region(region), read_only=True)()

    def beside_the_database(self) -> AbstractContextManager[Session]:
        """Open a session beside the database, held read-only: while nobody may connect to it, this still answers."""
        return self.systems.control(read_only=True)

    def maintenance_mode(self) -> MaintenanceMode:
        """Return what entering maintenance mode consists of here."""
        return MaintenanceMode.of(
            region="primary",
            deployment=self.settings.kubernetes.region("primary").api_deployment,
            database=self._database,
            within_seconds=self.settings.kubernetes.ready_within_seconds,
        )

    def full_restore(self, backup: Backup) -> FullRestore:
        """Return what replacing the database by a backup of it consists of here."""
        return FullRestore.of(backup, self._place, self.now, self.identity())

    def put_back(self, replaced: KeptDatabase) -> PutBack:
        """Return what putting a database back consists of here."""
        return PutBack.of(replaced, self._place, self.now)

    @property
    def _database(self) -> str:
        """The database's name: a connection string that names a service alone does not say it."""
        return postgres.database_of(self.settings.database.dsn) or self.identity().name

    @property
    def _place(self) -> Place:
        return Place(
            database=self._database,
            region="primary",
            deployment=self.settings.kubernetes.region("primary").api_deployment,
            within_seconds=self.settings.kubernetes.ready_within_seconds,
            keep_for=timedelta(days=self.settings.restore.keep_replaced_days),
        )

    def replaced_last(self) -> KeptDatabase:
        """Return the database that was replaced last. Raise `NotFound` where none is kept."""
        with self.beside_the_database() as session:
            found = kept(session)
        if not found:
            raise NotFound(
                "a database that was replaced",
                where=postgres.describe(self.settings.database.dsn),
                why="none is kept",
                remedy="there is nothing to put back; a full restore keeps what it replaces",
            )
        return found[0]

    def kept(self, *, now: datetime | None = None) -> Kept:
        """List what restores keep of the database.

        :param now: the moment to judge by what is past its time; by default this one
        """
        with self.database() as session:
            return Kept.of(session, self._database, now or self.now)

    def drop_kept(self, found: Kept) -> None:
        """Drop what is past its time, if this run may: nothing takes that back."""
        acts = found.acts
        with self.procedure("drop what was kept past its time", acts) as procedure:
            drop(acts, procedure)

    def room_for_a_copy(self, backup: Backup) -> Check:
        """Look whether the database's disk has room for a copy of what is in a backup."""
        told = self.settings.kubernetes.region("primary")
        needed = backup.manifest.database.bytes if backup.manifest else backup.dump.bytes * 6
        with self.database() as session, self.systems.cluster("primary") as cluster:
            return room_for_a_copy(
                session,
                cluster,
                selector=told.database_selector,
                container=told.database_container,
                needed_bytes=needed,
            )

    def restore_beside(self, backup: Backup, name: str, *, watch: Watcher = nobody) -> RestoredDatabase:
        """Restore a backup into a database of ours that is on the living server already."""
        folder = self.settings.restore.folder
        with self.systems.control(read_only=True) as session:
            return restore_beside(
                backup,
                name,
                archive=self.archive,
                control_dsn=session.dsn,
                major=session.server().major,
                jobs=self.settings.restore.jobs,
                parent=Path(folder) if folder else None,
                tools_directory=self.tools_directory,
                watch=watch,
            )

    def table_backup(self, backup: Backup, table: str) -> TableBackup:
        """Find a table of this database in a backup."""
        return TableBackup.of(backup, table, self.identity())

    def restore_table_into_scratch(
        self, held: TableBackup, name: str, place: Scratch, *, watch: Watcher = nobody
    ) -> RestoredTable:
        """Restore one table, with everything that belongs to it, into a database of ours."""
        return held.into_scratch(name, archive=self.archive, scratch=place, watch=watch)

    def recovery_plan(self, moment: str, place: Scratch, *, timeline: int | None = None) -> RecoveryPlan:
        """Say what recovering the cluster to a moment consists of here.

        :param moment: as `RecoveryTarget.parse` reads it; where it is empty, just before the last transaction that is
            archived, which is the newest moment that both sides can be seen of
        :param timeline: the timeline to follow; by default the newest
        """

        def to(target: RecoveryTarget | None) -> RecoveryPlan:
            return plan_recovery(
                target,
                archive=self.wal_archive,
                base_backups=self.base_backups,
                workspace=place.workspace,
                now=self.now,
                timeline=timeline,
                tools_directory=self.tools_directory,
            )

        if moment.strip():
            return to(RecoveryTarget.parse(moment))
        newest = to(None)
        last = newest.boundary.last_commit
        return newest if last is None else to(RecoveryTarget.transaction(last.xid, inclusive=False))

    def recover_to(
        self, plan: RecoveryPlan, place: Scratch, *, watch: Watcher = nobody
    ) -> AbstractContextManager[Recovery]:
        """Recover the cluster as it is planned into an instance of our own, which is gone at the block's end."""
        backups, patience = self.settings.backups, self.settings.archiving.patience_seconds
        return recover(
            plan,
            archive=self.wal_archive,
            workspace=place.workspace,
            tools=place.tools(plan.backup.major),
            fetching=Fetching(backups.endpoint_url or None, backups.region or None, patience_seconds=patience),
            watch=watch,
        )

    def recovered_database(self, recovery: Recovery) -> RecoveredDatabase:
        """Return this database as it was then."""
        return recovery.database(self._database)

    def recovered_table(self, recovery: Recovery, table: str) -> RecoveredTable:
        """Return a table of this database as it was then; without a schema, public is meant."""
        return RecoveredTable(self.recovered_database(recovery), table if "." in table else f"public.{table}")

    def review(self, restored: HeldTable, *, common_columns: bool = False) -> Review:
        """Compare a living table, row by row, with what was restored or recovered of it."""
        return review(restored.database, self.systems, restored.table, common_columns=common_columns)

    def table_merge(self, found: Review, *, changed_too: bool = False) -> TableMerge:
        """Return what merging rows into the living table consists of here.

        :param changed_too: whether rows that were changed since the backup have its values back
        """
        return TableMerge.of(
            found,
            changed_too=changed_too,
            now=self.now,
            keep_for=timedelta(days=self.settings.restore.keep_replaced_days),
            lock_timeout_seconds=self.settings.database.lock_timeout_seconds,
        )

    def merge(self, found: Review, restored: HeldTable, *, changed_too: bool = False) -> DoneMerge:
        """Merge rows into the living table, if this run may, and keep what it needs to be taken back."""
        acts = self.table_merge(found, changed_too=changed_too)
        with self.procedure(f"merge rows of a backup into {found.table}", acts.acts) as procedure:
            return acts.carry_out(procedure, restored.database, self.systems)

    def take_merge_back(self, mark: Mark) -> Content:
        """Take a merge back, if this run may, and return what the table has to hold then."""
        act = TakeMergeBack.of(mark)
        with self.procedure(f"take a merge into {mark.table} back", (act,)) as procedure:
            return take_back(act, procedure, self.systems)

    def foreign_keys_hold(self, table: str) -> Check:
        """Look whether every foreign key of a table, and to it, holds for every row."""
        with self.systems.inside(read_only=True) as session:
            return foreign_keys.hold(session, living_table.read(session, table))

    def merged_last(self) -> Mark:
        """Return the mark of the merge that was done last and not taken back. Raise `NotFound` where there is none."""
        with self.database() as session:
            found = [each for each in marks(session) if each.is_in_effect]
        if not found:
            raise NotFound(
                "a table that rows were merged into",
                where=postgres.describe(self.settings.database.dsn),
                why="no merge is kept",
                remedy="there is nothing to take back; a merge keeps what it replaces",
            )
        return found[0]

    @contextmanager
    def procedure(self, name: str, acts: Sequence[Undoable] = ()) -> Iterator[Procedure]:
        """Begin a procedure that alters the target, under this run's permit."""
        with self.permit.procedure(name, self.systems, acts) as procedure:
            yield procedure

    def recover(self) -> list[TakenBack]:
        """Take back what killed runs left half done, once the database's identity is established.

        It is asked beside the database: a run that was killed behind its fence has left it shut.
        """
        with self.beside_the_database() as session:
            identifier = session.server().system_identifier
        return recovery.recover(
            self.settings.journal_folder,
            self.systems,
            KINDS_OF_ACTS,
            cluster=self.settings.cluster_name,
            system_identifier=identifier,
        )

    def identity(self) -> DatabaseIdentity:
        """Ask the database who it is."""
        with self.database() as session:
            return dump.identify(session)

    def last_nights_backup(self) -> Backup:
        """Return last night's backup, which must be as new as the schedule demands."""
        return self.archive.last_night(self.settings.backups.schedule, self.now)

    def take_backup(self, kind: str, *, tables: Sequence[str] = (), watch: Watcher = nobody) -> Taken:
        """Take a backup of the database into the archive, if this run may."""
        major = self.identity().major
        return dump.take(
            self.settings.database.dsn,
            self.archive,
            permit=self.permit,
            kind=kind,
            tables=tables,
            compression=self.settings.backups.compression or None,
            tools=binaries.find(major, directory=self.tools_directory),
            watch=watch,
        )

    def take_base_backup(self, *, watch: Watcher = nobody) -> TakenBaseBackup:
        """Take a base backup of the cluster, if this run may, to recover from it to any moment after it."""
        major = self.identity().major
        return base_backup_taking.take(
            self.settings.database.dsn,
            self.base_backups,
            permit=self.permit,
            archive=self.wal_archive,
            tools=binaries.find(major, directory=self.tools_directory),
            watch=watch,
        )

    def restore_into_scratch(
        self, backup: Backup, name: str, place: Scratch, *, watch: Watcher = nobody
    ) -> RestoredDatabase:
        """Restore a backup into a database of ours, as the profile says restores are done."""
        return into_scratch(
            backup, name, archive=self.archive, scratch=place, jobs=self.settings.restore.jobs, watch=watch
        )

    def scratch(self) -> AbstractContextManager[Scratch]:
        """Open a place to restore to. Raise `Planned` where only a plan was asked for."""
        folder = self.settings.restore.folder
        if self.permit.planning:
            raise Planned(
                "to restore",
                where="a throwaway server of this machine",
                why=f"its files would be in {folder or 'TMPDIR'}, and removed at the end of the scenario",
                remedy="run it without --plan",
            )
        return Scratch.open(parent=Path(folder) if folder else None, tools_directory=self.tools_directory)

    def describe(self) -> Mapping[str, str]:
        """Say what this is, for the head of a report; what cannot be reached is said as well."""
        try:
            with self.database() as session:
                server = session.server()
                database = f"PostgreSQL {server.version}, system identifier {server.system_identifier}"
        except RunbookError as unreachable:
            database = str(unreachable)
        contexts = [f"{region} {told.context}" for region, told in self.settings.kubernetes.regions.items()]
        return {
            "environment": self.settings.name,
            "cluster": self.settings.cluster_name,
            "database": f"{postgres.describe(self.settings.database.dsn)}: {database}",
            "backups": f"{self.archive.where} at {self.archive.bucket.endpoint}",
            "kubernetes": ", ".join(contexts) or "none",
            "changes": self._changes(),
        }

    def _changes(self) -> str:
        if self.permit.planning:
            return "planned only"
        if not self.permit.granted:
            return "none"
        return f"granted: {self.permit.reason}"


def _kept_elsewhere(what: str, key: str) -> Unproven:
    return Unproven(
        what,
        where="the profile",
        why=f"it says that they are not in the bucket of the backups: {key} is empty",
        remedy=f"archive into that bucket by runbook_lib.wal.service, and name the place under [archiving], {key}",
    )


def _permit(settings: Settings, asked: Asked, systems: Systems) -> Permit:
    by_itself = settings.changes.granted
    missing = "" if by_itself else why_not_granted(settings.cluster_name, asked)
    reason = missing or ("this environment grants them itself" if by_itself else asked.reason.strip())
    halt = _halt(settings)

    def withheld() -> str:
        window = settings.changes.window
        return (why_closed(settings.windows, window, datetime.now(UTC)) if window else "") or halt.why()

    def open_journal() -> AbstractContextManager[Journal]:
        with systems.control(read_only=True) as session:
            identifier = session.server().system_identifier
        header = Header.here_and_now(
            cluster=settings.cluster_name,
            profile=settings.path or settings.name,
            system_identifier=identifier,
            reason=reason,
        )
        return journal.opened(settings.journal_folder, header, recover=settings.recover_command)

    return Permit(
        settings.cluster_name,
        granted=not missing,
        reason=reason,
        planning=asked.plan,
        withheld=withheld,
        open_journal=open_journal,
        recover=settings.recover_command,
    )


def _halt(settings: Settings) -> Halt:
    told = settings.changes
    file = Path(told.halt_file) if told.halt_file else None
    if not told.halt_config_map:
        return Halt(file)
    primary = settings.kubernetes.region("primary")
    namespace, _, name = told.halt_config_map.rpartition("/")
    reach = _reaching(settings, replace(primary, namespace=namespace or primary.namespace), read_only=True)

    def read() -> Mapping[str, str] | None:
        with reach() as cluster:
            return cluster.config_map(name)

    return Halt(file, told.halt_config_map, read)


def _reaching(settings: Settings, told: KubernetesCluster, *, read_only: bool) -> Callable[[], Cluster]:
    def reach() -> Cluster:
        cluster = Cluster.connect(
            told.context, namespace=told.namespace, kubeconfig=told.kubeconfig, read_only=read_only
        )
        try:
            must_be_cluster(cluster, told.cluster_uid, environment=settings.name)
        except BaseException:
            cluster.close()
            raise
        return cluster

    return reach


def _clipped(name: str) -> str:
    """Return a name as PostgreSQL keeps it: printable ASCII, and not too long."""
    return "".join(letter if " " <= letter <= "~" else "?" for letter in name)[:_LONGEST_NAME_BYTES]
