"""What the library itself holds a @reads scenario to, where the role is a superuser and the S3 key may write.

Only then is it the library that refuses. That a @scratch scenario cannot drop a database without our mark is proven
in ``tests/safety/test_ownership.py``.
"""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import botocore.exceptions
import psycopg
import pytest

from runbook_lib.effect import Effect
from runbook_lib.environment import Environment
from runbook_lib.errors import TargetRefused
from runbook_lib.reach import postgres
from runbook_lib.reach.objects import Bucket
from runbook_lib.sandbox.sandbox import Sandbox
from runbook_lib.waiting import wait_for
from tests.bad_input.running import environment, runbook
from tests.effects.conftest import profile
from tests.evidence.project import PYPROJECT, ROOT

TRIES = {
    "the rows are deleted": ("cannot execute DELETE in a read-only transaction", ""),
    "a table is made": ("cannot execute CREATE TABLE in a read-only transaction", ""),
    "the rows are locked": ("cannot execute SELECT FOR UPDATE in a read-only transaction", ""),
    "a sequence is moved": ("cannot execute nextval() in a read-only transaction", ""),
    "a setting is altered": ("cannot execute ALTER DATABASE in a read-only transaction", ""),
    "an object is put": ("to call PutObject", "this client is held read-only"),
    "an object is put past the library": ("to call PutObject", "this client is held read-only"),
    "an object is removed": ("to call DeleteObject", "this client is held read-only"),
    "a stream is uploaded": ("to call CreateMultipartUpload", "this client is held read-only"),
    "a backup is taken": ("not permitted", "@changes"),
    "a procedure is begun": ("not permitted", "@changes"),
}
"""What a step tries, and what must be told of it."""

FEATURE = """
Feature: Trying to write
{scenarios}
"""
SCENARIO = """
  {tag}
  Scenario: {step}
    Given {step}
"""
STEPS = '''
"""Steps that write, each in its own way, although their scenario says that it only reads."""
from __future__ import annotations

import io
import os

from pytest_bdd import given

WAYS = {{
    "the rows are deleted": "DELETE FROM public.users",
    "a table is made": "CREATE TABLE public.mine (a int)",
    "the rows are locked": "SELECT 1 FROM public.users FOR UPDATE",
    "a sequence is moved": "SELECT pg_catalog.nextval('public.usage_events_id_seq')",
    "a setting is altered": "ALTER DATABASE tensafe SET work_mem = '1MB'",
}}

for step, statement in WAYS.items():

    def _(environment, statement=statement):
        with environment.database() as session:
            session.execute(statement)

    given(step)(_)


@given("an object is put")
def _(environment):
    environment.archive.bucket.write_once("postgres/mine", b"x")


@given("an object is put past the library")
def _(environment):
    environment.archive.bucket.client.put_object(Bucket=environment.archive.bucket.name, Key="mine", Body=b"x")


@given("an object is removed")
def _(environment):
    environment.archive.bucket.remove(environment.archive.bucket.objects()[0].key)


@given("a stream is uploaded")
def _(environment):
    with open(os.devnull, "rb") as nothing:
        environment.archive.bucket.write_stream("postgres/mine", nothing)


@given("a backup is taken")
def _(environment):
    environment.take_backup("manual")


@given("a procedure is begun")
def _(environment):
    with environment.procedure("to do something"):
        raise RuntimeError("it was begun")
'''


@pytest.fixture
def temporary() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="eff", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def sequence(sandbox: Sandbox) -> str:
    """Any sequence of the database."""
    with postgres.session(sandbox.settings.database.dsn) as session:
        return str(session.value("SELECT min(sequencename) FROM pg_catalog.pg_sequences WHERE schemaname = 'public'"))


def project(folder: Path, sequence: str, tag: str) -> Path:
    """A runbook of its own, with the real front door and other steps."""
    told = (ROOT / "conftest.py").read_text().replace('"pytester",', '"writing_steps",')
    scenarios = "".join(SCENARIO.format(step=step, tag=tag) for step in TRIES)
    for name, text in {
        "conftest.py": told,
        "pyproject.toml": PYPROJECT,
        "writing_steps.py": STEPS.format().replace("usage_events_id_seq", sequence),
        "features/writing.feature": FEATURE.format(scenarios=scenarios),
    }.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize("tag", ["@reads", "@scratch"])
