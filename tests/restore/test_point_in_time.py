"""A moment is recovered to the very transaction, or it is said why not: before anything is restored, where that can be.

Whatever goes wrong on the way, no recovery ends in a server that takes writes with something missing.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import signal
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from runbook_lib.errors import (
    DamagedArtefact,
    NoRoom,
    NotRecoverable,
    ProfileInvalid,
    TargetRefused,
    ToolFailed,
    Unreachable,
    WaitTimedOut,
)
from runbook_lib.outcome import Check, Outcome
from runbook_lib.phases import Progress, Stopwatch
from runbook_lib.reach import binaries, postgres
from runbook_lib.reach.workspace import Workspace
from runbook_lib.restore import base_copy
from runbook_lib.restore.point_in_time import Recovery
from runbook_lib.restore.recovered_audit import ends_at_the_moment
from runbook_lib.restore.recovery_plan import RecoveryPlan
from runbook_lib.restore.recovery_target import RecoveryTarget, TargetKind, time_text
from runbook_lib.wal.base_backup import BaseBackup, BaseBackups
from runbook_lib.wal.segment import Fork, lsn_text
from runbook_lib.wal.timeline_path import TimelinePath
from tests.restore import recovering
from tests.restore.recovering import STEPS, World, last_step, plan, recovered, through_proxy
from tests.small_disk import small_disk
from tests.wal import place
from tests.wal.place import MAJOR, SEGMENT_BYTES
from tests.wal.s3_proxy import Fault, Kind
from tests.wal.test_faults import bytes_of, foreign, instead

SWEEP = os.environ.get("RUNBOOK_SWEEP") == "1"
"""Whether S3 fails at every single request, and every kind of target is recovered to; else at a few, and to some."""


@pytest.fixture(scope="module")
def started() -> Iterator[World]:
    with place.store() as store, recovering.world(store) as made:
        yield made


@pytest.fixture
def world(started: World) -> Iterator[World]:
    started.primary.store.proxy.reset()
    yield started
    started.primary.store.proxy.reset()


@pytest.fixture
def workspace() -> Iterator[Workspace]:
    """A place of its own, and the proof that nothing of it is left, whatever happened in it."""
    with Workspace.open() as opened:
        path = opened.path
        yield opened
    assert not path.exists()
    assert recovering.processes_in(path) == []


class TestTarget:
    @pytest.mark.parametrize(
        ("text", "settings"),
        [
            (
                "2026-11-24 12:00:00+00",
                {"recovery_target_time": "2026-11-24 12:00:00.000000+00", "recovery_target_inclusive": "on"},
            ),
            (
                "just before 2026-11-24T14:00:00.25+02:00",
                {"recovery_target_time": "2026-11-24 12:00:00.250000+00", "recovery_target_inclusive": "off"},
            ),
            (
                "2026-11-24 12:00:00 UTC",
                {"recovery_target_time": "2026-11-24 12:00:00.000000+00", "recovery_target_inclusive": "on"},
            ),
            ("0/3000060", {"recovery_target_lsn": "0/3000060", "recovery_target_inclusive": "on"}),
            ("before 1f/abc", {"recovery_target_lsn": "1F/ABC", "recovery_target_inclusive": "off"}),
            ("xid 742", {"recovery_target_xid": "742", "recovery_target_inclusive": "on"}),
            ("just before transaction 742", {"recovery_target_xid": "742", "recovery_target_inclusive": "off"}),
            ("restore point before release", {"recovery_target_name": "before release"}),
        ],
    )
    def test_it_is_read(self, text: str, settings: dict[str, str]) -> None:
        target = RecoveryTarget.parse(text)
        assert target.settings == settings
        assert RecoveryTarget.parse(str(target)) == target

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("2026-11-24 12:00:00", "it has no offset"),
            ("2026-11-24", "it has no offset"),
            ("just before 2026-11-24T12:00:00", "it has no offset"),
            ("2026-11-24 12:00:00 CET", "neither a time nor"),
            ("2026-13-24 12:00:00+00", "neither a time nor"),
            ("yesterday", "neither a time nor"),
            ("742", "neither a time nor"),
            ("", "neither a time nor"),
            ("0/", "neither a time nor"),
            ("xid 2", "transactions have the ids"),
            ("xid 4294967296", "transactions have the ids"),
            ("just before restore point x", "never just before"),
            (f"restore point {'x' * 64}", "1 to 63 bytes"),
        ],
    )
    def test_it_is_none(self, text: str, why: str) -> None:
        with pytest.raises(ProfileInvalid, match=why):
            RecoveryTarget.parse(text)

    def test_it_stays_what_it_is(self) -> None:
        target = RecoveryTarget.parse("xid 742")
        with pytest.raises(AttributeError):
            target.value = 743  # type: ignore[misc]


def of_step(kind: TargetKind, world: World, number: int) -> str:
    """Return the text of a target at which a step is the last that is there."""
    step = world.step(number)
    return {
        TargetKind.XID: f"xid {step.xid}",
        TargetKind.TIME: time_text(step.after),
        TargetKind.LSN: f"just before {lsn_text(step.after_lsn)}",
        TargetKind.NAME: "restore point before release",
    }[kind]


def xid_of(planned: RecoveryPlan) -> tuple[int, int]:
    boundary = planned.boundary
    return (
        boundary.last_commit.xid if boundary.last_commit else 0,
        boundary.next_commit.xid if boundary.next_commit else 0,
    )


class TestPlan:
    @pytest.mark.parametrize("kind", TargetKind)
    def test_it_names_both_sides(self, kind: TargetKind, world: World, workspace: Workspace) -> None:
        number = recovering.NAMED_AT
        planned = plan(world, workspace, of_step(kind, world, number))
        assert xid_of(planned) == (world.step(number).xid, world.step(number + 1).xid)
        assert planned.backup == world.late
        assert planned.segments[0] == world.late.first_segment
        assert planned.next_timeline == 2

    def test_just_before(self, world: World, workspace: Workspace) -> None:
        step = world.step(6)
        planned = plan(world, workspace, f"just before xid {step.xid}")
        assert xid_of(planned) == (world.step(5).xid, step.xid)
        ended = planned.boundary.next_commit
        assert ended is not None
        assert ended.at is not None
        # The very microsecond: included, and just before it.
        assert xid_of(plan(world, workspace, time_text(ended.at)))[0] == step.xid
        assert xid_of(plan(world, workspace, f"just before {time_text(ended.at)}")) == (world.step(5).xid, step.xid)
        assert xid_of(plan(world, workspace, lsn_text(ended.lsn)))[0] == step.xid
        assert xid_of(plan(world, workspace, f"just before {lsn_text(ended.lsn)}"))[1] == step.xid

    def test_the_newest(self, world: World, workspace: Workspace) -> None:
        planned = plan(world, workspace, None)
        assert planned.boundary.last_commit is not None
        assert planned.boundary.last_commit.xid == world.step(STEPS).xid
        assert planned.boundary.next_commit is None

    def test_an_earlier_moment_takes_the_earlier_base_backup(self, world: World, workspace: Workspace) -> None:
        for kind in (TargetKind.XID, TargetKind.TIME, TargetKind.LSN):
            planned = plan(world, workspace, of_step(kind, world, 2))
            assert planned.backup == world.early
            assert xid_of(planned) == (world.step(2).xid, world.step(3).xid)

    def test_what_it_costs(self, world: World, workspace: Workspace) -> None:
        planned = plan(world, workspace, f"xid {world.step(6).xid}")
        assert planned.wal_bytes == len(planned.segments) * SEGMENT_BYTES
        assert planned.fetch_bytes == world.late.tar_bytes + planned.wal_bytes
        assert planned.work.parts == {"base_backup": world.late.tar_bytes, "wal": planned.wal_bytes}
        assert planned.disk_bytes == planned.fetch_bytes + world.late.data_bytes
        assert all(world.archive.bucket.objects(world.archive.key(each.name)) for each in planned.segments), (
            "what it names is there"
        )


def too_early(world: World) -> str:
    return time_text(world.early.started_at - timedelta(seconds=1))


def inside(world: World) -> str:
    return time_text(world.early.started_at + (world.early.stopped_at - world.early.started_at) / 2)


UNREACHABLE: list[tuple[str, Callable[[World], str], str]] = [
    ("before the oldest", too_early, "it lies before the oldest base backup"),
    ("inside the oldest", inside, "it lies inside the oldest base backup"),
    ("at its very stop", lambda w: time_text(w.early.stopped_at), "it lies inside the oldest base backup"),
    ("position before the oldest", lambda w: lsn_text(w.early.start_lsn - 8), "it lies before the oldest base backup"),
    ("position inside the oldest", lambda w: lsn_text(w.early.start_lsn), "it lies inside the oldest base backup"),
    ("position at its stop", lambda w: lsn_text(w.early.stop_lsn), "it lies inside the oldest base backup"),
    ("later than all", lambda w: time_text(w.too_late), "no record is archived at which"),
    ("a position not archived yet", lambda w: "0/F000000", "no record is archived at which"),
    ("a position of another world", lambda w: "FFFF/0", "no record is archived at which"),
    ("unknown restore point", lambda w: "restore point before_release", "there is no such restore point"),
    ("a restore point twice", lambda w: "restore point thrice", "2 restore points of that name"),
    ("unknown transaction", lambda w: "xid 999999", "there is no such transaction"),
    ("a transaction before all", lambda w: "xid 3", "there is no such transaction"),
]


class TestUnreachable:
    @pytest.mark.parametrize(("target", "why"), [case[1:] for case in UNREACHABLE], ids=[c[0] for c in UNREACHABLE])
    def test_it_is_refused_beforehand(
        self, target: Callable[[World], str], why: str, world: World, workspace: Workspace
    ) -> None:
        with pytest.raises(NotRecoverable, match=why) as refused:
            plan(world, workspace, target(world))
        if "of that name" not in why:  # the moments that can be: from the end of the oldest base backup on
            assert lsn_text(world.early.stop_lsn) in refused.value.remedy
            assert "the last transaction that is archived" in refused.value.remedy

    def test_what_it_offers_instead_is_recoverable(self, world: World, workspace: Workspace) -> None:
        with pytest.raises(NotRecoverable) as refused:
            plan(world, workspace, time_text(world.too_late))
        offered = refused.value.remedy.partition("write ")[2].partition(",")[0]
        assert xid_of(plan(world, workspace, offered))[0] == world.step(STEPS).xid
        before = "just before" + refused.value.remedy.partition("or just before")[2].partition(")")[0]
        assert xid_of(plan(world, workspace, before))[0] == world.step(STEPS).xid

    def test_the_future(self, world: World, workspace: Workspace) -> None:
        with pytest.raises(NotRecoverable, match="it is in the future"):
            plan(world, workspace, time_text(world.too_late), now=world.too_late - timedelta(seconds=1))

    def test_an_unknown_timeline(self, world: World, workspace: Workspace) -> None:
        with pytest.raises(NotRecoverable, match="the archive has nothing but timeline 1"):
            plan(world, workspace, f"xid {world.step(6).xid}", timeline=3)

    def test_no_base_backup(self, world: World, workspace: Workspace) -> None:
        with pytest.raises(NotRecoverable, match="no base backup of this cluster among 0"):
            plan(world, workspace, None, bases=BaseBackups(world.archive.bucket, "nothing/"))

    def test_postgresql_says_so_at_the_end_alone(self, world: World, workspace: Workspace) -> None:
        """What a plan is for: the same target, given to PostgreSQL; and that the error is told, not a server."""
        planned = plan(world, workspace, f"xid {world.step(6).xid}")
        beyond = replace(planned, target=RecoveryTarget.parse(time_text(world.too_late)))
        with (
            pytest.raises(ToolFailed, match="recovery ended before configured recovery target was reached"),
            recovered(world, workspace, beyond),
        ):
            pytest.fail("it came up")


class TestTimelines:
    @pytest.fixture
    def forked(self, world: World) -> Callable[[int], AbstractContextManager[None]]:
        """Have timeline 2 leave timeline 1 just behind a step, with a segment of its own."""

        @contextmanager
        def fork(number: int) -> Iterator[None]:
            at = world.step(number).after_lsn
            segment = TimelinePath(2, (Fork(1, at, ""),), SEGMENT_BYTES).segment(at // SEGMENT_BYTES)
            content = bytes_of(world.primary, world.segment(number))
            history = f"1\t{lsn_text(at)}\tno recovery target specified\n".encode()
            with (
                instead(world.primary, "00000002.history", history),
                instead(world.primary, segment.name, content),
            ):
                yield

        return fork

    def test_a_backup_of_an_ancestor_serves(
        self, forked: Callable[[int], AbstractContextManager[None]], world: World, workspace: Workspace
    ) -> None:
        with forked(8):
            planned = plan(world, workspace, f"xid {world.step(6).xid}")
            assert (planned.timeline, planned.backup, planned.next_timeline) == (2, world.late, 3)
            # What was written on timeline 1 after the fork is not on the way to 2; and it still is on 1.
            with pytest.raises(NotRecoverable, match="there is no such transaction"):
                plan(world, workspace, f"xid {world.step(10).xid}")
            old = plan(world, workspace, f"xid {world.step(10).xid}", timeline=1)
            assert (old.timeline, old.next_timeline) == (1, 3)

    def test_a_backup_after_the_fork_does_not(
        self, forked: Callable[[int], AbstractContextManager[None]], world: World, workspace: Workspace
    ) -> None:
        with forked(3):
            planned = plan(world, workspace, f"xid {world.step(2).xid}")
            assert planned.backup == world.early
            with pytest.raises(NotRecoverable, match="there is no such transaction"):
                plan(world, workspace, f"xid {world.step(6).xid}")
            late_alone = BaseBackups(world.archive.bucket, "late/")
            world.archive.bucket.copy(world.late.key, "late/x.tar")
            stored = world.archive.bucket.head("late/x.tar")[0]
            record = replace(world.late, key="late/x.tar", version_id="", tar_bytes=stored.bytes)
            world.archive.bucket.write_once("late/x.json", record.to_bytes())
            with pytest.raises(NotRecoverable, match="was left for 2 at"):
                plan(world, workspace, f"xid {world.step(2).xid}", bases=late_alone)

    def test_a_timeline_without_its_history(self, world: World, workspace: Workspace) -> None:
        name = "00000002" + world.segment(8)[8:]
        with (
            instead(world.primary, name, bytes_of(world.primary, world.segment(8))),
            pytest.raises(NotRecoverable, match=r"no 00000002\.history"),
        ):
            plan(world, workspace, f"xid {world.step(6).xid}")

    def test_segments_along_a_path(self) -> None:
        path = TimelinePath(4, (Fork(1, 5 * 16 + 8, ""), Fork(3, 9 * 16, "")), 16)
        assert [path.segment(number).timeline for number in (0, 4, 5, 8, 9, 20)] == [1, 1, 3, 3, 4, 4]
        assert str(path) == "1 -> 3 -> 4"


class TestHoles:
    MIDDLE = 7

    def planned(self, world: World, workspace: Workspace, number: int = 10) -> RecoveryPlan:
        return plan(world, workspace, f"xid {world.step(number).xid}")

    def test_missing(self, world: World, workspace: Workspace) -> None:
        name = world.segment(self.MIDDLE)
        with instead(world.primary, name, None):
            for target in (f"xid {world.step(10).xid}", time_text(world.step(10).after), "restore point nowhere", None):
                with pytest.raises(DamagedArtefact, match="the archive has a hole") as found:
                    plan(world, workspace, target)
                assert name in found.value.where
                assert lsn_text(world.early.stop_lsn) in found.value.remedy
            assert xid_of(self.planned(world, workspace, 5))[0] == world.step(5).xid  # before it all is well

    @pytest.mark.parametrize("content", [b"", b"short"])
    def test_empty_or_short(self, content: bytes, world: World, workspace: Workspace) -> None:
        with (
            instead(world.primary, world.segment(self.MIDDLE), content),
            pytest.raises(DamagedArtefact, match=f"it has {len(content)} bytes, and a segment has"),
        ):
            self.planned(world, workspace)

    @pytest.mark.parametrize("kind", ["missing", "foreign", "flipped"] if SWEEP else ["missing", "foreign"])
    def test_it_became_so_after_the_plan(self, kind: str, world: World, workspace: Workspace) -> None:
        planned = self.planned(world, workspace)
        name = world.segment(self.MIDDLE)
        content = bytes_of(world.primary, name)
        told: dict[str, str] = {}
        says, bad = "which comes after it", None
        if kind == "foreign":
            says, bad = "it is of the cluster", foreign(content)
        if kind == "flipped":
            says, bad = "its sha256 is", content[:500_000] + bytes([content[500_000] ^ 1]) + content[500_001:]
            told = {"sha256": hashlib.sha256(content).hexdigest()}
        with (
            instead(world.primary, name, bad, **told),
            pytest.raises(DamagedArtefact, match=says),
            recovered(world, workspace, planned),
        ):
            pytest.fail("it came up")


def must_be_found_out_where_it_archives(recovery: Recovery) -> None:
    """Have it archive after all, as somebody's ALTER SYSTEM does."""
    with postgres.session(recovery.server.dsn(), read_only=False) as session:
        session.execute("ALTER SYSTEM SET archive_command = 'true'")
        session.execute("ALTER SYSTEM SET archive_mode = 'on'")
    recovery.server.stop()
    recovery.server._launch()
    assert [each.subject for each in recovery.is_apart().findings] == ["archive_command", "archive_mode"]
    assert [each.check for each in recovery.is_promoted().findings] == ["recovery.promoted"] * 2


