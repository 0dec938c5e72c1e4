"""Other people's databases: loaded whole, or refused with a reason."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from runbook_lib.errors import DamagedArtefact, NotFound, RunbookError, ToolFailed
from runbook_lib.reach import programs
from runbook_lib.reach.binaries import find
from runbook_lib.reach.postgres import identifier, libpq_environment, session
from runbook_lib.reach.server import PostgresServer
from runbook_lib.reach.workspace import Workspace
from runbook_lib.sandbox.loading import Kind, kind_of, load

SHOP = """
CREATE SCHEMA shop;
CREATE TABLE shop.orders (id integer PRIMARY KEY, note text NOT NULL);
INSERT INTO shop.orders SELECT i, md5(i::text) FROM generate_series(1, 5000) AS i;
"""
FORMATS = {Kind.CUSTOM: "-Fc", Kind.DIRECTORY: "-Fd", Kind.TAR: "-Ft", Kind.SQL: "-Fp"}


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with Workspace.open() as workspace:
        yield PostgresServer.start(workspace, find(17))


@pytest.fixture(scope="module")
def dumps(server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> dict[Kind, Path]:
    """The same small database, dumped in every format."""
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE shop")
    with psycopg.connect(server.dsn("shop")) as connection:
        connection.execute(SHOP)
    kept = tmp_path_factory.mktemp("dumps")
    made = {}
    for kind, option in FORMATS.items():
        there = server.workspace.home / f"shop-{kind.name}"
        programs.run(
            [server.tools.program("pg_dump"), option, "-f", there],
            sought="a dump",
            timeout_seconds=60,
            env=libpq_environment(server.dsn("shop")),
            workspace=server.workspace,
        ).must("look at it")
        made[kind] = Path(shutil.move(there, kept / there.name))
    return made


@pytest.fixture
def empty(server: PostgresServer) -> Iterator[str]:
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE target TEMPLATE template0")
        yield server.dsn("target")
        connection.execute("DROP DATABASE target WITH (FORCE)")


def rows(dsn: str, *table: str) -> int:
    with session(dsn) as opened:
        return int(opened.value(f"SELECT count(*) FROM {identifier(*table)}"))


def refused(server: PostgresServer, dsn: str, path: Path) -> RunbookError:
    with pytest.raises(RunbookError) as caught:
        load(dsn, path, tools=server.tools, workspace=server.workspace)
    assert str(path) in str(caught.value) or path.name in str(caught.value)
    return caught.value


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_told_by_its_bytes_and_loaded(
    server: PostgresServer, dumps: dict[Kind, Path], empty: str, kind: Kind
) -> None:
    assert load(empty, dumps[kind], tools=server.tools, workspace=server.workspace) is kind
    assert rows(empty, "shop", "orders") == 5000
    assert not (server.workspace.path / "loading").exists(), "the copy is left behind"


def test_statements_written_by_hand_are_loaded(server: PostgresServer, empty: str, tmp_path: Path) -> None:
    written = tmp_path / "shop.txt"
    written.write_text(SHOP)
    assert load(empty, written, tools=server.tools) is Kind.SQL
    assert rows(empty, "shop", "orders") == 5000


def test_a_file_that_is_not_there(server: PostgresServer, empty: str, tmp_path: Path) -> None:
    assert isinstance(refused(server, empty, tmp_path / "absent.dump"), NotFound)


def test_an_empty_file(server: PostgresServer, empty: str, tmp_path: Path) -> None:
    (tmp_path / "nothing.sql").touch()
    error = refused(server, empty, tmp_path / "nothing.sql")
    assert isinstance(error, DamagedArtefact)
    assert "it is empty" in str(error)


@pytest.mark.parametrize(
    ("begins", "says"),
    [(b"\x1f\x8b\x08", "compressed by gzip"), (b"\x89PNG\r\n\x1a\n\0\0", "begins with the bytes 89 50 4e 47")],
)
def test_a_file_of_another_kind(tmp_path: Path, begins: bytes, says: str) -> None:
    (tmp_path / "other").write_bytes(begins)
    with pytest.raises(DamagedArtefact, match=says):
        kind_of(tmp_path / "other")


def test_an_archive_that_is_no_dump(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "other.tar", "w") as archive:
        archive.add(Path(__file__), arcname="readme")
    with pytest.raises(DamagedArtefact, match=r"first member is not toc\.dat"):
        kind_of(tmp_path / "other.tar")


def test_a_folder_that_is_no_dump(tmp_path: Path) -> None:
    with pytest.raises(DamagedArtefact, match="no table of contents"):
        kind_of(tmp_path)


@pytest.mark.parametrize("kind", [Kind.CUSTOM, Kind.TAR, Kind.SQL])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_a_dump_cut_off_is_refused_before_a_row_arrives(
    server: PostgresServer, dumps: dict[Kind, Path], empty: str, tmp_path: Path, kind: Kind, kept: float
) -> None:
    whole = dumps[kind].read_bytes()
    cut = tmp_path / "cut"
    cut.write_bytes(whole[: int(len(whole) * kept)])
    assert isinstance(refused(server, empty, cut), DamagedArtefact)
    with session(empty) as opened:
        assert opened.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'shop'") == 0


@pytest.mark.parametrize("compression", ["none", "gzip", "lz4", "zstd"])
def test_a_folder_with_a_file_cut_off(
    server: PostgresServer, dumps: dict[Kind, Path], empty: str, tmp_path: Path, compression: str
) -> None:
    """pg_restore itself takes most of these for whole, and exits with 0."""
    if not server.tools.supports(compression):
        pytest.skip(f"this build of pg_dump does not write {compression}")
    there = server.workspace.home / f"folder-{compression}"
    programs.run(
        [server.tools.program("pg_dump"), "-Fd", f"--compress={compression}", "-f", there],
        sought="a dump",
        timeout_seconds=60,
        env=libpq_environment(server.dsn("shop")),
        workspace=server.workspace,
    ).must("look at it")
    dump = Path(shutil.move(there, tmp_path / there.name))
    [rows_file] = [file for file in dump.iterdir() if file.name != "toc.dat"]
    whole = rows_file.read_bytes()
    for kept in (0.5, 0.99):
        rows_file.write_bytes(whole[: int(len(whole) * kept)])
        assert isinstance(refused(server, empty, dump), DamagedArtefact)
    rows_file.unlink()
    assert isinstance(refused(server, empty, dump), DamagedArtefact)
    rows_file.write_bytes(whole)
    assert load(empty, dump, tools=server.tools, workspace=server.workspace) is Kind.DIRECTORY
    assert rows(empty, "shop", "orders") == 5000


def test_a_dump_of_inserts_is_loaded(server: PostgresServer, dumps: dict[Kind, Path], empty: str) -> None:
    there = server.workspace.home / "inserts"
    programs.run(
        [server.tools.program("pg_dump"), "-Fc", "--inserts", "-f", there],
        sought="a dump",
        timeout_seconds=60,
        env=libpq_environment(server.dsn("shop")),
        workspace=server.workspace,
    ).must("look at it")
    assert load(empty, there, tools=server.tools, workspace=server.workspace) is Kind.CUSTOM
    assert rows(empty, "shop", "orders") == 5000


def test_a_statement_that_fails_stops_the_load(server: PostgresServer, empty: str, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.sql"
    wrong.write_text("CREATE TABLE first (a int);\nCREATE TABEL second (a int);\nCREATE TABLE third (a int);\n")
    error = refused(server, empty, wrong)
    assert isinstance(error, ToolFailed)
    assert 'syntax error at or near "TABEL"' in str(error)
    with session(empty) as opened:
        assert opened.value("SELECT count(*) FROM pg_class WHERE relname = 'third'") == 0


def test_a_role_that_is_missing_is_named(server: PostgresServer, empty: str, tmp_path: Path) -> None:
    granting = tmp_path / "granting.sql"
    granting.write_text("CREATE TABLE t (a int);\nGRANT SELECT ON t TO somebody_else;\n")
    error = refused(server, empty, granting)
    assert 'role "somebody_else" does not exist' in str(error)
    assert "load the dump of the roles" in str(error)


def test_success_without_a_table_is_none(server: PostgresServer, empty: str, tmp_path: Path) -> None:
    (tmp_path / "idle.sql").write_text("SELECT 1;\n")
    error = refused(server, empty, tmp_path / "idle.sql")
    assert isinstance(error, ToolFailed)
    assert "holds not one table" in str(error)
