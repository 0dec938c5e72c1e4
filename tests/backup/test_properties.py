"""What a dump leaves out of a database: read, applied under another name, and read again, it is the same."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runbook_lib.backup import properties
from runbook_lib.backup.properties import DatabaseProperties
from runbook_lib.reach import postgres
from tests.backup.real import Databases

ROLES = """
DO $$ BEGIN
    CREATE ROLE "Land Lord"; CREATE ROLE guest; CREATE ROLE friend;
EXCEPTION WHEN duplicate_object THEN NULL;
END $$
"""


def read(dsn: str) -> DatabaseProperties:
    with postgres.session(dsn) as session:
        return properties.read(session)


def applied(databases: Databases, given: DatabaseProperties) -> DatabaseProperties:
    """The properties of an empty database to which these were applied."""
    target = databases.make()
    with postgres.session(target, read_only=False) as session:
        for statement in given.application(postgres.database_of(target)):
            session.execute(statement)
    return read(target)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1",
        'ALTER DATABASE {name} OWNER TO "Land Lord"',
        "ALTER DATABASE {name} CONNECTION LIMIT 7",
        "COMMENT ON DATABASE {name} IS 'it''s \"ours\" \\ 100%%'",
        "ALTER DATABASE {name} SET search_path = '$user', \"a, b\", public",
        "ALTER DATABASE {name} SET search_path = ''",
        'ALTER DATABASE {name} SET search_path = \'q"uo"te\', "$user", PUBLIC',
        "ALTER DATABASE {name} SET temp_tablespaces = ''",
        "ALTER DATABASE {name} SET my.own_setting = 'a=b, \"c\" ''d'''",
        'ALTER DATABASE {name} SET "my"."Odd" = \'x\'',
        "ALTER DATABASE {name} SET work_mem = '64MB'",
        "ALTER DATABASE {name} SET session_preload_libraries = 'auto_explain', 'pg_stat_statements'",
        "ALTER ROLE guest IN DATABASE {name} SET statement_timeout = '3s'",
        "REVOKE ALL ON DATABASE {name} FROM PUBLIC",
        "GRANT CONNECT ON DATABASE {name} TO guest WITH GRANT OPTION;"
        " SET ROLE guest; GRANT CONNECT ON DATABASE {name} TO friend; RESET ROLE",
        'GRANT ALL ON DATABASE {name} TO "Land Lord"',
        "REVOKE TEMPORARY ON DATABASE {name} FROM postgres",
        "DROP SCHEMA public",
        "DROP EXTENSION plpgsql",
        "ALTER SCHEMA public OWNER TO guest; GRANT USAGE ON SCHEMA public TO friend; COMMENT ON SCHEMA public IS ''",
    ],
)
def test_come_back(statement: str, databases: Databases) -> None:
    source = databases.make(ROLES)
    name = postgres.database_of(source)
    with postgres.session(source, read_only=False) as session:
        session.execute(statement.format(name=name).replace("%%", "%"))
    given = read(source)
    found = applied(databases, given)
    assert replace(found, grants=()) == replace(given, grants=())
    assert set(found.grants) == set(given.grants)


class TestCreation:
    GIVEN = DatabaseProperties("UTF8", "C", "C.UTF-8", "c", "", "", "postgres", -1, "", (), (), None, plpgsql=True)

    def test_libc(self) -> None:
        assert self.GIVEN.creation('a "b"') == (
            "CREATE DATABASE \"a \"\"b\"\"\" TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C.UTF-8'"
        )

    def test_icu(self) -> None:
        given = replace(self.GIVEN, locale_provider="i", locale="de-DE", icu_rules="&a < g")
        assert given.creation("x").endswith("LOCALE_PROVIDER icu ICU_LOCALE 'de-DE' ICU_RULES '&a < g'")

    def test_builtin(self) -> None:
        given = replace(self.GIVEN, locale_provider="b", locale="C.UTF-8")
        assert given.creation("x").endswith("LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'")

    @pytest.mark.parametrize(
        "creation",
        [
            "ENCODING 'UTF8' LOCALE 'C'",
            "ENCODING 'UTF8' LOCALE 'C.UTF-8'",
            "ENCODING 'LATIN1' LOCALE 'C'",
            "ENCODING 'SQL_ASCII' LOCALE 'C'",
            "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C'",
        ],
    )
    def test_makes_a_database_of_the_same_kind(self, creation: str, databases: Databases) -> None:
        given = read(databases.make(creation=creation))
        with postgres.session(databases.server.dsn(), read_only=False) as session:
            session.execute(given.creation("again"))
        assert replace(read(databases.server.dsn("again")), grants=()) == replace(given, grants=())
        with postgres.session(databases.server.dsn(), read_only=False) as session:
            session.execute("DROP DATABASE again")
