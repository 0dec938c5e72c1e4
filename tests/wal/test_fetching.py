"""The fetcher is ahead of whoever asks, within its bounds, and what it has guessed is never an answer."""

from __future__ import annotations

import itertools
import re
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from runbook_lib.errors import DamagedArtefact, Denied, RunbookError, TargetRefused, Unreachable
from runbook_lib.waiting import wait_for
from runbook_lib.wal.archive import Absence, WalArchive
from runbook_lib.wal.fetching import Fetched, Fetcher
from tests.wal import made
from tests.wal.made import IDENTIFIER, SMALL_BYTES
from tests.wal.place import Store
from tests.wal.s3_proxy import Fault, Kind

_prefixes = itertools.count()
AHEAD = 3


@pytest.fixture
def archive(store: Store, tmp_path: Path) -> WalArchive:
    """Twelve segments of one timeline."""
    store.proxy.reset()
    made_archive = WalArchive(
        store.bucket(through_proxy=True, attempts=1),
        f"fetch-{next(_prefixes)}/",
        system_identifier=IDENTIFIER,
        segment_bytes=SMALL_BYTES,
    )
    for number in range(1, 13):
        put(made_archive, tmp_path, 1, number)
    store.proxy.reset()
    return made_archive


@pytest.fixture
def fetcher(archive: WalArchive, tmp_path: Path) -> Iterator[Fetcher]:
    with Fetcher(archive, tmp_path / "spool", segments_ahead=AHEAD, parallel=2, patience_seconds=0.5) as opened:
        yield opened


def put(archive: WalArchive, folder: Path, timeline: int, number: int) -> None:
    name, content = made.segment(timeline, number)
    archive.put(made.file(folder, content), name)


def name(number: int, timeline: int = 1) -> str:
    return made.segment(timeline, number)[0]


def take(fetcher: Fetcher, number: int, timeline: int = 1) -> Fetched:
    """Fetch a segment, see that it is the right one, and take it away as PostgreSQL does."""
    fetched = fetcher.fetch(name(number, timeline))
    assert isinstance(fetched, Fetched)
    assert fetched.received.path.read_bytes() == made.segment(timeline, number)[1]
    fetched.received.path.unlink()
    return fetched


def lies_ready(fetcher: Fetcher) -> set[str]:
    return {path.name[:24] for path in fetcher.spool.glob("*.wal")}


def until_ready(fetcher: Fetcher, *numbers: int) -> None:
    wait_for(
        f"{numbers} to lie ready",
        lambda: lies_ready(fetcher),
        where=str(fetcher.spool),
        within_seconds=10,
        until={name(number) for number in numbers}.__eq__,
    )


def test_one_after_the_other(fetcher: Fetcher) -> None:
    assert not take(fetcher, 1).ahead
    for number in range(2, 13):
        take(fetcher, number)
    assert fetcher.counts.ahead >= 9
    assert isinstance(fetcher.fetch(name(13)), Absence)


def test_several_at_a_time_hide_the_latency(archive: WalArchive, fetcher: Fetcher, store: Store) -> None:
    store.proxy.latency_seconds = 0.05
    take(fetcher, 1)
    until_ready(fetcher, 2, 3, 4)
    assert store.proxy.most_at_once == 3  # two ahead, and the one that was asked for
    for number in (2, 3, 4):
        assert take(fetcher, number).ahead


def test_never_more_than_the_bound(fetcher: Fetcher) -> None:
    for number in range(1, 6):
        take(fetcher, number)
        until_ready(fetcher, *range(number + 1, number + 1 + AHEAD))


def test_the_bound_in_bytes(archive: WalArchive, tmp_path: Path) -> None:
    with Fetcher(archive, tmp_path / "small", segments_ahead=8, bytes_ahead=SMALL_BYTES * 2 + 1) as fetcher:
        take(fetcher, 1)
        until_ready(fetcher, 2, 3)
        take(fetcher, 2)
        until_ready(fetcher, 3, 4)


def test_out_of_order_and_twice(fetcher: Fetcher) -> None:
    for number in (5, 5, 3, 9, 1, 2, 2, 12, 11):
        take(fetcher, number)
    until_ready(fetcher, 12)


def test_a_jump_leaves_nothing_behind(fetcher: Fetcher) -> None:
    take(fetcher, 1)
    until_ready(fetcher, 2, 3, 4)
    take(fetcher, 7)
    until_ready(fetcher, 8, 9, 10)


def test_beyond_the_end_and_there_later(archive: WalArchive, fetcher: Fetcher, tmp_path: Path) -> None:
    """What was missed ahead, and what was absent once, is not remembered."""
    take(fetcher, 12)
    assert isinstance(fetcher.fetch(name(13)), Absence)
    assert isinstance(fetcher.fetch(name(13)), Absence)
    put(archive, tmp_path, 1, 13)
    put(archive, tmp_path, 1, 14)
    take(fetcher, 13)
    take(fetcher, 14)


