"""What a recovery can begin from is silent when it fits together, and each way in which it does not is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from runbook_lib.outcome import Check, Outcome
from runbook_lib.reach import postgres
from runbook_lib.reach.postgres import Session
from runbook_lib.safety.permit import Permit
from runbook_lib.wal import base_backup_taking, window
from runbook_lib.wal.archive import WalArchive
from runbook_lib.wal.base_backup import BaseBackup, BaseBackups, BaseListing
from runbook_lib.wal.segment import Segment
from tests.wal import place
from tests.wal.place import Primary, Store, await_archived

WEEK = timedelta(days=7)
NOTHING = BaseListing((), ())
LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def primary(store: Store) -> Iterator[Primary]:
    store.proxy.reset()
    with place.primary(store, steps=10, prefix="window-wal/", name="window") as started:
        yield started


@pytest.fixture(scope="module")
def backups(store: Store, primary: Primary) -> BaseBackups:
    """A place with one base backup, and some WAL after it."""
    made = BaseBackups(store.bucket(), "window-base/")
    permit = Permit("here", granted=True, reason="a test")
    base_backup_taking.take(primary.server.dsn(), made, permit=permit, archive=primary.archive)
    with postgres.session(primary.server.dsn(), read_only=False) as session:
        for _ in range(4):
            session.execute("INSERT INTO public.t SELECT 7, n, '' FROM generate_series(1, 9) n")
            await_archived(session, session.value("SELECT pg_walfile_name(pg_switch_wal())"))
    return made


@pytest.fixture
def listing(backups: BaseBackups) -> BaseListing:
    return backups.listing()


@pytest.fixture
def taken(listing: BaseListing) -> BaseBackup:
    (one,) = listing.backups
    return one


@pytest.fixture
def session(primary: Primary) -> Iterator[Session]:
    with postgres.session(primary.server.dsn()) as opened:
        yield opened


@contextmanager
def lost(primary: Primary, name: str, instead: bytes | None = None) -> Iterator[None]:
    """Have a segment be gone from the archive, or another content be there."""
    client, bucket, key = primary.archive.bucket.client, place.BUCKET, primary.archive.key(name)
    got = client.get_object(Bucket=bucket, Key=key)
    content = got["Body"].read()
    client.delete_object(Bucket=bucket, Key=key)
    if instead is not None:
        client.put_object(Bucket=bucket, Key=key, Body=instead, Metadata=got["Metadata"])
    try:
        yield
    finally:
        client.put_object(Bucket=bucket, Key=key, Body=content, Metadata=got["Metadata"])


def found(check: Check) -> list[tuple[str, Outcome]]:
    return [(finding.check, finding.outcome) for finding in check.findings]


def only(name: str) -> list[tuple[str, Outcome]]:
    return [(name, Outcome.FAILED)]


class TestContinuity:
    def look(
        self, session: Session, primary: Primary, listing: BaseListing, since: datetime = LONG_AGO, **told: str
    ) -> Check:
        archive = WalArchive(primary.archive.bucket, primary.archive.prefix, **told)  # type: ignore[arg-type]
        return window.wal_is_continuous(session, archive, listing, retained_since=since)

    def test_it_is(self, session: Session, primary: Primary, listing: BaseListing) -> None:
        """Its segments are of 1 MB, which only the server says."""
        check = self.look(session, primary, listing, system_identifier=primary.system_identifier)
        assert check.outcome is Outcome.PROVEN, check.explain()

    def test_a_hole(self, session: Session, primary: Primary, listing: BaseListing, taken: BaseBackup) -> None:
        with lost(primary, taken.first_segment.after(2).name):
            assert found(self.look(session, primary, listing)) == only("wal.hole")

    def test_a_hole_at_the_end(self, session: Session, primary: Primary, listing: BaseListing) -> None:
        """Which no list shows: the primary says that it has archived it."""
        with lost(primary, session.value("SELECT last_archived_wal FROM pg_stat_archiver")):
            assert found(self.look(session, primary, listing)) == only("wal.through")

    def test_a_hole_before_the_oldest_base_backup(
        self, session: Session, primary: Primary, listing: BaseListing, taken: BaseBackup
    ) -> None:
        """Nothing begins there: it is none for us, unless an older base backup does."""
        with lost(primary, taken.first_segment.after(-4).name):
            assert self.look(session, primary, listing).outcome is Outcome.PROVEN
            older = replace(taken, started_at=taken.started_at - timedelta(hours=1))
            assert found(self.look(session, primary, BaseListing((taken, older), ()))) == only("wal.hole")
            assert found(self.look(session, primary, NOTHING)) == only("wal.hole")
            since = taken.started_at - timedelta(minutes=30)
            assert self.look(session, primary, BaseListing((taken, older), ()), since).outcome is Outcome.PROVEN

    def test_another_cluster(self, session: Session, primary: Primary, listing: BaseListing) -> None:
        assert "wal.system_identifier" in {
            name for name, _ in found(self.look(session, primary, listing, system_identifier="1"))
        }


class TestARecentOne:
    def look(self, listing: BaseListing, now: datetime) -> Check:
        return window.a_recent_base_backup_is_there(listing, where="there", now=now, at_most=WEEK)

    def test_is_there(self, listing: BaseListing, taken: BaseBackup) -> None:
        assert self.look(listing, taken.stopped_at + WEEK).outcome is Outcome.PROVEN

    def test_is_too_old(self, listing: BaseListing, taken: BaseBackup) -> None:
        check = self.look(listing, taken.stopped_at + WEEK * 1.1)
        assert found(check) == only("base_backup.age")
        assert "7.7 days ago" in check.findings[0].says

    def test_there_is_none(self) -> None:
        assert found(self.look(NOTHING, LONG_AGO)) == only("base_backup.none")

    def test_cut_short_tars_and_unreadable_records(self, store: Store, taken: BaseBackup) -> None:
        """A tar without a record may be one that is being taken; a record that cannot be read is a fault."""
        others = BaseBackups(store.bucket(), "window-others/")
        others.bucket.write_once("window-others/20260203_020000.tar", b"cut short")
        cut_short = others.listing()
        check = self.look(BaseListing((taken,), cut_short.findings), taken.stopped_at)
        assert check.outcome is Outcome.PROVEN
        assert "1 tars without a record" in check.looked_at
        others.bucket.write_once("window-others/20260203_020000.json", b"{}")
        assert [name for name, _ in found(self.look(others.listing(), LONG_AGO))] == [
            "base_backup.record",
            "base_backup.none",
        ]


class TestOfThisCluster:
    def look(self, listing: BaseListing, session: Session) -> Check:
        return window.it_is_of_this_cluster(listing, session, where="there")

    def test_it_is(self, listing: BaseListing, session: Session) -> None:
        assert self.look(listing, session).outcome is Outcome.PROVEN

    @pytest.mark.parametrize(
        ("changed", "check"),
        [
            ({"system_identifier": "1"}, "base_backup.system_identifier"),
            ({"server_version_num": 160_011}, "base_backup.major"),
        ],
    )
    def test_it_is_not(
        self, changed: dict[str, object], check: str, listing: BaseListing, taken: BaseBackup, session: Session
    ) -> None:
        other = replace(taken, **changed)  # type: ignore[arg-type]
        assert found(self.look(BaseListing((other, taken), ()), session)) == only(check)
        assert self.look(BaseListing((taken, other), ()), session).outcome is Outcome.PROVEN

    def test_there_is_none(self, session: Session) -> None:
        assert found(self.look(NOTHING, session)) == only("base_backup.none")


class TestItsWal:
    def look(self, listing: BaseListing, primary: Primary) -> Check:
        return window.its_wal_is_archived(listing, primary.archive, where="there")

    def test_is_archived(self, listing: BaseListing, primary: Primary) -> None:
        assert self.look(listing, primary).outcome is Outcome.PROVEN

    @pytest.mark.parametrize("which", ["first", "last"])
    def test_is_not(self, which: str, listing: BaseListing, taken: BaseBackup, primary: Primary) -> None:
        last = Segment.at(1, taken.stop_lsn - 1, taken.segment_bytes)
        name = (taken.first_segment if which == "first" else last).name
        for instead, says in ((None, "it is not in the archive"), (b"short", "it has 5 bytes")):
            with lost(primary, name, instead):
                check = self.look(listing, primary)
                assert found(check) == only("base_backup.wal")
                assert check.findings[0].subject == name
                assert says in check.findings[0].says

    def test_what_comes_before_and_after_is_not_its(
        self, listing: BaseListing, taken: BaseBackup, primary: Primary
    ) -> None:
        last = Segment.at(1, taken.stop_lsn - 1, taken.segment_bytes)
        with lost(primary, taken.first_segment.after(-1).name), lost(primary, last.after().name):
            assert self.look(listing, primary).outcome is Outcome.PROVEN

    def test_there_is_none(self, primary: Primary) -> None:
        assert found(self.look(NOTHING, primary)) == only("base_backup.none")
