"""Taking a backup that can be proven.

pg_dump runs in an exported snapshot and streams straight to S3; in the same snapshot, and at the same time, the
inventory is taken that a restore must reproduce. Nothing is written to a disk, on the primary or here. The order of
writing is the order of trust: the dump, the globals, and last the manifest that makes a backup of them.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from runbook_lib.backup import audit_chain, inventory, properties
from runbook_lib.backup.addition import AddBackup
from runbook_lib.backup.catalog import DUMP_SUFFIX, GLOBALS_SUFFIX, MANIFEST_SUFFIX, Archive, Backup
from runbook_lib.backup.content import Table
from runbook_lib.backup.definitions import Definition, definitions, differences
from runbook_lib.backup.inventory import Inventory
from runbook_lib.backup.manifest import FORMAT, Artefact, DatabaseIdentity, Manifest
from runbook_lib.backup.snapshot import Snapshot, exported
from runbook_lib.errors import NotFound, ToolFailed
from runbook_lib.outcome import Check, Finding
from runbook_lib.phases import Phase, Progress, Stopwatch, Watcher, nobody
from runbook_lib.reach import binaries, postgres
from runbook_lib.reach.binaries import PostgresTools
from runbook_lib.reach.objects import Written
from runbook_lib.reach.pipes import Producer, producing
from runbook_lib.reach.postgres import Session
from runbook_lib.reach.workers import cancel_all
from runbook_lib.safety.permit import Permit
from runbook_lib.safety.systems import Systems

_LOCK_WAIT_SECONDS = 60
"""How long pg_dump may wait for a table that somebody holds exclusively; it would otherwise wait for ever."""

_MAGIC = b"PGDMP"
"""How a dump in custom format begins."""
_REMEDY = "read what pg_dump said; no object was left behind, and the last proven backup still stands"


@dataclass(frozen=True)
class Taken:
    """A backup that was just taken."""

    backup: Backup
    """What is in the bucket now."""
    phases: tuple[Phase, ...]
    """How long each part took."""


def take(
    dsn: str,
    archive: Archive,
    *,
    permit: Permit,
    kind: str = "manual",
    tables: Sequence[str] = (),
    compression: str | None = None,
    workers: int = 1,
    tools: PostgresTools | None = None,
    watch: Watcher = nobody,
) -> Taken:
    """Take a backup of a database, with its manifest, into the archive.

    :param dsn: the source; a standby will do
    :param permit: that objects may be added to this archive
    :param kind: ``daily``, ``manual`` or ``tables``: the folder in the archive
    :param tables: names of tables whose rows to keep; none for all. The definitions of all objects are kept in any
        case, so that the tables can be restored into an empty database
    :param compression: as ``pg_dump --compress`` takes it; by default zstd where pg_dump has it, else gzip
    :param workers: how many tables are hashed at once, beside pg_dump
    :param tools: the programs to use; by default those of the server's own major version

    After any failure, a Ctrl-C included, neither an object nor an unfinished upload of ours is left in the archive.
    """
    watch_time = Stopwatch()
    purpose = f"add a backup to {archive.where}"
    if not permit.planning:
        permit.require(purpose)  # or the source would be kept busy for nothing
    with exported(dsn, application_name="runbook/backup") as (snapshot, holder):
        identity = identify(holder)
        tools = tools or binaries.find(identity.major)
        adding = AddBackup(archive.key(kind, snapshot.taken_at), secrets.token_hex(8))
        systems = Systems(bucket=archive.bucket)
        with permit.procedure(purpose, systems, [adding]) as procedure:
            with procedure.doing(adding):
                backup = _take(
                    snapshot,
                    holder,
                    archive,
                    adding,
                    identity=identity,
                    tables=tables,
                    compression=compression or default_compression(tools),
                    workers=workers,
                    tools=tools,
                    watch=watch,
                    watch_time=watch_time,
                )
            procedure.keep()
    return Taken(backup, watch_time.phases)


def _take(
    snapshot: Snapshot,
    holder: Session,
    archive: Archive,
    adding: AddBackup,
    *,
    identity: DatabaseIdentity,
    tables: Sequence[str],
    compression: str,
    workers: int,
    tools: PostgresTools,
    watch: Watcher,
    watch_time: Stopwatch,
) -> Backup:
    chosen = _chosen(holder, tables)
    # Sequences are in no snapshot: they are read before pg_dump can have read any of them.
    sequences_before = inventory.sequence_positions(holder)
    # Roles are in no snapshot: they are dumped while the tables are.
    with (
        watch_time.phase("dump and inventory"),
        ThreadPoolExecutor(max_workers=1, thread_name_prefix="globals") as beside,
    ):
        roles = beside.submit(_dump_globals, snapshot.dsn, archive, adding, tools)
        dump, held = _dump_and_inventory(
            snapshot,
            archive,
            adding,
            tools=tools,
            compression=compression,
            chosen=chosen,
            excluded=_all_but(holder, chosen),
            identity=identity,
            workers=workers,
            watch=watch,
        )
    with watch_time.phase("sequences and definitions again"), postgres.session(snapshot.dsn) as now:
        sequences_after = inventory.sequence_positions(now)
        changed = _changed(held.definitions, definitions(now))
    manifest = Manifest(
        format=FORMAT,
        database=identity,
        properties=properties.read(holder),
        taken_at=snapshot.taken_at,
        lsn=snapshot.lsn,
        tools={"pg_dump": tools.version, "pg_dump from": tools.source},
        compression=compression,
        dump=_artefact(dump),
        globals=roles.result(),
        tables=tuple(tables),
        open_references=tuple(_open_references(holder, chosen)),
        inventory=replace(held, sequences=sequences_before),
        sequences_after=sequences_after,
        changed_meanwhile=changed,
        source_findings=tuple(source_findings(holder)),
        audit_head=audit_chain.head(holder) if not chosen or audit_chain.LOG in chosen else None,
    )
    with watch_time.phase("manifest"):
        archive.bucket.write_once(adding.key + MANIFEST_SUFFIX, manifest.to_bytes(), metadata=adding.metadata)
    return Backup(dump.object, manifest)


def identify(session: Session) -> DatabaseIdentity:
    """Say which database a session is connected to."""
    return DatabaseIdentity(**session.row(postgres.load_sql(__package__, "identity")))


def source_findings(session: Session) -> Iterator[Finding]:
    """Yield what a dump of this database would leave out in silence."""
    for row in session.rows(postgres.load_sql(__package__, "invalid_indexes")):
        unique = "unique " if row["is_unique"] else ""
        yield Finding(
            "source.invalid_index",
            row["name"],
            f"an invalid {unique}index on {row['on_table']}: it answers no query, and pg_dump leaves it out in silence",
            remedy=f"REINDEX INDEX CONCURRENTLY {row['name']}, or drop it concurrently and create it again",
        )


def source_is_dumped_whole(backup: Backup) -> Check:
    """Say whether the source had anything that no dump carries, as the manifest noted when it was taken."""
    findings = backup.manifest.source_findings if backup.manifest else ()
    return Check("the source hides nothing from its dump", backup.dump.url, "indexes", findings)


def default_compression(tools: PostgresTools) -> str:
    """Return the compression a dump is made with where nobody chose one."""
    return "zstd:3" if tools.supports("zstd") else "gzip:1"


def _dump_and_inventory(
    snapshot: Snapshot,
    archive: Archive,
    adding: AddBackup,
    *,
    tools: PostgresTools,
    compression: str,
    chosen: frozenset[str],
    excluded: Sequence[str],
    identity: DatabaseIdentity,
    workers: int,
    watch: Watcher,
) -> tuple[Written, Inventory]:
    stop = threading.Event()
    sessions: list[Session] = []

    @contextmanager
    def open_session() -> Iterator[Session]:
        with snapshot.session() as session:
            sessions.append(session)
            yield session

    def kept(table: Table) -> bool:
        return not chosen or table.qualified in chosen

    def told(done: int) -> None:
        watch(Progress("dump", done, None, "bytes", f"of a database of {identity.bytes / 1e6:.0f} MB"))

    argv: list[str | Path] = [
        tools.program("pg_dump"),
        "--format=custom",
        f"--compress={compression if tools.major >= 16 else compression.removeprefix('gzip:')}",
        f"--snapshot={snapshot.id}",
        f"--lock-wait-timeout={_LOCK_WAIT_SECONDS}s",
        "--no-password",
        *(f"--exclude-table-data={name}" for name in excluded),
    ]
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="inventory") as beside:
        taking: Future[Inventory] = beside.submit(inventory.take, open_session, workers=workers, only=kept, stop=stop)
        try:
            with _pg_dump(snapshot.dsn, argv) as producer:
                dump = archive.bucket.write_stream(
                    adding.key + DUMP_SUFFIX,
                    producer.output,
                    metadata=adding.metadata,
                    accept=lambda: producer.must_have_succeeded(_REMEDY),
                    on_bytes=told,
                )
            _must_be_a_dump(archive, dump, tools)
            return dump, taking.result()
        except BaseException:
            stop.set()
            cancel_all(sessions)
            raise


def _must_be_a_dump(archive: Archive, dump: Written, tools: PostgresTools) -> None:
    """Look at what was written: pg_dump's claim of success may come with nothing."""
    beginning = archive.bucket.read(dump.object.key, dump.object.version_id, at_most_bytes=len(_MAGIC))
    if beginning != _MAGIC:
        raise ToolFailed(
            "a dump in custom format",
            where=str(tools.program("pg_dump")),
            why=f"it claims success, and wrote {dump.object.bytes} bytes that begin with {beginning!r}",
            remedy=_REMEDY,
        )


