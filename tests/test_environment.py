"""What a run acts on is what its profile names, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC

import pytest

from runbook_lib.environment import Environment
from runbook_lib.errors import NotPermitted, TargetRefused, ToolMissing, Unproven
from runbook_lib.reach import postgres
from runbook_lib.safety.permit import Asked
from runbook_lib.settings import Archiving, Backups, Changes, Database, Settings
from tests.backup import real


@pytest.fixture(scope="module")
def databases() -> Iterator[real.Databases]:
    with real.databases() as started:
        yield started


@pytest.fixture
def settings(databases: real.Databases) -> Settings:
    """A profile of a database on a real server; its bucket answers nobody."""
    dsn = databases.make()
    with postgres.session(dsn) as session:
        identifier = session.server().system_identifier
    backups = Backups(bucket="b", endpoint_url="http://127.0.0.1:9", region="us-east-1")
    return Settings("here", Database(dsn, identifier), backups)


def of_another_cluster(settings: Settings) -> Environment:
    return Environment.of(replace(settings, database=replace(settings.database, system_identifier="7")))


class TestIdentity:
    def test_the_cluster_that_was_named(self, settings: Settings) -> None:
        identity = Environment.of(settings).identity()
        assert identity.system_identifier == settings.database.system_identifier
        assert identity.name == postgres.database_of(settings.database.dsn)
        assert identity.major == 17

    def test_any_cluster_where_none_was_named(self, settings: Settings) -> None:
        anybody = replace(settings, database=replace(settings.database, system_identifier=""))
        assert Environment.of(anybody).identity().major == 17

    def test_another_cluster_is_refused(self, settings: Settings) -> None:
        environment = of_another_cluster(settings)
        with pytest.raises(TargetRefused, match="the profile names 7") as raised:
            environment.identity()
        assert settings.database.system_identifier in raised.value.why

    def test_another_cluster_gets_no_backup_and_no_other_statement(
        self, settings: Settings, databases: real.Databases
    ) -> None:
        environment = of_another_cluster(replace(settings, changes=Changes(granted=True)))
        with postgres.session(databases.server.dsn(), read_only=False) as session:
            session.execute(f"ALTER DATABASE {postgres.database_of(settings.database.dsn)} SET log_statement = 'all'")
        before = databases.server.log.read_text()
        with pytest.raises(TargetRefused):
            environment.take_backup("manual")
        logged = databases.server.log.read_text()[len(before) :]
        seen = [line for line in logged.splitlines() if "statement:" in line or "execute" in line]
        assert seen
        assert [line for line in seen if "set_config" not in line and "pg_control_system" not in line] == []

    def test_its_sessions_write_nothing(self, settings: Settings) -> None:
        with Environment.of(settings).database() as session, pytest.raises(postgres.DriverError, match="read-only"):
            session.execute("CREATE TABLE public.t (n int)")


class TestPermit:
    def test_is_withheld_unless_it_was_typed(self, settings: Settings) -> None:
        with pytest.raises(NotPermitted, match="add to the command: --allow-changes-to here --reason"):
            Environment.of(settings).take_backup("manual")

    def test_is_granted_to_whoever_types_the_name_and_why(self, settings: Settings) -> None:
        named = replace(settings, cluster="tensafe-here")
        granted = Environment.of(named, asked=Asked("tensafe-here", "a lost table"))
        granted.permit.require("anything")
        assert granted.permit.reason == "a lost table"

    @pytest.mark.parametrize(
        ("asked", "says"),
        [
            (Asked("here", "why"), "this is the cluster tensafe-here, and here was typed"),
            (Asked("tensafe-her", "why"), "tensafe-her was typed"),
            (Asked("tensafe-here", "  "), "say why, for the journal"),
            (Asked("", "why"), "add to the command"),
        ],
    )
    def test_is_withheld_from_whoever_types_something_else(self, asked: Asked, says: str, settings: Settings) -> None:
        withheld = Environment.of(replace(settings, cluster="tensafe-here"), asked=asked).permit
        with pytest.raises(NotPermitted, match=says):
            withheld.require("anything")

    def test_is_granted_by_a_sandbox_itself(self, settings: Settings) -> None:
        granted = Environment.of(replace(settings, changes=Changes(granted=True)))
        granted.permit.require("anything")
        assert granted.permit.reason == "this environment grants them itself"


class TestDescription:
    def test_of_what_answers(self, settings: Settings) -> None:
        told = Environment.of(settings).describe()
        assert told["environment"] == "here"
        assert f"system identifier {settings.database.system_identifier}" in told["database"]
        assert told["backups"] == "s3://b/postgres/ at http://127.0.0.1:9"
        assert told["changes"] == "none"

    def test_of_what_does_not_answer(self, settings: Settings) -> None:
        away = replace(settings, database=Database("host=127.0.0.1 port=9 dbname=x user=clerk"))
        assert "no answer" in Environment.of(away).describe()["database"]

    def test_of_another_cluster(self, settings: Settings) -> None:
        assert "refused to touch it" in of_another_cluster(settings).describe()["database"]


def test_programs_that_were_named_are_the_ones_used(settings: Settings, databases: real.Databases) -> None:
    granted = replace(settings, changes=Changes(granted=True))
    nowhere = Environment.of(granted, tools_directory=databases.server.folder)
    with pytest.raises(ToolMissing, match=str(databases.server.folder)):
        nowhere.take_backup("manual")
    with nowhere.scratch() as place, pytest.raises(ToolMissing):
        place.server(17)


def test_now_is_in_utc(settings: Settings) -> None:
    assert Environment.of(settings).now.tzinfo is UTC


class TestWhereTheWalIs:
    def test_in_the_bucket(self, settings: Settings) -> None:
        environment = Environment.of(settings)
        assert environment.wal_archive.where == "s3://b/wal/"
        assert environment.wal_archive.system_identifier == settings.database.system_identifier
        assert environment.base_backups.where == "s3://b/base/"

    def test_elsewhere(self, settings: Settings) -> None:
        """Nothing can be said of it then: neither that it is whole nor that it has a hole."""
        environment = Environment.of(replace(settings, archiving=Archiving(wal_prefix="", base_prefix="")))
        for look in (
            lambda: environment.wal_archive,
            lambda: environment.base_backups,
            environment.wal_is_continuous,
            environment.take_base_backup,
        ):
            with pytest.raises(Unproven, match="prefix is empty") as raised:
                look()
            assert type(raised.value) is Unproven