def test_whoever_only_reads_is_refused(
    tag: str, sandbox: Sandbox, sequence: str, tmp_path: Path, temporary: Path
) -> None:
    place = project(tmp_path, sequence, tag)
    owner = Bucket(
        sandbox.settings.backups.bucket,
        endpoint_url=sandbox.store.endpoint_url,
        region=sandbox.store.region,
        credentials=(sandbox.store.access_key, sandbox.store.secret_key),
    )
    before = [owner.versions(), owner.unfinished_uploads()]
    ran = runbook(
        *("features", "--rootdir", place, "--env", profile(sandbox, tmp_path, sandbox.settings.database.dsn)),
        *("--allow-changes-to", "here", "--reason", "even where changes were granted"),
        reports=tmp_path / "reports",
        env=environment(
            temporary,
            PYTHONPATH=str(ROOT),
            AWS_ACCESS_KEY_ID=sandbox.store.access_key,
            AWS_SECRET_ACCESS_KEY=sandbox.store.secret_key,
        ),
        project=place,
    )
    told = {each["scenario"]: each for each in ran.summary["scenarios"]}
    assert set(told) == set(TRIES), ran.output
    for step, words in TRIES.items():
        assert told[step]["outcome"] == "unproven", told[step]
        assert [word for word in words if word not in told[step]["reason"]] == [], told[step]["reason"]
    assert [owner.versions(), owner.unfinished_uploads()] == before
    with postgres.session(sandbox.settings.database.dsn) as session:
        assert session.value("SELECT count(*) > 0 FROM public.users")
        assert session.value("SELECT to_regclass('public.mine') IS NULL")


@pytest.fixture
def here(sandbox: Sandbox) -> Environment:
    database = replace(sandbox.settings.database, statement_timeout_seconds=1, lock_timeout_seconds=1)
    return Environment.of(replace(sandbox.settings, database=database))


class TestTheServersSide:
    """What the server says of a session, not what we asked for."""

    @pytest.mark.parametrize(
        ("title", "shown"),
        [
            ("WAL is archived", "runbook/WAL is archived"),
            ("Größe – 日本\ttab", "runbook/Gr??e ? ???tab"),
            ("x" * 200, "runbook/" + "x" * 55),
            ("ö" * 200, "runbook/" + "?" * 55),
            ("quote ' and \\ and %", "runbook/quote ' and \\ and %"),
        ],
    )
    def test_it_knows_who_we_are(self, title: str, shown: str, here: Environment, sandbox: Sandbox) -> None:
        narrowed = here.for_scenario(title, Effect.READS)
        with narrowed.database() as session, postgres.session(sandbox.server.dsn()) as other:
            seen = other.value(
                "SELECT application_name FROM pg_catalog.pg_stat_activity WHERE pid = %s", session.backend_pid
            )
        assert seen == shown

    def test_every_bound_is_set(self, here: Environment) -> None:
        with here.for_scenario("a title", Effect.READS).database() as session:
            shown = {
                name: session.value("SELECT pg_catalog.current_setting(%s)", name)
                for name in (
                    "default_transaction_read_only",
                    "transaction_read_only",
                    "statement_timeout",
                    "lock_timeout",
                    "idle_in_transaction_session_timeout",
                    "idle_session_timeout",
                )
            }
        assert shown == {
            "default_transaction_read_only": "on",
            "transaction_read_only": "on",
            "statement_timeout": "1s",
            "lock_timeout": "1s",
            "idle_in_transaction_session_timeout": "1min",
            "idle_session_timeout": "10min",
        }

    def test_a_statement_is_bounded(self, here: Environment) -> None:
        with (
            here.for_scenario("a title", Effect.READS).database() as session,
            pytest.raises(psycopg.errors.QueryCanceled, match="statement timeout"),
        ):
            session.rows("SELECT pg_catalog.pg_sleep(20)")

    def test_waiting_for_a_lock_is_bounded(self, sandbox: Sandbox) -> None:
        database = replace(sandbox.settings.database, statement_timeout_seconds=20, lock_timeout_seconds=1)
        here = Environment.of(replace(sandbox.settings, database=database))
        with (
            psycopg.connect(sandbox.settings.database.dsn) as holder,
            here.for_scenario("a title", Effect.READS).database() as session,
        ):
            holder.execute("LOCK TABLE public.users IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                session.rows("SELECT count(*) FROM public.users")
            holder.rollback()

    def test_an_idle_transaction_is_ended(self, sandbox: Sandbox) -> None:
        """The bound of a scenario is a minute: here the same setting with another number."""
        short = {"idle_in_transaction_session_timeout": "100ms"}
        with (
            postgres.session(sandbox.server.dsn()) as other,
            postgres.session(sandbox.settings.database.dsn, settings=short) as session,
        ):
            session.execute("BEGIN")
            wait_for(
                "the idle session to be ended",
                lambda: other.value(
                    "SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_stat_activity WHERE pid = %s)", session.backend_pid
                ),
                where=session.dsn,
                within_seconds=20,
            )
            with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout):
                session.rows("SELECT 1")


