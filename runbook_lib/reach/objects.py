"""How to reach objects in S3.

The only importer of boto3. Credentials come from the AWS chain alone; the endpoint too, unless a profile names one.
A dump is streamed in and fetched in parallel ranges, both in constant memory and with a digest taken on the way, so
that no byte is written or believed that was not counted. Every failure is told apart: a bucket that is not there, a
key that is not there, a refusal and silence are four different errors, because on S3 the wrong guess loses data.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypedDict, cast

import boto3
import botocore.exceptions
from botocore.config import Config

from runbook_lib.errors import (
    DamagedArtefact,
    Denied,
    NoRoom,
    NotFound,
    ProfileInvalid,
    RunbookError,
    TargetRefused,
    Unreachable,
)

if TYPE_CHECKING:
    from botocore.model import OperationModel
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

MIB = 1024 * 1024
_RANGE_BYTES = 8 * MIB
_PIECE_BYTES = MIB
_IN_FLIGHT = 4
"""Ranges under way at once: enough to hide a round trip, few enough to stay below 40 MB of memory."""
_READS = ("Get", "Head", "List")
"""How the operations of S3 begin that alter nothing."""
_MAX_PARTS = 10_000
"""S3's own limit of parts for one object."""


@dataclass(frozen=True)
class StoredObject:
    """One version of one object."""

    bucket: str
    """The bucket's name."""
    key: str
    """The object's key."""
    version_id: str
    """The version; empty in a bucket that keeps none."""
    bytes: int
    """Its size."""
    modified: datetime
    """When it was written, as S3 says, in UTC."""

    @property
    def url(self) -> str:
        """The address as people type it, with the version where there is one."""
        version = f"?versionId={self.version_id}" if self.version_id else ""
        return f"s3://{self.bucket}/{self.key}{version}"


@dataclass(frozen=True)
class Written:
    """What was written, as counted by the writer."""

    object: StoredObject
    """What S3 says is there now."""
    sha256: str
    """The digest of all bytes sent, in hexadecimal."""


# What they write for debugging is whole requests: session tokens, signatures, and the bytes of answers.
for _talkative in ("boto3", "botocore", "urllib3"):
    logging.getLogger(_talkative).setLevel(logging.WARNING)


