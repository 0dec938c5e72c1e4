"""A base backup is recorded when it is whole and its WAL is archived, and not a moment before; else nothing is left."""

from __future__ import annotations

import hashlib
import io
import json
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runbook_lib.errors import (
    DamagedArtefact,
    Denied,
    NotPermitted,
    RunbookError,
    TargetRefused,
    ToolFailed,
    Unproven,
    WaitTimedOut,
)
from runbook_lib.phases import Progress
from runbook_lib.reach import binaries, postgres
from runbook_lib.reach.server import FAST, PostgresServer
from runbook_lib.safety.mark import WRITER
from runbook_lib.safety.permit import Permit
from runbook_lib.safety.systems import Systems
from runbook_lib.waiting import wait_for
from runbook_lib.wal import base_backup_taking, base_tar
from runbook_lib.wal.archive import WalArchive
from runbook_lib.wal.base_backup import BaseBackup, BaseBackups, BaseListing
from runbook_lib.wal.base_backup_taking import AddBaseBackup
from tests.detection import tools
from tests.detection.tools import Tools
from tests.wal import place
from tests.wal.place import SEGMENT_BYTES, Primary, Store, await_archived

PERMIT = Permit("here", granted=True, reason="a test")
COPIED = {**FAST, "wal_level": "replica", "max_wal_senders": "2", "shared_buffers": "16MB"}


@pytest.fixture(scope="module")
def primary(store: Store) -> Iterator[Primary]:
    """A primary of this module's own, with an archive of its own."""
    store.proxy.reset()
    with place.primary(store, steps=10, prefix="archived/", name="copied") as started:
        yield started


@pytest.fixture
def backups(store: Store, request: pytest.FixtureRequest) -> BaseBackups:
    """A place in which no base backup is yet."""
    return BaseBackups(store.bucket(), f"base/{abs(hash(request.node.name))}/")


@pytest.fixture(scope="module")
def taken(store: Store, primary: Primary) -> BaseBackup:
    return take(primary, BaseBackups(store.bucket(), "good/"))


@pytest.fixture(scope="module")
def tar(store: Store, taken: BaseBackup) -> bytes:
    return store.bucket().read(taken.key, taken.version_id)


@pytest.fixture
def tampered() -> Iterator[Tools]:
    with tools.programs_alone() as made:
        yield made


def take(
    primary: Primary,
    backups: BaseBackups,
    *,
    dsn: str = "",
    archive: WalArchive | None = None,
    tampered: Tools | None = None,
    first_byte_seconds: float = 60.0,
    seconds: float = 60.0,
    **told: object,
) -> BaseBackup:
    return base_backup_taking.take(
        dsn or primary.server.dsn(),
        backups,
        permit=PERMIT,
        archive=archive or primary.archive,
        tools=tampered.found if tampered else None,
        checkpoint_within_seconds=first_byte_seconds,
        archived_within_seconds=seconds,
        **told,  # type: ignore[arg-type]
    ).backup


def must_have_left_nothing(backups: BaseBackups) -> None:
    assert backups.bucket.versions(backups.prefix) == []
    assert backups.bucket.unfinished_uploads(backups.prefix) == []
    assert backups.listing() == BaseListing((), ())


class TestWhole:
    def test_its_record_says_what_it_is(self, primary: Primary, taken: BaseBackup, tar: bytes) -> None:
        assert (taken.system_identifier, taken.timeline) == (primary.system_identifier, 1)
        assert (taken.major, taken.segment_bytes, taken.label) == (place.MAJOR, SEGMENT_BYTES, "tensafe-runbook")
        assert taken.start_lsn < taken.stop_lsn
        assert taken.started_at < taken.stopped_at
        assert (taken.sha256, taken.tar_bytes) == (hashlib.sha256(tar).hexdigest(), len(tar))
        assert 0 < taken.data_bytes < taken.tar_bytes

    def test_it_is_listed(self, store: Store, taken: BaseBackup) -> None:
        listing = BaseBackups(store.bucket(), "good/").listing()
        assert listing.backups == (taken,)
        assert listing.findings == ()

    def test_its_wal_is_archived(self, primary: Primary, taken: BaseBackup) -> None:
        there = primary.archive.listing().segments[1]
        first, last = taken.start_lsn // SEGMENT_BYTES, (taken.stop_lsn - 1) // SEGMENT_BYTES
        assert set(range(first, last + 1)) <= set(there)

    def test_a_recovery_begins_from_it(self, primary: Primary, tar: bytes) -> None:
        with postgres.session(primary.server.dsn(), read_only=False) as session:
            session.execute("INSERT INTO public.t SELECT 99, n, '' FROM generate_series(1, 50) n")
            rows = session.value("SELECT count(*) FROM public.t")
            await_archived(session, session.value("SELECT pg_walfile_name(pg_switch_wal())"))
        unpacked = primary.store.workspace.folder("unpacked")
        with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
            archive.extractall(unpacked, filter="data")
        recovered = place.recover(primary, base=unpacked)
        assert recovered.promoted, recovered.log
        assert recovered.rows == rows

    def test_it_stays_when_it_is_taken_back(self, store: Store, taken: BaseBackup) -> None:
        key = taken.key.removesuffix(".tar")
        token = store.bucket().head(taken.key)[1][WRITER]
        said = AddBaseBackup(key, token).undo(Systems(bucket=store.bucket()), {})
        assert said == f"{key} is a whole base backup: it stays"
        assert len(store.bucket().versions("good/")) == 2


