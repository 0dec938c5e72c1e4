"""Commits, restore points and rows are read from an archive as they were written."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from runbook_lib.errors import DamagedArtefact, NotFound
from runbook_lib.reach import postgres
from runbook_lib.wal.records import Commit, RelationFile, RowKind, record_end
from runbook_lib.wal.segment import Segment, lsn_text
from tests.wal.losses import POINT, Losses
from tests.wal.place import SEGMENT_BYTES
from tests.wal.test_faults import bytes_of, instead


def test_every_commit_once_and_in_order(losses: Losses, tmp_path: Path) -> None:
    found = list(losses.reader(tmp_path).commits())
    assert [each.lsn for each in found] == sorted({each.lsn for each in found})
    assert len({each.xid for each in found}) == len(found)
    committed = set(losses.xids.values()) - {losses.xids["aborted"]}
    assert committed <= {each.xid for each in found}
    with postgres.session(losses.dsn) as session:
        states = {
            row["status"]
            for row in session.rows(
                "SELECT pg_xact_status(xid::text::xid8) AS status FROM unnest(%s::bigint[]) xid",
                [each.xid for each in found if each.xid >= losses.xids["deleted"]],
            )
        }
    assert states == {"committed"}
    assert not list(tmp_path.iterdir())


def test_a_commit_ends_where_the_next_record_begins(losses: Losses, tmp_path: Path) -> None:
    commits = [each for each in losses.reader(tmp_path).records() if isinstance(each, Commit)]
    assert all(before.end_lsn <= after.lsn for before, after in pairwise(commits))
    by_xid = {each.xid: each for each in commits}
    assert losses.before["deleted"] < by_xid[losses.xids["deleted"]].lsn < by_xid[losses.xids["deleted"]].end_lsn
    assert by_xid[losses.xids["aborted"]].aborted
    assert by_xid[losses.xids["prepared"]].prepared
    assert len(by_xid[losses.xids["savepoint"]].subtransactions) == 3
    assert RelationFile(1663, losses.database, losses.tables["truncated"]) in by_xid[losses.xids["truncated"]].dropped


def test_an_end_behind_a_page(losses: Losses) -> None:
    assert record_end(8192 - 16, 46, SEGMENT_BYTES) == 8192 + 24 + 32
    assert record_end(SEGMENT_BYTES - 16, 46, SEGMENT_BYTES) == SEGMENT_BYTES + 40 + 32
    assert record_end(0x5ADA70, 34, SEGMENT_BYTES) == 0x5ADA98


def test_where_to_recover_to(losses: Losses, tmp_path: Path) -> None:
    reader = losses.reader(tmp_path)
    dropped = reader.commit_of(losses.xids["dropped"], losses.before["dropped"])
    point = reader.restore_point(POINT, losses.before["deleted"])
    assert dropped.end_lsn <= point.lsn < point.end_lsn <= losses.primary.archive.end_lsn
    assert reader.last_commit() == dropped
    before, after = reader.commits_around(dropped.at - timedelta(microseconds=1))
    assert before is not None
    assert after == dropped
    assert reader.commits_around(dropped.at) == (dropped, None)


def test_what_is_not_there(losses: Losses, tmp_path: Path) -> None:
    reader = losses.reader(tmp_path)
    with pytest.raises(NotFound, match="restore point"):
        reader.restore_point("after", losses.before["deleted"])
    with pytest.raises(NotFound, match="transaction"):
        reader.commit_of(losses.xids["aborted"])
    with pytest.raises(NotFound, match="transaction"):
        reader.commit_of(losses.xids["deleted"], losses.before["truncated"])


def test_the_rows_of_one_transaction(losses: Losses, tmp_path: Path) -> None:
    reader = losses.reader(tmp_path)
    rows: dict[RowKind, int] = {}
    for told in reader.read(reader.path(), losses.before["deleted"]):
        for (xid, kind, file), count in told.rows.items():
            if xid == losses.xids["deleted"] and file.node == losses.tables["deleted"]:
                rows[kind] = rows.get(kind, 0) + count
    assert rows == {RowKind.DELETED: 137, RowKind.UPDATED: 1}


def test_a_hole_and_a_flipped_byte(losses: Losses, tmp_path: Path) -> None:
    archive = losses.primary.archive
    there = sorted(archive.listing().segments[1])
    assert len(there) >= 3
    name = Segment(1, there[len(there) // 2], SEGMENT_BYTES).name
    content = archive.bucket.read(archive.key(name))
    metadata = archive.bucket.head(archive.key(name))[1]
    reader = losses.reader(tmp_path)
    try:
        archive.bucket.remove(archive.key(name))
        with pytest.raises(NotFound, match=f"{name}.*hole"):
            list(reader.commits())
        archive.bucket.client.put_object(
            Bucket=archive.bucket.name,
            Key=archive.key(name),
            Body=content[:-9] + b"?" + content[-8:],
            Metadata=metadata,
        )
        with pytest.raises(DamagedArtefact, match=name):
            list(reader.commits())
    finally:
        archive.bucket.client.put_object(
            Bucket=archive.bucket.name, Key=archive.key(name), Body=content, Metadata=metadata
        )
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def forked(losses: Losses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A timeline that has archived nothing but its history; where it begins, which is before the last segment."""
    last = max(losses.primary.archive.listing().segments[1]) * SEGMENT_BYTES
    at = [each.lsn for each in losses.reader(tmp_path_factory.mktemp("forked")).commits(end_lsn=last)][-1]
    with instead(losses.primary, "00000002.history", f"1\t{lsn_text(at)}\tno recovery target specified\n".encode()):
        yield at


def test_a_timeline_that_has_just_begun(losses: Losses, forked: int, tmp_path: Path) -> None:
    """The ancestor's copy of its first segment is read, and nothing behind the fork is."""
    reader = losses.reader(tmp_path)
    path = reader.path()
    assert (path.timeline, path.end_lsn, max(path.segments)) == (2, forked, (forked - 1) // SEGMENT_BYTES)
    assert {each.timeline for each in path.segments.values()} == {1}
    expected = [each.lsn for each in reader.commits(timeline=1) if each.lsn < forked]
    assert [each.lsn for each in reader.commits()] == expected
    assert expected


def test_the_ancestors_copy_is_none_behind_a_fork(losses: Losses, forked: int, tmp_path: Path) -> None:
    """It goes on with what the later timeline never saw: where that one's own is not there, there is a hole."""
    reader, number = losses.reader(tmp_path), forked // SEGMENT_BYTES
    first, following = (Segment(2, each, SEGMENT_BYTES).name for each in (number, number + 1))
    copies = [bytes_of(losses.primary, Segment(1, each, SEGMENT_BYTES).name) for each in (number, number + 1)]
    with instead(losses.primary, following, copies[1]):
        path = reader.path()
        assert path.end_lsn > forked
        assert path.missing(min(path.segments) * SEGMENT_BYTES, path.end_lsn) == [number]
        with pytest.raises(NotFound, match=f"{first}.*hole"):
            list(reader.commits())
        with instead(losses.primary, first, copies[0]):
            commits = list(reader.commits())
    assert commits[-1].lsn > forked
    assert {each.timeline for each in commits} == {1, 2}
    assert all((each.timeline == 2) is (each.lsn >= forked) for each in commits)
