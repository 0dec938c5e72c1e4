"""A backup can be whole, and still be the wrong one: of another database, too old, too small, half there, replaced."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from runbook_lib.backup import dump, retention
from runbook_lib.backup.catalog import (
    DUMP_SUFFIX,
    GLOBALS_SUFFIX,
    MANIFEST_SUFFIX,
    Archive,
    Backup,
    Listing,
    Schedule,
)
from runbook_lib.errors import DamagedArtefact, NotFound
from runbook_lib.outcome import Check, Outcome
from runbook_lib.phases import Progress
from runbook_lib.reach import postgres
from runbook_lib.safety.mark import MARK
from tests.detection import small
from tests.detection.place import PERMIT, Place


@pytest.fixture(scope="module")
def ledger(place: Place) -> str:
    return small.ledger(place, "wrong_ones")


@pytest.fixture
def archive(place: Place, request: pytest.FixtureRequest) -> Archive:
    """An archive of the test's own, in a bucket that keeps no versions: what is written over is gone."""
    name = request.node.name.removeprefix("test_").replace("_", "-").translate({91: "-", 93: None, 32: "-"})
    return place.archive(name[:60].rstrip("-").lower(), versioned=False)


@pytest.fixture
def taken(archive: Archive, ledger: str) -> Backup:
    return dump.take(ledger, archive, permit=PERMIT, kind="daily").backup


def names(check: Check) -> list[str]:
    return [finding.check for finding in check.findings]


def rewrite(archive: Archive, key: str, content: bytes) -> None:
    archive.bucket.client.put_object(Bucket=archive.bucket.name, Key=key, Body=content, Metadata=dict(MARK))


def test_a_backup_of_another_cluster_or_database(place: Place, taken: Backup, ledger: str) -> None:
    with postgres.session(ledger) as session:
        assert retention.is_of(taken, dump.identify(session)).holds()
    with postgres.session(place.source.dsn("tensafe")) as session:
        check = retention.is_of(taken, dump.identify(session))
    assert names(check) == ["backup.identity"]
    assert "wrong_ones" in check.explain()
    with postgres.session(place.scratch.server(17).dsn()) as session:
        check = retention.is_of(taken, dump.identify(session))
    assert names(check) == ["backup.identity"]
    assert "cluster" in check.explain()


def test_whose_a_dump_of_others_is_cannot_be_said(taken: Backup, ledger: str) -> None:
    with postgres.session(ledger) as session:
        check = retention.is_of(replace(taken, manifest=None), dump.identify(session))
    assert check.outcome is Outcome.UNPROVEN


def test_a_stale_backup(archive: Archive, taken: Backup) -> None:
    now = datetime.now(UTC)
    schedule = Schedule((now - timedelta(minutes=30)).time(), timedelta(minutes=10))
    assert archive.last_night(schedule, now) == taken
    with pytest.raises(NotFound, match="the newest is"):
        archive.last_night(schedule, now + timedelta(days=1))


def test_a_night_without_a_backup(archive: Archive, taken: Backup) -> None:
    now = datetime.now(UTC)
    schedule = Schedule((now - timedelta(minutes=30)).time(), timedelta(minutes=10))

    def nights_of(*days: int) -> Check:
        assert taken.manifest is not None
        backups = tuple(
            replace(taken, manifest=replace(taken.manifest, taken_at=taken.taken_at - timedelta(days=d))) for d in days
        )
        return retention.every_night_has_one(Listing(backups, (), {}, ()), schedule, now, days=5, where="here")

    assert nights_of(0, 1, 2, 3, 4).holds()
    assert names(nights_of(0, 1, 3, 4)) == ["backup.night"]
    assert names(nights_of(1, 2, 3)) == ["backup.night"] * 2


def test_a_backup_that_shrank(taken: Backup) -> None:
    def of_sizes(*sizes: int) -> Check:
        backups = [
            Backup(replace(taken.dump, bytes=size, modified=taken.dump.modified - timedelta(days=days)), None)
            for days, size in enumerate(sizes)
        ]
        return retention.is_of_usual_size(backups[0], Listing(tuple(backups), (), {}, ()))

    assert of_sizes(1000, 1000, 900, 1100).holds()
    assert of_sizes(600, 1000, 900, 1100).holds()
    assert names(of_sizes(400, 1000, 900, 1100)) == ["backup.shrunk"]


def test_an_empty_object(place: Place, archive: Archive) -> None:
    archive.bucket.write_once(f"{archive.prefix}daily/x{DUMP_SUFFIX}", b"")
    backup = archive.newest()
    assert names(retention.is_whole(archive, backup))[0] == "backup.empty"
    with pytest.raises(DamagedArtefact, match="empty: 0 bytes"):
        place.restore(backup, archive)