class TestTheClientOfTheBucket:
    """Nothing answers at its endpoint, so that a refusal is one before anything was sent."""

    @pytest.fixture
    def held(self) -> Bucket:
        free = Bucket(
            "b", endpoint_url="http://127.0.0.1:9", region="us-east-1", credentials=("a", "b"), timeout_seconds=1
        )
        return free.held_read_only()

    def test_every_operation_that_is_no_reading_is_refused(self, held: Bucket) -> None:
        operations = held.client.meta.service_model.operation_names
        assert len(operations) > 90
        slipped = []
        for name in operations:
            try:
                held.client._make_api_call(name, {})  # type: ignore[attr-defined]
                outcome = "sent"
            except TargetRefused as refused:
                outcome = "refused" if f"to call {name}, " in str(refused) else "refused as something else"
            except botocore.exceptions.ParamValidationError:
                outcome = "let through"
            except botocore.exceptions.EndpointConnectionError:
                outcome = "sent"
            if (outcome == "refused") is name.startswith(("Get", "Head", "List")):
                slipped.append((name, outcome))
        assert slipped == []

    @pytest.mark.parametrize(
        "name",
        [
            *("SelectObjectContent", "RestoreObject", "CreateMultipartUpload", "WriteGetObjectResponse"),
            *("AbortMultipartUpload", "UploadPartCopy", "PutBucketLifecycleConfiguration", "DeleteObjects"),
        ],
    )
    def test_the_ones_that_are_easily_forgotten(self, name: str, held: Bucket) -> None:
        with pytest.raises(TargetRefused, match=name):
            held.client._make_api_call(name, {})  # type: ignore[attr-defined]

    def test_the_ways_around(self, held: Bucket) -> None:
        """boto3's own conveniences, and a signature for somebody else to write with."""
        client = held.client
        for way in (
            lambda: client.upload_fileobj(io.BytesIO(b"x"), "b", "k"),
            lambda: client.upload_fileobj(io.BytesIO(b"x" * 20_000_000), "b", "k"),
            lambda: client.generate_presigned_url("put_object", {"Bucket": "b", "Key": "k"}),
            lambda: held.held_read_only().client.delete_object(Bucket="b", Key="k"),
        ):
            with pytest.raises(TargetRefused):
                way()

    def test_reading_is_let_through(self, sandbox: Sandbox) -> None:
        held = Bucket(
            sandbox.settings.backups.bucket,
            endpoint_url=sandbox.store.endpoint_url,
            region=sandbox.store.region,
            credentials=(sandbox.store.access_key, sandbox.store.secret_key),
        ).held_read_only()
        found = held.objects()
        assert found
        assert held.read(found[0].key)
        assert held.versions()
        assert held.unfinished_uploads() == []
