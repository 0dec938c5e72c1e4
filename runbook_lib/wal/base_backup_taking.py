"""Taking a base backup that a recovery can begin from.

pg_basebackup streams the cluster's files straight to S3, and nothing is written to a disk, on the primary or here; the
stream is looked at as it passes (`runbook_lib.wal.base_tar`). The order of writing is the order of trust: the tar; then
the WAL from its beginning to its end, which the server archives and without which the tar is worth nothing, is looked
for in the archive; and last the record that makes a base backup of them.

A primary ends a base backup only when it has archived its last segment, and waits for that as long as it takes. Here it
is not: an archive that does not work ends the backup with an error that says so.
"""

from __future__ import annotations

import os
import secrets
import select
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, ClassVar, Self

from runbook_lib.errors import Denied, NotFound, TargetRefused, Unproven, WaitTimedOut
from runbook_lib.phases import Phase, Progress, Stopwatch, Watcher, nobody
from runbook_lib.reach import binaries, postgres
from runbook_lib.reach.binaries import PostgresTools
from runbook_lib.reach.objects import Bucket, Written
from runbook_lib.reach.pipes import Producer, producing
from runbook_lib.reach.programs import tail
from runbook_lib.safety.permit import Permit
from runbook_lib.safety.systems import Systems
from runbook_lib.safety.written import WriteObjects
from runbook_lib.waiting import wait_for
from runbook_lib.wal import base_tar
from runbook_lib.wal.archive import SYSTEM_IDENTIFIER, WalArchive
from runbook_lib.wal.base_backup import RECORD_SUFFIX, TAR_SUFFIX, BaseBackup, BaseBackups
from runbook_lib.wal.base_tar import Told
from runbook_lib.wal.segment import Segment, WalName, lsn_text

_PIECE_BYTES = 1 << 16
_REMEDY = (
    "read what pg_basebackup said: the role needs REPLICATION, pg_hba.conf a line for replication, and max_wal_senders "
    "one that is free. Nothing was left behind, and older base backups still stand"
)


@dataclass(frozen=True)
class AddBaseBackup(WriteObjects):
    """Write the objects of one base backup."""

    kind: ClassVar[str] = "add a base backup"
    what: ClassVar[str] = "base backup"
    last: ClassVar[str] = "record"
    suffixes: ClassVar[tuple[str, ...]] = (TAR_SUFFIX, RECORD_SUFFIX)


@dataclass(frozen=True)
class TakenBaseBackup:
    """A base backup that was just taken."""

    backup: BaseBackup
    """What is in the bucket now."""
    phases: tuple[Phase, ...]
    """How long each part took."""


@dataclass(frozen=True)
class Source:
    """The cluster that a base backup is taken of, and what would keep it from being taken."""

    dsn: str
    """How to connect to it."""
    version_num: int
    """Such as 170011."""
    segment_bytes: int
    """Its ``wal_segment_size``."""
    system_identifier: str
    """Its identity, made by initdb."""
    in_recovery: bool
    """Whether it is a standby."""
    archive_mode: str
    """``off``, ``on`` or ``always``."""
    role: str
    """Whom we log in as."""
    may_replicate: bool
    """Whether that one may copy the cluster's files."""
    tablespaces: tuple[str, ...]
    """The tablespaces beside the two that every cluster has."""
    now: datetime
    """Its clock, in UTC, when it was asked."""

    @classmethod
    def of(cls, dsn: str) -> Self:
        """Ask it."""
        with postgres.session(dsn, application_name="runbook/base-backup") as session:
            row = session.row(postgres.load_sql(__package__, "base_backup_source"))
        return cls(dsn=dsn, **{**row, "tablespaces": tuple(row["tablespaces"]), "now": row["now"].astimezone(UTC)})

    @property
    def major(self) -> int:
        """The major version, such as 17."""
        return self.version_num // 10_000

    def must_be_fit(self, *, archives: bool) -> None:
        """Raise `Denied` or `Unproven` where no base backup can be had of it.

        :param archives: whether its WAL must be archived
        """
        sought, where = f"a base backup of the cluster of {postgres.describe(self.dsn)}", postgres.describe(self.dsn)
        if not self.may_replicate:
            raise Denied(
                sought,
                where=where,
                why=f"the role {self.role} has not the right to copy the cluster's files",
                remedy=f'ALTER ROLE "{self.role}" REPLICATION, and a line for replication in pg_hba.conf',
            )
        if self.tablespaces:
            raise Unproven(
                sought,
                where=where,
                why=f"it has tablespaces of its own ({', '.join(self.tablespaces)}), each of which needs a tar of its"
                " own: they cannot be streamed as one",
                remedy="move their tables to pg_default and drop them, or take base backups with a tool that keeps"
                " several tars, such as pgBackRest",
            )
        if archives and self.archive_mode == "off":
            raise Unproven(
                sought,
                where=where,
                why="archive_mode = off: the WAL that makes it whole would never come into the archive",
                remedy="set archive_mode = on and an archive_command or archive_library, and restart",
            )


