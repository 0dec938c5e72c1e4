"""The transaction that removed rows is named, with every row of it; a window with a hole proves nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from runbook_lib.effect import Effect
from runbook_lib.environment import Environment
from runbook_lib.errors import NotFound, ProfileInvalid, Unproven
from runbook_lib.outcome import Outcome
from runbook_lib.reach import postgres
from runbook_lib.settings import Archiving, Backups, Database, Settings
from runbook_lib.wal.moment import Lost, Manner, Moment, Table, describe, find_the_moment
from runbook_lib.wal.segment import Segment, lsn_of
from tests.wal.losses import MANY, Losses
from tests.wal.place import BUCKET, SEGMENT_BYTES, recover

SINCE = datetime(2020, 1, 1, tzinfo=UTC)


def moment_of(
    losses: Losses, folder: Path, name: str, since: datetime = SINCE, until: datetime | None = None
) -> Moment:
    with postgres.session(losses.dsn) as session:
        if name == "dropped":
            table = Table.dropped(losses.tables[name], name, Table.living(session, "healthy"))
        else:
            table = Table.living(session, name)
    return find_the_moment(losses.reader(folder), table, since, until)


def test_a_delete_among_other_writers(losses: Losses, tmp_path: Path) -> None:
    found = moment_of(losses, tmp_path, "public.deleted")
    first, second = found.losses
    assert (first.manner, first.commit.xid, first.deleted, first.updated) == (
        Manner.DELETED,
        losses.xids["deleted"],
        137,
        1,
    )
    assert second.deleted == 2
    assert found.transactions == 2
    assert first.is_complete
    assert first.relations == ("public.deleted",)
    # What came later: three of what the other writers did is before or never, the rest of the file is after it.
    assert first.later.transactions > second.later.transactions > 0
    assert first.later.rows["public.deleted"] == (0, 0, 2)
    assert "public.deleted" not in second.later.rows
    assert first.later.rows["public.healthy"] == (3, 0, 0)
    assert first.later.first_at == second.commit.at
    text = found.explain()
    assert f"transaction {losses.xids['deleted']} deleted 137 rows of public.deleted" in text
    assert "+00:00" in text
    assert "recovery_target_lsn" in text
    assert "2 transactions removed rows" in text
    assert [row["transaction"] for row in describe(found.losses)] == [str(each.commit.xid) for each in found.losses]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("table", ["healthy", "aborted"])
def test_nothing_was_removed(losses: Losses, tmp_path: Path, table: str) -> None:
    found = moment_of(losses, tmp_path, table)
    assert found.losses == ()
    assert found.transactions == 0
    assert found.commits > 20
    assert f"no transaction removed rows of public.{table}" in found.explain()


@pytest.mark.parametrize(
    ("table", "deleted"), [("savepoint", 11 + 3), ("prepared", 21), ("rewritten", 31), ("parted", 41), ("wide", 4)]
)
def test_exactly_these_rows(losses: Losses, tmp_path: Path, table: str, deleted: int) -> None:
    found = moment_of(losses, tmp_path, table)
    (loss,) = found.losses
    assert (loss.manner, loss.commit.xid, loss.deleted) == (Manner.DELETED, losses.xids[table], deleted)
    assert found.transactions == 1
    assert loss.gid == ("a gid: with; signs" if table == "prepared" else "")
    assert ("ROLLBACK PREPARED" in loss.explain()) == (table == "prepared")
    if table == "parted":
        assert loss.relations == ("public.parted_1", "public.parted_501")


def test_rows_that_move_to_another_partition_are_not_gone(losses: Losses, tmp_path: Path) -> None:
    assert moment_of(losses, tmp_path, "moved").losses == ()


@pytest.mark.parametrize("table", ["truncated", "truncated_too"])
def test_a_truncate(losses: Losses, tmp_path: Path, table: str) -> None:
    (loss,) = moment_of(losses, tmp_path, table).losses
    assert (loss.manner, loss.commit.xid) == (Manner.TRUNCATED, losses.xids["truncated"])
    assert loss.relations == (f"public.{table}",)
    assert "whose number the WAL does not tell" in loss.explain()


def test_a_partitioned_table_is_truncated(losses: Losses, tmp_path: Path) -> None:
    (loss,) = moment_of(losses, tmp_path, "cleared").losses
    assert (loss.manner, loss.commit.xid) == (Manner.TRUNCATED, losses.xids["cleared"])
    assert set(loss.relations) == {"public.cleared_1", "public.cleared_501"}


def test_a_dropped_table(losses: Losses, tmp_path: Path) -> None:
    with postgres.session(losses.dsn) as session, pytest.raises(NotFound, match="its OID is needed"):
        Table.living(session, "dropped")
    dropped, deleted = moment_of(losses, tmp_path, "dropped").losses
    assert (dropped.manner, dropped.commit.xid) == (Manner.DROPPED, losses.xids["dropped"])
    assert dropped.later.transactions == 0
    assert "no later transaction" in dropped.explain()
    assert deleted.deleted == 7  # although its file was exchanged twice since


def test_what_is_inferred_says_so(losses: Losses, tmp_path: Path) -> None:
    found = moment_of(losses, tmp_path, "unsure")
    (loss,) = found.losses
    assert (loss.commit.xid, loss.deleted) == (losses.xids["unsure"], 8)
    assert "that is inferred: transaction" in loss.explain()
    assert "the one of the lowest number" in loss.explain()
    assert "moment.inferred" in {finding.check for finding in found.all_are_named.findings}
    dropped, deleted = moment_of(losses, tmp_path, "dropped").losses
    assert "lowest number" in dropped.explain()
    assert "inferred" not in deleted.explain()


@pytest.mark.parametrize("table", ["deleted", "truncated_too", "truncated", "parted"])
def test_what_is_certain_is_not_called_inferred(losses: Losses, tmp_path: Path, table: str) -> None:
    """A file that bears the relation's own number was its first; that is so of both of the emptied ones."""
    found = moment_of(losses, tmp_path, table)
    assert found.losses
    assert all("inferred" not in each.explain() for each in found.losses)
    # Of the one that was rewritten since, the file in between is inferred: that nothing else happened in it is, too.
    assert ("nothing else was removed is inferred" in found.explain()) == (table == "truncated")


