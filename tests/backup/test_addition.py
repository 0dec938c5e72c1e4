"""Of a backup that was cut short exactly what its run wrote is removed; what is whole, and what is others', stays."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runbook_lib.backup.addition import AddBackup
from runbook_lib.backup.catalog import Archive
from runbook_lib.reach.objects import Bucket
from runbook_lib.safety.mark import MARK, WRITER
from runbook_lib.safety.permit import Permit
from runbook_lib.safety.systems import Systems
from tests.backup import real
from tests.backup.real import Databases

PROJECT = Path(__file__).parents[2]
PERMIT = Permit("here", granted=True, reason="a test")
OTHERS = {**MARK, WRITER: "another run"}
KILLED = """
import json, os, signal, sys
from runbook_lib.backup import dump
from runbook_lib.backup.addition import AddBackup
from runbook_lib.backup.catalog import Archive
from runbook_lib.reach.objects import Bucket
from runbook_lib.safety.permit import Permit

told = json.loads(sys.argv[1])
credentials = tuple(told["credentials"])
bucket = Bucket(told["bucket"], endpoint_url=told["endpoint"], region="us-east-1", credentials=credentials)
dump.secrets.token_hex = lambda _: told["token"]
Archive.key = lambda self, kind, taken_at: told["key"]

def die_in(name, after):
    really = getattr(Bucket, name)
    def dying(self, key, *arguments, **named):
        if not key.endswith(told["suffix"]):
            return really(self, key, *arguments, **named)
        if after:
            really(self, key, *arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(Bucket, name, dying)

if told["where"] == "multipart":
    part = bucket.client.upload_part
    def dying(**named):
        part(**named)
        os.kill(os.getpid(), signal.SIGKILL)
    bucket.client.upload_part = dying
else:
    die_in("write_stream" if told["suffix"] == ".dump" else "write_once", told["where"] == "after")
dump.take(told["dsn"], Archive(bucket), permit=Permit("x", granted=True, reason="x"))
"""


@pytest.fixture(scope="module", params=[True, False], ids=["versioned", "without versions"])
def bucket(request: pytest.FixtureRequest) -> Iterator[Bucket]:
    with real.bucket(versioned=request.param) as made:
        yield made


@pytest.fixture(scope="module")
def dsn(databases: Databases) -> str:
    return databases.make("CREATE TABLE public.t AS SELECT n, md5(n::text) FROM generate_series(1, 1000) AS n")


class Keys:
    """Keys of backups, a new one for every test."""

    def __init__(self) -> None:
        self.number = 0

    def next(self) -> str:
        self.number += 1
        return f"postgres/manual/20260101_0000{self.number:02}"


KEYS = Keys()


@pytest.fixture
def adding() -> AddBackup:
    return AddBackup(KEYS.next(), f"token{KEYS.number}")


Kill = Callable[[AddBackup, str, str], None]


@pytest.fixture
def kill(bucket: Bucket, dsn: str) -> Kill:
    def killed(adding: AddBackup, where: str, suffix: str) -> None:
        signer = bucket.client._request_signer  # type: ignore[attr-defined]
        credentials = signer._credentials
        told = {
            "bucket": bucket.name,
            "endpoint": bucket.endpoint,
            "credentials": [credentials.access_key, credentials.secret_key],
            "key": adding.key,
            "token": adding.token,
            "where": where,
            "suffix": suffix,
            "dsn": dsn,
        }
        ran = subprocess.run([sys.executable, "-c", KILLED, json.dumps(told)], cwd=PROJECT, timeout=60, check=False)
        assert ran.returncode == -signal.SIGKILL

    return killed


def everything(bucket: Bucket) -> set[str]:
    return {each.key for each in bucket.versions()} | {f"{key} (unfinished)" for key in bucket.unfinished_uploads()}


def recovered(bucket: Bucket, adding: AddBackup) -> str:
    """Take it back twice, and return what was said the first time."""
    said = adding.undo(Systems(bucket=bucket, straggling_seconds=1.0), {})
    again = adding.undo(Systems(bucket=bucket), {})
    assert again == said or again.startswith("0 objects of")
    return said


@pytest.mark.parametrize(
    ("where", "suffix", "left"),
    [
        ("multipart", ".dump", ".dump (unfinished)"),
        ("after", ".dump", ".dump"),
        ("after", ".globals.sql", ".globals.sql"),
        ("before", ".manifest", ".dump"),
    ],
)
def test_killed_before_it_was_whole(
    where: str, suffix: str, left: str, bucket: Bucket, adding: AddBackup, kill: Kill
) -> None:
    before = everything(bucket)
    kill(adding, where, suffix)
    assert f"{adding.key}{left}" in everything(bucket)
    recovered(bucket, adding)
    assert everything(bucket) == before


def test_killed_when_it_was_whole(bucket: Bucket, adding: AddBackup, kill: Kill) -> None:
    before = everything(bucket)
    kill(adding, "after", ".manifest")
    whole = everything(bucket)
    assert whole - before == {f"{adding.key}{end}" for end in (".dump", ".globals.sql", ".manifest")}
    assert recovered(bucket, adding) == f"{adding.key} is a whole backup: it stays"
    assert everything(bucket) == whole
    assert Archive(bucket).newest(kind="manual").dump.key == f"{adding.key}.dump"


def test_what_is_others_stays(bucket: Bucket, adding: AddBackup, kill: Kill) -> None:
    """Another run's objects under the very same names, names that only begin alike, uploads of other keys."""
    others = [f"{adding.key}.globals.sql", f"{adding.key}.dump.old", f"{adding.key}0.dump", "postgres/manual/by-hand"]
    for key in others:
        bucket.write_once(key, b"x", metadata={} if "by-hand" in key else OTHERS)
    uploads = [f"{adding.key}0.dump.part", "postgres/daily/20260101_000000.dump"]
    for key in uploads:
        bucket.client.create_multipart_upload(Bucket=bucket.name, Key=key)
    before = everything(bucket)
    kill(adding, "multipart", ".dump")
    recovered(bucket, adding)
    assert everything(bucket) == before
    for key in uploads:
        bucket.abort_uploads(key)


def test_another_runs_manifest_makes_ours_no_backup(bucket: Bucket, adding: AddBackup, kill: Kill) -> None:
    bucket.write_once(f"{adding.key}.manifest", b"{}", metadata=OTHERS)
    before = everything(bucket)
    kill(adding, "after", ".dump")
    recovered(bucket, adding)
    assert everything(bucket) == before


def test_every_version_of_ours(bucket: Bucket, adding: AddBackup) -> None:
    """And only those: who wrote over a key, or below ours, keeps what they wrote."""
    written = {
        owner: bucket.client.put_object(
            Bucket=bucket.name, Key=f"{adding.key}.dump", Body=owner.encode(), Metadata={WRITER: owner}
        ).get("VersionId", "")
        for owner in ("first", adding.token, "last")
    }
    recovered(bucket, adding)
    kept = [each.version_id for each in bucket.versions(adding.key)]
    assert kept == ([written["last"], written["first"]] if written["first"] else [""])


def test_a_request_that_outlives_its_sender(bucket: Bucket, adding: AddBackup) -> None:
    """What arrives while it is taken back is taken back too, a manifest as well: its dump is gone by then."""

    def late() -> None:
        for end in (".globals.sql", ".manifest"):
            bucket.write_once(f"{adding.key}{end}", b"late", metadata=adding.metadata)

    bucket.write_once(f"{adding.key}.dump", b"early", metadata=adding.metadata)
    before = {key for key in everything(bucket) if not key.startswith(adding.key)}
    straggler = threading.Timer(0.5, late)
    straggler.start()
    said = adding.undo(Systems(bucket=bucket, straggling_seconds=1.0), {})
    straggler.join()
    assert said == f"3 objects of {adding.key} and 0 unfinished uploads are removed"
    assert everything(bucket) == before


def test_nothing_was_written(bucket: Bucket, adding: AddBackup) -> None:
    assert recovered(bucket, adding) == f"0 objects of {adding.key} and 0 unfinished uploads are removed"
