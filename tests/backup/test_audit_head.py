"""Where a hash chain ends: noted in a backup's own snapshot, and held against what came back and what lives on."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from hashlib import sha256

import pytest

from runbook_lib.backup import dump
from runbook_lib.backup.audit_chain import Head, ends_where_noted, head, leads_on_from
from runbook_lib.backup.catalog import Archive
from runbook_lib.backup.manifest import Manifest
from runbook_lib.outcome import Outcome
from runbook_lib.reach import postgres
from runbook_lib.reach.objects import Bucket
from runbook_lib.reach.postgres import Session
from runbook_lib.safety.permit import Permit
from tests.backup.real import Databases

PERMIT = Permit("a test's own archive", granted=True, reason="the test made it")
LOG = "CREATE TABLE public.audit_logs (sequence bigint PRIMARY KEY, record_hash text NOT NULL)"
ROWS = "INSERT INTO public.audit_logs SELECT n, encode(sha256(n::text::bytea), 'hex') FROM generate_series({}, {}) AS n"


def noted(sequence: int) -> Head:
    return Head(sequence, sha256(str(sequence).encode()).hexdigest())


def outcomes(session: Session, head: Head | None) -> tuple[Outcome, Outcome]:
    return ends_where_noted(session, head).outcome, leads_on_from(session, head).outcome


def test_it_is_the_last_row(databases: Databases) -> None:
    with databases.session(LOG) as session:
        assert head(session) == Head(0, "")
        session.execute(ROWS.format(1, 100))
        assert head(session) == noted(100)
        assert str(head(session)) == f"sequence 100, hash {noted(100).last_record_hash}"


@pytest.mark.parametrize(
    "other",
    [
        "SELECT 1",
        "CREATE TABLE public.audit_logs (id bigint, message text)",
        "CREATE TABLE public.audit_logs (sequence text, record_hash text)",
        "CREATE VIEW public.audit_logs AS SELECT 1::bigint AS sequence, 'x' AS record_hash",
    ],
)
def test_a_log_of_another_make_has_none(other: str, databases: Databases) -> None:
    with databases.session(other) as session:
        assert head(session) is None
        assert outcomes(session, noted(100)) == (Outcome.FAILED, Outcome.FAILED)


def test_nobody_noted_it(databases: Databases) -> None:
    with databases.session(LOG) as session:
        assert outcomes(session, None) == (Outcome.UNPROVEN, Outcome.UNPROVEN)
        assert ends_where_noted(session, noted(1), exists=False).outcome is Outcome.UNPROVEN
        assert leads_on_from(session, noted(1), exists=False).outcome is Outcome.UNPROVEN


PROVEN, FAILED = Outcome.PROVEN, Outcome.FAILED


@pytest.mark.parametrize(
    ("change", "ends", "leads_on"),
    [
        ("SELECT 1", PROVEN, PROVEN),
        ("DELETE FROM public.audit_logs WHERE sequence = 100", FAILED, FAILED),
        ("DELETE FROM public.audit_logs WHERE sequence > 50", FAILED, FAILED),
        ("TRUNCATE public.audit_logs", FAILED, FAILED),
        ("DROP TABLE public.audit_logs", FAILED, FAILED),
        ("UPDATE public.audit_logs SET record_hash = repeat('0', 64) WHERE sequence = 100", FAILED, FAILED),
        (ROWS.format(101, 120), FAILED, PROVEN),
        # cut, and gone on from there by other rows
        (
            "DELETE FROM public.audit_logs WHERE sequence > 90; INSERT INTO public.audit_logs SELECT n,"
            " encode(sha256((n + 1000)::text::bytea), 'hex') FROM generate_series(91, 130) AS n",
            FAILED,
            FAILED,
        ),
    ],
)
def test_it_is_held_against_what_is_there(change: str, ends: Outcome, leads_on: Outcome, databases: Databases) -> None:
    with databases.session(LOG, ROWS.format(1, 100)) as session:
        session.execute(change)
        assert outcomes(session, noted(100)) == (ends, leads_on)


def test_rows_that_are_no_hashes_are_not_told(databases: Databases) -> None:
    with databases.session(LOG, "INSERT INTO public.audit_logs VALUES (7, 'a secret')") as session:
        said = ends_where_noted(session, noted(7)).explain() + leads_on_from(session, noted(7)).explain()
    assert "sequence 7" in said
    assert "secret" not in said


def test_a_chain_that_was_empty_may_be(databases: Databases) -> None:
    with databases.session(LOG) as session:
        assert outcomes(session, Head(0, "")) == (PROVEN, PROVEN)
        session.execute(ROWS.format(1, 3))
        assert outcomes(session, Head(0, "")) == (FAILED, PROVEN)


def test_a_backup_notes_it(databases: Databases, bucket: Bucket) -> None:
    dsn = databases.make(LOG, ROWS.format(1, 100), "CREATE TABLE public.other ()")
    taken = dump.take(dsn, Archive(bucket, "heads/"), permit=PERMIT).backup
    assert taken.audit_head == noted(100)
    read = Archive(bucket, "heads/").newest(kind="manual")
    assert read.audit_head == noted(100)
    with postgres.session(dsn) as session:
        assert outcomes(session, read.audit_head) == (PROVEN, PROVEN)
    for table, expected in (("audit_logs", noted(100)), ("other", None)):
        archive = Archive(bucket, f"heads_{table}/")
        assert dump.take(dsn, archive, permit=PERMIT, kind="tables", tables=[table]).backup.audit_head == expected


def test_a_manifest_of_an_earlier_version_is_read(databases: Databases, bucket: Bucket) -> None:
    dsn = databases.make(LOG)
    manifest = dump.take(dsn, Archive(bucket, "earlier/"), permit=PERMIT).backup.manifest
    assert manifest is not None
    told = json.loads(gzip.decompress(manifest.to_bytes()))
    del told["audit_head"]
    read = Manifest.from_bytes(gzip.compress(json.dumps(told).encode()), where="there")
    assert read == replace(manifest, audit_head=None)
