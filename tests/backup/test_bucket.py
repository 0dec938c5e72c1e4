"""Bytes go to S3 and come back as they were, or not at all; and every failure says which it is.

Against SeaweedFS, which is a server of its own. What SeaweedFS does not do as S3 does is tried against moto.
"""

from __future__ import annotations

import hashlib
import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest
from moto.server import ThreadedMotoServer

from runbook_lib.errors import DamagedArtefact, Denied, NotFound, ProfileInvalid, Unreachable
from runbook_lib.reach.objects import MIB, Bucket, StoredObject
from tests.backup import real


@contextmanager
def stream(content: bytes) -> Iterator[BinaryIO]:
    """The reading end of a pipe, as a program's output comes."""
    reading, writing = os.pipe()

    def write() -> None:
        with os.fdopen(writing, "wb") as file:
            file.write(content)

    writer = threading.Thread(target=write)
    writer.start()
    with os.fdopen(reading, "rb") as file:
        yield file
        file.read()
    writer.join()


def random_bytes(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def store(bucket: Bucket, key: str, content: bytes) -> StoredObject:
    with stream(content) as source:
        return bucket.write_stream(key, source).object


class TestWritingOnce:
    def test_writes_what_was_given(self, bucket: Bucket) -> None:
        written = bucket.write_once("once/a", b"first", metadata={"made-by": "me"})
        assert bucket.read("once/a") == b"first"
        assert written.sha256 == hashlib.sha256(b"first").hexdigest()
        assert bucket.head("once/a")[1] == {"made-by": "me"}

    def test_refuses_a_key_that_is_taken(self, bucket: Bucket) -> None:
        bucket.write_once("once/b", b"first")
        with pytest.raises(Denied, match="the key is taken"):
            bucket.write_once("once/b", b"second")
        assert bucket.read("once/b") == b"first"


class TestStreaming:
    @pytest.mark.parametrize("size", [0, 1, 8 * MIB - 1, 8 * MIB, 8 * MIB + 1, 20 * MIB])
    def test_there_and_back(self, size: int, bucket: Bucket, tmp_path: Path) -> None:
        content = random_bytes(size)
        told: list[int] = []
        with stream(content) as source:
            written = bucket.write_stream(f"stream/{size}", source, on_bytes=told.append)
        assert (written.object.bytes, written.sha256) == (size, hashlib.sha256(content).hexdigest())
        assert told[-1] == size
        assert bucket.fetch(written.object, tmp_path / "back", sha256=written.sha256) == written.sha256
        assert (tmp_path / "back").read_bytes() == content

    def test_refuses_a_key_that_is_taken(self, bucket: Bucket) -> None:
        store(bucket, "stream/taken", b"first")
        with stream(b"second") as source, pytest.raises(Denied, match="the key is taken"):
            bucket.write_stream("stream/taken", source)
        assert bucket.read("stream/taken") == b"first"
        assert len(bucket.versions("stream/taken")) == 1
        assert bucket.unfinished_uploads("stream/taken") == []

    @pytest.mark.parametrize("size", [100, 20 * MIB])
    def test_leaves_nothing_when_its_producer_failed(self, size: int, bucket: Bucket) -> None:
        def accept() -> None:
            raise RuntimeError("pg_dump: exit code 1")

        with stream(random_bytes(size)) as source, pytest.raises(RuntimeError, match="pg_dump"):
            bucket.write_stream("stream/failed", source, accept=accept)
        assert bucket.versions("stream/failed") == []
        assert bucket.unfinished_uploads("stream/failed") == []

    def test_leaves_nothing_when_it_is_interrupted(self, bucket: Bucket) -> None:
        def press(done: int) -> None:
            if done > 8 * MIB:
                raise KeyboardInterrupt

        with stream(random_bytes(20 * MIB)) as source, pytest.raises(KeyboardInterrupt):
            bucket.write_stream("stream/interrupted", source, on_bytes=press)
        assert bucket.versions("stream/interrupted") == []
        assert bucket.unfinished_uploads("stream/interrupted") == []


class TestFetching:
    def test_another_digest_removes_the_file(self, bucket: Bucket, tmp_path: Path) -> None:
        stored = store(bucket, "fetch/digest", b"content")
        with pytest.raises(DamagedArtefact, match="its sha256 is"):
            bucket.fetch(stored, tmp_path / "f", sha256="0" * 64)
        assert list(tmp_path.iterdir()) == []

    def test_no_digest_is_returned_for_whoever_wants_it(self, bucket: Bucket, tmp_path: Path) -> None:
        stored = store(bucket, "fetch/none", b"content")
        assert bucket.fetch(stored, tmp_path / "f", sha256=None) == hashlib.sha256(b"content").hexdigest()

    def test_asks_for_the_very_version(self, bucket: Bucket, tmp_path: Path) -> None:
        first = store(bucket, "fetch/version", b"first")
        bucket.client.put_object(Bucket=bucket.name, Key="fetch/version", Body=b"other")
        bucket.fetch(first, tmp_path / "f", sha256=hashlib.sha256(b"first").hexdigest())
        assert (tmp_path / "f").read_bytes() == b"first"

    def test_removed_before_it_is_read(self, bucket: Bucket, tmp_path: Path) -> None:
        stored = store(bucket, "fetch/removed", b"content")
        bucket.remove(stored.key, stored.version_id)
        with pytest.raises(NotFound, match="somebody or a lifecycle rule removed it"):
            bucket.fetch(stored, tmp_path / "f", sha256=None)
        assert list(tmp_path.iterdir()) == []

    def test_removed_while_it_is_read(self, bucket: Bucket, tmp_path: Path) -> None:
        stored = store(bucket, "fetch/vanishing", random_bytes(80 * MIB))
        with pytest.raises(NotFound, match="somebody or a lifecycle rule removed it"):
            bucket.fetch(
                stored, tmp_path / "f", sha256=None, on_bytes=lambda _: bucket.remove(stored.key, stored.version_id)
            )
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("size", [79 * MIB, 80 * MIB, 9 * MIB])
    def test_replaced_while_it_is_read(self, size: int, tmp_path: Path) -> None:
        with real.bucket(versioned=False) as bucket:
            content = random_bytes(80 * MIB)
            stored = store(bucket, "replaced", content)
            assert stored.version_id == ""

            def replace(done: int) -> None:
                if done == 8 * MIB:
                    bucket.client.put_object(Bucket=bucket.name, Key="replaced", Body=bytes(size))

            with pytest.raises(DamagedArtefact):
                bucket.fetch(stored, tmp_path / "f", sha256=hashlib.sha256(content).hexdigest(), on_bytes=replace)
            assert list(tmp_path.iterdir()) == []

    def test_an_empty_object(self, bucket: Bucket, tmp_path: Path) -> None:
        bucket.fetch(store(bucket, "fetch/empty", b""), tmp_path / "f", sha256=hashlib.sha256().hexdigest())
        assert (tmp_path / "f").read_bytes() == b""

    def test_the_file_is_private(self, bucket: Bucket, tmp_path: Path) -> None:
        bucket.fetch(store(bucket, "fetch/private", b"x"), tmp_path / "f", sha256=None)
        assert (tmp_path / "f").stat().st_mode & 0o777 == 0o600


class TestListing:
    def test_more_objects_than_one_page_holds(self, bucket: Bucket) -> None:
        for number in range(1005):
            bucket.client.put_object(Bucket=bucket.name, Key=f"many/{number:04}", Body=b"")
        assert [each.key for each in bucket.objects("many/")] == [f"many/{number:04}" for number in range(1005)]

    def test_nothing(self, bucket: Bucket) -> None:
        assert bucket.objects("nothing/") == bucket.versions("nothing/") == []

    def test_of_versions_is_newest_first(self, bucket: Bucket) -> None:
        for content in (b"1", b"22", b"333"):
            bucket.client.put_object(Bucket=bucket.name, Key="versions/a", Body=content)
        assert [each.bytes for each in bucket.versions("versions/")] == [3, 2, 1]


class TestRefusals:
    def test_wrong_credentials(self, bucket: Bucket) -> None:
        stranger = Bucket(bucket.name, endpoint_url=bucket.endpoint, region="us-east-1", credentials=("a", "b"))
        with pytest.raises(Denied, match="check the credentials in use"):
            stranger.objects()

    def test_nobody_answers(self) -> None:
        nobody = Bucket("b", endpoint_url="http://127.0.0.1:9", region="us-east-1", credentials=("a", "b"))
        with pytest.raises(Unreachable, match=r"bucket b at http://127\.0\.0\.1:9: no answer"):
            nobody.objects()

    @pytest.mark.parametrize("endpoint", ["nonsense", "http://", "ht tp://x"])
    def test_no_address(self, endpoint: str) -> None:
        with pytest.raises(ProfileInvalid, match="write endpoint_url as"):
            Bucket("backups", endpoint_url=endpoint, region="us-east-1", credentials=("a", "b"))

    def test_no_such_key(self, bucket: Bucket) -> None:
        for ask in (bucket.read, bucket.head):
            with pytest.raises(NotFound):
                ask("no/such/key")


@pytest.fixture(scope="module")
def moto() -> Iterator[Bucket]:
    """A bucket of moto's, in this process."""
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    bucket = Bucket("frozen", endpoint_url=f"http://{host}:{port}", region="us-east-1", credentials=("a", "b"))
    bucket.client.create_bucket(Bucket=bucket.name)
    yield bucket
    server.stop()


class TestWhatSeaweedFSDoesNotRefuse:
    def test_an_object_that_is_frozen(self, moto: Bucket, tmp_path: Path) -> None:
        moto.client.put_object(Bucket="frozen", Key="x", Body=b"cold", StorageClass="GLACIER")
        stored, _ = moto.head("x")
        with pytest.raises(Denied, match="InvalidObjectState"):
            moto.fetch(stored, tmp_path / "f", sha256=None)
        assert list(tmp_path.iterdir()) == []

    def test_to_write_into_a_bucket_that_is_not_there(self, moto: Bucket) -> None:
        missing = Bucket("missing", endpoint_url=moto.endpoint, region="us-east-1", credentials=("a", "b"))
        with stream(b"x") as source, pytest.raises(NotFound, match="create the bucket missing"):
            missing.write_stream("x", source)
