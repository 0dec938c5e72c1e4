"""Databases in which nothing is wrong, over versions, locales, sizes and shapes: the drill must have nothing to say.

A drill that cries wolf is switched off within a month, so that a false alarm is worth as much as a missed fault.
Set RUNBOOK_FULL_MATRIX=1 to drill every kind of database on every major version instead of on one.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo

from runbook_lib.backup.catalog import Archive
from runbook_lib.errors import RunbookError
from runbook_lib.outcome import Outcome
from runbook_lib.reach import postgres
from runbook_lib.reach.binaries import PostgresTools, find
from runbook_lib.reach.postgres import Session
from runbook_lib.reach.server import FAST, PostgresServer
from runbook_lib.reach.workspace import Workspace
from runbook_lib.sandbox import loading
from runbook_lib.sandbox.tensafe.build import build
from tests.matrix.drilling import Drilled, drill

MAJORS = (14, 15, 16, 17, 18)
FULL = os.environ.get("RUNBOOK_FULL_MATRIX") == "1"
ONE_OR_ALL = MAJORS if FULL else (17,)
NORTHWIND = Path(__file__).parents[3] / "shared" / "data" / "northwind.sql"
SYSTEM_15 = Path("/usr/lib/postgresql/15/bin")
TINY = 0.02


class Source:
    """A server on which tests make the databases that they drill."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server

    def database(self, name: str, *statements: str, creation: str = "") -> str:
        """Make a database, execute statements in it, and return its connection string."""
        with postgres.session(self.server.dsn(), read_only=False) as session:
            session.execute(f"CREATE DATABASE {postgres.identifier(name)} {creation}")
        dsn = self.server.dsn(name)
        with postgres.session(dsn, read_only=False) as session:
            for statement in statements:
                session.execute(statement)
        return dsn


class Sources:
    """Gives the server of a major version, or of certain programs; it is started when it is first asked for."""

    def __init__(self, workspace: Workspace, running: ExitStack) -> None:
        self._workspace = workspace
        self._running = running
        self._started: dict[tuple[Path, str], Source] = {}

    def __call__(self, wanted: int | PostgresTools, apart: str = "") -> Source:
        """Return a server.

        :param apart: a name for a server of its own, for a test that leaves something in the whole cluster
        """
        tools = find(wanted) if isinstance(wanted, int) else wanted
        if (tools.bin, apart) not in self._started:
            settings: Mapping[str, str] = {**FAST, "wal_level": "replica", "shared_buffers": "32MB"}
            server = PostgresServer.start(self._workspace, tools, name=f"s{len(self._started)}", settings=settings)
            self._running.callback(server.stop)
            self._started[tools.bin, apart] = Source(server)
        return self._started[tools.bin, apart]


@pytest.fixture(scope="module")
def sources() -> Iterator[Sources]:
    with Workspace.open() as workspace, ExitStack() as running:
        yield Sources(workspace, running)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A name for the test's own database."""
    return re.sub(r"[^a-z0-9]+", "_", request.node.name.lower())[:63]


def must_be_silent(drilled: Drilled) -> None:
    assert drilled.findings == (), drilled.says()
    assert drilled.outcome is Outcome.PROVEN


def locale_of_this_machine() -> str | None:
    """A locale that sorts as people do, unlike C: one in which upper and lower case mix."""
    have = subprocess.run(["locale", "-a"], capture_output=True, text=True, check=False).stdout.split()
    of_a_language = [locale for locale in have if locale.endswith(".utf8") and not locale.startswith("C")]
    return next((locale for locale in [*("en_US.utf8", "de_DE.utf8"), *of_a_language] if locale in have), None)


WORDS = """
CREATE TABLE public.words (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, word text NOT NULL UNIQUE);
INSERT INTO public.words (word)
SELECT w || n FROM unnest(ARRAY['a', 'A', 'b', 'B', 'ä', 'Ä', 'ö', 'ß', 'ss', 'é', 'e', 'E', '-', '_', ' ']) AS w,
               generate_series(1, 20) AS n;
CREATE INDEX ON public.words (lower(word));
CREATE INDEX ON public.words (word text_pattern_ops);
CREATE TABLE public.initials (initial text) PARTITION BY RANGE (initial);
CREATE TABLE public.initials_early PARTITION OF public.initials FOR VALUES FROM (MINVALUE) TO ('n');
CREATE TABLE public.initials_late PARTITION OF public.initials FOR VALUES FROM ('n') TO (MAXVALUE);
INSERT INTO public.initials SELECT word FROM public.words;
ALTER TABLE public.words ADD CONSTRAINT not_before CHECK (word >= ' ');
"""


