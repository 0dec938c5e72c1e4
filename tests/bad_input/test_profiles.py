"""What a user can name wrongly: every mistake ends as one sentence, as unproven, and with nothing left or lost."""

from __future__ import annotations

import os
import socket
from datetime import timedelta
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo

from runbook_lib.backup import dump
from runbook_lib.backup.catalog import Archive
from runbook_lib.safety.mark import MARK
from tests.bad_input.conftest import DRILL, PERMIT, READ, TAKE, User, World, lay
from tests.bad_input.running import Ran

UNPROVEN = 5
FAILED = 1


def must_say(ran: Ran, *words: str, outcome: str = "unproven", exit_code: int = UNPROVEN) -> None:
    """It ended as one sentence with all these words, with what to do about it, and without a traceback."""
    assert (ran.outcome, ran.exit_code) == (outcome, exit_code), ran.output
    assert ran.reasons, ran.output
    for reason in ran.reasons:
        assert [word for word in (*words, "To fix this: ") if word not in reason] == [], reason
        assert " ".join(reason.split()) in " ".join(ran.output.split())
    assert "Traceback" not in ran.output
    assert ".py:" not in ran.output


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class TestNothingIsWrong:
    def test_the_drill_is_proven(self, user: User) -> None:
        ran = user.runs(*DRILL, profile=user.profile())
        assert (ran.outcome, ran.exit_code, ran.reasons) == ("proven", 0, []), ran.output


class TestBucket:
    def test_missing(self, user: User) -> None:
        ran = user.runs(*DRILL, profile=user.profile(backups__bucket="no-such-bucket"))
        must_say(ran, "bucket no-such-bucket at http://127.0.0.1", "404 NoSuchBucket", "create the bucket")

    def test_wrong_secret(self, user: User) -> None:
        ran = user.runs(*DRILL, profile=user.profile(), AWS_SECRET_ACCESS_KEY="n0b0dy5")
        must_say(ran, "bucket backups at", "refused: S3 answers 403", "check the credentials in use")
        assert "n0b0dy5" not in ran.output

    def test_unknown_key(self, user: User) -> None:
        ran = user.runs(*DRILL, profile=user.profile(), AWS_ACCESS_KEY_ID="NOBODY")
        must_say(ran, "bucket backups at", "refused: S3 answers 403", "check the credentials in use")

    def test_no_credentials(self, user: User) -> None:
        ran = user.runs(*DRILL, profile=user.profile(), AWS_SECRET_ACCESS_KEY="", AWS_ACCESS_KEY_ID="")
        must_say(ran, "bucket backups at", "credentials", "AWS_PROFILE")

    def test_nobody_answers(self, user: User) -> None:
        endpoint = f"http://127.0.0.1:{closed_port()}"
        ran = user.runs(*DRILL, profile=user.profile(backups__endpoint_url=endpoint))
        must_say(ran, f"bucket backups at {endpoint}", "no answer", "check the endpoint")

    def test_endpoint_is_no_address(self, user: User) -> None:
        ran = user.runs(*DRILL, profile=user.profile(backups__endpoint_url="nonsense"))
        must_say(ran, "the bucket backups", "endpoint nonsense", "write endpoint_url as http://host:port")

    def test_name_is_no_bucket_name(self, user: User) -> None:
        ran = user.runs(*DRILL, profile=user.profile(backups__bucket="our backups!"))
        must_say(ran, "our backups!", "Invalid bucket name", "correct the bucket's name")

    def test_nothing_below_the_prefix(self, user: User) -> None:
        ran = user.runs(*DRILL, profile=user.profile(backups__prefix="elsewhere/"))
        must_say(ran, "s3://backups/elsewhere/daily/", "there is no backup at all", "take one now (runbook 1.2)")

    def test_no_backup_in_the_window(self, user: User, world: World) -> None:
        taken = dump.take(world.dsn, Archive(world.bucket, "stale/"), permit=PERMIT, kind="taken").backup
        old = taken.taken_at - timedelta(days=3)
        lay(world.bucket, "stale/", taken, taken_at=old, database_bytes=1)
        ran = user.runs(*DRILL, profile=user.profile(backups__prefix="stale/"))
        must_say(ran, "a daily backup taken since", f"of {old:%Y-%m-%d %H:%M:%S} UTC", "take one now")

    def test_a_dump_that_was_cut_short_is_no_backup(self, user: User, world: World) -> None:
        world.bucket.client.put_object(Bucket="backups", Key="short/daily/x.dump", Body=b"PGDMP", Metadata=MARK)
        ran = user.runs(*DRILL, profile=user.profile(backups__prefix="short/"))
        must_say(ran, "there is no backup at all; passed over as incomplete: short/daily/x.dump")


