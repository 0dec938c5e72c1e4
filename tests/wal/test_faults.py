"""Whatever happens between a recovery and its archive, no recovery ends early without saying so.

Every case is a real recovery of a real base backup. It may come to the very end, or stop with a sentence; the one thing
it may not do is take writes with rows missing.
"""

from __future__ import annotations

import hashlib
import os
import re
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass

import pytest

from runbook_lib.safety.mark import MARK
from runbook_lib.wal.archive import NAME, SHA256, SIZE, SYSTEM_IDENTIFIER
from runbook_lib.wal.segment import WalName, lsn_text
from runbook_lib.wal.service import WalService
from tests.wal import place
from tests.wal.place import SEGMENT_BYTES, TARGET, Primary
from tests.wal.s3_proxy import Fault, Kind
from tests.wal.scoreboard import Row, Scoreboard

STOPS, RECOVERS = "stopped", "recovered"
TARGETS = {"its end": {}, "a target": {"recovery_target_name": TARGET}}


@contextmanager
def instead(primary: Primary, name: str, content: bytes | None, **told: str | None) -> Iterator[None]:
    """Have other content lie in the archive under a name, or nothing; afterwards what was there.

    :param told: metadata that is not what belongs to that content; None for none of that name
    """
    client, bucket = primary.archive.bucket.client, primary.archive.bucket.name
    key = primary.archive.key(name)
    before = None
    if primary.archive.bucket.objects(key):
        got = client.get_object(Bucket=bucket, Key=key)
        before = got["Body"].read(), got["Metadata"]
    client.delete_object(Bucket=bucket, Key=key)
    if content is not None:
        metadata: dict[str, str | None] = {
            **MARK,
            NAME: name,
            SHA256: hashlib.sha256(content).hexdigest(),
            SIZE: str(len(content)),
            SYSTEM_IDENTIFIER: primary.system_identifier,
            **{key.replace("_", "-"): value for key, value in told.items()},
        }
        kept = {key: value for key, value in metadata.items() if value is not None}
        client.put_object(Bucket=bucket, Key=key, Body=content, Metadata=kept)
    try:
        yield
    finally:
        client.delete_object(Bucket=bucket, Key=key)
        if before is not None:
            client.put_object(Bucket=bucket, Key=key, Body=before[0], Metadata=before[1])


def bytes_of(primary: Primary, name: str) -> bytes:
    return primary.archive.read(name)


def flipped(content: bytes) -> bytes:
    return content[:700_000] + bytes([content[700_000] ^ 1]) + content[700_001:]


def foreign(content: bytes) -> bytes:
    """A segment of the right name and place, of another cluster."""
    identifier = int.from_bytes(content[24:32], "little") + 1
    return content[:24] + identifier.to_bytes(8, "little") + content[32:]


def neighbour(primary: Primary, count: int) -> str:
    known = WalName.parse(primary.between)
    assert known is not None
    return known.segment(SEGMENT_BYTES).after(count).name


def on_the_line(*faults: Fault) -> Callable[[Primary], AbstractContextManager[None]]:
    """Have requests for a segment between the base backup and the target meet these faults."""

    @contextmanager
    def planted(primary: Primary) -> Iterator[None]:
        for fault in faults:
            fault.path = fault.path.replace("BETWEEN", primary.between)
            fault.seen = fault.hit = 0
        primary.store.proxy.faults = list(faults)
        yield

    return planted


def in_the_bucket(
    content: Callable[[Primary], bytes | None], **told: str | None
) -> Callable[[Primary], AbstractContextManager[None]]:
    """Have other content lie there instead of a segment between the base backup and the target."""
    return lambda primary: instead(primary, primary.between, content(primary), **told)


def stray_history(primary: Primary) -> AbstractContextManager[None]:
    """Have somebody's test restore leave a history that branches off before the target."""
    known = WalName.parse(primary.between)
    assert known is not None
    at = lsn_text(known.segment(SEGMENT_BYTES).start_lsn + 0x1000)
    return instead(primary, "00000002.history", f"1\t{at}\tno recovery target specified\n".encode())