class TestVersions:
    @pytest.mark.parametrize("major", MAJORS)
    def test_tensafe(self, major: int, sources: Sources, name: str, archive: Archive) -> None:
        dsn = sources(major).database(name)
        build(dsn, scale=TINY)
        drilled = drill(dsn, archive, audit_log=True)
        must_be_silent(drilled)
        assert drilled.manifest.database.major == major
        assert drilled.manifest.inventory.rows > 1000


class TestLocales:
    @pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
    def test_libc_by_code_point(self, locale: str, sources: Sources, name: str, archive: Archive) -> None:
        dsn = sources(17).database(name, WORDS, creation=f"TEMPLATE template0 LOCALE '{locale}'")
        must_be_silent(drill(dsn, archive))

    def test_libc_of_a_language(self, sources: Sources, name: str, archive: Archive) -> None:
        locale = locale_of_this_machine()
        if locale is None:
            pytest.skip("this machine has no locale but C and POSIX (locale -a)")
        dsn = sources(17).database(name, WORDS, creation=f"TEMPLATE template0 LOCALE '{locale}'")
        drilled = drill(dsn, archive)
        must_be_silent(drilled)
        assert drilled.manifest.properties.collate == locale

    @pytest.mark.parametrize("major", [17, 18])
    @pytest.mark.parametrize("locale", ["C.UTF-8", "C"])
    def test_builtin(self, major: int, locale: str, sources: Sources, name: str, archive: Archive) -> None:
        creation = f"TEMPLATE template0 LOCALE_PROVIDER builtin BUILTIN_LOCALE '{locale}' LOCALE 'C'"
        drilled = drill(sources(major).database(name, WORDS, creation=creation), archive)
        must_be_silent(drilled)
        assert drilled.manifest.properties.locale_provider == "b"

    def test_icu(self, sources: Sources, name: str, archive: Archive) -> None:
        if not (SYSTEM_15 / "initdb").exists():
            pytest.skip(f"no PostgreSQL 15 of the system, which is built with ICU, in {SYSTEM_15}")
        tools = find(15, directory=SYSTEM_15)
        dsn = sources(tools).database(
            name,
            WORDS,
            "CREATE COLLATION public.any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
            "CREATE TABLE public.names (name text COLLATE public.any_case UNIQUE)",
            "INSERT INTO public.names VALUES ('Ada'), ('Bob'), ('zoé')",
            creation="TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'de-DE' LOCALE 'C'",
        )
        drilled = drill(dsn, archive, tools=tools, tools_directory=SYSTEM_15)
        must_be_silent(drilled)
        assert drilled.manifest.properties.locale_provider == "i"


class TestEncodings:
    def test_latin1(self, sources: Sources, name: str, archive: Archive) -> None:
        dsn = sources(17, apart="latin1").database(
            name,
            "CREATE TABLE public.grün (größe text, \"ÄÖ\" varchar(3) DEFAULT 'äöü')",
            "INSERT INTO public.grün SELECT chr(n) || 'ß', 'é' || chr(n) FROM generate_series(160, 255) AS n",
            "COMMENT ON TABLE public.grün IS 'die Größe'",
            f"COMMENT ON DATABASE {name} IS 'Größe'",
            "CREATE VIEW public.ansicht AS SELECT größe FROM public.grün WHERE größe <> 'ß'",
            "CREATE ROLE müller",
            "COMMENT ON ROLE müller IS 'Süß'",
            "GRANT SELECT ON public.grün TO müller",
            creation="TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'",
        )
        must_be_silent(drill(dsn, archive))

    def test_bytes_that_are_no_utf8(self, sources: Sources, name: str, archive: Archive) -> None:
        dsn = sources(17, apart="sql_ascii").database(
            name,
            "CREATE TABLE public.letters (id int PRIMARY KEY, word text DEFAULT E'\\xe4')",
            "INSERT INTO public.letters SELECT n, convert_from(set_byte('\\x00', 0, n), 'SQL_ASCII')"
            " FROM generate_series(1, 255) AS n",
            "COMMENT ON TABLE public.letters IS E'Gr\\xf6\\xdfe'",
            f"COMMENT ON DATABASE {name} IS E'Gr\\xf6\\xdfe'",
            'CREATE TABLE public."größe" ("ä" int)',
            creation="TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'",
        )
        drilled = drill(dsn, archive)
        must_be_silent(drilled)
        assert drilled.manifest.inventory.rows == 255