def _pg_dump(dsn: str, argv: Sequence[str | Path]) -> AbstractContextManager[Producer]:
    # An oversight here would be a dump of the wrong database: PGDATABASE and friends come from the dsn alone.
    return producing(argv, sought=f"to dump {postgres.describe(dsn)}", env=postgres.libpq_environment(dsn))


def _dump_globals(dsn: str, archive: Archive, adding: AddBackup, tools: PostgresTools) -> Artefact:
    """Dump roles and tablespaces, which belong to the cluster and are in no dump of a database.

    Passwords are left out where the role may not read them.
    """
    with postgres.session(dsn) as session:
        may_read = session.value("SELECT pg_catalog.has_table_privilege('pg_catalog.pg_authid', 'SELECT')")
    argv: list[str | Path] = [
        tools.program("pg_dumpall"),
        "--globals-only",
        "--no-password",
        f"--database={postgres.database_of(dsn) or 'postgres'}",
        *([] if may_read else ["--no-role-passwords"]),
    ]
    sought = f"to dump the roles of {postgres.describe(dsn)}"
    env = postgres.libpq_environment(dsn)
    env["PGOPTIONS"] = f"{env.get('PGOPTIONS', '')} -c statement_timeout=0"  # unlike pg_dump, it leaves the database's
    # Its bytes are kept as they are: they are in the encoding of the database, as their first line says.
    with producing(argv, sought=sought, env=env) as producer:
        dumped = producer.output.read()
        producer.must_have_succeeded("run it as a role that may read pg_roles and pg_tablespace")
    if b"PostgreSQL database cluster dump complete" not in dumped:
        raise ToolFailed(
            "roles and tablespaces to their end",
            where=str(tools.program("pg_dumpall")),
            why="it claims success, and its last line is missing",
            remedy="take the backup again",
        )
    return _artefact(archive.bucket.write_once(adding.key + GLOBALS_SUFFIX, dumped, metadata=adding.metadata))