@pytest.mark.parametrize("major", [14, 15, 16, 18])
def test_of_every_major(major: int, store: Store, backups: BaseBackups) -> None:
    name = f"m{major}"
    server = PostgresServer.start(store.workspace, binaries.find(major), name=name, settings=COPIED)
    try:
        found = base_backup_taking.take(server.dsn(), backups, permit=PERMIT, archive=None).backup
        with postgres.session(server.dsn()) as session:
            assert found.system_identifier == session.server().system_identifier
        assert (found.major, found.segment_bytes) == (major, 16 << 20)
        assert backups.listing().backups == (found,)
        with pytest.raises(Unproven, match="archive_mode = off"):
            base_backup_taking.take(
                server.dsn(), backups, permit=PERMIT, archive=WalArchive(backups.bucket, "nowhere/")
            )
    finally:
        server.stop()


class TestRefused:
    def test_a_role_that_may_not(self, primary: Primary, backups: BaseBackups) -> None:
        with postgres.session(primary.server.dsn(), read_only=False) as session:
            session.execute("CREATE ROLE reader LOGIN")
            dsn = primary.server.dsn().replace("user=postgres", "user=reader")
            with pytest.raises(Denied, match='ALTER ROLE "reader" REPLICATION'):
                take(primary, backups, dsn=dsn)
            must_have_left_nothing(backups)
            session.execute("ALTER ROLE reader REPLICATION")
            assert take(primary, backups, dsn=dsn).major == place.MAJOR
            session.execute("DROP ROLE reader")

    def test_more_than_one_tablespace(self, primary: Primary, backups: BaseBackups) -> None:
        folder = primary.store.workspace.folder("elsewhere")
        with postgres.session(primary.server.dsn(), read_only=False) as session:
            session.execute(f"CREATE TABLESPACE elsewhere LOCATION '{folder}'")
            try:
                with pytest.raises(Unproven, match=r"tablespaces of its own \(elsewhere\)"):
                    take(primary, backups)
            finally:
                session.execute("DROP TABLESPACE elsewhere")
        must_have_left_nothing(backups)

    def test_without_a_permit(self, primary: Primary, backups: BaseBackups) -> None:
        permit = Permit("here", granted=False, reason="type it")
        with pytest.raises(NotPermitted):
            base_backup_taking.take(primary.server.dsn(), backups, permit=permit, archive=primary.archive)
        must_have_left_nothing(backups)


@pytest.mark.parametrize(
    ("script", "error", "says"),
    [
        pytest.param("echo 'pg_basebackup: error: out of luck' >&2; exit 1", ToolFailed, "out of luck", id="at once"),
        pytest.param('REAL "$@" | head -c 9000000; kill -KILL $$', ToolFailed, "signal 9", id="killed in the middle"),
        pytest.param('REAL "$@"; kill -KILL $$', ToolFailed, "signal 9", id="killed at its end"),
        pytest.param('REAL "$@"; exit 1', ToolFailed, "exit code 1", id="writes all and fails"),
        pytest.param("exit 0", DamagedArtefact, "empty file", id="writes nothing"),
        pytest.param('REAL "$@" | head -c 9000000; exit 0', DamagedArtefact, "", id="writes the beginning"),
        pytest.param('REAL "$@" | head -c -200000; exit 0', DamagedArtefact, "", id="leaves out the end"),
        pytest.param("head -c 3000000 /dev/zero | tr '\\0' x; sleep 60", DamagedArtefact, "", id="writes nonsense"),
        pytest.param("exec sleep 60", WaitTimedOut, "silent for 2 s; it said: nothing", id="hangs"),
        pytest.param('REAL "$@" | head -c 50000; echo "I wait" >&2; exec sleep 60', WaitTimedOut,
                     "it said: .*I wait", id="hangs in the middle"),
    ],
)  # fmt: skip
def test_a_pg_basebackup_that_fails_or_lies(
    script: str, error: type[RunbookError], says: str, primary: Primary, backups: BaseBackups, tampered: Tools
) -> None:
    tampered.replace("pg_basebackup", script)
    with pytest.raises(error, match=f"(?s){says}"):
        take(
            primary,
            backups,
            tampered=tampered,
            first_byte_seconds=2.0 if script == "exec sleep 60" else 60.0,
            seconds=2.0 if "sleep" in script else 60.0,
        )
    must_have_left_nothing(backups)


