"""No exit code is believed: programs that claim success and did nothing, half, or all of it and then fail."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase

import pytest

from runbook_lib.backup import dump, retention
from runbook_lib.backup.catalog import Archive, Backup
from runbook_lib.errors import DamagedArtefact, ToolFailed
from runbook_lib.outcome import Finding
from runbook_lib.restore.scratch import Scratch
from tests.detection import small, tools
from tests.detection.place import PERMIT, Place
from tests.detection.tools import Tools


@pytest.fixture
def tampered() -> Iterator[Tools]:
    with tools.programs_alone() as made:
        yield made


@pytest.fixture(scope="module")
def archive(place: Place) -> Archive:
    return place.archive("lying")


@pytest.fixture(scope="module")
def ledger(place: Place) -> str:
    return small.ledger(place, "lied_about")


@pytest.fixture(scope="module")
def taken(place: Place, archive: Archive, ledger: str) -> Backup:
    return dump.take(ledger, archive, permit=PERMIT, kind="good").backup


def found_after_restoring(place: Place, backup: Backup, archive: Archive, tampered: Tools) -> list[Finding]:
    with Scratch.open(tools_directory=tampered.bin) as scratch:
        restored = place.restore(backup, archive, scratch=scratch)
        return [*restored.restored.findings, *(f for check in restored.compare().checks for f in check.findings)]


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        pytest.param("exit 0", {"content.table public.holders", "catalog.table public.ledger"}, id="does nothing"),
        pytest.param('REAL --schema-only "$@" || true',
                     {"content.rows public.holders", "sequence.position public.ledger_id_seq"}, id="leaves out rows"),
        pytest.param('REAL --section=pre-data --section=data "$@" || true',
                     {"catalog.index public.ledger_by_amount", "catalog.constraint public.holders holders_pkey"},
                     id="leaves out indexes"),
        pytest.param('REAL --no-owner --no-privileges --table=holders "$@"; exit 0',
                     {"content.table public.ledger", "catalog.function public.twice(integer)"},
                     id="restores one table"),
        pytest.param('REAL "$@" 2>/dev/null && case "$*" in *--dbname=*) exit 3; esac', {"restore.exit_code *"},
                     id="does all and fails without a reason"),
        pytest.param('REAL "$@"; echo "pg_restore: error: could not execute query: ERROR:  out of luck" >&2; exit 0',
                     {"restore.error pg_restore"}, id="reports an error and claims success"),
    ],
)  # fmt: skip
def test_a_pg_restore_that_lies(
    script: str, expected: set[str], place: Place, archive: Archive, taken: Backup, tampered: Tools
) -> None:
    tampered.replace("pg_restore", script)
    findings = found_after_restoring(place, taken, archive, tampered)
    found = [f"{finding.check} {finding.subject}" for finding in findings]
    assert all(any(fnmatchcase(name, wanted) for name in found) for wanted in expected), found


def test_a_pg_restore_that_only_passes_on_what_it_is_told(
    place: Place, archive: Archive, taken: Backup, tampered: Tools
) -> None:
    tampered.replace("pg_restore", 'exec REAL "$@"')
    assert found_after_restoring(place, taken, archive, tampered) == []


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("exit 0", id="writes nothing"),
        pytest.param('REAL "$@" | head --bytes=3000; exit 0', id="writes the beginning"),
        pytest.param('REAL "$@" | head --bytes=-1; exit 0', id="leaves out the last byte"),
    ],
)
def test_a_pg_dump_that_claims_success(
    script: str, place: Place, ledger: str, tampered: Tools, request: pytest.FixtureRequest
) -> None:
    """The manifest holds the digest of what was written; that it is no dump is found before anybody relies on it."""
    archive = place.archive("claims-" + request.node.callspec.id.replace(" ", "-"))
    tampered.replace("pg_dump", script)
    try:
        taken = dump.take(ledger, archive, permit=PERMIT, tools=tampered.found, compression="gzip:1").backup
    except ToolFailed:
        assert not archive.bucket.objects()
        assert not archive.bucket.versions()  # a marker that hides a version would leave its bytes there
        return
    whole = retention.is_whole(archive, taken)
    assert taken.dump.bytes or [finding.check for finding in whole.findings] == ["backup.empty"]
    with pytest.raises(DamagedArtefact):
        place.restore(taken, archive)


@pytest.mark.parametrize(
    "script",
    [
        pytest.param('REAL "$@" | head --bytes=3000; kill -KILL $$', id="is killed in the middle"),
        pytest.param('REAL "$@"; kill -KILL $$', id="is killed at its end"),
        pytest.param('REAL "$@"; exit 1', id="writes all and fails"),
        pytest.param("echo 'pg_dump: error: out of luck' >&2; exit 1", id="fails at once"),
    ],
)
def test_a_pg_dump_that_fails_leaves_nothing_behind(
    script: str, place: Place, ledger: str, tampered: Tools, request: pytest.FixtureRequest
) -> None:
    archive = place.archive("fails-" + request.node.callspec.id.replace(" ", "-"))
    tampered.replace("pg_dump", script)
    with pytest.raises(ToolFailed, match="to dump"):
        dump.take(ledger, archive, permit=PERMIT, tools=tampered.found, compression="gzip:1")
    assert not archive.bucket.objects()
    assert not archive.bucket.unfinished_uploads()


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("exit 0", id="writes nothing"),
        pytest.param('REAL "$@" | head --lines=-3; exit 0', id="leaves out its last lines"),
        pytest.param('REAL "$@"; exit 1', id="writes all and fails"),
    ],
)
def test_a_pg_dumpall_that_lies(
    script: str, place: Place, ledger: str, tampered: Tools, request: pytest.FixtureRequest
) -> None:
    archive = place.archive("roles-" + request.node.callspec.id.replace(" ", "-"))
    tampered.replace("pg_dumpall", script)
    with pytest.raises(ToolFailed, match="roles"):
        dump.take(ledger, archive, permit=PERMIT, tools=tampered.found)
    assert not archive.bucket.objects()


def test_a_decoding_that_was_killed_says_nothing_about_the_dump(
    place: Place, archive: Archive, taken: Backup, tampered: Tools
) -> None:
    tampered.replace("pg_restore", 'case "$*" in *--file=*) kill -KILL $$; esac; exec REAL "$@"')
    with Scratch.open(tools_directory=tampered.bin) as scratch, pytest.raises(ToolFailed, match="signal 9"):
        place.restore(taken, archive, scratch=scratch)
