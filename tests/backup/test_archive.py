"""Which dumps are backups, which is the newest, and when one is due."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import pytest

from runbook_lib.backup import dump, retention
from runbook_lib.backup.catalog import Archive, Backup, Schedule
from runbook_lib.errors import DamagedArtefact, Denied, NotFound, Unproven
from runbook_lib.outcome import Outcome
from runbook_lib.reach import postgres
from runbook_lib.reach.objects import Bucket
from runbook_lib.safety.mark import MARK
from runbook_lib.safety.permit import Permit
from tests.backup.real import Databases

PERMIT = Permit("a test's own archive", granted=True, reason="the test made it")
NOW = datetime(2026, 2, 3, 9, 0, tzinfo=UTC)
NIGHTLY = Schedule(time(2, 0), timedelta(hours=1))
_prefixes = itertools.count(1)


@pytest.fixture(scope="module")
def taken(databases: Databases, bucket: Bucket) -> Backup:
    """A backup to copy."""
    dsn = databases.make("CREATE TABLE public.t AS SELECT generate_series(1, 100) AS n")
    return dump.take(dsn, Archive(bucket, "source/"), permit=PERMIT, kind="daily").backup


@pytest.fixture
def archive(bucket: Bucket) -> Archive:
    return Archive(bucket, f"archive{next(_prefixes)}/")


@pytest.fixture
def lay(archive: Archive, taken: Backup) -> Callable[[datetime], Backup]:
    """Lays a copy of a backup into the archive, as if it had been taken at a moment."""

    def laid(moment: datetime, *, kind: str = "daily") -> Backup:
        assert taken.manifest is not None
        key = archive.key(kind, moment)
        stored = archive.bucket.copy(taken.dump.key, f"{key}.dump")
        artefact = replace(taken.manifest.dump, key=stored.key, version_id=stored.version_id)
        manifest = replace(taken.manifest, taken_at=moment, dump=artefact)
        archive.bucket.write_once(f"{key}.manifest", manifest.to_bytes(), metadata=MARK)
        return Backup(stored, manifest)

    return laid


class TestSchedule:
    @pytest.mark.parametrize(
        ("now", "due"),
        [
            ("2026-02-03 02:59:59", "2026-02-02 02:00"),  # it may still be under way
            ("2026-02-03 03:00:00", "2026-02-03 02:00"),
            ("2026-02-03 01:00:00", "2026-02-02 02:00"),
            ("2026-02-03 02:00:00", "2026-02-02 02:00"),
            ("2026-02-03 23:59:59", "2026-02-03 02:00"),
            ("2026-03-01 02:30:00", "2026-02-28 02:00"),
            ("2028-03-01 02:30:00", "2028-02-29 02:00"),
            ("2027-01-01 00:30:00", "2026-12-31 02:00"),
            ("2027-01-01 03:00:00", "2027-01-01 02:00"),
        ],
    )
    def test_the_last_one_due(self, now: str, due: str) -> None:
        moment = datetime.fromisoformat(f"{now}+00:00")
        assert NIGHTLY.last_due(moment) == datetime.fromisoformat(f"{due}+00:00")

    def test_late_in_the_evening_with_time_until_after_midnight(self) -> None:
        late = Schedule(time(23, 30), timedelta(hours=1))
        assert late.last_due(datetime(2026, 2, 3, 0, 29, tzinfo=UTC)) == datetime(2026, 2, 1, 23, 30, tzinfo=UTC)
        assert late.last_due(datetime(2026, 2, 3, 0, 30, tzinfo=UTC)) == datetime(2026, 2, 2, 23, 30, tzinfo=UTC)


class TestNewest:
    def test_of_several(self, archive: Archive, lay: Callable[[datetime], Backup]) -> None:
        for days in (3, 1, 2):
            lay(NOW - timedelta(days=days))
        assert archive.newest().taken_at == NOW - timedelta(days=1)
        assert [each.taken_at.day for each in archive.listing().backups] == [2, 1, 31]

    def test_last_nights(self, archive: Archive, lay: Callable[[datetime], Backup]) -> None:
        lay(datetime(2026, 2, 3, 2, 0, 5, tzinfo=UTC))
        assert archive.last_night(NIGHTLY, NOW).taken_at.day == 3

    def test_too_old_says_how_old(self, archive: Archive, lay: Callable[[datetime], Backup]) -> None:
        old = lay(datetime(2026, 2, 2, 2, 0, 5, tzinfo=UTC))
        with pytest.raises(NotFound) as raised:
            archive.last_night(NIGHTLY, NOW)
        assert raised.value.sought == "a daily backup taken since 2026-02-03 02:00 UTC"
        assert raised.value.why == f"the newest is {old.dump.url} of 2026-02-02 02:00:05 UTC"

    def test_none(self, archive: Archive) -> None:
        with pytest.raises(NotFound, match="there is no backup at all"):
            archive.newest()

    def test_of_another_kind_does_not_count(self, archive: Archive, lay: Callable[..., Backup]) -> None:
        lay(NOW, kind="manual")
        with pytest.raises(NotFound):
            archive.newest(kind="daily")

    def test_one_that_was_cut_short_is_passed_over(self, archive: Archive, lay: Callable[[datetime], Backup]) -> None:
        lay(NOW - timedelta(days=1))
        key = f"{archive.key('daily', NOW)}.dump"
        archive.bucket.client.put_object(Bucket=archive.bucket.name, Key=key, Body=b"PGDMP", Metadata=MARK)
        assert archive.newest().taken_at == NOW - timedelta(days=1)
        listing = archive.listing()
        assert [each.key for each in listing.incomplete] == [key]
        assert [each.check for each in listing.findings] == ["backup.incomplete"]
        with pytest.raises(NotFound, match=f"passed over as incomplete: {key}"):
            archive.newest(since=NOW)

    def test_one_that_others_made_has_no_manifest(self, archive: Archive) -> None:
        archive.bucket.client.put_object(Bucket=archive.bucket.name, Key=f"{archive.prefix}daily/x.dump", Body=b"PGDMP")
        found = archive.newest()
        assert (found.manifest, found.sha256) == (None, None)
        assert found.taken_at == found.dump.modified

    def test_a_manifest_that_is_no_manifest(self, archive: Archive, lay: Callable[[datetime], Backup]) -> None:
        key = archive.key("daily", NOW)
        for suffix in (".dump", ".manifest"):
            archive.bucket.client.put_object(
                Bucket=archive.bucket.name, Key=key + suffix, Body=b"nonsense", Metadata=MARK
            )
        with pytest.raises(DamagedArtefact, match="a readable manifest"):
            archive.newest()


class TestTaking:
    def test_two_jobs_with_one_clock(self, archive: Archive, databases: Databases, taken: Backup) -> None:
        """The later one is refused, and the earlier one's backup stands."""
        dsn = databases.make("CREATE TABLE public.t (n int)")
        first = dump.take(dsn, archive, permit=PERMIT).backup
        occupied = _Frozen(archive.bucket, archive.prefix, first.taken_at)
        before = archive.bucket.versions(archive.prefix)
        with pytest.raises(Denied, match="the key is taken"):
            dump.take(dsn, occupied, permit=PERMIT)
        assert archive.bucket.versions(archive.prefix) == before
        assert archive.newest(kind="manual") == first

    def test_a_failure_leaves_nothing(self, archive: Archive, databases: Databases) -> None:
        dsn = databases.make("CREATE TABLE public.t (n int)")
        with pytest.raises(NotFound, match="the table nowhere"):
            dump.take(dsn, archive, permit=PERMIT, tables=["nowhere"])
        assert archive.bucket.versions(archive.prefix) == []

    def test_without_a_permit_says_what_to_type(self, archive: Archive) -> None:
        withheld = Permit("production", granted=False, reason="set granted = true under [changes] in the profile")
        with pytest.raises(Unproven, match="set granted = true under") as raised:
            dump.take("host=/nowhere", archive, permit=withheld)
        assert f"permission to add a backup to s3://{archive.bucket.name}/{archive.prefix}" in str(raised.value)