class _TakenBack(Exception):
    """What was planted in the living database is rolled back."""


class TestRecovered:
    def test_to_a_transaction_and_promoted(self, world: World, workspace: Workspace) -> None:
        planned = plan(world, workspace, f"xid {world.step(6).xid}")
        with recovered(world, workspace, planned) as recovery:
            assert last_step(recovery) == 6
            for check in (recovery.is_paused(), recovery.stopped_where_planned(), recovery.is_apart()):
                assert check.outcome is Outcome.PROVEN, check.explain()
            with recovery.session() as session, pytest.raises(postgres.DriverError, match="read-only"):
                session.execute("INSERT INTO public.steps VALUES (99)")
            # The twins: held against a plan that is one transaction off, either way, it is found.
            for number in (5, 7):
                other = plan(world, workspace, f"xid {world.step(number).xid}")
                off = recovery.stopped_where_planned(other)
                assert off.outcome is Outcome.FAILED
                assert {each.check for each in off.findings} == {
                    "boundary.position",
                    "boundary.time",
                    "boundary.transaction",
                }
                with pytest.raises(TargetRefused, match=r"boundary\.position"):
                    replace(recovery, plan=other).promote()
            assert recovery.is_paused().outcome is Outcome.PROVEN
            assert recovery.is_promoted().outcome is Outcome.FAILED
            recovery.promote()
            assert recovery.is_promoted().outcome is Outcome.PROVEN
            assert recovery.is_paused().outcome is Outcome.FAILED
            assert recovery.is_apart().outcome is Outcome.PROVEN
            with postgres.session(recovery.server.dsn(), read_only=False) as session:
                session.execute("INSERT INTO public.steps VALUES (7)")
                session.execute("SELECT pg_switch_wal()")
                session.execute("CHECKPOINT")
            assert last_step(recovery) == 7
            assert recovery.database("postgres").server_version.startswith(str(MAJOR))
            assert world.archive.timelines() == [1], "it archived nothing"
            must_be_found_out_where_it_archives(recovery)

    def test_the_audit_log_ends_at_the_moment(self, world: World, workspace: Workspace) -> None:
        planned = plan(world, workspace, f"just before xid {world.step(7).xid}")
        living_dsn = world.primary.server.dsn()
        with (
            recovered(world, workspace, planned) as recovery,
            postgres.session(living_dsn, read_only=False) as living,
        ):

            def check(database: str = "postgres", *, exists: bool = True) -> Check:
                return ends_at_the_moment(recovery, recovery.database(database), living, exists=exists)

            assert check().outcome is Outcome.PROVEN, check().explain()
            assert "sequence 6" in check().looked_at
            # One that was cut is a chain, too, and leads on in the living one.
            assert [each.says.rpartition(", and ")[2] for each in check(recovering.CUT).findings] == [
                "sequence 4 was written before the moment"
            ]
            with contextlib.suppress(_TakenBack), living.transaction():
                living.execute(
                    "UPDATE public.audit_logs SET record_hash = %s WHERE sequence = 6", recovering.hash_of(0)
                )
                assert check().outcome is Outcome.FAILED
                raise _TakenBack
            assert check().outcome is Outcome.PROVEN
            assert check(exists=False).outcome is Outcome.UNPROVEN
            recovery.promote()
            assert check().outcome is Outcome.UNPROVEN  # it has transactions of its own

    @pytest.mark.parametrize(
        ("kind", "number"),
        [(TargetKind.TIME, 2), *([(TargetKind.LSN, 9), (TargetKind.NAME, recovering.NAMED_AT)] if SWEEP else [])],
    )
    def test_to_every_kind(self, kind: TargetKind, number: int, world: World, workspace: Workspace) -> None:
        with recovered(world, workspace, plan(world, workspace, of_step(kind, world, number))) as recovery:
            assert last_step(recovery) == number
            assert recovery.stopped_where_planned().outcome is Outcome.PROVEN

    def test_along_a_timeline_that_a_promotion_began(self, world: World, workspace: Workspace) -> None:
        """A real one: what a promoted instance wrote is archived, and recovered from the old base backup."""
        archived: list[str] = []
        with recovered(world, workspace, plan(world, workspace, f"xid {world.step(6).xid}")) as recovery:
            recovery.promote()
            with postgres.session(recovery.server.dsn(), read_only=False) as session:
                session.execute("INSERT INTO public.steps VALUES (7)")
                xid = session.value("SELECT xmin::text::bigint FROM public.steps WHERE number = 7")
                last = session.value("SELECT pg_walfile_name(pg_switch_wal())")
            pg_wal = recovery.server.data_directory / "pg_wal"
            for each in sorted(pg_wal.glob("00000002*")):
                if each.suffix == ".history" or each.name <= last:
                    archived.append(world.archive.put(each, each.name).object.key)
        try:
            with Workspace.open() as other:
                planned = plan(world, other, f"xid {xid}")
                assert (planned.timeline, planned.next_timeline, planned.backup) == (2, 3, world.late)
                with recovered(world, other, planned) as again:
                    assert last_step(again) == 7
                    with again.session() as session:
                        assert session.value("SELECT xmin::text::bigint FROM public.steps WHERE number = 7") == xid
                    again.promote()
                    assert again.is_promoted().outcome is Outcome.PROVEN
            with Workspace.open() as other:  # and the old one goes on being what it was
                planned = plan(world, other, f"xid {world.step(8).xid}", timeline=1)
                with recovered(world, other, planned) as again:
                    assert last_step(again) == 8
        finally:
            for key in archived:
                world.archive.bucket.remove(key)

    def test_to_the_newest(self, world: World, workspace: Workspace) -> None:
        with recovered(world, workspace, plan(world, workspace, None)) as recovery:
            assert last_step(recovery) == STEPS
            assert recovery.is_paused().outcome is Outcome.PROVEN

    @pytest.mark.parametrize("by_one", [-1, 1] if SWEEP else [1])
    def test_one_transaction_too_few_or_too_many_is_found(
        self, by_one: int, world: World, workspace: Workspace
    ) -> None:
        """The server is told another target than the plan: it comes up, pauses, and is refused."""
        planned = plan(world, workspace, f"xid {world.step(7).xid}")
        off = replace(planned, target=RecoveryTarget.parse(f"xid {world.step(7 + by_one).xid}"))
        with (
            pytest.raises(ToolFailed, match=r"boundary\.position") as found,
            recovered(world, workspace, off),
        ):
            pytest.fail("it was believed")
        assert "boundary.transaction xid" in found.value.why


