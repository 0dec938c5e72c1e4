"""Equal content hashes equally, whatever became of it physically; anything else does not."""

from __future__ import annotations

import datetime
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runbook_lib.backup import content, inventory
from runbook_lib.reach import postgres
from runbook_lib.reach.postgres import Session
from runbook_lib.waiting import wait_for
from tests.backup import real
from tests.backup.real import Databases

SYSTEM_15 = Path("/usr/lib/postgresql/15/bin")


@pytest.fixture(scope="module")
def session(databases: Databases) -> Iterator[Session]:
    with databases.session("CREATE EXTENSION citext SCHEMA public; CREATE EXTENSION hstore SCHEMA public") as opened:
        yield opened


@pytest.fixture(autouse=True)
def _schema(session: Session) -> None:
    session.execute("DROP SCHEMA IF EXISTS made CASCADE; CREATE SCHEMA made")


def contents(session: Session) -> dict[str, content.Content]:
    """What every table of the schema ``made`` holds, by its name."""
    return {
        table.name: content.content_of(session, table) for table in content.tables(session) if table.schema == "made"
    }


def one(session: Session, *statements: str) -> content.Content:
    """What the one table of the schema ``made`` holds, once statements were executed."""
    for statement in statements:
        session.execute(statement)
    (found,) = contents(session).values()
    return found


def two(session: Session, type_: str, first: str, second: str) -> tuple[content.Content, content.Content]:
    """What two tables hold, each with one value."""
    session.execute(f"CREATE TABLE made.a (v {type_}); CREATE TABLE made.b (v {type_})")
    session.execute(f"INSERT INTO made.a VALUES ({first}); INSERT INTO made.b VALUES ({second})")
    found = contents(session)
    return found["a"], found["b"]


class TestValuesThatAreEqualAndNotTheSame:
    @pytest.mark.parametrize(
        ("type_", "first", "second"),
        [
            ("numeric", "1.0", "1.00"),
            ("numeric", "1", "-1"),
            ("numeric", "'NaN'", "'Infinity'"),
            ("numeric[]", "'{1.0}'", "'{1.00}'"),
            ("float8", "'0'", "'-0'"),
            ("float4", "'0'", "'-0'"),
            ("float8", "0.1", "0.10000000000000002"),
            ("int8", "1", "4294967296"),
            ("int8", "-1", "4294967295"),
            ("int8", "-4294967296", "0"),
            ("int8", "9223372036854775807", "-9223372036854775808"),
            ("interval", "'1 day'", "'24 hours'"),
            ("interval", "'1 mon'", "'30 days'"),
            ("time", "'00:00:00'", "'01:11:34.967296'"),
            ("timetz", "'12:00+00'", "'13:00+01'"),
            ("public.citext", "'A'", "'a'"),
            ("bpchar", "'a'", "'a  '"),
            ("bpchar", "''", "' '"),
            ("char(3)", "NULL", "''"),
            ("float8", "NULL", "'-0'"),
            ("float8", "'NaN'", "'Infinity'"),
            ("varchar(5)", "'a'", "'a '"),
            ("text", "NULL", "'NULL'"),
            ("text", "NULL", "''"),
            ("int4", "NULL", "0"),
            ("bool", "NULL", "false"),
            ("uuid", "NULL", "'00000000-0000-0000-0000-000000000000'"),
            ("inet", "NULL", "'0.0.0.0'"),
            ("text[]", "'{NULL}'", "ARRAY['NULL']"),
            ("int4[]", "'{1,2}'", "'[0:1]={1,2}'"),
            ("int4[]", "'{1,2}'", "'{{1,2}}'"),
            ("int4[]", "'{}'", "NULL"),
            ("json", """'{"a":1}'""", """'{"a": 1}'"""),
            ("jsonb", """'{"a":1.0}'""", """'{"a":1.00}'"""),
            ("jsonb", "'1'", "'-1'"),
            ("jsonb", "'null'", "NULL"),
            ("point", "'(0,0)'", "'(-0,0)'"),
            ("numrange", "'[1.0,2)'", "'[1.00,2)'"),
            ("bit varying", "'1'", "'10'"),
            ("bytea", r"'\x00'", r"'\x0000'"),
            ("inet", "'10.0.0.1/8'", "'10.0.0.1/9'"),
            ("cidr", "'10.0.0.0/8'", "'10.0.0.0/9'"),
            ("macaddr", "'08:00:2b:01:02:03'", "'08:00:2b:01:02:04'"),
            ("tsvector", "'a:1'", "'a:2'"),
            ("public.hstore", "'a=>1'", "'a=>NULL'"),
            ("xid8", "'1'", "'4294967297'"),
            ("pg_lsn", "'0/1'", "'1/1'"),
            ("name", "'a'", "'b'"),
            ('"char"', "'a'", "'b'"),
            ("date", "'infinity'", "'-infinity'"),
        ],
    )
    def test_hash_differently(self, type_: str, first: str, second: str, session: Session) -> None:
        a, b = two(session, type_, first, second)
        assert (a.rows, b.rows) == (1, 1)
        assert a.hash != b.hash

    def test_a_domain_over_such_a_type(self, session: Session) -> None:
        session.execute("CREATE DOMAIN made.price AS numeric; CREATE DOMAIN made.fee AS made.price")
        a, b = two(session, "made.fee", "1.0", "1.00")
        assert a != b

    def test_a_composite_type(self, session: Session) -> None:
        session.execute("CREATE TYPE made.pair AS (n numeric, t text)")
        a, b = two(session, "made.pair", "(1.0, 'x')", "(1.00, 'x')")
        assert a != b

    def test_xml(self, session: Session) -> None:
        if not session.value("SELECT 1 FROM pg_catalog.pg_config WHERE setting LIKE '%with-libxml%' LIMIT 1"):
            pytest.skip("this PostgreSQL was built without libxml")
        a, b = two(session, "xml", "'<a>1</a>'", "'<a>1 </a>'")
        assert a != b

    def test_texts_that_a_collation_calls_equal(self) -> None:
        if not (SYSTEM_15 / "initdb").exists():
            pytest.skip(f"no PostgreSQL 15 of the system, which is built with ICU, in {SYSTEM_15}")
        with real.databases(15, directory=SYSTEM_15) as with_icu, with_icu.session("CREATE SCHEMA made") as session:
            session.execute(
                "CREATE COLLATION made.ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
            )
            assert session.value("SELECT 'A' COLLATE made.ci = 'a'")
            a, b = two(session, "text COLLATE made.ci", "'A'", "'a'")
        assert a != b