def test_a_pg_basebackup_that_only_passes_on(primary: Primary, backups: BaseBackups, tampered: Tools) -> None:
    tampered.replace("pg_basebackup", 'REAL "$@"')
    assert backups.listing().backups == ()
    found = take(primary, backups, tampered=tampered)
    assert backups.listing().backups == (found,)


def test_interrupted(primary: Primary, backups: BaseBackups) -> None:
    """Ctrl-C, in the middle of the stream."""

    def interrupt(_: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        take(primary, backups, watch=interrupt)
    must_have_left_nothing(backups)
    with postgres.session(primary.server.dsn()) as session:
        assert session.value("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender'") == 0


KILLED = """
import json, os, signal, sys
from runbook_lib.reach.objects import Bucket
from runbook_lib.safety.permit import Permit
from runbook_lib.wal import base_backup_taking
from runbook_lib.wal.base_backup import BaseBackups

told = json.loads(sys.argv[1])
bucket = Bucket(
    told["bucket"], endpoint_url=told["endpoint"], region="us-east-1", credentials=tuple(told["credentials"])
)
base_backup_taking.secrets.token_hex = lambda _: told["token"]
BaseBackups.key = lambda self, started_at: told["key"]
permit = Permit("x", granted=True, reason="x")
really = Bucket.write_once

def record(self, key, *arguments, **named):
    if told["when"] == "after the record":
        really(self, key, *arguments, **named)
    os.kill(os.getpid(), signal.SIGKILL)

def watch(progress):
    if told["when"] == "in the stream" and progress.done > 9_000_000:
        os.kill(os.getpid(), signal.SIGKILL)

Bucket.write_once = record
base_backup_taking.take(told["dsn"], BaseBackups(bucket), permit=permit, archive=None, watch=watch)
"""


@pytest.mark.parametrize("when", ["in the stream", "before the record", "after the record"])
def test_a_killed_run_is_taken_back(when: str, primary: Primary, backups: BaseBackups) -> None:
    """What it left is removed, unless it had become a base backup; and no copy of the cluster goes on."""
    adding = AddBaseBackup(f"{backups.prefix}20260203_020000", "killed")
    store = primary.store.store
    told = {
        "bucket": place.BUCKET,
        "endpoint": store.endpoint_url,
        "credentials": [store.access_key, store.secret_key],
        "token": adding.token,
        "key": adding.key,
        "dsn": primary.server.dsn(),
        "when": when,
    }
    argv = [sys.executable, "-c", KILLED, json.dumps(told)]
    ran = subprocess.run(argv, cwd=Path(__file__).parents[2], timeout=60, check=False)
    assert ran.returncode == -signal.SIGKILL
    uploads = backups.bucket.unfinished_uploads(backups.prefix)
    assert uploads == ([f"{adding.key}.tar"] if when == "in the stream" else [])
    said = adding.undo(Systems(bucket=backups.bucket, straggling_seconds=0.5), {})
    if when == "after the record":
        assert said == f"{adding.key} is a whole base backup: it stays"
        assert [each.key for each in backups.listing().backups] == [f"{adding.key}.tar"]
    else:
        must_have_left_nothing(backups)
    with postgres.session(primary.server.dsn()) as session:
        wait_for(
            "pg_basebackup to have ended with its reader",
            lambda: session.value("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender'"),
            until=lambda left: left == 0,
            where=session.dsn,
            within_seconds=20,
        )


class TestItsWal:
    @contextmanager
    def archiving_with(self, primary: Primary, command: str) -> Iterator[None]:
        def set_to(told: str) -> None:
            session.execute(f"ALTER SYSTEM SET archive_command = {postgres.literal(told)}")
            session.execute("SELECT pg_reload_conf()")

        with postgres.session(primary.server.dsn(), read_only=False) as session:
            set_to(command)
            try:
                yield
            finally:
                set_to(primary.service.archive_command)

    def test_is_not_archived(self, primary: Primary, backups: BaseBackups) -> None:
        """pg_basebackup itself would wait for it for ever."""
        with self.archiving_with(primary, "false"), pytest.raises(WaitTimedOut, match="pg_stat_archiver"):
            take(primary, backups, seconds=2.0)
        must_have_left_nothing(backups)

    def test_is_archived_elsewhere(self, primary: Primary, backups: BaseBackups) -> None:
        elsewhere = WalArchive(backups.bucket, "elsewhere/", segment_bytes=SEGMENT_BYTES)
        with pytest.raises(WaitTimedOut, match="there was no 0000000100000000"):
            take(primary, backups, archive=elsewhere, seconds=6.0)
        must_have_left_nothing(backups)

    def test_is_claimed_to_be_archived(self, primary: Primary, backups: BaseBackups) -> None:
        with self.archiving_with(primary, "true"), pytest.raises(WaitTimedOut, match="there was no 0000000100000000"):
            take(primary, backups, seconds=6.0)
        must_have_left_nothing(backups)

    def test_is_anothers(self, primary: Primary, backups: BaseBackups) -> None:
        """The profile's identity, or another cluster that archives to the same place."""
        others = WalArchive(backups.bucket, "archived/", system_identifier="1", segment_bytes=SEGMENT_BYTES)
        with pytest.raises(TargetRefused, match="two clusters archive to one place"):
            take(primary, backups, archive=others)
        must_have_left_nothing(backups)


class TestTheTar:
    def changed(
        self, tar: bytes, *, without: str = "", manifest: tuple[bytes, bytes] = (b"", b""), resigned: bool = False
    ) -> bytes:
        """Write the tar again, with one file left out or its manifest changed."""
        made = io.BytesIO()
        with tarfile.open(fileobj=io.BytesIO(tar)) as old, tarfile.open(fileobj=made, mode="w") as new:
            for member in old:
                content = old.extractfile(member)
                if content is None:
                    new.addfile(member)
                elif member.name != without:
                    read = content.read()
                    if member.name == base_tar.MANIFEST:
                        read = read.replace(*manifest)
                        if resigned:
                            head, last = read.rsplit(b'"Manifest-Checksum"', 1)
                            read = (
                                head + b'"Manifest-Checksum": "' + hashlib.sha256(head).hexdigest().encode() + b'"}\n'
                            )
                            assert last
                        member.size = len(read)
                    new.addfile(member, io.BytesIO(read))
        return made.getvalue()

    def test_is_read(self, tar: bytes, taken: BaseBackup) -> None:
        for untouched in (tar, self.changed(tar), self.changed(tar, resigned=True)):
            told = base_tar.read(io.BytesIO(untouched), "here")
            assert (told.start_lsn, told.stop_lsn, told.data_bytes) == (
                taken.start_lsn,
                taken.stop_lsn,
                taken.data_bytes,
            )

    @pytest.mark.parametrize(
        ("told", "says"),
        [
            ({"without": "backup_label"}, "it has no backup_label"),
            ({"without": "backup_manifest"}, "it has no whole backup_manifest"),
            ({"without": "global/pg_control"}, "it has no global/pg_control"),
            ({"without": "base/1/PG_VERSION"}, "files of"),
            ({"manifest": (b"PG_VERSION", b"PG_VERSIOM")}, "its own checksum is"),
            ({"manifest": (b'"Size": 3', b'"Size": 4'), "resigned": True}, "speaks of"),
            ({"manifest": (b'"System-Identifier": ', b'"System-Identifier": 1'), "resigned": True}, "of the cluster 1"),
            ({"manifest": (b"End-LSN", b"End-NSL"), "resigned": True}, "names no WAL"),
        ],
    )
    def test_is_not_whole(self, told: dict[str, str], says: str, tar: bytes) -> None:
        with pytest.raises(DamagedArtefact, match=says):
            base_tar.read(io.BytesIO(self.changed(tar, **told)), "here")  # type: ignore[arg-type]

    def test_is_cut_short(self, tar: bytes) -> None:
        """At any place before the end of its manifest: after that there are zeros alone."""
        end = len(tar.rstrip(b"\0"))
        for cut in [end * part // 12 // 512 * 512 for part in range(1, 12)] + [end - 1, end - 100]:
            with pytest.raises(DamagedArtefact):
                base_tar.read(io.BytesIO(tar[:cut]), "here")


def test_what_is_others_stays_when_it_is_taken_back(store: Store, backups: BaseBackups) -> None:
    adding = AddBaseBackup(f"{backups.prefix}20260203_020000", "ours")
    bucket = backups.bucket
    bucket.write_once(f"{adding.key}.tar", b"cut short", metadata=adding.metadata)
    bucket.client.create_multipart_upload(Bucket=bucket.name, Key=f"{adding.key}.tar")
    others = {f"{adding.key}.json": "another run", f"{adding.key}.tar.old": "ours", f"{adding.key}0.tar": "ours"}
    for key, owner in others.items():
        bucket.write_once(key, b"x", metadata={WRITER: owner})
    said = adding.undo(Systems(bucket=bucket), {})
    assert said == f"1 objects of {adding.key} and 1 unfinished uploads are removed"
    assert {each.key for each in bucket.versions(backups.prefix)} == set(others)
    assert bucket.unfinished_uploads(backups.prefix) == []
