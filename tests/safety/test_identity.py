"""The database that was named is told from every other one, and from the copies of itself."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from psycopg.conninfo import make_conninfo

from runbook_lib.errors import Denied, TargetRefused, ToolFailed, Unreachable
from runbook_lib.reach import postgres
from runbook_lib.reach.binaries import find
from runbook_lib.reach.server import FAST, PostgresServer
from runbook_lib.reach.workspace import Workspace
from runbook_lib.safety import ownership
from runbook_lib.safety.identity import Identity
from runbook_lib.safety.systems import Systems
from tests.backup import real
from tests.backup.real import Databases


@pytest.fixture(scope="module")
def original(databases: Databases) -> str:
    return databases.make("CREATE TABLE public.t (n int)")


@pytest.fixture(scope="module")
def identifier(original: str) -> str:
    with postgres.session(original) as session:
        return session.server().system_identifier


def why_refused(dsn: str, identifier: str) -> str:
    with postgres.session(dsn) as session:
        try:
            Identity("production", identifier).must_be(session)
        except TargetRefused as refused:
            return refused.why
    return ""


def test_the_one_that_was_named(original: str, identifier: str) -> None:
    assert why_refused(original, identifier) == ""
    assert why_refused(original, "") == ""


def test_another_cluster(original: str) -> None:
    with real.databases() as others:
        with postgres.session(others.server.dsn()) as session:
            other = session.server().system_identifier
        assert why_refused(original, other).startswith("its system identifier is ")
        assert why_refused(others.server.dsn(), other) == ""


def test_a_restored_copy_beside_the_living_one(databases: Databases, identifier: str) -> None:
    dsn = databases.make()
    name = postgres.database_of(dsn)
    assert why_refused(dsn, identifier) == ""
    with postgres.session(databases.server.dsn(), read_only=False) as session:
        ownership.mark(session, name, "a drill")
    assert why_refused(dsn, identifier) == f"the database {name} bears the mark of a restored copy"
    assert why_refused(dsn, "").endswith("bears the mark of a restored copy")


def copied(source: PostgresServer, into: Workspace, *, cluster_name: str) -> PostgresServer:
    """Start a copy of a server's files, as a restore from a base backup or a snapshot of a disk gives one."""
    copy = PostgresServer(into, source.tools, into.folder("copy"))
    with postgres.session(source.dsn(), read_only=False) as session:
        session.execute("CHECKPOINT")
        session.execute("SELECT pg_backup_start('copy', true)")
        shutil.copytree(source.data_directory, copy.data_directory, ignore=shutil.ignore_patterns("postmaster.*"))
        label = session.value("SELECT labelfile FROM pg_backup_stop(false)")
    (copy.data_directory / "backup_label").write_text(label)
    for segment in (source.data_directory / "pg_wal").iterdir():
        if segment.is_file():
            shutil.copyfile(segment, copy.data_directory / "pg_wal" / segment.name)
    with (copy.data_directory / "postgresql.conf").open("a") as configuration:
        configuration.write(f"unix_socket_directories = '{copy.folder}'\ncluster_name = '{cluster_name}'\n")
    into.give(copy.data_directory)
    copy._launch()
    return copy


@pytest.fixture(scope="module")
def place() -> Iterator[Workspace]:
    with Workspace.open() as workspace:
        yield workspace


def test_a_copy_of_its_files_as_a_throwaway_server(place: Workspace) -> None:
    """It keeps the identifier, and its databases bear no mark: only the server's name tells it."""
    source = PostgresServer.start(place, find(17), settings={**FAST, "wal_level": "replica", "shared_buffers": "32MB"})
    with postgres.session(source.dsn()) as session:
        identifier = session.server().system_identifier
    copy = copied(source, place, cluster_name=f"{ownership.SCRATCH_CLUSTER} point in time")
    with postgres.session(copy.dsn()) as session:
        assert session.server().system_identifier == identifier
    assert why_refused(source.dsn(), identifier) == ""
    assert why_refused(copy.dsn(), identifier).startswith(
        "it is a throwaway copy: its cluster_name is 'tensafe-scratch"
    )
    assert why_refused(copy.dsn(), "").startswith("it is a throwaway copy")
    copy.stop()
    source.stop()


def test_no_session_that_may_write_is_opened_on_another(databases: Databases, original: str, identifier: str) -> None:
    """Beside the database too: there every act begins."""
    with pytest.raises(TargetRefused), Systems(original, established=Identity("x", "1").must_be).control():
        pytest.fail("it was opened")
    with Systems(original, established=Identity("x", identifier).must_be).control() as session:
        assert session.value("SELECT current_database()") == "postgres"


def test_beside_the_database_is_never_in_it(databases: Databases) -> None:
    """Not even where the database is the one in which such sessions are usually opened."""
    with Systems(databases.server.dsn("postgres")).control() as session:
        assert session.value("SELECT current_database()") == "template1"


def test_what_the_server_refuses_is_told_in_words_of_ours(databases: Databases, original: str) -> None:
    systems = Systems(original)
    with pytest.raises(ToolFailed, match="syntax error"), systems.control() as session:
        session.execute("ALTER DATABASE")
    with pytest.raises(Unreachable), systems.control() as session:
        session.rows("SELECT pg_terminate_backend(pg_backend_pid())")
    with postgres.session(databases.server.dsn(), read_only=False) as session:
        session.execute("CREATE ROLE nobody_here LOGIN")
    with pytest.raises(Denied), Systems(make_conninfo(original, user="nobody_here")).control() as session:
        session.execute("CREATE DATABASE x")