class TestBaseCopy:
    def copy(self, world: World, workspace: Workspace, backup: BaseBackup) -> base_copy.BaseCopy:
        folder = workspace.folder("copy")
        return base_copy.unpack(
            backup,
            world.archive.bucket,
            folder / "data",
            workspace=workspace,
            tools=binaries.find(MAJOR),
            stopwatch=Stopwatch(),
        )

    @pytest.fixture
    def tar(self, world: World) -> bytes:
        return world.archive.bucket.read(world.late.key, world.late.version_id)

    def laid(self, world: World, content: bytes, key: str) -> BaseBackup:
        """Lay a tar with a record that fits it."""
        bucket = world.archive.bucket
        bucket.client.put_object(Bucket=bucket.name, Key=key, Body=content)
        digest = hashlib.sha256(content).hexdigest()
        return replace(world.late, key=key, version_id="", tar_bytes=len(content), sha256=digest)

    def test_it_is_whole(self, world: World, workspace: Workspace) -> None:
        copied = self.copy(world, workspace, world.late)
        assert copied.needed["max_connections"] == "100"
        assert (copied.data / "PG_VERSION").read_text().strip() == str(MAJOR)

    def test_a_byte_was_changed_in_the_bucket(self, tar: bytes, world: World, workspace: Workspace) -> None:
        changed = tar[:9_000_000] + bytes([tar[9_000_000] ^ 4]) + tar[9_000_001:]
        backup = replace(self.laid(world, changed, "bad/flipped.tar"), sha256=world.late.sha256)
        with pytest.raises(DamagedArtefact, match="its sha256 is"):
            self.copy(world, workspace, backup)
        assert list(workspace.folder("copy").iterdir()) == []

    def test_a_byte_was_changed_before_it_was_recorded(self, tar: bytes, world: World, workspace: Workspace) -> None:
        with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
            at = archive.getmember("global/pg_filenode.map").offset_data + 20
        changed = tar[:at] + bytes([tar[at] ^ 4]) + tar[at + 1 :]
        with pytest.raises(DamagedArtefact, match=r"checksum mismatch for file.*pg_filenode"):
            self.copy(world, workspace, self.laid(world, changed, "bad/wrong.tar"))

    def test_it_is_no_tar(self, world: World, workspace: Workspace) -> None:
        with pytest.raises(DamagedArtefact, match="the tar of a base backup"):
            self.copy(world, workspace, self.laid(world, b"nothing of the kind" * 1000, "bad/none.tar"))

    @pytest.mark.parametrize("name", ["../outside", "/tmp/../tmp/../../outside"])
    def test_a_file_that_wants_out(self, name: str, world: World, workspace: Workspace) -> None:
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w") as archive:
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
        with pytest.raises((TargetRefused, DamagedArtefact)):
            self.copy(world, workspace, self.laid(world, made.getvalue(), "bad/out.tar"))
        assert not (workspace.path / "copy" / "outside").exists()

    def test_a_link_that_wants_out(self, world: World, workspace: Workspace) -> None:
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w") as archive:
            link = tarfile.TarInfo("pg_wal")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc"
            archive.addfile(link)
        with pytest.raises(TargetRefused, match="pg_wal"):
            self.copy(world, workspace, self.laid(world, made.getvalue(), "bad/link.tar"))

    def test_without_a_manifest(self, world: World, workspace: Workspace) -> None:
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w") as archive:
            archive.addfile(tarfile.TarInfo("PG_VERSION"), io.BytesIO())
        with pytest.raises(DamagedArtefact, match="there is no backup_manifest"):
            self.copy(world, workspace, self.laid(world, made.getvalue(), "bad/bare.tar"))

    def test_of_another_cluster(self, world: World, workspace: Workspace) -> None:
        with pytest.raises(DamagedArtefact, match="its record says 1"):
            self.copy(world, workspace, replace(world.late, system_identifier="1"))