HABITS = {
    "public dropped": "DROP SCHEMA public",
    "public made anew": "DROP SCHEMA public; CREATE SCHEMA public; CREATE TABLE public.t (n int)",
    "public given away": "CREATE ROLE landlord;"
    " ALTER SCHEMA public OWNER TO landlord; COMMENT ON SCHEMA public IS 'ours'",
    "public closed": "REVOKE ALL ON SCHEMA public FROM PUBLIC; REVOKE ALL ON LANGUAGE plpgsql FROM PUBLIC",
    "plpgsql dropped": "DROP EXTENSION plpgsql",
    "settings": "ALTER DATABASE {database} SET search_path = '$user', \"a b\", public;"
    " ALTER DATABASE {database} SET my.setting = 'it''s';"
    " ALTER DATABASE {database} SET default_transaction_read_only = on;"
    " ALTER DATABASE {database} SET statement_timeout = '1s';"
    " ALTER DATABASE {database} SET \"DateStyle\" = 'German';"
    " ALTER DATABASE {database} SET client_encoding = 'LATIN1';"
    " ALTER DATABASE {database} SET quote_all_identifiers = on;"
    " ALTER DATABASE {database} SET array_nulls = off;"
    " ALTER DATABASE {database} SET standard_conforming_strings = off;"
    " CREATE TABLE public.t (d date, a int[]); INSERT INTO public.t VALUES ('2026-02-03', '{{1,NULL}}')",
    "connections": "ALTER DATABASE {database} CONNECTION LIMIT 3; REVOKE ALL ON DATABASE {database} FROM PUBLIC;"
    " CREATE ROLE clerk; CREATE ROLE intern; GRANT CONNECT ON DATABASE {database} TO clerk WITH GRANT OPTION;"
    " SET ROLE clerk; GRANT CONNECT ON DATABASE {database} TO intern; RESET ROLE",
    "unlogged and empty": "CREATE UNLOGGED TABLE public.u (n int); INSERT INTO public.u VALUES (1);"
    " CREATE TABLE public.nothing (); INSERT INTO public.nothing DEFAULT VALUES",
    "dropped and added columns": "CREATE TABLE public.t (a int, b text, c int);"
    " INSERT INTO public.t VALUES (1, 'x', 2);"
    " ALTER TABLE public.t DROP b; ALTER TABLE public.t ADD d int DEFAULT 7; ALTER TABLE public.t ADD e text",
}


class TestHabits:
    """What people do to databases without thinking of it as damage."""

    @pytest.mark.parametrize("habit", HABITS)
    @pytest.mark.parametrize("major", MAJORS if FULL else (14, 17))
    def test_is_no_fault(self, habit: str, major: int, sources: Sources, name: str, archive: Archive) -> None:
        source = sources(major)
        dsn = source.database(name, HABITS[habit].format(database=name))
        try:
            must_be_silent(drill(dsn, archive))
        finally:
            with postgres.session(source.server.dsn(), read_only=False) as session:
                session.execute(f"DROP DATABASE {name}")
                session.execute("DROP ROLE IF EXISTS landlord, clerk, intern")


class TestShapes:
    @pytest.mark.parametrize("major", ONE_OR_ALL)
    def test_nothing_at_all(self, major: int, sources: Sources, name: str, archive: Archive) -> None:
        drilled = drill(sources(major).database(name), archive)
        must_be_silent(drilled)
        assert drilled.manifest.inventory.tables == ()

    @pytest.mark.parametrize("major", ONE_OR_ALL)
    def test_northwind(self, major: int, sources: Sources, name: str, archive: Archive) -> None:
        if not NORTHWIND.exists():
            pytest.skip(f"{NORTHWIND} is not there")
        source = sources(major)
        dsn = source.database(name)
        loading.load(dsn, NORTHWIND, tools=source.server.tools, workspace=source.server.workspace)
        drilled = drill(dsn, archive)
        must_be_silent(drilled)
        assert drilled.manifest.inventory.rows > 3000

    @pytest.mark.parametrize("major", ONE_OR_ALL)
    def test_two_thousand_tables(self, major: int, sources: Sources, name: str, archive: Archive) -> None:
        drilled = drill(sources(major).database(name, TWO_THOUSAND_TABLES), archive)
        must_be_silent(drilled)
        assert len(drilled.manifest.inventory.tables) == 2000

    def test_one_job(self, sources: Sources, name: str, archive: Archive) -> None:
        dsn = sources(17).database(name, WORDS)
        must_be_silent(drill(dsn, archive, jobs=1))