def test_a_timeline_that_does_not_exist(fetcher: Fetcher, store: Store) -> None:
    assert isinstance(fetcher.fetch(name(3, timeline=7)), Absence)
    assert not lies_ready(fetcher)
    guessed = [path for _, path in store.proxy.requests if re.search("/00000007[0-9A-F]{16}$", path)]
    assert len([path for path in guessed if name(3, timeline=7) not in path]) <= 2  # as many as go at a time


def test_another_timeline_from_a_fork_on(archive: WalArchive, fetcher: Fetcher, tmp_path: Path) -> None:
    archive.put(made.file(tmp_path, b"1\t0/50100\tx\n"), "00000002.history")
    for number in (5, 6, 7):
        put(archive, tmp_path, 2, number)
    take(fetcher, 4)
    take(fetcher, 5, timeline=2)
    take(fetcher, 6, timeline=2)
    take(fetcher, 7, timeline=2)
    assert isinstance(fetcher.fetch(name(8, timeline=2)), Absence)
    assert not lies_ready(fetcher)


def test_histories_are_never_guessed(fetcher: Fetcher, store: Store) -> None:
    for number in range(1, 5):
        take(fetcher, number)
    assert not [path for _, path in store.proxy.requests if "history" in path]
    assert isinstance(fetcher.fetch("00000002.history"), Absence)
    assert not [path for _, path in store.proxy.requests if "00000003.history" in path]


@pytest.mark.parametrize("kind", [Kind.STATUS, Kind.RESET, Kind.SHORT, Kind.FLIP])
def test_failures_are_tried_again(fetcher: Fetcher, store: Store, kind: Kind) -> None:
    store.proxy.faults = [Fault(kind, path=name(number), method="GET", times=1) for number in range(1, 7)]
    for number in range(1, 7):
        take(fetcher, number)
    assert all(fault.hit == 1 for fault in store.proxy.faults)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(Kind.STATUS, path=name(2), status=500), Unreachable),
        (Fault(Kind.STATUS, path=name(2), status=403), Denied),
        (Fault(Kind.FLIP, path=name(2), method="GET"), DamagedArtefact),
        (Fault(Kind.STATUS, path=f"/{name(2)}", status=404, method="GET"), Unreachable),
        (Fault(Kind.NO_BUCKET), RunbookError),
    ],
    ids=["500", "403", "flipped", "404 and listed", "no bucket"],
)
def test_failures_that_last_are_told(fetcher: Fetcher, store: Store, fault: Fault, error: type[RunbookError]) -> None:
    store.proxy.faults = [fault]
    with pytest.raises(error):
        fetcher.fetch(name(2))
    assert fetcher.counts.failed == 1
    store.proxy.reset()
    take(fetcher, 2)


def test_a_failure_ahead_is_not_an_answer(fetcher: Fetcher, store: Store) -> None:
    """All that is fetched ahead fails; what is asked for is looked for anew."""
    ahead = (2, 3, 4)
    store.proxy.faults = [Fault(Kind.STATUS, path=name(number), method="GET", status=404, times=1) for number in ahead]
    take(fetcher, 1)
    wait_for(
        "the first look ahead to fail",
        lambda: store.proxy.faults[0].hit,
        where="the proxy",
        within_seconds=5,
    )
    for number in ahead:
        take(fetcher, number)


def test_many_at_once(fetcher: Fetcher) -> None:
    """Requests that nobody sends this way: each gets its own file."""
    got: list[int] = []

    def work(number: int) -> None:
        take(fetcher, number)
        got.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in (1, 2, 3, 2, 7, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [1, 1, 2, 2, 3, 7]


def test_memory_does_not_grow_with_a_segment(store: Store, tmp_path: Path) -> None:
    size = 64 << 20
    archive = WalArchive(store.bucket(), f"large-{next(_prefixes)}/", system_identifier=IDENTIFIER, segment_bytes=size)
    large, content = made.segment(1, 1, size=size)
    archive.put(made.file(tmp_path, content), large)
    del content
    with Fetcher(archive, tmp_path / "spool") as fetcher:
        tracemalloc.start()
        fetched = fetcher.fetch(large)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert isinstance(fetched, Fetched)
    assert peak < 12 << 20


def test_what_an_earlier_one_left_is_not_believed(archive: WalArchive, tmp_path: Path) -> None:
    spool = tmp_path / "left"
    spool.mkdir()
    (spool / f"{name(2)}.1.wal").write_bytes(b"rubbish")
    (spool / "somebody's.txt").touch()
    with Fetcher(archive, spool, segments_ahead=0) as fetcher:
        assert not lies_ready(fetcher)
        take(fetcher, 2)
    assert (spool / "somebody's.txt").exists()


def test_a_folder_is_one_fetchers_alone(archive: WalArchive, fetcher: Fetcher) -> None:
    with pytest.raises(TargetRefused, match="another fetcher"):
        Fetcher(archive, fetcher.spool)


def test_nothing_is_left(archive: WalArchive, tmp_path: Path, store: Store) -> None:
    store.proxy.latency_seconds = 0.2
    with Fetcher(archive, tmp_path / "left", segments_ahead=8) as fetcher:
        take(fetcher, 1)
    assert not lies_ready(fetcher)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("wal-ahead")]