def take(
    dsn: str,
    backups: BaseBackups,
    *,
    permit: Permit,
    archive: WalArchive | None,
    label: str = "tensafe-runbook",
    checkpoint_within_seconds: float = 900.0,
    archived_within_seconds: float = 300.0,
    tools: PostgresTools | None = None,
    watch: Watcher = nobody,
) -> TakenBaseBackup:
    """Take a base backup of a cluster, with its record, into the bucket.

    :param dsn: any database of it; a standby will do, where its primary archives
    :param permit: that objects may be added to this bucket
    :param archive: where the cluster's WAL is archived; None where the WAL is kept by other means, so that nobody here
        says that it is there
    :param label: what it is to be called
    :param checkpoint_within_seconds: how long the server may be silent before the first byte
    :param archived_within_seconds: how long it may be silent later on, while its last segment is archived; and how long
        the archive may take to show it then
    :param tools: the programs to use; by default those of the server's own major version

    Raise `Denied` where the role may not, `Unproven` where the cluster cannot be streamed or does not archive,
    `WaitTimedOut` where its WAL does not come into the archive in time, `ToolFailed` or `DamagedArtefact` where
    pg_basebackup fails, or claims a success that does not hold. After any failure, a Ctrl-C included, neither an object
    nor an unfinished upload of ours is left.
    """
    watch_time = Stopwatch()
    purpose = f"add a base backup to {backups.where}"
    if not permit.planning:
        permit.require(purpose)  # or the cluster would be kept busy for nothing
    source = Source.of(dsn)
    source.must_be_fit(archives=archive is not None)
    adding = AddBaseBackup(backups.key(source.now), secrets.token_hex(8))
    with permit.procedure(purpose, Systems(bucket=backups.bucket), [adding]) as procedure:
        with procedure.doing(adding):
            with watch_time.phase("copy"):
                copying = _Copying(
                    source,
                    label,
                    tools or binaries.find(source.major),
                    first_byte_within_seconds=checkpoint_within_seconds,
                    silent_at_most_seconds=archived_within_seconds,
                    watch=watch,
                )
                written = copying.into(backups.bucket, adding)
            backup = copying.record(written)
            if archive is not None:
                with watch_time.phase("WAL"):
                    _await_wal(archive, copying.told, source.segment_bytes, archived_within_seconds)
            with watch_time.phase("record"):
                backups.bucket.write_once(adding.key + RECORD_SUFFIX, backup.to_bytes(), metadata=adding.metadata)
        procedure.keep()
    return TakenBaseBackup(backup, watch_time.phases)


class _Copying:
    """One run of pg_basebackup."""

    def __init__(
        self,
        source: Source,
        label: str,
        tools: PostgresTools,
        *,
        first_byte_within_seconds: float,
        silent_at_most_seconds: float,
        watch: Watcher,
    ) -> None:
        self._source = source
        self._label = label
        self._program = tools.program("pg_basebackup")
        self._first_byte_within_seconds = first_byte_within_seconds
        self._silent_at_most_seconds = silent_at_most_seconds
        self._watch = watch
        self._told: Told | None = None
        self._ended: Source | None = None

    @property
    def told(self) -> Told:
        """What the tar says of itself; it is there when `into` has returned."""
        assert self._told is not None
        return self._told

    def into(self, bucket: Bucket, adding: AddBaseBackup) -> Written:
        """Stream it into the bucket, and look at it on the way."""
        argv: Sequence[str | Path] = [
            self._program,
            "--pgdata=-",
            "--format=tar",
            "--wal-method=none",
            "--checkpoint=fast",
            "--manifest-checksums=SHA256",
            f"--label={self._label}",
            "--no-password",
        ]
        env = postgres.libpq_environment(self._source.dsn) | {"PGAPPNAME": "runbook/base-backup"}
        sought = f"to copy the cluster of {postgres.describe(self._source.dsn)}"
        with (
            ThreadPoolExecutor(max_workers=1, thread_name_prefix="looking") as beside,
            producing(argv, sought=sought, env=env) as producer,
        ):
            reading, writing = os.pipe()
            with os.fdopen(reading, "rb", buffering=0) as copy:
                tee = _Tee(producer, writing, self._first_byte_within_seconds, self._silent_at_most_seconds)
                looking = beside.submit(tee.look, str(self._program))
                try:
                    return bucket.write_stream(
                        adding.key + TAR_SUFFIX,
                        copy,
                        metadata=adding.metadata,
                        accept=lambda: self._accept(producer, tee, looking),
                        on_bytes=lambda done: self._watch(Progress("base backup", done, None, "bytes")),
                    )
                except BaseException:
                    # Whoever looks waits for bytes, or for somebody to take them: end both before waiting for him.
                    producer.kill()
                    copy.close()
                    wait([looking])
                    raise

    def record(self, written: Written) -> BaseBackup:
        """Return what is to be kept of it."""
        assert self._ended is not None
        return BaseBackup(
            key=written.object.key,
            version_id=written.object.version_id,
            tar_bytes=written.object.bytes,
            sha256=written.sha256,
            system_identifier=self.told.system_identifier,
            server_version_num=self._source.version_num,
            timeline=self.told.timeline,
            start_lsn=self.told.start_lsn,
            stop_lsn=self.told.stop_lsn,
            started_at=self._source.now,
            stopped_at=self._ended.now,
            data_bytes=self.told.data_bytes,
            segment_bytes=self._source.segment_bytes,
            label=self.told.label,
        )

    def _accept(self, producer: Producer, tee: _Tee, looking: Future[Told]) -> None:
        """Believe the tar: pg_basebackup succeeded, the tar is whole, and it is of this cluster and of this run."""
        wrong = looking.exception()
        if wrong is not None and not tee.has_ended:
            raise wrong  # it still runs, and would be waited for in vain
        producer.must_have_succeeded(_REMEDY)
        if wrong is not None:
            raise wrong
        self._told = looking.result()
        self._ended = Source.of(self._source.dsn)
        identifiers = {each.system_identifier for each in (self._source, self._ended, self._told)}
        if len(identifiers) > 1 or self._told.label != self._label:
            raise TargetRefused(
                f"a base backup of the cluster {self._source.system_identifier}, called {self._label!r}",
                where=postgres.describe(self._source.dsn),
                why=f"what came is of {self._told.system_identifier}, called {self._told.label!r};"
                f" {self._ended.system_identifier} answers now",
                remedy="the connection string leads to more than one cluster: name one of them",
            )