class TestMishaps:
    def test_s3_fails_while_it_is_planned(self, world: World, workspace: Workspace) -> None:
        """At a single request: it is said; and tried again, the plan is the same one."""
        target = f"xid {world.step(6).xid}"
        expected = plan(world, workspace, target)
        archive, bases = through_proxy(world)
        proxy = world.primary.store.proxy
        plan(world, workspace, target, archive=archive, bases=bases)
        requests = len(proxy.requests)
        assert requests > 10
        for nth in range(1, requests + 1, 1 if SWEEP else 4):
            proxy.faults = [Fault(Kind.STATUS, nth=nth, times=1)]
            with pytest.raises(Unreachable):
                plan(world, workspace, target, archive=archive, bases=bases)
        proxy.faults = []
        assert plan(world, workspace, target, archive=archive, bases=bases) == expected

    @pytest.mark.parametrize("nth", range(1, 24) if SWEEP else (1, 12))
    def test_s3_fails_from_a_request_on(self, nth: int, world: World, workspace: Workspace) -> None:
        planned = plan(world, workspace, f"xid {world.step(10).xid}")
        archive, _ = through_proxy(world)
        world.primary.store.proxy.requests.clear()
        world.primary.store.proxy.faults = [Fault(Kind.STATUS, nth=nth)]
        with contextlib.ExitStack() as stack:
            try:
                recovery = stack.enter_context(recovered(world, workspace, planned, archive=archive))
            except Unreachable as failed:
                said = str(failed)
            else:  # all was there before it failed
                said = "500 InternalError"
                assert nth > len(planned.segments)
                assert last_step(recovery) == 10
                assert recovery.stopped_where_planned().outcome is Outcome.PROVEN
            assert "500 InternalError" in said

    @pytest.mark.parametrize("whole_group", [True, False] if SWEEP else [False])
    def test_it_is_killed_while_it_replays(self, *, whole_group: bool, world: World, workspace: Workspace) -> None:
        planned = plan(world, workspace, f"xid {world.step(11).xid}")
        world.primary.store.proxy.latency_seconds = 0.4
        pid_file = workspace.path / "recovered" / "data" / "postmaster.pid"
        ended = threading.Event()

        def kill() -> None:
            while not ended.wait(0.01):
                log = pid_file.parents[1] / "log"
                if log.exists() and "restored log file" in log.read_text():
                    pid = int(pid_file.read_text().split()[0])
                    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
                    startup = [each for each in children if b"startup" in Path(f"/proc/{each}/cmdline").read_bytes()]
                    os.kill(pid if whole_group else int(startup[0]), signal.SIGKILL)
                    return

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            with (
                pytest.raises(ToolFailed, match="signal 9") as found,
                recovered(world, workspace, planned),
            ):
                pytest.fail("it came up")
        finally:
            ended.set()
            killer.join()
        assert "the end of its log" in found.value.why

    def test_nothing_moves(self, world: World, workspace: Workspace) -> None:
        planned = plan(world, workspace, f"xid {world.step(11).xid}")
        world.primary.store.proxy.latency_seconds = 2.5
        with (
            pytest.raises(WaitTimedOut, match="nothing moved for"),
            recovered(world, workspace, planned, stalled_seconds=0.4),
        ):
            pytest.fail("it came up")