class TestRows:
    def test_duplicates_count(self, session: Session) -> None:
        session.execute("CREATE TABLE made.t (n int)")
        once = one(session, "INSERT INTO made.t VALUES (1)")
        thrice = one(session, "INSERT INTO made.t VALUES (1), (1)")
        assert (once.rows, thrice.rows) == (1, 3)
        assert once.hash != thrice.hash

    def test_two_rows_that_swap_a_value(self, session: Session) -> None:
        session.execute("CREATE TABLE made.t (a int, b text, c numeric)")
        before = one(session, "INSERT INTO made.t VALUES (1, 'x', 1.5), (2, 'y', 2.5)")
        for column in ("a", "b", "c"):
            session.execute("BEGIN")
            swap = f"UPDATE made.t t SET {column} = o.{column} FROM made.t o WHERE o.a <> t.a"
            assert one(session, swap).hash != before.hash, column
            session.execute("ROLLBACK")

    def test_two_columns_that_swap_their_values(self, session: Session) -> None:
        session.execute("CREATE TABLE made.t (a int, b int)")
        before = one(session, "INSERT INTO made.t VALUES (1, 2)")
        assert one(session, "UPDATE made.t SET a = b, b = a").hash != before.hash

    def test_a_null_that_moves_to_another_column(self, session: Session) -> None:
        session.execute("CREATE TABLE made.t (a int, b int)")
        before = one(session, "INSERT INTO made.t VALUES (0, NULL)")
        assert one(session, "UPDATE made.t SET a = NULL, b = 0").hash != before.hash

    def test_their_physical_order_does_not_matter(self, session: Session) -> None:
        session.execute("CREATE TABLE made.t (n int, w text)")
        before = one(session, "INSERT INTO made.t SELECT n, md5(n::text) FROM generate_series(1, 5000) AS n")
        session.execute("CREATE INDEX by_word ON made.t (w)")
        assert one(session, "CLUSTER made.t USING by_word") == before
        assert one(session, "UPDATE made.t SET n = n WHERE n % 3 = 0") == before

    def test_a_dropped_column_does_not_matter(self, session: Session) -> None:
        session.execute("CREATE TABLE made.t (a int, b text); INSERT INTO made.t VALUES (1, 'x')")
        before = one(session)
        session.execute("ALTER TABLE made.t ADD c int DEFAULT 3; ALTER TABLE made.t DROP c")
        assert one(session) == before

    def test_an_added_column_matters(self, session: Session) -> None:
        session.execute("CREATE TABLE made.t (a int); INSERT INTO made.t VALUES (1)")
        before = one(session)
        assert one(session, "ALTER TABLE made.t ADD c int").hash != before.hash

    def test_the_order_of_columns_does_not_matter(self, session: Session) -> None:
        session.execute("CREATE TABLE made.x (a int, b text); CREATE TABLE made.y (b text, a int)")
        session.execute("INSERT INTO made.x VALUES (1, 'one'); INSERT INTO made.y VALUES ('one', 1)")
        found = contents(session)
        assert found["x"] == found["y"]

    @pytest.mark.parametrize("type_", ["float4", "float8"])
    def test_the_sign_of_no_number_does_not_matter(self, type_: str, session: Session) -> None:
        # Both are written as NaN, so that a restore brings back the one for the other.
        a, b = two(session, type_, "'NaN'", f"-('NaN'::{type_})")
        assert a == b

    def test_a_negative_zero_beside_a_null(self, session: Session) -> None:
        session.execute("CREATE TABLE made.t (a float8, b float8)")
        before = one(session, "INSERT INTO made.t VALUES ('-0', NULL)")
        assert one(session, "UPDATE made.t SET a = NULL, b = '-0'").hash != before.hash
        assert one(session, "UPDATE made.t SET a = '-0', b = NULL") == before

    def test_an_enum_that_was_made_anew(self, session: Session) -> None:
        session.execute("CREATE TYPE made.mood AS ENUM ('sad', 'glad')")
        session.execute("CREATE TABLE made.t (m made.mood, ms made.mood[])")
        before = one(session, "INSERT INTO made.t VALUES ('sad', '{glad}'), ('glad', NULL)")
        session.execute("ALTER TABLE made.t ALTER m TYPE text, ALTER ms TYPE text[]; DROP TYPE made.mood")
        session.execute("CREATE TYPE made.mood AS ENUM ('glad', 'sad')")
        session.execute("ALTER TABLE made.t ALTER m TYPE made.mood USING m::made.mood")
        session.execute("ALTER TABLE made.t ALTER ms TYPE made.mood[] USING ms::made.mood[]")
        assert one(session) == before


