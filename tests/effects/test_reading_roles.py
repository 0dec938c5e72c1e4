"""Everything that is tagged @reads, run by somebody who physically cannot write.

The library holds such a scenario read-only by itself (see ``test_enforcement``). Here it is taken at its word: with a
PostgreSQL role that owns nothing, may only read and sees what a monitoring role sees, and with S3 credentials that may
only list and read, every such scenario must be proven all the same; and neither the server's log nor the bucket may
show that anything was even tried.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import botocore.exceptions
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from runbook_lib.errors import Denied
from runbook_lib.reach import postgres
from runbook_lib.reach.objects import Bucket
from runbook_lib.reach.server import PostgresServer
from runbook_lib.sandbox.sandbox import Sandbox
from tests.bad_input.running import Ran, environment, runbook
from tests.effects.conftest import profile

ALL = ("pg_read_all_data", "pg_monitor")
_ENTRY = re.compile(r"^(?=\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)", re.MULTILINE)
_STATEMENT = re.compile(
    r"\S+ \S+ \S+ \[\d+\] reader_\w+@tensafe (?P<who>.*?) LOG:  (?:statement|execute [^:]*): (?P<sql>.*)", re.DOTALL
)
_NO_WORDS = re.compile(r"--[^\n]*|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"")
"""Comments, literals and quoted names."""
_READING = re.compile(r"\s*(?:SELECT|SHOW|WITH|SET|RESET|BEGIN|COMMIT|ROLLBACK)\b", re.IGNORECASE)
_WRITING = re.compile(
    r"\b(?:INSERT|UPDATE|DELETE|MERGE|TRUNCATE|CREATE|ALTER|DROP|GRANT|REVOKE|COPY|LOCK|NOTIFY|VACUUM|nextval|setval|lo_\w+"
    r"|pg_(?:switch_wal|terminate_backend|cancel_backend|reload_conf|advisory\w*|stat_reset\w*|create_\w+|drop_\w+))\b",
    re.IGNORECASE,
)


@pytest.fixture
def temporary() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="eff", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def reader(sandbox: Sandbox, *granted: str) -> str:
    """Make a role that may log in, to this database, and has no more than what is granted; return how it connects."""
    name = f"reader_{len(granted)}_{granted[0] if granted else 'nothing'}"
    with postgres.session(sandbox.server.dsn(), read_only=False) as session:
        session.execute(f"CREATE ROLE {name} LOGIN")
        session.execute(f"GRANT CONNECT ON DATABASE tensafe TO {name}")
        session.execute(f"ALTER ROLE {name} SET default_transaction_read_only = on")
        for role in granted:
            session.execute(f"GRANT {role} TO {name}")
    return make_conninfo(sandbox.settings.database.dsn, user=name)


def run_all_that_reads(sandbox: Sandbox, folder: Path, temporary: Path, dsn: str) -> Ran:
    access_key, secret_key = sandbox.store.reader
    return runbook(
        *("features", "-m", "reads", "--env", profile(sandbox, folder, dsn)),
        reports=folder / "reports",
        env=environment(temporary, AWS_ACCESS_KEY_ID=access_key, AWS_SECRET_ACCESS_KEY=secret_key),
    )


def everything(bucket: Bucket) -> list[tuple[str, str, int]]:
    kept = [(each.key, each.version_id, each.bytes) for each in bucket.versions()]
    return kept + [(key, "unfinished", 0) for key in bucket.unfinished_uploads()]


@pytest.fixture(scope="module")
def reading(sandbox: Sandbox) -> str:
    """How the role connects that may read everything."""
    return reader(sandbox, *ALL)


def test_every_reading_scenario_is_proven(sandbox: Sandbox, reading: str, tmp_path: Path, temporary: Path) -> None:
    owners = Bucket(
        sandbox.settings.backups.bucket,
        endpoint_url=sandbox.store.endpoint_url,
        region=sandbox.store.region,
        credentials=(sandbox.store.access_key, sandbox.store.secret_key),
    )
    before = everything(owners)
    assert isinstance(sandbox.server, PostgresServer)
    begins = sandbox.server.log.stat().st_size
    ran = run_all_that_reads(sandbox, tmp_path, temporary, reading)
    outcomes = {each["scenario"]: each["outcome"] for each in ran.summary["scenarios"]}
    assert ran.exit_code == 0, ran.output
    assert outcomes
    assert set(outcomes.values()) == {"proven"}
    assert everything(owners) == before
    log = sandbox.server.log.read_bytes()[begins:].decode()
    found = [statement for entry in _ENTRY.split(log) if (statement := _STATEMENT.match(entry))]
    statements = [(each["who"], _NO_WORDS.sub("", each["sql"])) for each in found]
    assert len({who for who, _ in statements if who.startswith("runbook/")}) >= len(outcomes), statements
    assert [sql for _, sql in statements if not _READING.match(sql) or _WRITING.search(sql)] == []
    assert "read-only transaction" not in log
    assert "permission denied" not in log


def test_logging_in_is_enough(sandbox: Sandbox, tmp_path: Path, temporary: Path) -> None:
    """For all but one: which segments still wait for the archiver, only a monitoring role may see."""
    ran = run_all_that_reads(sandbox, tmp_path, temporary, reader(sandbox))
    outcomes = {each["scenario"]: each["outcome"] for each in ran.summary["scenarios"]}
    assert outcomes.pop("WAL is archived") == "unproven"
    assert set(outcomes.values()) == {"proven"}
    assert "permission denied for function pg_ls_archive_statusdir" in ran.output


def test_who_may_not_connect_is_denied(sandbox: Sandbox, tmp_path: Path, temporary: Path) -> None:
    with postgres.session(sandbox.server.dsn(), read_only=False) as session:
        session.execute("CREATE ROLE stranger LOGIN")
    dsn = make_conninfo(sandbox.settings.database.dsn, user="stranger")
    with pytest.raises(Denied, match="GRANT CONNECT ON DATABASE"), postgres.session(dsn):
        pass


def test_the_role_cannot_write(reading: str) -> None:
    """Not even where it lifts its own default."""
    with psycopg.connect(reading, autocommit=True) as connection:
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("DELETE FROM public.audit_logs")
        connection.execute("SET default_transaction_read_only = off")
        for statement in (
            "DELETE FROM public.audit_logs",
            "CREATE TABLE public.mine (a int)",
            "ALTER DATABASE tensafe SET work_mem = '1MB'",
            "SELECT pg_catalog.pg_switch_wal()",
            "SELECT pg_catalog.lo_import('/etc/hostname')",
            "COPY public.users TO '/tmp/users'",
        ):
            with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedFunction)):
                connection.execute(statement.encode())


class TestTheReaderOfTheStore:
    """The other half of the proof: the identity can do what it must, and no more."""

    @pytest.fixture
    def bucket(self, sandbox: Sandbox) -> Bucket:
        return Bucket(
            sandbox.settings.backups.bucket,
            endpoint_url=sandbox.store.endpoint_url,
            region=sandbox.store.region,
            credentials=sandbox.store.reader,
        )

    def test_it_lists_and_reads(self, bucket: Bucket) -> None:
        found = bucket.objects("postgres/daily/")
        assert found
        assert len(bucket.read(found[-1].key)) == found[-1].bytes
        assert bucket.versions("postgres/daily/")

    @pytest.mark.parametrize(
        ("operation", "arguments"),
        [
            ("put_object", {"Body": b"x"}),
            ("delete_object", {}),
            ("create_multipart_upload", {}),
            ("copy_object", {}),
            ("put_object_tagging", {"Tagging": {"TagSet": [{"Key": "a", "Value": "b"}]}}),
        ],
    )
    def test_it_cannot_write(self, bucket: Bucket, operation: str, arguments: dict[str, object]) -> None:
        key = bucket.objects("postgres/daily/")[0].key
        if operation == "copy_object":
            arguments = {"CopySource": {"Bucket": bucket.name, "Key": key}}
        with pytest.raises(botocore.exceptions.ClientError) as refused:
            getattr(bucket.client, operation)(Bucket=bucket.name, Key=key, **arguments)
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403

    def test_it_cannot_make_or_alter_a_bucket(self, bucket: Bucket) -> None:
        calls: tuple[Callable[[], object], ...] = (
            lambda: bucket.client.create_bucket(Bucket="another"),
            lambda: bucket.client.delete_bucket(Bucket=bucket.name),
            lambda: bucket.client.put_bucket_versioning(
                Bucket=bucket.name, VersioningConfiguration={"Status": "Suspended"}
            ),
        )
        for call in calls:
            with pytest.raises(botocore.exceptions.ClientError) as refused:
                call()
            assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
