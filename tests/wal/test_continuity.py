"""An archive that is whole is silent; each way in which it is not is told by its name, and alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from runbook_lib.outcome import Outcome
from runbook_lib.waiting import wait_for
from runbook_lib.wal.archive import WalArchive
from runbook_lib.wal.continuity import archive_is_continuous
from tests.wal import made
from tests.wal.made import IDENTIFIER, SMALL_BYTES
from tests.wal.place import Primary, Store

HISTORY = b"1\t0/50100\tno recovery target specified\n"
"""Timeline 2 leaves timeline 1 in segment 5."""
_prefixes = itertools.count()


@pytest.fixture
def archive(store: Store, tmp_path: Path) -> WalArchive:
    """Two timelines, whole."""
    store.proxy.reset()
    prefix = f"whole-{next(_prefixes)}/"
    made_archive = WalArchive(store.bucket(), prefix, system_identifier=IDENTIFIER, segment_bytes=SMALL_BYTES)
    for number in (2, 3, 4, 5):
        put(made_archive, tmp_path, *made.segment(1, number))
    put(made_archive, tmp_path, "00000002.history", HISTORY)
    label = b"START WAL LOCATION: 0/20028 (file 000000010000000000000002)\n"
    put(made_archive, tmp_path, "000000010000000000000002.00000028.backup", label)
    put(made_archive, tmp_path, f"{made.segment(1, 5)[0]}.partial", made.segment(1, 5)[1])
    for number in (5, 6):
        put(made_archive, tmp_path, *made.segment(2, number))
    return made_archive


def put(archive: WalArchive, folder: Path, name: str, content: bytes, *, without: Sequence[str] = ()) -> None:
    """Archive one, and take others away."""
    remove(archive, *without)
    archive.put(made.file(folder, content), name)


def remove(archive: WalArchive, *names: str) -> None:
    for name in names:
        archive.bucket.remove(archive.key(name))


def replace(archive: WalArchive, name: str, content: bytes, **changed: str) -> None:
    """Have other content lie there, with the metadata that were there before, but for some."""
    _, told = archive.bucket.head(archive.key(name))
    remove(archive, name)
    metadata = {**told, **{key.replace("_", "-"): value for key, value in changed.items()}}
    archive.bucket.write_once(archive.key(name), content, metadata={k: v for k, v in metadata.items() if v})


SECOND, THIRD, LAST = made.segment(1, 3), made.segment(1, 4), made.segment(2, 6)

Fault = Callable[[WalArchive, Path], object]
FAULTS: dict[str, tuple[Fault, str, str]] = {
    "a segment is missing": (lambda a, _: remove(a, SECOND[0]), "wal.hole", "1 segments are missing"),
    "two are missing": (
        lambda a, _: remove(a, SECOND[0], THIRD[0]),
        "wal.hole",
        "2 segments are missing",
    ),
    "the new timeline begins too late": (
        lambda a, p: put(a, p, *made.segment(2, 7), without=[made.segment(2, 5)[0], LAST[0]]),
        "wal.hole",
        "of timeline 2",
    ),
    "the old one ends too early": (lambda a, _: remove(a, THIRD[0]), "wal.hole", "of timeline 1"),
    "a history is missing": (lambda a, _: remove(a, "00000002.history"), "wal.history", "no recovery finds the way"),
    "a history is damaged": (lambda a, _: replace(a, "00000002.history", b"?", bytes="1"), "wal.history", ""),
    "a history of another past": (
        lambda a, p: put(a, p, "00000003.history", b"1\t0/40100\tx\n2\t0/60100\tx\n"),
        "wal.history",
        "another past",
    ),
    "the segment at the fork is of neither": (
        lambda a, _: remove(a, made.segment(1, 5)[0], made.segment(2, 5)[0], LAST[0]),
        "wal.fork",
        "of neither",
    ),
    "an empty segment": (
        lambda a, _: replace(a, SECOND[0], b"", bytes="0"),
        "wal.size",
        "it has 0 bytes",
    ),
    "a segment of another cluster": (
        lambda a, _: replace(a, *made.segment(1, 3, identifier="7"), system_identifier="7"),
        "wal.system_identifier",
        "of the cluster 7",
    ),
    "a segment copied under another name": (
        lambda a, _: replace(a, THIRD[0], SECOND[1], wal_name=SECOND[0]),
        "wal.object",
        "archived as",
    ),
    "a partial that leads nowhere": (
        lambda a, p: put(a, p, f"{made.segment(2, 7)[0]}.partial", made.segment(2, 7)[1]),
        "wal.partial",
        "under this name alone",
    ),
    "something that is no WAL": (
        lambda a, _: a.bucket.write_once(a.key("notes.txt"), b"hello"),
        "wal.foreign",
        "no file such a name",
    ),
}


def test_whole(archive: WalArchive) -> None:
    for deep in (False, True):
        check = archive_is_continuous(archive, through=LAST[0], deep=deep)
        assert check.outcome is Outcome.PROVEN, check.explain()
    assert "6 segments, 1 histories, 2 timelines" in check.looked_at


@pytest.mark.parametrize("what", FAULTS)
def test_not_whole(archive: WalArchive, tmp_path: Path, what: str) -> None:
    plant, name, says = FAULTS[what]
    plant(archive, tmp_path)
    check = archive_is_continuous(archive)
    assert {found.check for found in check.findings} == {name}, check.explain()
    assert any(says in found.says for found in check.findings), check.explain()
    assert check.outcome is Outcome.FAILED
    assert all(found.remedy for found in check.findings)


def test_bytes_that_changed_are_found_by_reading_them(archive: WalArchive) -> None:
    content = bytearray(SECOND[1])
    content[-1] ^= 1
    replace(archive, SECOND[0], bytes(content))
    assert archive_is_continuous(archive).outcome is Outcome.PROVEN
    (found,) = archive_is_continuous(archive, deep=True).findings
    assert (found.check, SECOND[0] in found.subject) == ("wal.bytes", True)


def test_without_digests_nothing_can_be_said(archive: WalArchive) -> None:
    for name, content in (SECOND, THIRD):
        remove(archive, name)
        archive.bucket.write_once(archive.key(name), content)
    check = archive_is_continuous(archive)
    (found,) = check.findings
    assert (found.check, found.outcome) == ("wal.digest", Outcome.UNPROVEN)
    assert "2 files" in found.says


def test_two_servers_archive_to_one_place(archive: WalArchive, tmp_path: Path) -> None:
    """The old timeline goes on: a test restore that archived its history, or an old primary that lives on."""
    history = archive.bucket.head(archive.key("00000002.history"))[0].modified

    def goes_on() -> bool:  # S3 counts whole seconds
        name, content = made.segment(1, 6)
        remove(archive, name)
        put(archive, tmp_path, name, content)
        return archive.bucket.head(archive.key(name))[0].modified > history

    wait_for("a second to pass", goes_on, where=archive.where, within_seconds=10)
    (found,) = archive_is_continuous(archive).findings
    assert found.check == "wal.two_writers"
    assert "recovery_target_timeline" in found.remedy


def test_the_last_segments_are_missing(archive: WalArchive) -> None:
    """No list shows that; the primary remembers what it archived."""
    remove(archive, LAST[0])
    assert archive_is_continuous(archive).outcome is Outcome.PROVEN
    (found,) = archive_is_continuous(archive, through=LAST[0]).findings
    assert (found.check, found.subject) == ("wal.through", LAST[0])


def test_what_lies_before_the_window_is_not_asked_for(archive: WalArchive, tmp_path: Path) -> None:
    remove(archive, SECOND[0])
    first = archive.bucket.head(archive.key(made.segment(1, 2)[0]))[0].modified

    def written_again() -> bool:
        for name, content in (THIRD, made.segment(1, 5), made.segment(2, 5), LAST):
            remove(archive, name)
            put(archive, tmp_path, name, content)
        return archive.bucket.head(archive.key(THIRD[0]))[0].modified > first

    wait_for("a second to pass", written_again, where=archive.where, within_seconds=10)
    since = archive.bucket.head(archive.key(THIRD[0]))[0].modified
    assert archive_is_continuous(archive).outcome is Outcome.FAILED
    check = archive_is_continuous(archive, since=since)
    assert check.outcome is Outcome.PROVEN, check.explain()


def test_nothing_at_all(store: Store) -> None:
    nothing = WalArchive(store.bucket(), "nothing/", segment_bytes=SMALL_BYTES)
    (found,) = archive_is_continuous(nothing).findings
    assert (found.check, found.outcome) == ("wal.empty", Outcome.FAILED)


def test_what_a_real_primary_archived(primary: Primary) -> None:
    check = archive_is_continuous(primary.archive, through=primary.last, deep=True)
    assert check.outcome is Outcome.PROVEN, check.explain()
