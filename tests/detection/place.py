"""Where the faults are planted: a source, an S3 store with its backup, and a scratch server with the restored copy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from runbook_lib.backup import audit_chain, dump, sequences
from runbook_lib.backup.catalog import Archive, Backup
from runbook_lib.outcome import Finding
from runbook_lib.phases import Watcher, nobody
from runbook_lib.reach import binaries, postgres
from runbook_lib.reach.objects import Bucket
from runbook_lib.reach.server import PostgresServer
from runbook_lib.reach.workspace import Workspace
from runbook_lib.restore import integrity
from runbook_lib.restore.restored import RestoredDatabase
from runbook_lib.restore.scratch import Scratch, into_scratch
from runbook_lib.safety import ownership
from runbook_lib.safety.permit import Permit
from runbook_lib.sandbox.object_store import ObjectStore
from runbook_lib.sandbox.tensafe.build import build
from tests.detection.mutation import Mutation

MAJOR = 17
SCALE = 0.02
VERIFY = "tensafe_verify"
PERMIT = Permit("the tests' own bucket", granted=True, reason="it was made for them")

_AS_A_BAD_RESTORE_WOULD = {
    "session_replication_role": "replica",  # no trigger, foreign key or event trigger has a say in it
    "allow_system_table_mods": "on",
}


@dataclass(frozen=True)
class Place:
    """Everything that the tests of this folder act on."""

    source: PostgresServer
    """The server that backups are taken of, with the database ``tensafe`` and nothing else."""
    store: ObjectStore
    """The S3 server."""
    scratch: Scratch
    """The place that is restored to; its server is up."""

    def bucket(self, name: str, *, versioned: bool) -> Bucket:
        """Make a bucket of its own."""
        credentials = (self.store.access_key, self.store.secret_key)
        bucket = Bucket(name, endpoint_url=self.store.endpoint_url, region=self.store.region, credentials=credentials)
        bucket.client.create_bucket(Bucket=name)
        if versioned:
            bucket.client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        return bucket

    def archive(self, name: str, *, versioned: bool = True) -> Archive:
        """Make an archive in a bucket of its own."""
        return Archive(self.bucket(name, versioned=versioned))

    def create(self, database: str, *statements: str) -> str:
        """Make a database on the source, and return its connection string."""
        with postgres.session(self.source.dsn(), read_only=False) as session:
            session.execute(f"CREATE DATABASE {database}")
        dsn = self.source.dsn(database)
        with postgres.session(dsn, read_only=False, settings={"search_path": "public"}) as session:
            for statement in statements:
                session.execute(statement)
        return dsn

    def restore(
        self,
        backup: Backup,
        archive: Archive,
        name: str = "again",
        *,
        scratch: Scratch | None = None,
        watch: Watcher = nobody,
    ) -> RestoredDatabase:
        """Restore a backup, as the drill does."""
        return into_scratch(backup, name, archive=archive, scratch=scratch or self.scratch, watch=watch)


@contextmanager
def opened() -> Iterator[Place]:
    """Start all servers, and stop them at the end."""
    with Workspace.open() as workspace, Scratch.open() as scratch:
        source = PostgresServer.start(workspace, binaries.find(MAJOR), name="source")
        store = ObjectStore.start(workspace)
        try:
            place = Place(source, store, scratch)
            build(place.create("tensafe"), scale=SCALE)
            with postgres.session(source.dsn(), read_only=False) as session:
                session.execute("CREATE ROLE tensafe_guest LOGIN CONNECTION LIMIT 2")  # nothing depends on it
            scratch.server(MAJOR)
            yield place
        finally:
            source.stop()
            store.stop()


def restored_tensafe(place: Place) -> RestoredDatabase:
    """Take a backup of the TenSafe-like database, and restore it."""
    archive = place.archive("tensafe-backups")
    backup = dump.take(place.source.dsn("tensafe"), archive, permit=PERMIT).backup
    restored = place.restore(backup, archive, VERIFY)
    assert restored.restored.holds(), restored.restored.explain()
    return restored


@contextmanager
def twin(restored: RestoredDatabase, name: str) -> Iterator[RestoredDatabase]:
    """Copy a restored database, with the properties that CREATE DATABASE leaves behind; drop the copy at the end."""
    manifest = restored.backup.manifest
    assert manifest is not None
    with postgres.session(postgres.with_database(restored.dsn, "postgres"), read_only=False) as session:
        session.execute(f"CREATE DATABASE {name} TEMPLATE {restored.name} STRATEGY file_copy")
        ownership.mark(session, name, "the tests")
    copy = replace(restored, name=name, dsn=postgres.with_database(restored.dsn, name))
    with postgres.session(copy.dsn, read_only=False) as session:
        for statement in manifest.properties.application(name):
            session.execute(statement)
    try:
        yield copy
    finally:
        copy.remove()


@contextmanager
def mutated(copy: RestoredDatabase, batch: Iterable[Mutation]) -> Iterator[None]:
    """Do to a copy what mutations say, and undo at the end what would outlive it."""
    with ExitStack() as undoing:
        with postgres.session(copy.dsn, read_only=False, settings=_AS_A_BAD_RESTORE_WOULD) as session:
            for mutation in batch:
                session.execute(mutation.sql.replace("{database}", copy.name))
                if mutation.undo:
                    undoing.callback(_execute, copy, mutation.undo)
        yield


def _execute(copy: RestoredDatabase, statement: str) -> None:
    with postgres.session(copy.dsn, read_only=False) as session:
        session.execute(statement)


def findings_of(copy: RestoredDatabase, *, has_audit_log: bool = True) -> list[Finding]:
    """Ask every question that the drill asks of a restored database."""
    checks = [*copy.compare().checks]
    with copy.session() as session:
        checks.append(sequences.will_not_collide(session))
        if has_audit_log:
            assert copy.backup.manifest is not None
            checks.append(audit_chain.is_unbroken(session))
            checks.append(audit_chain.ends_where_noted(session, copy.backup.manifest.audit_head))
    checks.append(integrity.heap_and_indexes_are_sound(copy.dsn))
    return [finding for check in checks for finding in check.findings]