def test_more_than_are_kept(losses: Losses, tmp_path: Path) -> None:
    found = moment_of(losses, tmp_path, "many")
    assert (found.transactions, len(found.losses), found.are_all_kept) == (MANY, 20, False)
    (many,) = [finding for finding in found.all_are_named.findings if finding.check == "moment.many"]
    assert many.outcome is Outcome.UNPROVEN
    assert f"at least {MANY} transactions" in many.says
    few = moment_of(losses, tmp_path, "many", until=found.losses[19].commit.at)
    assert few.are_all_kept
    assert "moment.many" not in {finding.check for finding in few.all_are_named.findings}


def test_a_transaction_that_began_before_what_was_read(losses: Losses, tmp_path: Path) -> None:
    (whole,) = moment_of(losses, tmp_path, "long").losses
    assert (whole.rows, whole.is_complete) == ("8 rows", True)
    found = moment_of(losses, tmp_path, "long", since=whole.commit.at)
    (loss,) = found.losses
    assert (loss.commit, loss.deleted, loss.rows) == (whole.commit, 3, "at least 3 rows")
    assert {finding.check for finding in found.all_are_named.findings} == {"moment.rows"}
    assert found.all_are_named.outcome is Outcome.UNPROVEN


def test_what_was_typed() -> None:
    noon = datetime(2026, 11, 24, 12, tzinfo=UTC)
    assert Lost.told("", None, table="t", now=noon) == Lost("t", noon - timedelta(hours=1), None)
    typed = ("2026-11-24 13:00+02", "2026-11-24 12:30 UTC")
    told = Lost.told(" oid 7 ", typed, table="t", now=noon)
    assert told == Lost("oid 7", noon - timedelta(hours=1), noon + timedelta(minutes=30))
    assert "2026-11-24T11:00:00+00:00 to 2026-11-24T12:30:00+00:00" in str(told)


@pytest.mark.parametrize(
    ("since", "until", "says"),
    [
        ("2026-11-24 12:00", "2026-11-24 13:00+00", "no offset"),
        ("yesterday", "2026-11-24 13:00+00", "is no time"),
        ("2026-11-24 13:00+00", "2026-11-24 12:00+00", "ends before it begins"),
    ],
)
def test_what_cannot_be_meant(since: str, until: str, says: str) -> None:
    with pytest.raises(ProfileInvalid, match=says):
        Lost.told("", (since, until), table="t", now=datetime(2026, 11, 24, tzinfo=UTC))


def test_the_window(losses: Losses, tmp_path: Path) -> None:
    first, second = moment_of(losses, tmp_path, "deleted").losses
    just = timedelta(microseconds=1)
    assert moment_of(losses, tmp_path, "deleted", until=first.commit.at).losses == (first,)
    assert (
        moment_of(losses, tmp_path, "deleted", since=first.commit.at + just, until=second.commit.at).losses[0].commit
        == second.commit
    )
    assert moment_of(losses, tmp_path, "deleted", since=second.commit.at + just).losses == ()
    with pytest.raises(Unproven, match="offset"):
        moment_of(losses, tmp_path, "deleted", since=datetime(2020, 1, 1))


def test_a_window_that_is_not_all_archived(losses: Losses, tmp_path: Path) -> None:
    found = moment_of(losses, tmp_path, "healthy", until=datetime.now(UTC) + timedelta(hours=1))
    assert found.read_whole.outcome is Outcome.UNPROVEN
    assert "ends before the window does" in found.explain()


