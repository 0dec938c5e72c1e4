"""Damaged bytes are refused before pg_restore sees any; without a manifest they are never called proven."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from runbook_lib.backup import dump, retention
from runbook_lib.backup.catalog import DUMP_SUFFIX, MANIFEST_SUFFIX, Archive, Backup
from runbook_lib.errors import DamagedArtefact, RunbookError
from runbook_lib.outcome import Outcome
from runbook_lib.reach import postgres, programs
from runbook_lib.restore.scratch import Scratch
from tests.detection import small, tools
from tests.detection.damage import Damaged, bit_flipped, truncated
from tests.detection.place import PERMIT, Place
from tests.detection.scoreboard import Scoreboard

COMPRESSIONS = ("gzip:6", "zstd:3", "lz4", "none")
SEED = 20261122


@pytest.fixture(scope="module")
def ledger(place: Place) -> str:
    """The connection string of a small database."""
    return small.ledger(place, "ledger")


@pytest.fixture(scope="module")
def watched(place: Place) -> Iterator[tuple[Scratch, Path]]:
    """A scratch place whose pg_restore notes every call, and the file it notes them in."""
    with tools.programs_alone() as tampered:
        tampered.replace("pg_restore", 'echo "$@" >> NOTES/calls; exec REAL "$@"')
        with Scratch.open(tools_directory=tampered.bin) as scratch:
            yield scratch, tampered.notes / "calls"


def damages(whole: bytes) -> Iterator[Damaged]:
    yield from truncated(whole, seed=SEED)
    yield from bit_flipped(whole, seed=SEED)


def put(archive: Archive, backup: Backup, content: bytes) -> str:
    """Write bytes over a dump, as somebody with access to the bucket could; return their version."""
    key = backup.dump.key
    answer = archive.bucket.client.put_object(
        Bucket=archive.bucket.name, Key=key, Body=content, Metadata={"made-by": "tensafe-runbook"}
    )
    return answer.get("VersionId", "")


def is_refused(place: Place, backup: Backup, archive: Archive, watched: tuple[Scratch, Path]) -> bool:
    """Restore a backup; say whether it was refused as damaged before pg_restore was so much as called."""
    scratch, calls = watched
    calls.unlink(missing_ok=True)
    with pytest.raises(DamagedArtefact):
        place.restore(backup, archive, scratch=scratch)
    return not calls.exists()


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_bytes_that_changed_in_a_bucket_without_versions(
    compression: str, place: Place, ledger: str, watched: tuple[Scratch, Path], scoreboard: Scoreboard
) -> None:
    archive = place.archive(f"flat-{compression.partition(':')[0]}", versioned=False)
    taken = dump.take(ledger, archive, permit=PERMIT, compression=compression).backup
    whole = archive.bucket.read(taken.dump.key)
    score = scoreboard.damaged[compression.partition(":")[0]]
    for damaged in damages(whole):
        put(archive, taken, damaged.content)
        score.append(is_refused(place, archive.newest(kind="manual"), archive, watched))
    assert all(score)

    put(archive, taken, whole)
    restored = place.restore(archive.newest(kind="manual"), archive, scratch=watched[0])
    assert restored.restored.holds()
    assert all(check.holds() for check in restored.compare().checks)
    restored.remove()


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_bytes_that_changed_in_the_version_that_the_manifest_names(
    compression: str, place: Place, ledger: str, watched: tuple[Scratch, Path], scoreboard: Scoreboard
) -> None:
    """No S3 lets a version be altered; a store that rots is made by a manifest that names the damaged version."""
    archive = place.archive(f"versions-{compression.partition(':')[0]}")
    taken = dump.take(ledger, archive, permit=PERMIT, compression=compression).backup
    assert taken.manifest is not None
    whole = archive.bucket.read(taken.dump.key)
    score = scoreboard.damaged[compression.partition(":")[0]]
    for damaged in [*list(truncated(whole, seed=SEED))[::3], *bit_flipped(whole, seed=SEED, flips=10)]:
        version = put(archive, taken, damaged.content)
        rotten = replace(taken, dump=replace(taken.dump, version_id=version))
        score.append(is_refused(place, rotten, archive, watched))
    assert all(score)


def test_bytes_written_over_a_dump_in_a_bucket_with_versions_are_never_read(place: Place, ledger: str) -> None:
    archive = place.archive("overwritten")
    taken = dump.take(ledger, archive, permit=PERMIT).backup
    assert retention.nothing_was_overwritten(archive, archive.listing("manual")).holds()
    whole = archive.bucket.read(taken.dump.key)
    put(archive, taken, next(bit_flipped(whole, seed=SEED, flips=1)).content)

    check = retention.nothing_was_overwritten(archive, archive.listing("manual"))
    assert [finding.check for finding in check.findings] == ["backup.version"]
    restored = place.restore(archive.newest(kind="manual"), archive)
    assert restored.restored.holds()
    assert all(comparison.holds() for comparison in restored.compare().checks)
    restored.remove()


def dump_of_others(place: Place, ledger: str, compression: str) -> bytes:
    """Dump a database as somebody without this project does."""
    path = place.source.workspace.home / "others.dump"
    programs.run(
        [place.source.tools.program("pg_dump"), "-Fc", "-Z", compression, "-f", path],
        sought="a dump",
        env=postgres.libpq_environment(ledger),
        timeout_seconds=60,
        workspace=place.source.workspace,
    ).must("look at it")
    return path.read_bytes()


def decodes(place: Place, content: bytes) -> bool:
    """Whether pg_restore can read a dump from its first byte to its last."""
    path = place.source.workspace.home / "damaged.dump"
    path.write_bytes(content)
    path.chmod(0o644)
    return programs.run(
        [place.source.tools.program("pg_restore"), "-f", "/dev/null", path],
        sought="its end",
        timeout_seconds=60,
        workspace=place.source.workspace,
    ).succeeded


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_what_decoding_alone_finds(compression: str, place: Place, ledger: str, scoreboard: Scoreboard) -> None:
    """Truncation always; a flipped bit depends on the compression, which is why there is a manifest."""
    whole = dump_of_others(place, ledger, compression)
    assert decodes(place, whole)
    for damaged in damages(whole):
        scoreboard.decoded[compression.partition(":")[0], damaged.kind].append(not decodes(place, damaged.content))
    assert all(scoreboard.decoded[compression.partition(":")[0], "truncated"])


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_damaged_dump_without_a_manifest_is_never_proven(compression: str, place: Place, ledger: str) -> None:
    archive = place.archive(f"others-{compression.partition(':')[0]}")
    whole = dump_of_others(place, ledger, compression)
    cuts = list(truncated(whole, seed=SEED))
    for number, damaged in enumerate([*cuts[::4], cuts[-1], *bit_flipped(whole, seed=SEED, flips=5)]):
        key = f"{archive.prefix}daily/{number}{DUMP_SUFFIX}"
        archive.bucket.write_once(key, damaged.content)
        with ExitStack() as removing:
            try:
                restored = place.restore(archive.newest(), archive)
            except DamagedArtefact:
                outcome = Outcome.FAILED
            except RunbookError:
                outcome = Outcome.UNPROVEN
            else:
                removing.callback(restored.remove)
                outcome = Outcome.worst([restored.restored.outcome, *(c.outcome for c in restored.compare().checks)])
        expected = {Outcome.FAILED} if damaged.kind == "truncated" else {Outcome.FAILED, Outcome.UNPROVEN}
        assert outcome in expected, damaged
        archive.bucket.remove(key)


def test_a_whole_dump_without_a_manifest_restores_and_its_contents_are_unproven(place: Place, ledger: str) -> None:
    archive = place.archive("others")
    archive.bucket.write_once(f"{archive.prefix}daily/x{DUMP_SUFFIX}", dump_of_others(place, ledger, "gzip:6"))
    restored = place.restore(archive.newest(), archive)
    assert restored.restored.holds()
    assert {check.outcome for check in restored.compare().checks} == {Outcome.UNPROVEN}
    restored.remove()


MANIFEST_DAMAGES: Mapping[str, Callable[[bytes], bytes]] = {
    "cut by its last byte": lambda content: content[:-1],
    "cut in half": lambda content: content[: len(content) // 2],
    "empty": lambda _: b"",
    "garbled": lambda content: content[:200] + b"~~~~" + content[204:],
    "something else": lambda _: b"{}",
    "of another form": lambda content: gzip.compress(
        gzip.decompress(content).replace(b'"format":1', b'"format":99', 1)
    ),
    "without a part": lambda content: gzip.compress(gzip.decompress(content).replace(b'"lsn":', b'"nsl":', 1)),
}


@pytest.mark.parametrize("damage", MANIFEST_DAMAGES)
def test_a_damaged_manifest(damage: str, place: Place, ledger: str) -> None:
    archive = place.archive("manifest-" + damage.replace(" ", "-"))
    taken = dump.take(ledger, archive, permit=PERMIT).backup
    key = taken.dump.key.removesuffix(DUMP_SUFFIX) + MANIFEST_SUFFIX
    content = MANIFEST_DAMAGES[damage](archive.bucket.read(key))
    archive.bucket.client.put_object(Bucket=archive.bucket.name, Key=key, Body=content)
    with pytest.raises(DamagedArtefact, match="manifest"):
        archive.newest(kind="manual")