class _Frozen(Archive):
    """An archive for whom it is always the same moment."""

    def __init__(self, bucket: Bucket, prefix: str, moment: datetime) -> None:
        super().__init__(bucket, prefix)
        self._moment = moment

    def key(self, kind: str, taken_at: datetime) -> str:
        return super().key(kind, self._moment)


class TestRetention:
    @pytest.fixture
    def month(self, archive: Archive, lay: Callable[[datetime], Backup]) -> Archive:
        for days in range(5):
            lay(datetime(2026, 2, 3, 2, 0, 5, tzinfo=UTC) - timedelta(days=days))
        return archive

    def test_every_night_has_one(self, month: Archive) -> None:
        check = retention.every_night_has_one(month.listing(), NIGHTLY, NOW, days=5, where=month.where)
        assert check.outcome is Outcome.PROVEN, check.explain()

    def test_a_night_without_one(self, month: Archive) -> None:
        month.bucket.remove(f"{month.prefix}daily/20260201_020005.dump")
        check = retention.every_night_has_one(month.listing(), NIGHTLY, NOW, days=5, where=month.where)
        assert [(found.check, found.subject) for found in check.findings] == [("backup.night", "2026-02-01")]

    def test_a_month_that_is_too_short(self, month: Archive) -> None:
        check = retention.every_night_has_one(month.listing(), NIGHTLY, NOW, days=7, where=month.where)
        assert [found.subject for found in check.findings] == ["2026-01-29", "2026-01-28"]

    def test_nothing_was_overwritten(self, month: Archive) -> None:
        check = retention.nothing_was_overwritten(month, month.listing())
        assert check.outcome is Outcome.PROVEN, check.explain()

    def test_a_dump_that_was_written_over(self, month: Archive) -> None:
        key = f"{month.prefix}daily/20260201_020005.dump"
        month.bucket.client.put_object(Bucket=month.bucket.name, Key=key, Body=b"other")
        (found,) = retention.nothing_was_overwritten(month, month.listing()).findings
        assert "was written 2 times; the manifest's version is still there" in found.says

    def test_a_version_that_is_gone(self, month: Archive) -> None:
        backup = month.listing().backups[0]
        month.bucket.client.put_object(Bucket=month.bucket.name, Key=backup.dump.key, Body=b"other")
        month.bucket.remove(backup.dump.key, backup.dump.version_id)
        (found,) = retention.nothing_was_overwritten(month, month.listing()).findings
        assert found.says == "the version that the manifest speaks of is gone"

    def test_whole(self, month: Archive) -> None:
        check = retention.is_whole(month, month.newest())
        assert check.outcome is Outcome.PROVEN

    def test_of_another_size(self, month: Archive) -> None:
        backup = month.newest()
        assert backup.manifest is not None
        longer = replace(backup.manifest.dump, bytes=backup.manifest.dump.bytes + 1)
        check = retention.is_whole(month, Backup(backup.dump, replace(backup.manifest, dump=longer)))
        assert [found.check for found in check.findings] == ["backup.size"]

    def test_of_this_database(self, month: Archive, taken: Backup) -> None:
        assert taken.manifest is not None
        assert retention.is_of(month.newest(), taken.manifest.database).outcome is Outcome.PROVEN

    @pytest.mark.parametrize("changed", [{"system_identifier": "1"}, {"name": "elsewhere"}])
    def test_of_another_database(self, changed: dict[str, str], month: Archive, taken: Backup) -> None:
        assert taken.manifest is not None
        other = replace(taken.manifest.database, **changed)  # type: ignore[arg-type]
        assert [found.check for found in retention.is_of(month.newest(), other).findings] == ["backup.identity"]

    def test_of_nobody_knows_which_database(self, month: Archive, taken: Backup) -> None:
        assert taken.manifest is not None
        unknown = Backup(taken.dump, None)
        assert retention.is_of(unknown, taken.manifest.database).outcome is Outcome.UNPROVEN
        assert retention.is_whole(month, unknown).outcome is Outcome.UNPROVEN

    @pytest.mark.parametrize(
        ("share", "outcome"), [(0.49, Outcome.FAILED), (0.51, Outcome.PROVEN), (3, Outcome.PROVEN)]
    )
    def test_size_beside_its_predecessors(self, share: float, outcome: Outcome, month: Archive) -> None:
        backup = month.newest()
        other = replace(backup, dump=replace(backup.dump, bytes=int(backup.dump.bytes * share)))
        assert retention.is_of_usual_size(other, month.listing()).outcome is outcome

    def test_size_of_the_first_one(self, month: Archive) -> None:
        oldest = month.listing().backups[-1]
        assert retention.is_of_usual_size(oldest, month.listing()).outcome is Outcome.PROVEN


class TestSource:
    def test_an_invalid_index_is_told(self, databases: Databases, archive: Archive) -> None:
        dsn = databases.make("CREATE TABLE public.t (n int)", "INSERT INTO public.t VALUES (1), (1)")
        with postgres.session(dsn, read_only=False) as session, pytest.raises(postgres.DriverError):
            session.execute("CREATE UNIQUE INDEX CONCURRENTLY broken ON public.t (n)")
        check = dump.source_is_dumped_whole(dump.take(dsn, archive, permit=PERMIT).backup)
        assert [(found.check, found.subject) for found in check.findings] == [("source.invalid_index", "public.broken")]

    def test_a_sound_source_hides_nothing(self, taken: Backup) -> None:
        assert dump.source_is_dumped_whole(taken).outcome is Outcome.PROVEN


def test_the_manifest_survives_its_own_form(taken: Backup, tmp_path: Path) -> None:
    assert taken.manifest is not None
    assert type(taken.manifest).from_bytes(taken.manifest.to_bytes(), where="here") == taken.manifest