def _artefact(written: Written) -> Artefact:
    return Artefact(written.object.key, written.object.version_id, written.object.bytes, written.sha256)


def _changed(before: Sequence[Definition], after: Sequence[Definition]) -> tuple[Definition, ...]:
    return tuple(Definition(each.kind, each.name, each.found or "(removed)") for each in differences(before, after))


def _chosen(session: Session, tables: Sequence[str]) -> frozenset[str]:
    """Return the tables that names mean, with all their partitions, as PostgreSQL writes them."""
    chosen: set[str] = set()
    for name in tables:
        found = session.rows(postgres.load_sql(__package__, "table_with_partitions"), name)
        if not found:
            raise NotFound(
                f"the table {name}",
                where=postgres.describe(session.dsn),
                why="there is no such table in the schemas that the name can mean",
                remedy="write it with its schema, as \\d lists it: public.training_clients",
            )
        chosen |= {row["name"] for row in found}
    return frozenset(chosen)


def _all_but(session: Session, chosen: frozenset[str]) -> list[str]:
    everything = session.rows(postgres.load_sql(__package__, "tables_with_rows")) if chosen else []
    return [row["name"] for row in everything if row["name"] not in chosen]


def _open_references(session: Session, chosen: frozenset[str]) -> Iterator[str]:
    for row in session.rows(postgres.load_sql(__package__, "foreign_keys")) if chosen else []:
        if row["from_table"] in chosen and row["to_table"] not in chosen:
            yield row["name"]
