"""The words of PostgreSQL, from a real server, by the driver and by its programs: what is hidden and what is kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from runbook_lib.reach import postgres, programs
from runbook_lib.reach.binaries import find
from runbook_lib.secrecy import said_by_postgresql, without_credentials, without_row_values
from tests.backup import real

CANARY = "Canary0row"
SETUP = """
CREATE TYPE public.color AS ENUM ('red');
CREATE DOMAIN public.short AS text CHECK (VALUE IS NULL OR pg_catalog.length(VALUE) < 3);
CREATE TABLE public.users (
    email text PRIMARY KEY, n int, doc jsonb, tint public.color, at timestamptz, list int[], tag public.short,
    size numeric(3), code varchar(3), must text NOT NULL DEFAULT '', room int4range, EXCLUDE USING gist (room WITH &&),
    address inet, raw bytea, CONSTRAINT tidy CHECK (must NOT LIKE '%Canary%'));
CREATE TABLE public.parts (a text) PARTITION BY LIST (a);
CREATE TABLE public.orders (email text REFERENCES public.users);
INSERT INTO public.users (email, room) VALUES ('Canary0row', '[1,3)');
INSERT INTO public.orders VALUES ('Canary0row');
CREATE FUNCTION public.complain(text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
    RAISE EXCEPTION 'not %', $1 USING DETAIL = $1, HINT = $1, ERRCODE = 'invalid_parameter_value'; END $$;
CREATE FUNCTION public.deep(text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
    EXECUTE 'INSERT INTO public.users (email, n) VALUES (''' || $1 || ''', ''' || $1 || '''::int)'; END $$;
CREATE FUNCTION public.warn(text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING 'careful: %', $1; END $$;
"""
FAILS = {
    "INSERT INTO public.users (email) VALUES ('Canary0row')": 'violates unique constraint "users_pkey"',
    "INSERT INTO public.users (email) SELECT E'Canary0row\\n\\nCanary0row' FROM generate_series(1, 2)": "users_pkey",
    "INSERT INTO public.users (email, must) VALUES ('x', E'a\\nCanary0row')": 'constraint "tidy"',
    "INSERT INTO public.users (email, must) VALUES ('Canary0row2', NULL)": 'column "must" of relation "users"',
    "INSERT INTO public.orders VALUES ('Canary0row4')": 'foreign key constraint "orders_email_fkey"',
    "DELETE FROM public.users": 'on table "orders"',
    "INSERT INTO public.parts VALUES ('Canary0row')": 'no partition of relation "parts"',
    "SELECT 'Canary0row'::int": "invalid input syntax for type integer",
    'SELECT E\'a"Canary0row"\\n"Canary0row\'::int': "invalid input syntax for type integer",
    "SELECT 'Canary0row'::public.color": "invalid input value for enum public.color",
    "SELECT '{\"a\": Canary0row}'::jsonb": "invalid input syntax for type json",
    "SELECT 'Canary0row'::timestamptz": "invalid input syntax for type timestamp",
    "SELECT '{Canary0row'::int[]": "malformed array literal",
    "SELECT '(Canary0row'::public.users": "malformed record literal",
    "SELECT '[Canary0row'::int4range": "malformed range literal",
    "SELECT 'Canary0row'::inet": "invalid input syntax for type inet",
    "SELECT 'Canary0row'::uuid": "invalid input syntax for type uuid",
    "SELECT public.complain('Canary0row')": "may have written it",
    "SELECT public.deep('Canary0row')": "invalid input syntax for type integer",
    "SELECT 'Canary0row' FRM x": "syntax error",
    "SELECT nothing FROM public.users WHERE email = 'Canary0row'": 'column "nothing" does not exist',
    "DO $$ BEGIN ASSERT false, 'Canary0row'; END $$": "may have written it",
}
"""A statement whose error quotes a row or itself, and what the error must still say."""
KEPT = {
    "INSERT INTO public.users (email, tag) VALUES ('x', 'abc')": "value for domain public.short violates check",
    "INSERT INTO public.users (email, code) VALUES ('x', 'abcd')": "value too long for type character varying(3)",
    "INSERT INTO public.users (email, room) VALUES ('y', '[2,4)')": "conflicting key value violates exclusion",
    "INSERT INTO public.users (email) SELECT email FROM public.users": "duplicate key value violates unique constraint",
    "SELECT 1 FROM public.nowhere": 'relation "public.nowhere" does not exist',
    "SELECT pg_catalog.timezone('Mars', now())": 'time zone "***" not recognized',
    "SELECT pg_catalog.to_date('soon', 'YYYY')": 'invalid value "***"',
    "SELECT 'a &'::tsquery": 'no operand in tsquery: "***"',
    "SELECT 1 FRM x": 'syntax error at or near "***"',
    "SELECT pg_catalog.decode('xyz', 'hex')": 'invalid hexadecimal digit: "***"',
    "SELECT FROM WHERE": 'syntax error at or near "WHERE"',
    "SELECT pg_catalog.pg_read_file('/nowhere')": 'could not open file "/nowhere" for reading',
    "DROP TABLE public.users": "cannot drop table public.users because other objects depend on it",
    "SET lc_messages = 'xx'": 'invalid value for parameter "lc_messages": "***"',
}
"""A statement, and how its error must begin."""


@pytest.fixture(scope="module")
def dsn() -> Iterator[str]:
    with real.databases() as made:
        yield made.make(SETUP)


@pytest.mark.parametrize("statement", FAILS)
def test_the_driver_quotes_no_row(dsn: str, statement: str) -> None:
    with psycopg.connect(dsn) as connection, pytest.raises(psycopg.Error) as quoted:
        connection.execute(statement.encode())
    assert CANARY in str(quoted.value)
    with postgres.session(dsn, read_only=False) as session, pytest.raises(psycopg.Error) as told:
        session.execute(statement)
    assert CANARY not in str(told.value)
    assert FAILS[statement] in str(told.value)
    assert type(told.value) is type(quoted.value)


@pytest.mark.parametrize("statement", KEPT)
def test_what_helps_is_kept(dsn: str, statement: str) -> None:
    with postgres.session(dsn, read_only=False) as session, pytest.raises(psycopg.Error) as told:
        session.execute(statement)
    assert str(told.value).startswith(KEPT[statement])


def test_a_query_quotes_no_row(dsn: str) -> None:
    with postgres.session(dsn) as session, pytest.raises(psycopg.errors.InvalidTextRepresentation) as told:
        session.rows("SELECT email::int FROM public.users")
    assert str(told.value).startswith('invalid input syntax for type integer: "***"')
    assert CANARY not in str(told.value)


def test_what_fails_at_the_end_of_a_transaction_quotes_no_row(dsn: str) -> None:
    with postgres.session(dsn, read_only=False) as session:
        session.execute("ALTER TABLE public.orders ALTER CONSTRAINT orders_email_fkey DEFERRABLE INITIALLY DEFERRED")
        with pytest.raises(psycopg.errors.ForeignKeyViolation) as told, session.transaction():
            session.execute("INSERT INTO public.orders VALUES ('Canary0row5')")
    assert str(told.value).endswith('DETAIL:  Key (email)=(***) is not present in table "users".')


@pytest.mark.parametrize(
    "rows",
    [
        "Canary0row",
        "Canary0row\tCanary0row",
        'x\t"Canary0row',
        "x\t1\tCanary0row",
        "x\t\\x\t1",
        "a\\\nCanary0row\tCanary0row",
    ],
)
def test_copy_quotes_no_row(dsn: str, rows: str) -> None:
    """As psql tells it: the row stands in the context, with the number of its line."""
    script = f"COPY public.users (email, n, doc) FROM stdin;\nfine\t1\t{{}}\n{rows}\n\\.\n"
    tools = find(17)
    ran = programs.run(
        [tools.program("psql"), "-X", "-v", "ON_ERROR_STOP=1"],
        sought="to copy",
        timeout_seconds=30,
        env=postgres.libpq_environment(dsn),
        stdin=script.encode(),
    )
    assert not ran.succeeded
    assert CANARY in ran.stderr or rows == "x\t\\x\t1"
    told = programs.tail(ran.stderr)
    assert CANARY not in told
    assert "COPY users, line 2" in told


def test_what_the_databases_code_warns_of_is_not_told(dsn: str) -> None:
    ran = programs.run(
        [find(17).program("psql"), "-X", "-c", f"SELECT public.warn('{CANARY}')"],
        sought="to be warned",
        timeout_seconds=30,
        env=postgres.libpq_environment(dsn),
    )
    assert CANARY in ran.stderr
    assert CANARY not in programs.tail(ran.stderr)


def test_a_servers_log_quotes_neither_rows_nor_statements(dsn: str) -> None:
    with postgres.session(dsn, read_only=False) as session, pytest.raises(psycopg.Error):
        session.execute(f"INSERT INTO public.users (email) VALUES ('{CANARY}') -- the password is '{CANARY}'")
    written = Path(str(conninfo_to_dict(dsn)["host"]), "log").read_text()
    assert CANARY in written
    told = said_by_postgresql(written)
    assert CANARY not in told
    assert "listening on Unix socket" in told


@pytest.mark.parametrize(
    "line",
    [
        '  restore.error t: COPY failed for table "t": ERROR:  value "Canary0row" is out of range for type integer',
        'E   psycopg.errors.UniqueViolation: duplicate key value violates unique constraint "u"',
        "E   DETAIL:  Key (email)=(Canary0row) already exists.",
        "    DETAIL:  Failing row contains (1, Canary0row).",
        'CONTEXT:  COPY users, line 3: "Canary0row"',
        "UniqueViolation: Key (lower(email))=(Canary0row) is duplicated.",
        'it said: invalid input syntax for type integer: "Canary0row"',
        "STATEMENT:  INSERT INTO t VALUES ('Canary0row')",
    ],
)
def test_the_last_line_of_defence_knows_the_words(line: str) -> None:
    assert CANARY not in without_row_values(line)
    assert without_row_values("before\n" + line + "\nafter").startswith("before\n")
    assert without_row_values("before\n" + line + "\nafter").endswith("\nafter")


@pytest.mark.parametrize(
    "line",
    [
        "content.rows public.users: expected 2 rows, found 1",
        "catalog.constraint public.t c: expected CHECK ((a = 'x'::text)), found CHECK ((a = \"b\"))",
        'connection failed: FATAL:  password authentication failed for user "clerk"',
        'connection failed: FATAL:  database "nowhere" does not exist',
        'ERROR:  extension "postgis" is not available',
        "LINE 5 of the runbook: take the backup",
    ],
)
def test_other_words_are_left_as_they_are(line: str) -> None:
    assert without_row_values(line) == line


@pytest.mark.parametrize(
    "text",
    [
        "ALTER ROLE clerk WITH LOGIN PASSWORD 'Canary0row';",
        "OPTIONS (user 'me', password 'Canary0row')",
        "OPTIONS (\"password\" 'it''s Canary0row')",
        'ALTER DATABASE app SET "app"."jwt_secret" = \'Canary0row\'',
        'ALTER DATABASE app SET "app"."jwt_secret" TO \'Canary0row\'',
        "app.api_token=Canary0row",
        "password=a,Canary0row",
        "redis://:Canary0row@cache/0",
        "{'PGPASSWORD': 'it\\'s Canary0row'}",
        "-----BEGIN RSA PRIVATE KEY-----\nCanary0row\n-----END RSA PRIVATE KEY-----",
        "client-key-data: Canary0row",
        "aws_secret_access_key = Canary0row",
        "password = Canary0row",
    ],
)
def test_a_credential_is_hidden(text: str) -> None:
    assert CANARY not in without_credentials(text)


def test_a_verifier_is_hidden() -> None:
    verifier = "SCRAM-SHA-256$4096:c2FsdA==$c3RvcmVk:c2VydmVy"
    assert without_credentials(f"role with {verifier} in it") == "role with *** in it"
    assert without_credentials("md5" + "0" * 32) == "***"


@pytest.mark.parametrize(
    "text",
    [
        "catalog.column public.users.password_hash: is missing; it was #5 bytea",
        "CHECK ((kind = ANY (ARRAY['tokens'::text, 'secret'::text])))",
        "SELECT u.id FROM users u JOIN sessions s ON u.token = s.token",
        "token = $1 AND token = pg_catalog.lower($2)",
        "foreign server far: options host=far, password (not shown)",
    ],
)
def test_what_only_speaks_of_a_credential_is_shown(text: str) -> None:
    assert without_credentials(text) == text