@pytest.fixture
def disk(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A disk of as many MiB as the parameter says."""
    with small_disk(f"{request.param}m") as mounted:
        yield mounted


@pytest.mark.parametrize("disk", [20], indirect=True)
def test_there_is_no_room(disk: Path, world: World, workspace: Workspace) -> None:
    planned = plan(world, workspace, f"xid {world.step(11).xid}")
    with (
        Workspace.open(parent=disk) as small,
        pytest.raises(NoRoom, match="bytes are needed"),
        recovered(world, small, planned),
    ):
        pytest.fail("it came up")
    assert list(disk.iterdir()) == []


@pytest.mark.parametrize("disk", [90], indirect=True)
@pytest.mark.parametrize("phase", ["fetch base backup", "replay"])
def test_the_disk_becomes_full(disk: Path, phase: str, world: World, workspace: Workspace) -> None:
    """Somebody else fills it: while there are files to be unpacked, and while there is WAL to be replayed."""
    planned = plan(world, workspace, f"xid {world.step(11).xid}")
    world.primary.store.proxy.latency_seconds = 0.2

    def fill(progress: Progress) -> None:
        filler = disk / "filler"
        if progress.phase == phase and (progress.done == progress.total or phase == "replay") and not filler.exists():
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as into:
                while into.write(bytes(1 << 16)):
                    pass

    with (
        Workspace.open(parent=disk) as small,
        pytest.raises(NoRoom, match="room for"),
        recovered(world, small, planned, watch=fill),
    ):
        pytest.fail("it came up")
    assert [each.name for each in disk.iterdir()] == ["filler"]
