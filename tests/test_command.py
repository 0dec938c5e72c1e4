"""``runbook doctor`` tells what is missing and alters nothing; ``runbook recover`` says what it took back."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo

from runbook_lib.backup import dump
from runbook_lib.backup.catalog import Archive
from runbook_lib.reach import postgres
from runbook_lib.reach.binaries import find
from runbook_lib.reach.objects import Bucket
from runbook_lib.reach.server import FAST, PostgresServer
from runbook_lib.reach.workspace import Workspace
from runbook_lib.restore.fence import FenceDatabase
from runbook_lib.safety import journal
from runbook_lib.safety.journal import Header
from runbook_lib.safety.permit import Permit
from runbook_lib.safety.systems import Systems
from runbook_lib.safety.windows import WEEKDAYS
from runbook_lib.sandbox.object_store import ObjectStore
from tests.backup import real
from tests.bad_input.running import PROJECT, environment

PROVEN, FAILED, UNPROVEN = 0, 1, 5
PERMIT = Permit("a test's own archive", granted=True, reason="the test made it")


@dataclass
class World:
    server: PostgresServer
    store: ObjectStore
    bucket: Bucket
    identifier: str

    @property
    def dsn(self) -> str:
        return self.server.dsn("app")


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    settings = {**FAST, "wal_level": "replica", "shared_buffers": "32MB", "log_statement": "all"}
    with Workspace.open() as workspace:
        server = PostgresServer.start(workspace, find(17), settings=settings)
        store = ObjectStore.start(workspace)
        bucket = real.bucket_in(store)
        with postgres.session(server.dsn(), read_only=False) as session:
            session.execute("CREATE DATABASE app")
            session.execute("CREATE ROLE clerk LOGIN")
            identifier = session.server().system_identifier
        with postgres.session(server.dsn("app"), read_only=False) as session:
            session.execute("CREATE TABLE public.t AS SELECT generate_series(1, 100) AS n")
        dump.take(server.dsn("app"), Archive(bucket), permit=PERMIT, kind="daily")
        yield World(server, store, bucket, identifier)
        server.stop()


@dataclass
class Ran:
    exit_code: int
    output: str

    def says(self, outcome: str, what: str) -> list[str]:
        """The lines of one outcome about one thing, each with its remedy."""
        found = re.findall(rf"^{outcome} +{what} +(.*(?:\n +-> .*)?)", self.output, re.MULTILINE)
        return [" ".join(each.split()) for each in found]

    @property
    def not_proven(self) -> list[str]:
        return re.findall(r"^(?:unproven|failed) +(.*\S)", self.output, re.MULTILINE)


@dataclass
class User:
    """Somebody with a profile."""

    world: World
    folder: Path
    sections: dict[str, dict[str, object]] = field(default_factory=dict)
    more: str = ""

    @property
    def journals(self) -> Path:
        return self.folder / "state" / "journal"

    def profile(self, **changed: object) -> Path:
        """Write a profile; each argument changes one key, written ``section__key``."""
        told: dict[str, dict[str, object]] = {
            "database": {"dsn": self.world.dsn, "audit_log": False, "system_identifier": self.world.identifier},
            "backups": {
                "bucket": self.world.bucket.name,
                "endpoint_url": self.world.store.endpoint_url,
                "region": self.world.store.region,
            },
            "restore": {"jobs": 1},
            "changes": {"journal": str(self.journals)},
        }
        for key, value in changed.items():
            section, _, name = key.partition("__")
            told[section][name] = value
        lines = ['name = "here"', 'cluster = "tensafe-here"']
        for section, entries in told.items():
            lines += [f"[{section}]", *(f"{name} = {_toml(value)}" for name, value in entries.items())]
        path = self.folder / "here.toml"
        path.write_text("\n".join(lines) + "\n" + self.more)
        return path

    def types(self, *arguments: str | Path, env: Mapping[str, str] | None = None) -> Ran:
        credentials = {
            "AWS_ACCESS_KEY_ID": self.world.store.access_key,
            "AWS_SECRET_ACCESS_KEY": self.world.store.secret_key,
        }
        ran = subprocess.run(
            [sys.executable, "-m", "runbook_lib", *map(str, arguments)],
            cwd=PROJECT,
            env=environment(self.folder, **{**credentials, **(env or {})}),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert "Traceback" not in ran.stderr, ran.stderr
        return Ran(ran.returncode, ran.stdout + ran.stderr)

    def doctor(self, **changed: object) -> Ran:
        return self.types("doctor", "--env", self.profile(**changed))

    def left_fenced(self) -> None:
        """Be killed behind a fence."""
        systems = Systems(self.world.dsn)
        header = Header.here_and_now(
            cluster="tensafe-here", profile="x", system_identifier=self.world.identifier, reason="a test"
        )
        with journal.opened(self.journals, header, recover="") as opened:
            act = FenceDatabase("app")
            before = act.look(systems)
            told = {"says": act.describe(before), "undoing": act.describe_undoing(before)}
            opened.announce("a procedure", act.kind, act.arguments, before, **told)
            act.do(systems, before)


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, int) else f"'{value}'"


@pytest.fixture
def user(world: World, tmp_path: Path) -> User:
    return User(world, tmp_path)


class TestDoctor:
    def test_nothing_is_missing(self, user: User) -> None:
        ran = user.doctor()
        assert ran.not_proven == [], ran.output
        assert ran.exit_code == PROVEN
        for what in ("profile", "database", "rights", "kept", "programs", "backups", "room", "journal", "changes"):
            assert ran.says("proven", what), what
        assert ran.output.rstrip().endswith("nothing was altered")

    def test_it_alters_nothing(self, user: User) -> None:
        """Neither the database, nor the bucket, nor this machine."""
        world = user.world
        profile = user.profile()
        kept = {(each.key, each.version_id) for each in world.bucket.versions()}
        files = sorted(user.folder.rglob("*"))
        log = len(world.server.log.read_text())
        assert user.types("doctor", "--env", profile).exit_code == PROVEN
        logged = re.findall(
            r"(?:statement|execute [^:]*): (.*(?:\n\t.*)*)", world.server.log.read_text()[log:], flags=re.MULTILINE
        )
        statements = [re.sub(r"--.*", "", each).strip() for each in logged]
        assert any("pg_has_role" in each for each in statements)
        for statement in statements:
            assert re.match(r"SELECT\b|SHOW\b", statement), statement
            assert not re.search(r"\b(INSERT|UPDATE|DELETE|CREATE|ALTER|DROP|pg_terminate\w*)\b", statement), statement
        assert {(each.key, each.version_id) for each in world.bucket.versions()} == kept
        assert world.bucket.unfinished_uploads() == []
        assert not user.journals.parent.exists()
        assert sorted(user.folder.rglob("*")) == files

    def test_no_bucket(self, user: User) -> None:
        ran = user.doctor(backups__bucket="no-such-bucket")
        assert ran.exit_code == UNPROVEN
        (said,) = ran.says("unproven", "backups")
        assert "404 NoSuchBucket" in said
        assert "-> create the bucket" in said
        assert ran.says("proven", "database")

    def test_no_database(self, user: User) -> None:
        ran = user.doctor(database__dsn=make_conninfo(user.world.dsn, dbname="nowhere"))
        assert ran.exit_code == UNPROVEN
        assert 'database "nowhere" does not exist' in ran.says("unproven", "database")[0]
        assert ran.says("proven", "backups")

    def test_no_server(self, user: User, tmp_path: Path) -> None:
        ran = user.doctor(database__dsn=f"host={tmp_path} dbname=app user=postgres")
        assert ran.exit_code == UNPROVEN
        assert "check that the server runs" in ran.says("unproven", "database")[0]

    def test_another_cluster(self, user: User) -> None:
        ran = user.doctor(database__system_identifier="7000000000000000000")
        assert ran.exit_code == FAILED
        assert "the profile names 7000000000000000000" in ran.says("failed", "database")[0]

    def test_no_identifier(self, user: User) -> None:
        ran = user.doctor(database__system_identifier="")
        assert ran.exit_code == UNPROVEN
        assert f'-> set system_identifier = "{user.world.identifier}"' in ran.says("unproven", "database")[0]

    def test_a_role_without_rights(self, user: User) -> None:
        ran = user.doctor(database__dsn=make_conninfo(user.world.dsn, user="clerk"))
        assert ran.exit_code == UNPROVEN
        assert len(ran.says("unproven", "rights")) == 7
        said = "\n".join(ran.says("unproven", "rights"))
        assert '-> GRANT SET ON PARAMETER session_replication_role TO "clerk"' in said
        assert '-> GRANT pg_signal_backend TO "clerk"' in "\n".join(ran.says("unproven", "rights"))

    def test_a_role_that_may_merge_and_nothing_else(self, user: User) -> None:
        grant = "SET ON PARAMETER session_replication_role"
        with postgres.session(user.world.dsn, read_only=False) as session:
            session.execute(f"GRANT {grant} TO clerk")
        try:
            ran = user.doctor(database__dsn=make_conninfo(user.world.dsn, user="clerk"))
        finally:
            with postgres.session(user.world.dsn, read_only=False) as session:
                session.execute(f"REVOKE {grant} FROM clerk")
        assert len(ran.says("unproven", "rights")) == 6
        assert "session_replication_role" in ran.says("proven", "rights")[0]

    def test_what_is_kept_past_its_time(self, user: User) -> None:
        name = "app_old_20200101_120000"
        with postgres.session(user.world.dsn, read_only=False) as session:
            session.execute(f"CREATE DATABASE {name} TEMPLATE template0")
            session.execute(f"ALTER DATABASE {name} SET tensafe.kept_until = '2020-01-08T12:00:00+00:00'")
            try:
                ran = user.doctor()
                session.execute(f"ALTER DATABASE {name} SET tensafe.kept_until = '2999-01-08T12:00:00+00:00'")
                assert user.doctor().says("proven", "kept")
            finally:
                session.execute(f"DROP DATABASE {name}")
        assert ran.exit_code == UNPROVEN
        (said,) = ran.says("unproven", "kept")
        assert f"{name}: it was kept until 2020-01-08T12:00:00+00:00, and is still there" in said
        assert "-> have it dropped: features/restore/kept_databases.feature" in said

    def test_no_room(self, user: User) -> None:
        ran = user.doctor(restore__folder="/proc/self/task")
        assert ran.exit_code == UNPROVEN
        assert "-> name a folder with room" in ran.says("unproven", "room")[0]

    def test_no_folder_to_restore_in(self, user: User, tmp_path: Path) -> None:
        ran = user.doctor(restore__folder=str(tmp_path / "none"))
        assert (ran.exit_code, len(ran.says("unproven", "room"))) == (UNPROVEN, 1)

    def test_a_journal_that_cannot_be_written(self, user: User, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        ran = user.doctor(changes__journal=str(tmp_path / "file" / "journal"))
        assert ran.exit_code == UNPROVEN
        assert len(ran.says("unproven", "journal")) == 1

    def test_a_journal_that_is_damaged(self, user: User) -> None:
        user.journals.mkdir(parents=True)
        (user.journals / "x.jsonl").write_text('{"row":"intent"}\n')
        ran = user.doctor()
        assert ran.exit_code == UNPROVEN
        assert "-> read it with your own eyes" in ran.says("unproven", "journal")[0]

    def test_outstanding_acts(self, user: User) -> None:
        user.left_fenced()
        try:
            ran = user.doctor()
            assert ran.exit_code == UNPROVEN
            (said,) = ran.says("unproven", "journal")
            assert "let nobody connect to app" in said
            assert f"-> runbook recover --env {user.folder / 'here.toml'}" in said
        finally:
            assert user.types("recover", "--env", user.profile()).exit_code == PROVEN

    def test_a_halt(self, user: User, tmp_path: Path) -> None:
        (tmp_path / "halt").write_text("ask Ann")
        ran = user.doctor(changes__halt_file=str(tmp_path / "halt"))
        assert ran.exit_code == UNPROVEN
        assert "ask Ann" in ran.says("unproven", "changes")[0]
        (tmp_path / "halt").unlink()
        assert user.doctor(changes__halt_file=str(tmp_path / "halt")).exit_code == PROVEN

    @pytest.mark.parametrize(("hours", "exit_code"), [(-1, PROVEN), (24, UNPROVEN)], ids=["open", "closed"])
    def test_a_window(self, hours: int, exit_code: int, user: User) -> None:
        opens = datetime.now(UTC) + timedelta(hours=hours)
        closes = opens + timedelta(hours=3)
        day = [f"{WEEKDAYS[each.weekday()]} {each:%H:%M}" for each in (opens, closes)]
        user.more = f'[[maintenance.windows]]\noperation = "restore"\nopens = "{day[0]}"\ncloses = "{day[1]}"\n'
        ran = user.doctor(changes__window="restore")
        assert ran.exit_code == exit_code
        assert [said for said in ran.says("unproven", "changes") if "is closed; it opens on" in said] or not exit_code

    def test_typing_what_has_to_be_typed(self, user: User) -> None:
        assert "--allow-changes-to tensafe-here" in user.doctor().says("proven", "changes")[0]
        typed = ("--allow-changes-to", "tensafe-here", "--reason", "ticket 7")
        ran = user.types("doctor", "--env", user.profile(), *typed)
        assert ran.says("proven", "changes") == ["would be permitted now: ticket 7"]


class TestRecover:
    def test_nothing_is_outstanding(self, user: User) -> None:
        ran = user.types("recover", "--env", user.profile())
        assert (ran.exit_code, ran.output) == (PROVEN, f"nothing is outstanding in {user.journals}\n")
        assert not user.journals.parent.exists()

    def test_a_database_that_nobody_may_connect_to(self, user: User) -> None:
        """What is to be taken back is the very thing that keeps everybody out."""
        user.left_fenced()
        ran = user.types("recover", "--env", user.profile())
        assert ran.exit_code == PROVEN
        assert ran.output.startswith("taken back  let nobody connect to app")
        with postgres.session(user.world.dsn) as session:
            assert session.value("SELECT count(*) FROM public.t") == 100
        again = user.types("recover", "--env", user.profile())
        assert (again.exit_code, again.output) == (PROVEN, f"nothing is outstanding in {user.journals}\n")

    def test_stuck(self, user: User) -> None:
        user.left_fenced()
        ran = user.types("recover", "--env", user.profile(database__dsn=make_conninfo(user.world.dsn, user="clerk")))
        assert ran.exit_code == FAILED
        assert ran.output.startswith("STUCK       let nobody connect to app")
        assert "1 acts are still outstanding" in ran.output
        assert user.types("recover", "--env", user.profile()).exit_code == PROVEN

    def test_another_cluster(self, user: User) -> None:
        user.left_fenced()
        ran = user.types("recover", "--env", user.profile(database__system_identifier="7000000000000000000"))
        assert ran.exit_code == UNPROVEN
        assert "refused to touch it" in ran.output
        assert user.types("recover", "--env", user.profile()).exit_code == PROVEN

    def test_no_server(self, user: User, tmp_path: Path) -> None:
        ran = user.types("recover", "--env", user.profile(database__dsn=f"host={tmp_path} dbname=app user=postgres"))
        assert ran.exit_code == UNPROVEN
        assert "To fix this: check that the server runs" in ran.output


class TestWrongly:
    def test_no_such_profile(self, user: User, tmp_path: Path) -> None:
        ran = user.types("doctor", "--env", tmp_path / "none.toml")
        assert (ran.exit_code, "there is no such file" in ran.output) == (UNPROVEN, True)

    @pytest.mark.parametrize("arguments", [(), ("repair",), ("recover", "--plan")])
    def test_no_such_command(self, arguments: tuple[str, ...], user: User) -> None:
        assert user.types(*arguments).exit_code == 2

    def test_as_it_is_installed(self, user: User, tmp_path: Path) -> None:
        """By its name, from any folder."""
        program = tmp_path / "bin" / "runbook"
        program.parent.mkdir()
        program.symlink_to(PROJECT / "deploy" / "runbook")
        python = tmp_path / "bin" / "python"
        python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        python.chmod(0o755)
        argv = [str(program), "recover", "--env", str(user.profile())]
        credentials = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}
        ran = subprocess.run(
            argv, cwd=tmp_path, env=environment(tmp_path, **credentials), capture_output=True, text=True, check=False
        )
        assert (ran.returncode, ran.stdout) == (0, f"nothing is outstanding in {user.journals}\n"), ran.stderr