class TestBackupRole:
    """A role that is no superuser: what it cannot read is unproven, and neither failed nor passed."""

    @pytest.fixture
    def reader(self, sources: Sources, name: str) -> Iterator[tuple[Session, str]]:
        """A superuser's session in the test's database, and how the role connects to it."""
        source = sources(17)
        dsn = source.database(
            name,
            "CREATE TABLE public.t (n int PRIMARY KEY)",
            "INSERT INTO public.t SELECT generate_series(1, 10)",
            "CREATE SEQUENCE public.s",
            "CREATE ROLE reader LOGIN",
        )
        with postgres.session(dsn, read_only=False) as superuser:
            yield superuser, make_conninfo(dsn, user="reader")
        with postgres.session(source.server.dsn(), read_only=False) as session:
            session.execute(f"DROP DATABASE {name}")
            session.execute("DROP ROLE reader")

    def test_that_may_read_all_data_proves_everything(self, reader: tuple[Session, str], archive: Archive) -> None:
        superuser, dsn = reader
        superuser.execute("GRANT pg_read_all_data TO reader")
        must_be_silent(drill(dsn, archive))

    def test_that_may_read_tables_leaves_large_objects_unproven(
        self, reader: tuple[Session, str], archive: Archive
    ) -> None:
        superuser, dsn = reader
        superuser.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
        superuser.execute("GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO reader")
        drilled = drill(dsn, archive)
        found = {(finding.check, finding.outcome) for finding in drilled.findings}
        assert found == {("content.large_objects", Outcome.UNPROVEN)}, drilled.says()
        assert drilled.outcome is Outcome.UNPROVEN

    @pytest.mark.parametrize(
        ("hidden", "said"),
        [
            ("CREATE TABLE public.secret (n int)", "permission denied for table secret"),
            (
                "ALTER TABLE public.t ENABLE ROW LEVEL SECURITY; GRANT SELECT ON public.t TO reader",
                "would be affected by row-level security policy",
            ),
            ("SELECT lo_from_bytea(0, 'x')", "permission denied for large object"),
        ],
    )
    def test_that_may_not_read_everything_takes_no_backup(
        self, hidden: str, said: str, reader: tuple[Session, str], archive: Archive
    ) -> None:
        superuser, dsn = reader
        superuser.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
        superuser.execute("GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO reader")
        superuser.execute(hidden)
        with pytest.raises(RunbookError, match=said):
            drill(dsn, archive)
        assert archive.bucket.objects(archive.prefix) == []
        assert archive.bucket.unfinished_uploads(archive.prefix) == []


TWO_THOUSAND_TABLES = r"""
DO $$
DECLARE
    schemas text[] := ARRAY['public', 'sales', 'Sales', 'select', 'with space', 'a"quote', 'dot.ted', 'größe',
                            E'back\\slash', 'per%cent'];
    names text[] := ARRAY['order', 'user', 'Group', 'tab le', 'a"b', 'c''d', 'e.f', 'ü', '%s', 'x' || repeat('y', 50)];
    named text;
    made text;
BEGIN
    FOR s IN 1 .. 10 LOOP
        EXECUTE format('CREATE SCHEMA IF NOT EXISTS %I', schemas[s]);
        FOR n IN 0 .. 199 LOOP
            named := names[n % 10 + 1];
            made := format('%I.%I', schemas[s], named || CASE WHEN n < 10 THEN '' ELSE '_' || n END);
            EXECUTE format('CREATE TABLE %s (id serial PRIMARY KEY, %I text CHECK (%2$I <> ''no''), amount numeric)',
                           made, named);
            EXECUTE format('INSERT INTO %s (%I, amount) SELECT g, 1.5 FROM generate_series(1, %s) g',
                           made, named, n % 3);
        END LOOP;
    END LOOP;
END
$$
"""
