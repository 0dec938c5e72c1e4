"""Nothing is overwritten, nothing is lost, nothing is stored or fetched unseen, nothing is absent without proof."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import pytest

from runbook_lib.errors import DamagedArtefact, Denied, NoRoom, NotFound, TargetRefused, Unreachable
from runbook_lib.wal.archive import NAME, SHA256, SYSTEM_IDENTIFIER, WalArchive
from tests.wal import made
from tests.wal.made import IDENTIFIER, SMALL_BYTES
from tests.wal.place import Store
from tests.wal.s3_proxy import Fault, Kind

HISTORY = b"1\t0/50100\tno recovery target specified\n"
"""Timeline 2 leaves timeline 1 in segment 5."""
_prefixes = itertools.count()


@pytest.fixture
def archive(store: Store) -> WalArchive:
    """An archive that is empty."""
    store.proxy.reset()
    return make(store, f"wal-{next(_prefixes)}/")


def make(store: Store, prefix: str, **told: bool) -> WalArchive:
    return WalArchive(
        store.bucket(through_proxy=True),
        prefix,
        system_identifier=IDENTIFIER,
        segment_bytes=SMALL_BYTES,
        **told,
    )


def put(archive: WalArchive, folder: Path, timeline: int, *numbers: int) -> None:
    for number in numbers:
        name, content = made.segment(timeline, number)
        archive.put(made.file(folder, content), name)


class TestPut:
    def test_a_segment(self, archive: WalArchive, tmp_path: Path) -> None:
        name, content = made.segment(1, 1)
        archived = archive.put(made.file(tmp_path, content), name)
        assert not archived.repeated
        assert archive.bucket.read(archive.key(name)) == content
        _, told = archive.bucket.head(archive.key(name))
        assert (told[NAME], told[SHA256], told[SYSTEM_IDENTIFIER]) == (name, archived.sha256, IDENTIFIER)

    def test_the_same_again(self, archive: WalArchive, tmp_path: Path) -> None:
        name, content = made.segment(1, 1)
        first = archive.put(made.file(tmp_path, content), name)
        again = archive.put(made.file(tmp_path, content), name)
        assert again.repeated
        assert again.object.modified == first.object.modified

    def test_the_same_that_another_tool_archived(self, archive: WalArchive, tmp_path: Path) -> None:
        name, content = made.segment(1, 1)
        archive.bucket.write_once(archive.key(name), content)
        assert archive.put(made.file(tmp_path, content), name).repeated

    @pytest.mark.parametrize("metadata", [True, False])
    def test_other_bytes_are_refused(self, archive: WalArchive, tmp_path: Path, metadata: bool) -> None:
        name, content = made.segment(1, 1)
        if metadata:
            archive.put(made.file(tmp_path, content), name)
        else:
            archive.bucket.write_once(archive.key(name), content)
        other = made.segment(1, 1, seed=1)[1]
        with pytest.raises(TargetRefused, match="other bytes are there"):
            archive.put(made.file(tmp_path, other), name)
        assert archive.bucket.read(archive.key(name)) == content

    def test_an_answer_that_is_lost(self, archive: WalArchive, store: Store, tmp_path: Path) -> None:
        """The put is carried out, its answer does not come: the client repeats it, and finds its own bytes."""
        store.proxy.faults = [Fault(Kind.RESET_AFTER, method="PUT", times=1)]
        name, content = made.segment(1, 1)
        assert archive.put(made.file(tmp_path, content), name).repeated
        assert store.proxy.faults[0].hit == 1

    def test_every_answer_is_lost(self, archive: WalArchive, store: Store, tmp_path: Path) -> None:
        store.proxy.faults = [Fault(Kind.RESET_AFTER, method="PUT")]
        name, content = made.segment(1, 1)
        path = made.file(tmp_path, content)
        with pytest.raises(Unreachable):
            archive.put(path, name)
        store.proxy.reset()
        assert archive.put(path, name).repeated

    @pytest.mark.parametrize("status", [500, 503, 403])
    def test_a_refusal_is_told(self, archive: WalArchive, store: Store, tmp_path: Path, status: int) -> None:
        store.proxy.faults = [Fault(Kind.STATUS, method="PUT", status=status)]
        name, content = made.segment(1, 1)
        with pytest.raises((Unreachable, Denied), match=str(status)):
            archive.put(made.file(tmp_path, content), name)
        store.proxy.reset()
        assert not archive.bucket.objects(archive.prefix)
        assert not archive.put(made.file(tmp_path, content), name).repeated

    def test_a_byte_that_changes_on_the_way(self, archive: WalArchive, store: Store, tmp_path: Path) -> None:
        store.proxy.faults = [Fault(Kind.FLIP_UPLOAD, method="PUT")]
        name, content = made.segment(1, 1)
        with pytest.raises(Unreachable, match="BadDigest"):
            archive.put(made.file(tmp_path, content), name)
        store.proxy.reset()
        assert not archive.bucket.objects(archive.prefix)

    def test_two_archivers_at_once(self, store: Store, archive: WalArchive, tmp_path: Path) -> None:
        """Of two servers with different bytes for one name exactly one is told that they are there."""
        for number in range(1, 9):
            results: list[object] = []
            begin = threading.Barrier(2)

            def work(seed: int, number: int = number, results: list[object] = results) -> None:
                name, content = made.segment(1, number, seed=seed)
                path = made.file(tmp_path, content, f"{number}-{seed}")
                begin.wait()  # noqa: B023 - it is this round's
                try:
                    results.append(archive.put(path, name).sha256)
                except (TargetRefused, Unreachable) as refused:
                    results.append(refused)

            threads = [threading.Thread(target=work, args=(seed,)) for seed in (0, 1)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            told = [each for each in results if isinstance(each, str)]
            name, _ = made.segment(1, number)
            assert len(told) == 1, results
            assert archive.bucket.head(archive.key(name))[1][SHA256] == told[0]
            archive.verify(name)

    def test_what_is_not_its_name(self, archive: WalArchive, tmp_path: Path) -> None:
        name, content = made.segment(1, 1)
        for wrong in (
            b"",
            content[:-1],
            bytes(len(content)),
            made.segment(1, 2)[1],
            made.segment(1, 1, identifier="7")[1],
        ):
            with pytest.raises(DamagedArtefact):
                archive.put(made.file(tmp_path, wrong), name)
        with pytest.raises(TargetRefused, match="no file such a name"):
            archive.put(made.file(tmp_path, content), f"{name}.gz")
        assert not archive.bucket.objects(archive.prefix)

    def test_histories_labels_and_partials(self, archive: WalArchive, tmp_path: Path) -> None:
        label = b"START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n"
        name, content = made.segment(1, 5)
        for each, bytes_ in (
            ("00000002.history", HISTORY),
            ("000000010000000000000002.00000028.backup", label),
            (f"{name}.partial", content),
        ):
            assert archive.put(made.file(tmp_path, bytes_), each).object.bytes == len(bytes_)
        with pytest.raises(DamagedArtefact):
            archive.put(made.file(tmp_path, b"nonsense"), "00000003.history")


class TestGet:
    def test_what_was_put(self, archive: WalArchive, tmp_path: Path) -> None:
        name, content = made.segment(1, 1)
        archived = archive.put(made.file(tmp_path, content), name)
        received = archive.get(name, tmp_path / "into")
        assert (tmp_path / "into").read_bytes() == content
        assert received.sha256 == archived.sha256

    def test_what_is_not_there(self, archive: WalArchive, tmp_path: Path) -> None:
        with pytest.raises(NotFound):
            archive.get(made.segment(1, 1)[0], tmp_path / "into")
        assert not (tmp_path / "into").exists()

    @pytest.mark.parametrize(
        ("kind", "error"),
        [
            (Kind.FLIP, DamagedArtefact),
            (Kind.SHORT, Unreachable),
            (Kind.SHORTER, DamagedArtefact),
            (Kind.RESET, Unreachable),
        ],
    )
    def test_what_does_not_arrive_whole(
        self, archive: WalArchive, store: Store, tmp_path: Path, kind: Kind, error: type[Exception]
    ) -> None:
        put(archive, tmp_path, 1, 1)
        store.proxy.faults = [Fault(kind, method="GET")]
        with pytest.raises(error):
            archive.get(made.segment(1, 1)[0], tmp_path / "into")
        assert not (tmp_path / "into").exists()

    def test_without_a_digest(self, store: Store, archive: WalArchive, tmp_path: Path) -> None:
        name, content = made.segment(1, 1)
        archive.bucket.write_once(archive.key(name), content)
        with pytest.raises(DamagedArtefact, match="nobody wrote down its digest"):
            archive.get(name, tmp_path / "into")
        lenient = make(store, archive.prefix, accept_without_digest=True)
        assert lenient.get(name, tmp_path / "into").bytes == SMALL_BYTES

    def test_no_room(self, archive: WalArchive, tmp_path: Path) -> None:
        put(archive, tmp_path, 1, 1)
        with Path("/dev/full").open("wb") as full:
            link = tmp_path / "full"
            link.symlink_to(f"/proc/self/fd/{full.fileno()}")
            with pytest.raises((NoRoom, FileExistsError)):
                archive.get(made.segment(1, 1)[0], link)


class TestProveAbsent:
    def test_beyond_the_end(self, archive: WalArchive, tmp_path: Path) -> None:
        put(archive, tmp_path, 1, 1, 2)
        assert "lists no" in archive.prove_absent(made.segment(1, 3)[0]).proof
        assert archive.prove_absent("00000002.history").name == "00000002.history"

    def test_what_is_there(self, archive: WalArchive, tmp_path: Path) -> None:
        put(archive, tmp_path, 1, 1)
        with pytest.raises(Unreachable, match="and lists it"):
            archive.prove_absent(made.segment(1, 1)[0])

    def test_a_hole(self, archive: WalArchive, tmp_path: Path) -> None:
        put(archive, tmp_path, 1, 1, 3)
        with pytest.raises(DamagedArtefact, match="which comes after it"):
            archive.prove_absent(made.segment(1, 2)[0])

    def test_a_timeline_that_begins_later_is_no_hole(self, archive: WalArchive, tmp_path: Path) -> None:
        put(archive, tmp_path, 1, 4, 5)
        archive.put(made.file(tmp_path, HISTORY), "00000002.history")
        put(archive, tmp_path, 2, 5, 6)
        archive.prove_absent(made.segment(2, 4)[0])
        archive.prove_absent(made.segment(2, 7)[0])
        archive.prove_absent(made.segment(1, 6)[0])

    def test_a_timeline_that_another_goes_on_from(self, archive: WalArchive, tmp_path: Path) -> None:
        put(archive, tmp_path, 1, 3)
        archive.put(made.file(tmp_path, HISTORY), "00000002.history")
        with pytest.raises(DamagedArtefact, match="goes on from 0/50100"):
            archive.prove_absent(made.segment(1, 4)[0])
        archive.prove_absent(made.segment(1, 5)[0])  # the new timeline's own copy may stand for it

    def test_a_history_whose_timeline_is_there(self, archive: WalArchive, tmp_path: Path) -> None:
        put(archive, tmp_path, 2, 5)
        with pytest.raises(DamagedArtefact, match="there is WAL of timeline 2"):
            archive.prove_absent("00000002.history")

    def test_a_list_that_nobody_answers(self, archive: WalArchive, store: Store) -> None:
        for fault, error in (
            (Fault(Kind.STATUS, status=403, path="list-type"), Denied),
            (Fault(Kind.STATUS, status=500, path="list-type"), Unreachable),
            (Fault(Kind.NO_BUCKET), NotFound),
        ):
            store.proxy.faults = [fault]
            with pytest.raises(error):
                archive.prove_absent(made.segment(1, 1)[0])

    def test_a_timeline_that_does_not_exist(self, archive: WalArchive, tmp_path: Path) -> None:
        put(archive, tmp_path, 1, 1)
        archive.prove_absent(made.segment(9, 1)[0])


def test_the_end_of_an_archive_with_nothing_in_it(archive: WalArchive) -> None:
    with pytest.raises(NotFound, match="there is WAL of none"):
        archive.end()
