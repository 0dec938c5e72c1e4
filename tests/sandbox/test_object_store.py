"""The sandbox's S3 server is a real one: it keeps bytes and versions, refuses strangers, and leaves nothing."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

from runbook_lib.errors import ToolFailed
from runbook_lib.reach.workspace import Workspace
from runbook_lib.sandbox.object_store import ObjectStore
from runbook_lib.waiting import wait_for

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PROJECT = Path(__file__).parents[2]
MB = 1 << 20


def connect(store: ObjectStore, *, access_key: str = "", secret_key: str = "") -> S3Client:
    return boto3.client(
        "s3",
        endpoint_url=store.endpoint_url,
        region_name=store.region,
        aws_access_key_id=access_key or store.access_key,
        aws_secret_access_key=secret_key or store.secret_key,
        config=Config(retries={"total_max_attempts": 1}, read_timeout=30),
    )


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with Workspace.open() as workspace:
        yield ObjectStore.start(workspace)


@pytest.fixture
def bucket(store: ObjectStore, request: pytest.FixtureRequest) -> str:
    name = "b" + hashlib.sha256(request.node.name.encode()).hexdigest()[:12]
    connect(store).create_bucket(Bucket=name)
    return name


def code(refused: pytest.ExceptionInfo[ClientError]) -> tuple[str, int]:
    answer = refused.value.response
    return answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]


class TestCredentials:
    def test_that_are_right_are_accepted(self, store: ObjectStore, bucket: str) -> None:
        connect(store).put_object(Bucket=bucket, Key="key", Body=b"value")
        assert connect(store).get_object(Bucket=bucket, Key="key")["Body"].read() == b"value"

    def test_that_are_wrong_are_refused(self, store: ObjectStore, bucket: str) -> None:
        for wrong, expected in (
            (connect(store, secret_key="wrong"), "SignatureDoesNotMatch"),
            (connect(store, access_key="STRANGER"), "InvalidAccessKeyId"),
        ):
            with pytest.raises(ClientError) as refused:
                wrong.list_buckets()
            assert code(refused) == (expected, 403)
            with pytest.raises(ClientError) as refused:
                wrong.put_object(Bucket=bucket, Key="key", Body=b"value")
            assert code(refused) == (expected, 403)

    def test_none_are_refused_too(self, store: ObjectStore, bucket: str) -> None:
        from botocore import UNSIGNED

        anonymous = boto3.client(
            "s3",
            endpoint_url=store.endpoint_url,
            region_name=store.region,
            config=Config(signature_version=UNSIGNED, retries={"total_max_attempts": 1}),
        )
        with pytest.raises(ClientError) as refused:
            anonymous.list_objects_v2(Bucket=bucket)
        assert code(refused) == ("AccessDenied", 403)


class TestObjects:
    def test_in_parts_come_back_in_ranges(self, store: ObjectStore, bucket: str) -> None:
        content = os.urandom(40 * MB)
        transfer = TransferConfig(multipart_threshold=8 * MB, multipart_chunksize=8 * MB, max_concurrency=4)
        client = connect(store)
        client.upload_fileobj(io.BytesIO(content), bucket, "big", Config=transfer)
        back = io.BytesIO()
        client.download_fileobj(bucket, "big", back, Config=transfer)
        assert back.getvalue() == content
        some = client.get_object(Bucket=bucket, Key="big", Range=f"bytes={9 * MB}-{9 * MB + 99}")
        assert some["Body"].read() == content[9 * MB : 9 * MB + 100]

    def test_have_versions(self, store: ObjectStore, bucket: str) -> None:
        client = connect(store)
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        first = client.put_object(Bucket=bucket, Key="key", Body=b"first")["VersionId"]
        second = client.put_object(Bucket=bucket, Key="key", Body=b"second")["VersionId"]
        client.delete_object(Bucket=bucket, Key="key")
        listed = client.list_object_versions(Bucket=bucket)
        assert {version["VersionId"] for version in listed["Versions"]} == {first, second}
        assert len(listed["DeleteMarkers"]) == 1
        old = client.get_object(Bucket=bucket, Key="key", VersionId=first)
        assert old["Body"].read() == b"first"

    def test_are_written_once_where_that_is_asked_for(self, store: ObjectStore, bucket: str) -> None:
        client = connect(store)
        client.put_object(Bucket=bucket, Key="manifest", Body=b"first", IfNoneMatch="*")
        with pytest.raises(ClientError) as refused:
            client.put_object(Bucket=bucket, Key="manifest", Body=b"second", IfNoneMatch="*")
        assert code(refused) == ("PreconditionFailed", 412)
        assert client.get_object(Bucket=bucket, Key="manifest")["Body"].read() == b"first"

    def test_that_are_missing_are_not_found(self, store: ObjectStore, bucket: str) -> None:
        with pytest.raises(ClientError) as missing:
            connect(store).get_object(Bucket=bucket, Key="never")
        assert code(missing) == ("NoSuchKey", 404)


def listening_addresses(store: ObjectStore) -> set[tuple[str, int]]:
    """Return the hosts (as the kernel writes them) and ports that a store, or as root its account, listens on."""
    assert store._process is not None
    account = store.workspace.account
    ours = set()
    if account is None:
        ours = {str(each.readlink()) for each in Path(f"/proc/{store._process.pid}/fd").iterdir()}
    found = set()
    for table in "tcp", "tcp6":
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, address, _, state, _, _, _, uid, _, inode, *_ = line.split()
            its_own = f"socket:[{inode}]" in ours if account is None else int(uid) == account.uid
            if state == "0A" and its_own:
                host, port = address.split(":")
                found.add((host, int(port, 16)))
    return found


class TestPorts:
    def test_are_open_to_this_machine_only(self, store: ObjectStore) -> None:
        listening = wait_for(
            "all ports to be open",
            lambda: listening_addresses(store),
            until=lambda addresses: len(addresses) == len(store._ports),
            where=store.endpoint_url,
            within_seconds=20,
        )
        assert {port for _, port in listening} == set(store._ports.values())
        assert {host for host, _ in listening} == {"0100007F"}

    def test_that_were_lost_to_somebody_else_are_chosen_anew(self) -> None:
        robbers: list[socket.socket] = []

        class RobbedStore(ObjectStore):
            """A store that loses a port to somebody else between choosing and using it, at the first attempt."""

            def _launch(self, program: Path) -> None:
                if not robbers:
                    robbers.append(socket.create_server(("127.0.0.1", self._ports["filer"])))
                super()._launch(program)

        try:
            with Workspace.open() as workspace:
                store = RobbedStore.start(workspace)
                assert store.is_running
                assert store._ports["filer"] != robbers[0].getsockname()[1]
                assert connect(store).list_buckets()["Buckets"] == []
        finally:
            robbers[0].close()

    def test_that_was_demanded_and_is_taken_is_told(self) -> None:
        with (
            Workspace.open() as workspace,
            socket.create_server(("127.0.0.1", 0)) as taken,
            pytest.raises(ToolFailed, match=r"private S3 server, 127\.0\.0\.1:\d+: .*in use.*demand no port"),
        ):
            ObjectStore.start(workspace, port=taken.getsockname()[1])

    def test_that_was_demanded_is_used(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        with Workspace.open() as workspace:
            store = ObjectStore.start(workspace, port=port)
            assert store.endpoint_url == f"http://127.0.0.1:{port}"


def test_starting_obeys_no_profile_and_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/no/such/file")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with Workspace.open() as workspace:
        assert ObjectStore.start(workspace).is_running


class TestEnd:
    def test_stopping_is_quick_and_removes_the_sockets(self) -> None:
        with Workspace.open() as workspace:
            store = ObjectStore.start(workspace)
            sockets = store._sockets()
            assert sum(path.is_socket() for path in sockets) >= 4  # that of the admin role comes later
            store.stop()
            assert not store.is_running
            assert not any(path.exists() for path in sockets)
            store.stop()

    def test_two_at_the_same_time_are_apart(self) -> None:
        with Workspace.open() as workspace:
            one = ObjectStore.start(workspace, name="one")
            two = ObjectStore.start(workspace, name="two")
            connect(one).create_bucket(Bucket="only-here")
            assert connect(two).list_buckets()["Buckets"] == []
            with pytest.raises(ClientError) as refused:
                connect(two, access_key=one.access_key, secret_key=one.secret_key).list_buckets()
            assert code(refused) == ("InvalidAccessKeyId", 403)

    def test_killed_with_its_owner_it_leaves_nothing(self) -> None:
        program = f"""
            import sys
            sys.path.insert(0, {str(PROJECT)!r})
            from runbook_lib.reach.workspace import Workspace
            from runbook_lib.sandbox.object_store import ObjectStore
            with Workspace.open() as workspace:
                store = ObjectStore.start(workspace)
                print(workspace.path, store._process.pid, *store._sockets(), sep="|", flush=True)
                sys.stdin.read()
        """
        owner = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert owner.stdout is not None
        try:
            path, pid, *sockets = owner.stdout.readline().strip().split("|")
            traces = [Path(path), Path(f"/proc/{pid}"), *map(Path, sockets)]
            assert sum(trace.exists() for trace in traces) >= 6  # the socket of the admin role comes later
            owner.kill()
            wait_for(
                "the store to be gone",
                lambda: [trace for trace in traces if trace.exists()],
                until=lambda left: not left,
                where=path,
                within_seconds=10,
            )
        finally:
            owner.kill()
            owner.communicate()