def slow(primary: Primary) -> AbstractContextManager[None]:
    primary.store.proxy.latency_seconds = 0.02
    return nullcontext()


def kill(service: WalService) -> None:
    os.kill(service.pid, signal.SIGKILL)


def fill_the_disk(service: WalService) -> None:
    """Have no file of the process grow beyond half a segment, as on a disk that is full."""
    resource.prlimit(service.pid, resource.RLIMIT_FSIZE, (SEGMENT_BYTES // 2, SEGMENT_BYTES // 2))


@dataclass(frozen=True)
class Case:
    """One way in which things go wrong."""

    what: str
    planted: Callable[[Primary], AbstractContextManager[None]] = lambda _: nullcontext()
    expected: str = STOPS
    says: str = ""
    """What the server's log must then hold."""
    on_start: Callable[[WalService], object] = lambda _: None
    settings: tuple[tuple[str, str], ...] = ()
    to_a_target: bool = False
    """Whether it is tried to a target, too: there PostgreSQL itself notices that the WAL ended too early."""


def get(kind: Kind, *, times: float = float("inf"), status: int = 500) -> Fault:
    """Answer the request for the segment itself so."""
    return Fault(kind, path=r"/wal/BETWEEN\b", method="GET", times=times, status=status)


def listing(status: int) -> Fault:
    """Answer every request for a list so."""
    return Fault(Kind.STATUS, path=r"list-type=2", method="GET", status=status)


def changed_in_the_bucket(primary: Primary) -> AbstractContextManager[None]:
    """Have one bit of the object be another, and its metadata as they were."""
    content = bytes_of(primary, primary.between)
    return instead(primary, primary.between, flipped(content), sha256=hashlib.sha256(content).hexdigest())


CASES = [
    Case("nothing", expected=RECOVERS, to_a_target=True),
    Case("every request waits 20 ms", slow, RECOVERS),
    Case("500, always", on_the_line(get(Kind.STATUS)), says="500 InternalError", to_a_target=True),
    Case("503, three times", on_the_line(get(Kind.STATUS, status=503, times=3)), RECOVERS),
    Case("503, always", on_the_line(get(Kind.STATUS, status=503)), says="503 SlowDown"),
    Case("403 for the segment", on_the_line(get(Kind.STATUS, status=403)), says="403 AccessDenied"),
    Case(
        "403 for every list: a role that may not see what is missing",
        on_the_line(listing(403)),
        says="403 AccessDenied",
    ),
    Case("404 once, and it is there", on_the_line(get(Kind.STATUS, status=404, times=2)), RECOVERS),
    Case(
        "404 always, and it is there", on_the_line(get(Kind.STATUS, status=404)), says="and lists it", to_a_target=True
    ),
    Case(
        "404 for the segment and 404 for the list",
        on_the_line(get(Kind.STATUS, status=404), listing(404)),
        says="404 NoSuchKey",
        to_a_target=True,
    ),
    Case("the bucket is gone", on_the_line(Fault(Kind.NO_BUCKET, nth=6)), says="NoSuchBucket"),
    Case("connection reset, twice", on_the_line(get(Kind.RESET, times=2)), RECOVERS, to_a_target=True),
    Case("connection reset, always", on_the_line(get(Kind.RESET)), says="no answer"),
    Case("half of the body, once", on_the_line(get(Kind.SHORT, times=1)), RECOVERS),
    Case("half of the body, always", on_the_line(get(Kind.SHORT)), says="no answer"),
    Case("half of the body, called the whole", on_the_line(get(Kind.SHORTER)), says="were archived"),
    Case("a byte changed on the way, once", on_the_line(get(Kind.FLIP, times=1)), RECOVERS),
    Case("a byte changed on the way, always", on_the_line(get(Kind.FLIP)), says="its sha256 is", to_a_target=True),
    Case("no answer at all", on_the_line(get(Kind.HANG)), says="no answer"),
    Case("every third request fails", on_the_line(*[Fault(Kind.STATUS, nth=n, times=1) for n in (3, 6, 9)]), RECOVERS),
    Case("segment missing", in_the_bucket(lambda p: None), says="which comes after it", to_a_target=True),
    Case("byte changed in the bucket", changed_in_the_bucket, says="its sha256 is"),
    Case(
        "another segment copied there, metadata and all",
        in_the_bucket(lambda p: bytes_of(p, neighbour(p, 1)), wal_name="000000010000000000000099"),
        says="it was archived as",
    ),
    Case(
        "another segment there, and metadata that fit it",
        in_the_bucket(lambda p: bytes_of(p, neighbour(p, 1))),
        says="is its name",
        to_a_target=True,
    ),
    Case(
        "another cluster's segment there, and metadata that fit it",
        in_the_bucket(lambda p: foreign(bytes_of(p, p.between))),
        says="it is of the cluster",
    ),
    Case("empty object", in_the_bucket(lambda p: b""), says="it has 0 bytes"),
    Case("short object", in_the_bucket(lambda p: bytes_of(p, p.between)[:-1]), says="a segment has"),
    Case("zeros of the right size", in_the_bucket(lambda p: bytes(SEGMENT_BYTES)), says="it begins with zeros"),
    Case(
        "archived by a tool that writes no digest",
        in_the_bucket(lambda p: bytes_of(p, p.between), sha256=None),
        says="nobody wrote down its digest",
    ),
    Case(
        "history of a timeline that is none",
        lambda p: instead(p, "00000002.history", b"\0" * 64),
        says="none of a history",
    ),
    Case(
        "history left by a test restore, timeline 1 asked for",
        stray_history,
        RECOVERS,
        settings=(("recovery_target_timeline", "1"),),
        to_a_target=True,
    ),
    Case("what fetches is killed", says="wal:", on_start=kill, to_a_target=True),
    Case("disk full where segments are fetched to", says="no room", on_start=fill_the_disk),
]


RECOVERIES = [(case, target) for case in CASES for target in TARGETS if case.to_a_target or not TARGETS[target]]


@pytest.mark.parametrize(
    ("case", "target"), RECOVERIES, ids=[f"{case.what} to {target}" for case, target in RECOVERIES]
)
def test_no_recovery_ends_early(case: Case, target: str, primary: Primary, scoreboard: Scoreboard) -> None:
    settings = {**TARGETS[target], **dict(case.settings)}
    with ExitStack() as planted:
        planted.enter_context(case.planted(primary))
        found = place.recover(primary, settings=settings, on_start=case.on_start)
        end_lsn = primary.archive.end(1).lsn if case.expected == RECOVERS else 0
    expected_rows = primary.rows_at_target if TARGETS[target] else primary.rows
    lost = expected_rows - found.rows if found.promoted else None
    outcome = f"{RECOVERS}, timeline {found.timeline}" if found.promoted else STOPS
    scoreboard.rows.append(Row(case.what, target, outcome, lost))
    assert not lost, found.log
    assert outcome.startswith(case.expected), found.log
    if case.expected == RECOVERS and not TARGETS[target]:
        assert found.replayed_lsn == end_lsn
    if case.expected == STOPS:
        assert case.says in found.log


def test_the_usual_command_ends_early_and_says_nothing(primary: Primary, scoreboard: Scoreboard) -> None:
    """What all of this is for, and the proof that it would be seen here: a command that fails with 1, as most do."""
    local = primary.store.workspace.folder("usual")
    for stored in primary.archive.bucket.objects(primary.archive.prefix):
        name = stored.key.removeprefix(primary.archive.prefix)
        if name != primary.between:
            (local / name).write_bytes(bytes_of(primary, name))
    primary.store.workspace.give(local)
    found = place.recover(primary, restore_command=f"cp {local}/%f %p")
    lost = primary.rows - found.rows
    outcome = f"promoted early, timeline {found.timeline}"
    what = "segment missing, the usual command (cp, aws s3 cp)"
    scoreboard.rows.append(Row(what, "its end", outcome, lost, ours=False))
    assert found.promoted
    assert lost > 0
    assert not re.search("ERROR|FATAL(?!:  the database system is)", found.log)
    assert found.replayed_lsn < primary.archive.end(1).lsn  # which is how it is found afterwards