class TestDatabase:
    def test_nobody_listens_there(self, user: User, world: World) -> None:
        ran = user.runs(*READ, profile=user.profile(database__dsn=make_conninfo(world.dsn, port=5433)))
        must_say(ran, "to connect to PostgreSQL", "port=5433", "no answer", "check that the server runs")

    def test_nobody_listens_at_the_port(self, user: User) -> None:
        dsn = f"host=127.0.0.1 port={closed_port()} dbname=app user=postgres"
        ran = user.runs(*READ, profile=user.profile(database__dsn=dsn))
        must_say(ran, "to connect to PostgreSQL", "host=127.0.0.1", "refused", "check that the server runs")

    def test_no_such_database(self, user: User, world: World) -> None:
        ran = user.runs(*READ, profile=user.profile(database__dsn=world.server.dsn("nothere")))
        must_say(ran, 'database "nothere" does not exist', "name an existing database in the profile")

    def test_wrong_password(self, user: User, world: World) -> None:
        profile = user.profile(database__dsn=make_conninfo(world.dsn, user="clerk"))
        ran = user.runs(*READ, profile=profile, PGPASSWORD="incorrect")
        must_say(ran, "user=clerk", "password authentication failed", "PGPASSFILE")
        assert "incorrect" not in ran.output

    def test_no_such_role(self, user: User, world: World) -> None:
        ran = user.runs(*READ, profile=user.profile(database__dsn=make_conninfo(world.dsn, user="nobody")))
        must_say(ran, 'role "nobody" does not exist', "check user and password")

    def test_no_connection_string(self, user: User) -> None:
        ran = user.runs(*READ, profile=user.profile(database__dsn="nonsense here"))
        must_say(ran, "to connect to PostgreSQL", "nonsense", "write it as libpq does")

    def test_another_cluster(self, user: User) -> None:
        profile = user.profile(database__system_identifier="7000000000000000000")
        for scenario in (READ, TAKE):
            ran = user.runs(*scenario, "--allow-changes-to", "here", "--reason", "a test", profile=profile)
            must_say(ran, "the database of here", "refused to touch it", "the profile names 7000000000000000000")

    def test_changes_are_not_granted(self, user: User) -> None:
        ran = user.runs(*TAKE, profile=user.profile())
        must_say(ran, "permission to add a backup", "add to the command: --allow-changes-to here --reason")

    def test_changes_to_another_cluster(self, user: User) -> None:
        ran = user.runs(*TAKE, "--allow-changes-to", "production", "--reason", "a slip", profile=user.profile())
        must_say(ran, "permission to add a backup", "this is the cluster here, and production was typed")

    def test_changes_without_a_reason(self, user: User) -> None:
        ran = user.runs(*TAKE, "--allow-changes-to", "here", profile=user.profile())
        must_say(ran, "permission to add a backup", "say why, for the journal")

    def test_changes_that_the_profile_grants_itself(self, user: User) -> None:
        ran = user.runs(*TAKE, profile=user.profile(changes__granted=True))
        must_say(ran, "changes.granted = true, which only a sandbox may")

    def test_a_halt(self, user: User, tmp_path: Path) -> None:
        (tmp_path / "halt").write_text("Ada: the disk is filling up")
        profile = user.profile(changes__halt_file=str(tmp_path / "halt"))
        ran = user.runs(*TAKE, "--allow-changes-to", "here", "--reason", "a test", profile=profile)
        must_say(ran, "permission to add a backup", "Ada: the disk is filling up")