class _Tee:
    """Passes a program's output on into a pipe while it is looked at, and waits for no byte too long."""

    def __init__(
        self, producer: Producer, writing: int, first_byte_within_seconds: float, silent_at_most_seconds: float
    ) -> None:
        self._producer = producer
        self._writing = writing
        self._within_seconds = first_byte_within_seconds
        self._silent_at_most_seconds = silent_at_most_seconds
        self.has_ended = False
        """Whether the program has closed its output."""

    def look(self, where: str) -> Told:
        """Look at the whole of it."""
        try:
            return base_tar.read(self, where)
        finally:
            os.close(self._writing)  # the reader's end of the stream

    def read(self, size: int) -> bytes:
        """Return the next bytes, once they are passed on."""
        piece = self._next(size)
        view = memoryview(piece)
        while view:
            view = view[os.write(self._writing, view) :]
        return piece

    def _next(self, size: int) -> bytes:
        output: BinaryIO = self._producer.output
        poll = select.poll()
        poll.register(output, select.POLLIN | select.POLLHUP)
        if not poll.poll(self._within_seconds * 1000):
            said = tail(self._producer.remarks())
            raise WaitTimedOut(
                self._producer.sought,
                where="pg_basebackup",
                why=f"it was silent for {self._within_seconds:.0f} s; it said: {said or 'nothing'}",
                remedy="look at the server: its checkpoint, or an archive_command that fails (pg_stat_archiver) keeps"
                " a base backup from its end",
            )
        self._within_seconds = self._silent_at_most_seconds
        piece = os.read(output.fileno(), min(size, _PIECE_BYTES))
        self.has_ended = not piece
        return piece


def _await_wal(archive: WalArchive, told: Told, segment_bytes: int, within_seconds: float) -> None:
    """Wait until every segment that the copy needs is in the archive, under its name and of this cluster."""
    missing = [
        Segment(each.timeline, number, segment_bytes).name
        for each in told.ranges
        for number in range(each.start_lsn // segment_bytes, (each.end_lsn - 1) // segment_bytes + 1)
    ]
    needed = f"{missing[0]} to {missing[-1]}"

    def still_missing() -> list[str]:
        while missing and _is_there(archive, missing[0], told.system_identifier):
            missing.pop(0)
        return missing

    try:
        wait_for(
            f"the WAL of a base backup, {needed}, to be in the archive",
            still_missing,
            where=archive.where,
            within_seconds=within_seconds,
            until=lambda left: not left,
            every_seconds=0.2,
        )
    except WaitTimedOut as late:
        raise WaitTimedOut(
            late.sought,
            where=late.where,
            why=f"after {within_seconds:.0f} s there was no {missing[0]}, nor what follows to"
            f" {lsn_text(told.stop_lsn)}",
            remedy="let the server archive to where the profile looks: [archiving] wal_prefix, archive_command and"
            " pg_stat_archiver. A standby archives nothing; its primary has to switch segments",
        ) from late


def _is_there(archive: WalArchive, name: str, system_identifier: str) -> bool:
    known = WalName.parse(name)
    assert known is not None
    try:
        stored, metadata = archive.bucket.head(archive.key(name))
    except NotFound:
        return False
    told = metadata.get(SYSTEM_IDENTIFIER, system_identifier)
    if (why := archive.why_not_said(known, stored, metadata)) or told != system_identifier:
        raise TargetRefused(
            f"the segment {name} of the cluster {system_identifier}",
            where=stored.url,
            why=why or f"it is of the cluster {told}",
            remedy="two clusters archive to one place: give each its own",
        )
    return True