class Bucket:
    """One S3 bucket.

    :param name: the bucket's name
    :param endpoint_url: None for the AWS chain's own choice
    :param credentials: None for the AWS chain; else access key and secret, as a sandbox makes them
    :param attempts: how often a request is sent at most before its failure counts
    :param compares_digests: whether whoever reads compares a digest, so that S3's own needs not be computed beside it
    :param read_only: whether every call that could write is refused before it is sent
    """

    def __init__(
        self,
        name: str,
        *,
        endpoint_url: str | None = None,
        region: str | None = None,
        credentials: tuple[str, str] | None = None,
        timeout_seconds: int = 20,
        attempts: int = 5,
        compares_digests: bool = False,
        read_only: bool = False,
    ) -> None:
        self.name = name
        self._again = {
            "endpoint_url": endpoint_url,
            "region": region,
            "credentials": credentials,
            "timeout_seconds": timeout_seconds,
            "attempts": attempts,
            "compares_digests": compares_digests,
        }
        access_key, secret_key = credentials or (None, None)
        try:
            self.client: S3Client = boto3.client(
                "s3",
                endpoint_url=endpoint_url,
                region_name=region,
                aws_access_key_id=access_key,
                aws_secret_access_key=secret_key,
                config=Config(
                    connect_timeout=timeout_seconds,
                    read_timeout=timeout_seconds * 3,
                    retries={"mode": "standard", "total_max_attempts": attempts},
                    max_pool_connections=16,
                    response_checksum_validation="when_required" if compares_digests else "when_supported",
                ),
            )
        except (ValueError, botocore.exceptions.BotoCoreError) as malformed:
            raise ProfileInvalid(
                f"the bucket {name}",
                where=f"endpoint {endpoint_url}" if endpoint_url else "the AWS chain",
                why=str(malformed),
                remedy="write endpoint_url as http://host:port or https://host, and name a region that there is",
            ) from malformed
        self.endpoint = str(self.client.meta.endpoint_url)
        if read_only:
            # Every call of the client passes here, whoever makes it, before anything is sent.
            self.client.meta.events.register("before-parameter-build.s3", self._refuse_to_write)

    def held_read_only(self) -> Bucket:
        """Return the same bucket through a client that cannot write."""
        return Bucket(self.name, **self._again, read_only=True)  # type: ignore[arg-type]

    def _refuse_to_write(self, model: OperationModel, **_: object) -> None:
        if not model.name.startswith(_READS):
            raise TargetRefused(
                f"to call {model.name}",
                where=self._where,
                why="this client is held read-only: the scenario is not tagged @changes",
                remedy="tag the scenario @changes, and take a permit",
            )

    def objects(self, prefix: str = "") -> list[StoredObject]:
        """List the newest version of every object below a prefix, by key."""
        with self._errors(f"the objects below {prefix!r}"):
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
            return [
                StoredObject(self.name, found["Key"], "", found["Size"], found["LastModified"])
                for page in pages
                for found in page.get("Contents", [])
            ]

    def after(self, prefix: str, key: str, *, page: int = 100) -> Iterator[StoredObject]:
        """Yield the objects below a prefix whose keys come after this one, by key; asked for as they are needed.

        :param page: how many are asked for at a time
        """
        more: str | None = key
        while more is not None:
            with self._errors(f"the objects below {prefix!r} after {key!r}"):
                found = self.client.list_objects_v2(Bucket=self.name, Prefix=prefix, StartAfter=more, MaxKeys=page)
            contents = found.get("Contents", [])
            for each in contents:
                yield StoredObject(self.name, each["Key"], "", each["Size"], each["LastModified"])
            more = contents[-1]["Key"] if contents and found.get("IsTruncated") else None

    def versions(self, prefix: str = "") -> list[StoredObject]:
        """List every version of every object below a prefix, newest first for each key."""
        with self._errors(f"the versions below {prefix!r}"):
            pages = self.client.get_paginator("list_object_versions").paginate(Bucket=self.name, Prefix=prefix)
            return [
                StoredObject(self.name, found["Key"], _version(found), found["Size"], found["LastModified"])
                for page in pages
                for found in page.get("Versions", [])
            ]

    def head(self, key: str, version_id: str = "") -> tuple[StoredObject, Mapping[str, str]]:
        """Ask for one object's size and its metadata. Raise `NotFound` if it is not there."""
        with self._errors(f"the object {key}"):
            found = self.client.head_object(Bucket=self.name, Key=key, **_of_version(version_id))
        stored = StoredObject(self.name, key, _version(found), found["ContentLength"], found["LastModified"])
        return stored, found["Metadata"]

    def read(self, key: str, version_id: str = "", *, at_most_bytes: int = 256 * MIB) -> bytes:
        """Read a small object whole."""
        with self._errors(f"the object {key}"):
            found = self.client.get_object(Bucket=self.name, Key=key, **_of_version(version_id))
            return found["Body"].read(at_most_bytes)

    def write_once(self, key: str, content: bytes, *, metadata: Mapping[str, str] | None = None) -> Written:
        """Write a small object that must not be there yet: a conditional put, decided by S3 itself.

        Raise `Denied` if the key is taken.
        """
        with self._errors(f"to write {key} once"):
            self.client.put_object(
                Bucket=self.name, Key=key, Body=content, IfNoneMatch="*", Metadata=dict(metadata or {})
            )
        return self._written(key, hashlib.sha256(content).hexdigest(), len(content))

    def write_file_once(
        self, key: str, source: BinaryIO, *, sha256: str, metadata: Mapping[str, str] | None = None
    ) -> tuple[StoredObject, Mapping[str, str]]:
        """Write a file that must not be there yet, in one conditional put, and return what S3 says is there then.

        :param source: read from its beginning, more than once where the put is repeated
        :param sha256: its digest, in hexadecimal, which S3 compares with what it receives

        Raise `Denied` if the key is taken.
        """
        with self._errors(f"to write {key} once"):
            self.client.put_object(
                Bucket=self.name,
                Key=key,
                Body=source,
                IfNoneMatch="*",
                ChecksumSHA256=base64.b64encode(bytes.fromhex(sha256)).decode(),
                Metadata=dict(metadata or {}),
            )
        return self.head(key)

    def receive(
        self, key: str, begin: Callable[[StoredObject, Mapping[str, str]], object], into: Callable[[bytes], object]
    ) -> tuple[StoredObject, Mapping[str, str]]:
        """Receive an object in one request, piece by piece, in constant memory.

        :param begin: told what is about to come, with its metadata, before the first piece
        :param into: given one piece after the other

        Raise `NotFound` if it is not there, and `Unreachable` where it ends before its size is reached.
        """
        with self._errors(f"the object {key}"):
            answer = self.client.get_object(Bucket=self.name, Key=key)
        stored = StoredObject(self.name, key, _version(answer), answer["ContentLength"], answer["LastModified"])
        with closing(answer["Body"]) as body:
            begin(stored, answer["Metadata"])
            received = 0
            while True:
                with self._errors(f"the bytes from {received} on of {key}"):
                    piece = body.read(_PIECE_BYTES)
                if not piece:
                    break
                received += len(piece)
                into(piece)
        if received != stored.bytes:
            raise Unreachable(
                f"all of the {stored.bytes} bytes of {key}",
                where=self._where,
                why=f"the answer ended after {received}",
                remedy="try again; S3 could not serve the request to its end",
            )
        return stored, answer["Metadata"]

    def write_stream(
        self,
        key: str,
        source: BinaryIO,
        *,
        metadata: Mapping[str, str] | None = None,
        accept: Callable[[], object] = lambda: None,
        on_bytes: Callable[[int], None] = lambda _: None,
    ) -> Written:
        """Stream a source of unknown length into one object, by multipart upload, in constant memory.

        :param source: read to its end, from this thread
        :param accept: called when the source has ended and before the object comes into being; what it raises
            aborts the upload, so that a producer that failed leaves no object behind
        :param on_bytes: told the number of bytes read so far

        No part of the object is visible before the end; after any failure the upload is aborted. Nothing is
        overwritten: raise `Denied` if the key is taken.
        """
        with self._errors(f"to write {key}"):
            begun = self.client.create_multipart_upload(Bucket=self.name, Key=key, Metadata=dict(metadata or {}))
        upload = begun["UploadId"]
        try:
            digest, total, parts = self._upload_parts(key, upload, source, on_bytes)
            accept()
            with self._errors(f"to complete {key}"):
                self.client.complete_multipart_upload(
                    Bucket=self.name, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}, IfNoneMatch="*"
                )
        except BaseException:
            with self._errors(f"to abort the upload of {key}"):
                self.client.abort_multipart_upload(Bucket=self.name, Key=key, UploadId=upload)
            raise
        return self._written(key, digest, total)

    def _upload_parts(
        self, key: str, upload: str, source: BinaryIO, on_bytes: Callable[[int], None]
    ) -> tuple[str, int, list[CompletedPartTypeDef]]:
        digest = hashlib.sha256()
        total = 0
        done: list[CompletedPartTypeDef] = []

        def send(number: int, content: bytearray) -> CompletedPartTypeDef:
            with self._errors(f"to write part {number} of {key}"):
                sent = self.client.upload_part(
                    Bucket=self.name, Key=key, UploadId=upload, PartNumber=number, Body=cast("bytes", content)
                )
            return {"PartNumber": number, "ETag": sent["ETag"]}

        with ThreadPoolExecutor(max_workers=2, thread_name_prefix="upload") as pool:
            under_way: deque[Future[CompletedPartTypeDef]] = deque()
            for number, content in enumerate(_parts(source), start=1):
                digest.update(content)
                total += len(content)
                on_bytes(total)
                if len(under_way) == 2:  # bounds memory: two parts on their way and one being read
                    done.append(under_way.popleft().result())
                under_way.append(pool.submit(send, number, content))
            done.extend(sent.result() for sent in under_way)
        return digest.hexdigest(), total, done

    def fetch(
        self,
        stored: StoredObject,
        into: Path,
        *,
        sha256: str | None,
        on_bytes: Callable[[int], None] = lambda _: None,
    ) -> str:
        """Fetch one version of an object into a file, in parallel ranges, and return its sha256.

        :param sha256: the digest it must have, in hexadecimal; None where nobody has written one down

        Raise `DamagedArtefact` if the digest or the size is another, `NotFound` if the object goes away meanwhile,
        `NoRoom` if the disk is full. On any of them the file is removed: nobody can take it for a backup.
        """
        try:
            found = self._fetch_ranges(stored, into, on_bytes)
        except BaseException:
            into.unlink(missing_ok=True)
            raise
        if sha256 is not None and found != sha256:
            into.unlink()
            raise DamagedArtefact(
                "a backup with the digest that its manifest names",
                where=stored.url,
                why=f"its sha256 is {found}, and {sha256} was written down when it was made",
                remedy="do not restore it; take the next older proven backup, and keep this one as evidence",
            )
        return found

    def _fetch_ranges(self, stored: StoredObject, into: Path, on_bytes: Callable[[int], None]) -> str:
        digest = hashlib.sha256()
        handle = os.open(into, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with _no_room(into, stored.bytes):
                if stored.bytes:
                    os.posix_fallocate(handle, 0, stored.bytes)

            def get(start: int) -> bytes:
                end = min(start + _RANGE_BYTES, stored.bytes)
                with self._errors(f"bytes {start} to {end} of {stored.key}"):
                    answer = self.client.get_object(
                        Bucket=self.name,
                        Key=stored.key,
                        Range=f"bytes={start}-{end - 1}",
                        **_of_version(stored.version_id),
                    )
                    content = answer["Body"].read()
                if len(content) != end - start or not answer["ContentRange"].endswith(f"/{stored.bytes}"):
                    raise DamagedArtefact(
                        f"bytes {start} to {end} of {stored.bytes}",
                        where=stored.url,
                        why=f"S3 answered {len(content)} bytes, {answer['ContentRange']}",
                        remedy="the object was replaced while it was read: begin again from the list of backups",
                    )
                return content

            with ThreadPoolExecutor(max_workers=_IN_FLIGHT, thread_name_prefix="fetch") as pool:
                starts = iter(range(0, stored.bytes, _RANGE_BYTES))
                under_way = deque(pool.submit(get, start) for _, start in zip(range(_IN_FLIGHT), starts, strict=False))
                done = 0
                try:
                    while under_way:
                        content = under_way.popleft().result()
                        if (following := next(starts, None)) is not None:
                            under_way.append(pool.submit(get, following))
                        digest.update(content)
                        with _no_room(into, stored.bytes):
                            os.pwrite(handle, content, done)
                        done += len(content)
                        on_bytes(done)
                finally:
                    for waiting in under_way:
                        waiting.cancel()
        finally:
            os.close(handle)
        return digest.hexdigest()

    def remove(self, key: str, version_id: str = "") -> None:
        """Remove an object, or one version of it. It is no error if it is gone already."""
        with self._errors(f"to remove {key}"):
            self.client.delete_object(Bucket=self.name, Key=key, **_of_version(version_id))

    def copy(self, source: str, target: str) -> StoredObject:
        """Copy an object within the bucket, without moving its bytes through this machine."""
        with self._errors(f"to copy {source} to {target}"):
            self.client.copy_object(Bucket=self.name, Key=target, CopySource={"Bucket": self.name, "Key": source})
        return self.head(target)[0]

    def unfinished_uploads(self, prefix: str = "") -> list[str]:
        """Return the keys of uploads that were begun and neither completed nor aborted."""
        with self._errors(f"the unfinished uploads below {prefix!r}"):
            found = self.client.list_multipart_uploads(Bucket=self.name, Prefix=prefix)
        return [upload["Key"] for upload in found.get("Uploads", [])]

    def abort_uploads(self, key: str) -> int:
        """Abort the uploads of objects whose keys begin so that were begun and never completed; return how many."""
        aborted = 0
        with self._errors(f"to abort the unfinished uploads of {key}"):
            found = self.client.list_multipart_uploads(Bucket=self.name, Prefix=key)
            for upload in found.get("Uploads", []):
                self.client.abort_multipart_upload(Bucket=self.name, Key=upload["Key"], UploadId=upload["UploadId"])
                aborted += 1
        return aborted

    def _written(self, key: str, sha256: str, sent_bytes: int) -> Written:
        """Ask S3 what is there now: that a put was answered with 200 is only a claim."""
        stored, _ = self.head(key)
        if stored.bytes != sent_bytes:
            raise DamagedArtefact(
                f"an object of the {sent_bytes} bytes that were sent",
                where=stored.url,
                why=f"it has {stored.bytes} bytes",
                remedy="remove it and take the backup again; look for another writer of the same key",
            )
        return Written(stored, sha256)

    @contextmanager
    def _errors(self, sought: str) -> Iterator[None]:
        try:
            yield
        except botocore.exceptions.ClientError as answered:
            raise self._client_error(sought, answered) from answered
        except (botocore.exceptions.NoCredentialsError, botocore.exceptions.PartialCredentialsError) as missing:
            raise Denied(
                sought,
                where=self._where,
                why=str(missing),
                remedy="give AWS credentials by AWS_PROFILE, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role",
            ) from missing
        except botocore.exceptions.ParamValidationError as malformed:
            raise ProfileInvalid(
                sought,
                where=self._where,
                why=" ".join(str(malformed).split()),
                remedy="correct the bucket's name or the prefix in the profile",
            ) from malformed
        except botocore.exceptions.BotoCoreError as silent:
            raise Unreachable(
                sought,
                where=self._where,
                why=str(silent),
                remedy="check the endpoint (AWS_ENDPOINT_URL_S3 or the profile), the region and the network",
            ) from silent

    @property
    def _where(self) -> str:
        return f"bucket {self.name} at {self.endpoint}"

    def _client_error(self, sought: str, answered: botocore.exceptions.ClientError) -> RunbookError:
        code = str(answered.response.get("Error", {}).get("Code", ""))
        status = answered.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        why = f"S3 answers {status} {code}: {answered.response.get('Error', {}).get('Message', '')}".rstrip(": ")
        if code == "NoSuchBucket":
            remedy = f"create the bucket {self.name}, or correct its name in the profile"
            return NotFound(sought, where=self._where, why=why, remedy=remedy)
        if code in ("NoSuchKey", "NoSuchVersion", "404", "NotFound") or status == 404:
            remedy = "list what is there; if it was there a moment ago, somebody or a lifecycle rule removed it"
            return NotFound(sought, where=self._where, why=why, remedy=remedy)
        if code == "PreconditionFailed" or status == 412:
            remedy = "nothing was overwritten: use another key, or look who else writes this one"
            return Denied(sought, where=self._where, why=f"{why} (the key is taken)", remedy=remedy)
        if code == "InvalidRange" or status == 416:
            remedy = "do not rely on it; take the next older proven backup, and find out who wrote over it"
            return DamagedArtefact(
                sought, where=self._where, why=f"{why} (the object has become shorter)", remedy=remedy
            )
        if status in (401, 403):
            remedy = "check the credentials in use (aws sts get-caller-identity) and the bucket's policy"
            return Denied(sought, where=self._where, why=why, remedy=remedy)
        return Unreachable(sought, where=self._where, why=why, remedy="try again; S3 could not serve the request")


def _parts(source: BinaryIO) -> Iterator[bytearray]:
    """Cut a stream into parts that grow, so that 10,000 of them hold 230 GB and small dumps need little memory."""
    number = 0
    while True:
        number += 1
        size = 8 * MIB if number <= 2_000 else 16 * MIB if number <= 5_000 else 32 * MIB
        part = bytearray(size)
        filled = _fill(source, memoryview(part))
        if filled == 0 and number > 1:
            return
        if number > _MAX_PARTS:
            raise NoRoom(
                "to store the dump as one object",
                where="S3",
                why=f"it has more than {_MAX_PARTS} parts",
                remedy="use base backups for a database of this size",
            )
        del part[filled:]
        yield part
        if filled < size:
            return


def _fill(source: BinaryIO, part: memoryview) -> int:
    filled = 0
    with part:
        while filled < len(part):
            got = os.readv(source.fileno(), [part[filled:]])
            if got == 0:
                break
            filled += got
    return filled


@contextmanager
def _no_room(path: Path, needed_bytes: int) -> Iterator[None]:
    try:
        yield
    except OSError as failed:
        if failed.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise NoRoom(
            f"{needed_bytes / 1e6:.0f} MB for a backup's bytes",
            where=str(path.parent),
            why=str(failed.strerror),
            remedy="free space there, or choose another folder with TMPDIR",
        ) from failed


def _version(answer: Mapping[str, object]) -> str:
    version = str(answer.get("VersionId") or "")
    return "" if version == "null" else version


class _OfVersion(TypedDict, total=False):
    VersionId: str


def _of_version(version_id: str) -> _OfVersion:
    return {"VersionId": version_id} if version_id else {}