class TestProfile:
    def test_unknown_key(self, user: User) -> None:
        ran = user.runs(*DRILL, profile=user.profile(restore__job=2))
        must_say(ran, "here.toml", "unknown key restore.job", "production.example.toml")

    def test_password_in_it(self, user: User, world: World) -> None:
        ran = user.runs(*DRILL, profile=user.profile(database__dsn=make_conninfo(world.dsn, password="s3cret")))
        must_say(ran, "database.dsn without a credential", "PGPASSFILE")
        assert "s3cret" not in ran.output

    def test_no_such_file(self, user: User, tmp_path: Path) -> None:
        ran = user.runs(*DRILL, "--env", tmp_path / "missing.toml")
        must_say(ran, "missing.toml", "there is no such file", "production.example.toml")

    def test_no_such_profile(self, user: User) -> None:
        ran = user.runs(*DRILL, "--env", "staging")
        must_say(ran, "the profile staging", "profiles there: production.example", "give its path")

    def test_not_toml(self, user: User) -> None:
        profile = user.profile()
        profile.write_text("name: here")
        must_say(user.runs(*DRILL, profile=profile), "here.toml", "it must be TOML")


class TestOptions:
    def test_no_such_database_file(self, user: User, tmp_path: Path) -> None:
        ran = user.runs(*DRILL, "--database", tmp_path / "missing.sql")
        must_say(ran, "missing.sql", "there is no such file", "give the path of an SQL file")

    @pytest.mark.parametrize(
        ("content", "why"),
        [
            (b"", "it is empty"),
            (b"\0\1\2\3" * 100, "it is neither text nor a dump"),
            (b"PGDMP\1\2\3", "pg_restore cannot read it"),
            (b"--\n-- PostgreSQL database dump\n--\nCREATE TABLE t (n int);\n", "it is cut off"),
        ],
    )
    def test_damaged_database_file(self, content: bytes, why: str, user: User, tmp_path: Path) -> None:
        file = tmp_path / "given.dump"
        file.write_bytes(content)
        ran = user.runs(*DRILL, "--database", file)
        must_say(ran, "given.dump", why, outcome="failed", exit_code=FAILED)

    def test_sql_that_is_refused(self, user: User, tmp_path: Path) -> None:
        file = tmp_path / "given.sql"
        file.write_text("CREATE TABLE t (n nosuchtype);\n")
        must_say(user.runs(*DRILL, "--database", file), 'type "nosuchtype" does not exist')

    def test_no_programs_there(self, user: User, tmp_path: Path) -> None:
        ran = user.runs(*DRILL, "--pg-bin", tmp_path)
        must_say(ran, str(tmp_path), "not to be had")

    def test_unknown_major_version(self, user: User) -> None:
        must_say(user.runs(*DRILL, "--major", "12"), "12", "not to be had")


class TestTemporaryFolder:
    def test_is_not_there(self, user: User, tmp_path: Path) -> None:
        ran = user.runs(*DRILL, profile=user.profile(), TMPDIR=str(tmp_path / "missing"))
        must_say(ran, str(tmp_path / "missing"), "TMPDIR")

    def test_may_not_be_used(self, user: User, temporary: Path) -> None:
        """By us, where we are an ordinary user; as root by those who work for us, who are nobody."""
        closed = temporary / "closed"
        closed.mkdir(mode=0o700 if os.geteuid() == 0 else 0o500)
        ran = user.runs(*DRILL, profile=user.profile(), TMPDIR=str(closed))
        must_say(ran, str(closed), "private folder", "set TMPDIR to a folder")

    def test_of_the_profile_is_not_there(self, user: User, tmp_path: Path) -> None:
        ran = user.runs(*DRILL, profile=user.profile(restore__folder=str(tmp_path / "missing")))
        must_say(ran, str(tmp_path / "missing"), "private folder")

    def test_path_is_too_long(self, user: User, temporary: Path) -> None:
        deep = temporary / ("d" * 60) / ("e" * 60)
        deep.mkdir(parents=True)
        ran = user.runs(*DRILL, profile=user.profile(), TMPDIR=str(deep))
        must_say(ran, str(deep), "unix socket", "shorter path")