def test_a_dump_of_another_length_than_was_written(archive: Archive, taken: Backup) -> None:
    assert retention.is_whole(archive, taken).holds()
    rewrite(archive, taken.dump.key, archive.bucket.read(taken.dump.key)[:-1])
    assert names(retention.is_whole(archive, archive.newest())) == ["backup.size"]


def test_a_dump_of_ours_without_a_manifest_is_no_backup(archive: Archive, taken: Backup) -> None:
    assert not archive.listing().findings
    archive.bucket.remove(taken.dump.key.removesuffix(DUMP_SUFFIX) + MANIFEST_SUFFIX)
    listing = archive.listing()
    assert [finding.check for finding in listing.findings] == ["backup.incomplete"]
    assert not listing.backups
    with pytest.raises(NotFound, match="passed over as incomplete"):
        archive.newest()


def test_a_manifest_of_another_backup(archive: Archive, taken: Backup) -> None:
    manifest = archive.bucket.read(taken.dump.key.removesuffix(DUMP_SUFFIX) + MANIFEST_SUFFIX)
    other = f"{archive.prefix}daily/20990101_020000"
    rewrite(archive, other + DUMP_SUFFIX, b"PGDMP of another night")
    rewrite(archive, other + MANIFEST_SUFFIX, manifest)
    with pytest.raises(DamagedArtefact, match="another dump"):
        archive.newest()
    assert [finding.check for finding in archive.listing().findings] == ["backup.manifest"]


def test_a_damaged_manifest_of_an_older_night_does_not_hide_the_newest(archive: Archive, taken: Backup) -> None:
    older = f"{archive.prefix}daily/20000101_020000"
    manifest = archive.bucket.read(taken.dump.key.removesuffix(DUMP_SUFFIX) + MANIFEST_SUFFIX)
    rewrite(archive, older + DUMP_SUFFIX, b"PGDMP of a night long ago")
    rewrite(archive, older + MANIFEST_SUFFIX, manifest[: len(manifest) // 2])
    rewrite(archive, taken.dump.key, archive.bucket.read(taken.dump.key))  # written after it
    assert archive.newest().dump.key == taken.dump.key
    assert [finding.check for finding in archive.listing().findings] == ["backup.manifest"]


def test_roles_that_changed_after_the_fact(place: Place, archive: Archive, taken: Backup) -> None:
    key = taken.dump.key.removesuffix(DUMP_SUFFIX) + GLOBALS_SUFFIX
    rewrite(archive, key, archive.bucket.read(key) + b"CREATE ROLE mallory SUPERUSER LOGIN;\n")
    with pytest.raises(DamagedArtefact, match="roles and tablespaces"):
        place.restore(archive.newest(), archive)
    with postgres.session(place.scratch.server(17).dsn()) as session:
        assert not session.rows("SELECT FROM pg_catalog.pg_roles WHERE rolname = 'mallory'")


def test_a_dump_that_was_removed_before_it_was_fetched(place: Place, archive: Archive, taken: Backup) -> None:
    archive.bucket.remove(taken.dump.key)
    with pytest.raises(NotFound):
        place.restore(taken, archive)


@pytest.mark.parametrize(
    ("replaced", "error"), [(False, NotFound), (True, DamagedArtefact)], ids=["removed", "replaced"]
)
def test_a_dump_that_goes_away_while_it_is_fetched(
    replaced: bool, error: type[Exception], place: Place, archive: Archive
) -> None:
    key = f"{archive.prefix}daily/large{DUMP_SUFFIX}"
    archive.bucket.write_once(key, b"PGDMP" + bytes(64 * 1024 * 1024))
    backup = archive.newest()

    def meanwhile(progress: Progress) -> None:
        if progress.done <= 8 * 1024 * 1024:
            archive.bucket.remove(key)
            if replaced:
                archive.bucket.write_once(key, b"PGDMP" + bytes(66 * 1024 * 1024))

    with pytest.raises(error):
        place.restore(backup, archive, watch=meanwhile)
    assert not list(place.scratch.workspace.folder("dump").iterdir())


def test_a_version_that_was_removed(place: Place, ledger: str) -> None:
    archive = place.archive("version-removed")
    taken = dump.take(ledger, archive, permit=PERMIT, kind="daily").backup
    rewrite(archive, taken.dump.key, b"PGDMP")
    archive.bucket.remove(taken.dump.key, taken.dump.version_id)
    check = retention.nothing_was_overwritten(archive, archive.listing())
    assert names(check) == ["backup.version"]
    assert "is gone" in check.explain()
    with pytest.raises(NotFound):
        place.restore(archive.newest(), archive)