def test_a_window_that_nothing_is_archived_of(losses: Losses, tmp_path: Path) -> None:
    found = moment_of(losses, tmp_path, "healthy", since=datetime.now(UTC))
    assert found.read_whole.outcome is Outcome.UNPROVEN
    assert "nothing of the window is archived" in found.explain()


def test_a_window_that_begins_before_the_archive(losses: Losses, tmp_path: Path) -> None:
    found = moment_of(losses, tmp_path, "healthy")
    assert "begins later than the window" in found.explain()
    with postgres.session(losses.dsn) as session:
        table = Table.living(session, "healthy")
    reader = losses.reader(tmp_path)
    covered = find_the_moment(reader, table, SINCE, recoverable_lsn=found.start_lsn)
    assert covered.read_whole.outcome is covered.all_are_named.outcome is Outcome.PROVEN


def test_a_hole(losses: Losses, tmp_path: Path) -> None:
    archive = losses.primary.archive
    (wide,) = moment_of(losses, tmp_path, "wide").losses
    first = next(losses.reader(tmp_path).commits())
    hole = Segment.at(1, first.lsn, SEGMENT_BYTES).after()
    assert hole.start_lsn < wide.commit.lsn
    name = hole.name
    content, metadata = archive.bucket.read(archive.key(name)), archive.bucket.head(archive.key(name))[1]
    archive.bucket.remove(archive.key(name))
    try:
        with pytest.raises(Unproven, match=f"{name} is not there"):
            moment_of(losses, tmp_path, "wide", until=wide.commit.at)
        found = moment_of(losses, tmp_path, "wide", until=first.at - timedelta(hours=1))
        assert found.losses == ()
        assert found.read_whole.outcome is Outcome.UNPROVEN
        assert name in found.explain()
    finally:
        archive.bucket.client.put_object(
            Bucket=archive.bucket.name, Key=archive.key(name), Body=content, Metadata=metadata
        )
    assert not list(tmp_path.iterdir())


def test_a_recovery_to_there_has_the_rows(losses: Losses, tmp_path: Path) -> None:
    (loss,) = moment_of(losses, tmp_path, "parted").losses
    with postgres.session(losses.dsn) as session:
        assert session.value("SELECT count(*) FROM public.parted") == 1000 - 41
    before = recover(losses.primary, settings=loss.target, query="SELECT count(*) FROM public.parted")
    assert before.promoted, before.log
    assert before.rows == 1000
    assert f'recovery stopping before WAL location (LSN) "{loss.target["recovery_target_lsn"]}"' in before.log
    behind = {**loss.target, "recovery_target_inclusive": "on"}
    after = recover(losses.primary, settings=behind, query="SELECT count(*) FROM public.parted")
    assert after.rows == 1000 - 41
    assert lsn_of(loss.target["recovery_target_lsn"]) == loss.commit.lsn


@pytest.fixture
def environment(losses: Losses, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """The same place as a profile describes it, which says nothing of how large a segment is."""
    store = losses.primary.store
    for name, value in store.env.items():
        monkeypatch.setenv(name, value)
    settings = Settings(
        "here",
        Database(losses.dsn, losses.primary.system_identifier),
        Backups(bucket=BUCKET, endpoint_url=store.store.endpoint_url, region=store.store.region),
        archiving=Archiving(wal_prefix=losses.primary.archive.prefix),
    )
    return Environment.of(settings).for_scenario("the moment", Effect.READS)


def test_a_scenario_finds_it_with_what_the_profile_says(losses: Losses, environment: Environment) -> None:
    (loss,) = environment.find_the_moment("savepoint", SINCE).losses
    assert (loss.commit.xid, loss.rows) == (losses.xids["savepoint"], "14 rows")
    assert losses.before["savepoint"] < lsn_of(loss.target["recovery_target_lsn"]) < losses.before["prepared"]
    healthy = environment.find_the_moment("healthy", SINCE)
    assert healthy.losses == ()
    assert healthy.commits > 20


def test_a_scenario_finds_a_dropped_table_by_its_oid(losses: Losses, environment: Environment) -> None:
    with pytest.raises(NotFound, match=r"pg_restore --list .* 1259 16432 TABLE .*; ask for 'oid 16432'"):
        environment.find_the_moment("dropped", SINCE)
    dropped, deleted = environment.find_the_moment(f"oid {losses.tables['dropped']}", SINCE).losses
    assert (dropped.manner, dropped.commit.xid) == (Manner.DROPPED, losses.xids["dropped"])
    assert deleted.deleted == 7
    living = environment.find_the_moment(f"OID: {losses.tables['healthy']}", SINCE)
    assert (living.table, living.losses) == ("public.healthy", ())


def test_an_oid_that_no_table_was_dropped_of(environment: Environment) -> None:
    found = environment.find_the_moment("oid 4000000000", SINCE)
    assert found.losses == ()
    assert found.all_are_named.outcome is Outcome.UNPROVEN
    assert "moment.dropped" in {finding.check for finding in found.all_are_named.findings}
    assert "no transaction that dropped it" in found.explain()