class TestShapes:
    def test_no_columns(self, session: Session) -> None:
        session.execute("CREATE TABLE made.t ()")
        assert one(session).rows == 0
        session.execute("INSERT INTO made.t DEFAULT VALUES")
        assert one(session, "INSERT INTO made.t DEFAULT VALUES").rows == 2

    def test_no_rows(self, session: Session) -> None:
        session.execute("CREATE TABLE made.t (a int)")
        assert one(session) == content.Content(0, "0")

    @pytest.mark.parametrize("count", [31, 32, 33, 200])
    def test_many_columns_each_of_which_matters(self, count: int, session: Session) -> None:
        columns = ", ".join(f"c{number} int" for number in range(count))
        session.execute(f"CREATE TABLE made.t ({columns})")
        seen = {one(session, f"INSERT INTO made.t VALUES ({', '.join(['0'] * count)})").hash}
        for number in (0, 30, 31, count // 2, count - 1):
            if number < count:
                seen.add(one(session, f"UPDATE made.t SET c{number} = NULL").hash)
        assert len(seen) == 1 + len({0, 30, min(31, count - 1), count // 2, count - 1})

    def test_1600_columns(self, session: Session) -> None:
        columns = ", ".join(f"c{number} bool" for number in range(1600))
        session.execute(f"CREATE TABLE made.t ({columns})")
        before = one(session, "INSERT INTO made.t (c0) VALUES (true)")
        assert one(session, "UPDATE made.t SET c1599 = false").hash != before.hash

    @pytest.mark.parametrize("name", ["order", "a b", 'qu"ote', "per%cent", "brace{0}", "Ü", "t", "ctid2", "a.b", "%s"])
    def test_odd_names(self, name: str, session: Session) -> None:
        table, column = postgres.identifier("made", name), postgres.identifier(name)
        session.execute(f"CREATE TABLE {table} ({column} numeric, n int)")
        before = one(session, f"INSERT INTO {table} VALUES (1.0, 1)")
        assert one(session, f"UPDATE {table} SET {column} = 1.00").hash != before.hash

    def test_a_cast_to_text_that_lies(self, session: Session) -> None:
        session.execute("CREATE TYPE made.pair AS (a int, b int)")
        session.execute(
            "CREATE FUNCTION made.same(made.pair) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'same' $$"
        )
        session.execute("CREATE CAST (made.pair AS text) WITH FUNCTION made.same(made.pair) AS IMPLICIT")
        a, b = two(session, "made.pair", "(1, 2)", "(1, 3)")
        assert a != b

    def test_an_operator_that_lies(self, session: Session) -> None:
        session.execute("CREATE FUNCTION made.yes(text, text) RETURNS bool LANGUAGE sql AS 'SELECT true'")
        session.execute("CREATE OPERATOR public.= (FUNCTION = made.yes, LEFTARG = text, RIGHTARG = text)")
        a, b = two(session, "text", "'x'", "'y'")
        session.execute("DROP OPERATOR public.= (text, text)")
        assert a != b


CHARACTERS = st.characters(codec="utf-8", exclude_characters="\0")
ROW = st.tuples(
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.none() | st.text(CHARACTERS, max_size=20),
    st.none() | st.just(Decimal("NaN")) | st.decimals(-(10**9), 10**9, allow_nan=False, places=3),
    st.none() | st.floats(),
    st.none() | st.binary(max_size=20),
    st.none() | st.booleans(),
    st.none() | st.datetimes(min_value=datetime.datetime(1, 1, 1), max_value=datetime.datetime(9999, 1, 1)),
    st.none() | st.lists(st.none() | st.text(CHARACTERS, max_size=5), max_size=3),
    st.none() | st.uuids(),
    st.none() | st.timedeltas(datetime.timedelta(-10000), datetime.timedelta(10000)),
)
COLUMNS = "a int8, b text, c numeric, d float8, e bytea, f bool, g timestamp, h text[], i uuid, j interval"
STEADY = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])


def insert(session: Session, rows: list[tuple[object, ...]]) -> None:
    with session.connection.cursor() as cursor:
        cursor.executemany(f"INSERT INTO made.t VALUES ({', '.join(['%s'] * 10)})", rows)


class TestAnyRows:
    @settings(STEADY, max_examples=60)
    @given(rows=st.lists(ROW, min_size=1, max_size=8), other=ROW, data=st.data())
    def test_a_single_change_shows(
        self, rows: list[tuple[object, ...]], other: tuple[object, ...], data: st.DataObject, session: Session
    ) -> None:
        row, column = data.draw(st.integers(0, len(rows) - 1)), data.draw(st.integers(0, 9))
        changed = [list(each) for each in rows]
        changed[row][column] = other[column]
        session.execute("DROP SCHEMA IF EXISTS made CASCADE; CREATE SCHEMA made")
        session.execute(f"CREATE TABLE made.t ({COLUMNS})")
        insert(session, rows)
        before = one(session)
        written = session.rows("SELECT t::text AS row FROM made.t t ORDER BY 1")
        session.execute("TRUNCATE made.t")
        insert(session, [tuple(each) for each in changed])
        same = session.rows("SELECT t::text AS row FROM made.t t ORDER BY 1") == written
        assert (one(session) == before) is same

    @settings(STEADY, max_examples=4)
    @given(rows=st.lists(ROW, min_size=20, max_size=60))
    def test_survive_dump_and_restore(
        self, rows: list[tuple[object, ...]], session: Session, databases: Databases, tmp_path: Path
    ) -> None:
        session.execute("DROP SCHEMA IF EXISTS made CASCADE; CREATE SCHEMA made")
        session.execute(f"CREATE TABLE made.t ({COLUMNS})")
        insert(session, rows)
        before = one(session)
        target = databases.make()
        tools = databases.server.tools
        dumped = subprocess.run(
            [tools.program("pg_dump"), "-Fc", "-n", "made", "-d", session.dsn], capture_output=True, check=True
        )
        subprocess.run([tools.program("pg_restore"), "-d", target, "--exit-on-error"], input=dumped.stdout, check=True)
        with postgres.session(target) as restored:
            assert one(restored) == before


READERS = "SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE application_name = 'reader'"


class TestCalledOff:
    @pytest.fixture(autouse=True)
    def _handler(self) -> Iterator[None]:
        """Have SIGUSR1 do what SIGINT does, which pytest keeps for itself."""
        before = signal.signal(signal.SIGUSR1, signal.default_int_handler)
        yield
        signal.signal(signal.SIGUSR1, before)

    def test_a_ctrl_c_does_not_wait_for_the_largest_table(self, databases: Databases) -> None:
        dsn = databases.make("CREATE TABLE public.t (n int)")

        def open_session() -> AbstractContextManager[Session]:
            return postgres.session(dsn, application_name="reader", lock_timeout_seconds=0)

        with postgres.session(dsn, read_only=False) as holder, postgres.session(dsn) as watcher:
            tables = content.tables(watcher)
            holder.execute("BEGIN; LOCK TABLE public.t")

            main = threading.main_thread()

            def press() -> None:
                wait_for(
                    "the reader to wait for its table",
                    lambda: watcher.value(f"{READERS} AND wait_event_type = 'Lock'"),
                    where=dsn,
                    within_seconds=30,
                )
                signal.pthread_kill(main.ident or 0, signal.SIGUSR1)

            pressing = threading.Thread(target=press)
            pressing.start()
            with pytest.raises(KeyboardInterrupt):
                inventory.read_contents(open_session, tables, workers=1)
            pressing.join()
            assert watcher.value(f"{READERS} AND state = 'active'") == 0
