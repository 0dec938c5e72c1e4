"""The sandbox's database: the same every time, robbed of no row by a restore, and its audit chain tells the truth."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from runbook_lib.errors import Denied, NotFound, TargetRefused
from runbook_lib.reach import programs
from runbook_lib.reach.binaries import find
from runbook_lib.reach.postgres import identifier, libpq_environment, load_sql, session
from runbook_lib.reach.server import PostgresServer
from runbook_lib.reach.workspace import Workspace
from runbook_lib.sandbox.tensafe import build

SCALE = 0.01
SECONDS = 120.0


TRAPS = {
    "a partitioned table": "pg_class WHERE relkind = 'p'",
    "a partition that is partitioned": "pg_class WHERE relkind = 'p' AND relispartition",
    "a materialized view without rows": "pg_class WHERE relkind = 'm' AND NOT relispopulated",
    "a foreign table": "pg_class WHERE relkind = 'f'",
    "an unlogged table": "pg_class WHERE relpersistence = 'u' AND relkind = 'r'",
    "a table without columns": "pg_class WHERE relkind = 'r' AND relnatts = 0",
    "exact duplicates": "ops.heartbeats GROUP BY host, beat_at, load HAVING count(*) > 1",
    "an empty table": "(SELECT count(*) AS rows FROM ops.nothing_yet) AS n WHERE rows = 0",
    "forced row-level security": "pg_class WHERE relforcerowsecurity",
    "a restrictive policy": "pg_policy WHERE NOT polpermissive",
    "an identity, always": "pg_attribute WHERE attidentity = 'a'",
    "an identity, by default": "pg_attribute WHERE attidentity = 'd'",
    "a stored generated column": "pg_attribute WHERE attgenerated = 's'",
    "a dropped column": "pg_attribute WHERE attisdropped AND attrelid = 'ops.settings_history'::regclass",
    "a default never written": "pg_attribute WHERE attmissingval IS NOT NULL",
    "a grant on a column": "pg_attribute WHERE attacl IS NOT NULL AND attrelid > 16383",
    "a disabled trigger": "pg_trigger WHERE tgenabled = 'D'",
    "a trigger that always fires": "pg_trigger WHERE tgenabled = 'A'",
    "a trigger on replicas alone": "pg_trigger WHERE tgenabled = 'R'",
    "a constraint trigger": "pg_trigger WHERE tgconstraint <> 0 AND tgdeferrable AND NOT tgisinternal",
    "an event trigger": "pg_event_trigger WHERE evtenabled = 'O'",
    "a disabled event trigger": "pg_event_trigger WHERE evtenabled = 'D'",
    "a disabled rule": "pg_rewrite WHERE ev_enabled = 'D'",
    "a constraint not yet valid": "pg_constraint WHERE NOT convalidated",
    "an exclusion constraint": "pg_constraint WHERE contype = 'x'",
    "a deferred foreign key": "pg_constraint WHERE contype = 'f' AND condeferred",
    "a cluster mark": "pg_index WHERE indisclustered",
    "a replica identity": "pg_index WHERE indisreplident",
    "a covering index": "pg_index WHERE indnatts > indnkeyatts",
    "a sequence never called": "pg_sequences WHERE sequencename = 'invoice_number' AND last_value IS NULL",
    "a sequence running backwards": "pg_sequences WHERE cycle AND increment_by < 0",
    "a publication": "pg_publication",
    "statistics of an expression": "pg_statistic_ext WHERE stxexprs IS NOT NULL",
    "a grant on a large object": "pg_largeobject_metadata WHERE lomacl IS NOT NULL",
    "a large object with a hole": "pg_largeobject WHERE loid = 900003 HAVING count(*) < max(pageno)",
    "default privileges everywhere": "pg_default_acl WHERE defaclnamespace = 0",
    "default privileges of a schema": "pg_default_acl WHERE defaclnamespace <> 0",
    "a setting of the database": "pg_db_role_setting WHERE setdatabase <> 0 AND setrole = 0",
    "a setting of a role in it": "pg_db_role_setting WHERE setdatabase <> 0 AND setrole <> 0",
    "a user mapping": "pg_user_mapping",
    "a text search configuration": "pg_ts_config WHERE oid > 16383",
    "a collation": "pg_collation WHERE oid > 16383",
    "a cast": "pg_cast WHERE oid > 16383 AND castcontext = 'a'",
    "an operator": "pg_operator WHERE oprnamespace = 'ops'::regnamespace",
    "an aggregate": "pg_proc WHERE prokind = 'a' AND pronamespace = 'audit'::regnamespace",
    "a procedure": "pg_proc WHERE prokind = 'p'",
    "a role that ends": "pg_roles WHERE rolname LIKE 'tensafe%' AND rolconnlimit > 0 AND rolvaliduntil IS NOT NULL",
}
"""What a naive restore or comparison trips over, and where one of it is found."""


@pytest.fixture(scope="module")
def workspace() -> Iterator[Workspace]:
    with Workspace.open() as opened:
        yield opened


@pytest.fixture(scope="module", params=[17, 15, 18], ids=lambda major: f"PostgreSQL {major}")
def server(request: pytest.FixtureRequest, workspace: Workspace) -> Iterator[PostgresServer]:
    started = PostgresServer.start(workspace, find(request.param), name=f"pg{request.param}")
    yield started
    started.stop()


@pytest.fixture(scope="module")
def tensafe(server: PostgresServer) -> str:
    """The connection string of a database that no test changes."""
    create(server, "tensafe")
    build(server.dsn("tensafe"), scale=SCALE)
    return server.dsn("tensafe")


@pytest.fixture(scope="module")
def restored(server: PostgresServer, tensafe: str) -> str:
    """The connection string of the same database, dumped and restored."""
    create(server, "tensafe_verify")
    dump = server.workspace.home / f"tensafe-{server.tools.major}.dump"
    commands: list[tuple[str, list[str | Path], str]] = [
        ("pg_dump", ["-Fc", "-f", dump], tensafe),
        ("pg_restore", ["--exit-on-error", "-d", "tensafe_verify", dump], server.dsn("tensafe_verify")),
    ]
    for program, arguments, dsn in commands:
        done = programs.run(
            [server.tools.program(program), *arguments],
            sought=program,
            timeout_seconds=SECONDS,
            env=libpq_environment(dsn),
            workspace=server.workspace,
        )
        assert done.must("look at it").stderr == ""
    return server.dsn("tensafe_verify")


def create(server: PostgresServer, database: str, template: str = "template0") -> None:
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {identifier(database)} TEMPLATE {identifier(template)}")


def drop(server: PostgresServer, database: str) -> None:
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {identifier(database)} WITH (FORCE)")


def contents(dsn: str) -> dict[str, tuple[int, str]]:
    """Say of every table how many rows it has, and what the hashes of their text add up to.

    Partitioned tables are taken as a whole. Columns are taken by their names, because the columns of a table that
    inherits may stand in another order after a restore.
    """
    with session(dsn) as opened:
        tables = opened.rows(
            """SELECT n.nspname, c.relname,
                      array_remove(array_agg(a.attname::text ORDER BY a.attname), NULL) AS columns
               FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
               LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
               WHERE c.relkind IN ('r', 'p', 'm') AND NOT c.relispartition AND c.relispopulated
               AND n.nspname IN ('public', 'ops', 'audit') GROUP BY 1, 2"""
        )
        found = {}
        for table in tables:
            columns = ", ".join(identifier(column) for column in table["columns"])
            row = opened.row(
                f"SELECT count(*) AS rows, coalesce(sum(hashtextextended(ROW({columns})::text, 0)), 0)::text AS sum "
                f"FROM {identifier(table['nspname'], table['relname'])}"
            )
            found[f"{table['nspname']}.{table['relname']}"] = (row["rows"], row["sum"])
        return found


def broken_links(dsn: str) -> list[dict[str, Any]]:
    with session(dsn) as opened:
        return opened.rows(load_sql("runbook_lib.backup", "audit_chain"))


def head(dsn: str) -> dict[str, Any]:
    with session(dsn) as opened:
        return opened.row(load_sql("runbook_lib.backup", "audit_chain_head"))


class TestBuilding:
    def test_the_same_seed_makes_the_same_rows(self, server: PostgresServer, tensafe: str) -> None:
        create(server, "again")
        build(server.dsn("again"), scale=SCALE)
        try:
            assert contents(server.dsn("again")) == contents(tensafe)
        finally:
            drop(server, "again")

    def test_another_seed_makes_others(self, server: PostgresServer, tensafe: str) -> None:
        create(server, "other")
        build(server.dsn("other"), scale=SCALE, seed=2)
        try:
            ours, theirs = contents(tensafe), contents(server.dsn("other"))
        finally:
            drop(server, "other")
        drawn = ["tenants", "users", "training_clients", "futures", "artifacts", "usage_events", "audit_logs"]
        for name in drawn:
            assert ours[f"public.{name}"][0] == theirs[f"public.{name}"][0]
            assert ours[f"public.{name}"][1] != theirs[f"public.{name}"][1], name

    def test_its_owner_owns_everything(self, tensafe: str) -> None:
        """Except what only a superuser can own, and what extensions brought."""
        with session(tensafe) as opened:
            relations = opened.rows(
                """SELECT c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
                   WHERE n.nspname IN ('public', 'ops', 'audit') AND c.relowner <> 'tensafe_owner'::regrole"""
            )
            routines = opened.rows(
                """SELECT p.proname FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
                   WHERE n.nspname IN ('public', 'ops', 'audit')
                   AND p.oid NOT IN (SELECT objid FROM pg_depend WHERE deptype = 'i')
                   AND p.proowner <> 'tensafe_owner'::regrole"""
            )
            large_objects = opened.rows(
                "SELECT oid FROM pg_largeobject_metadata WHERE lomowner <> 'tensafe_owner'::regrole"
            )
        assert (relations, routines, large_objects) == ([], [], [])

    def test_it_has_everything_that_breaks_naive_restores(self, tensafe: str) -> None:
        with session(tensafe) as opened:
            absent = [what for what, where in TRAPS.items() if not opened.value(f"SELECT EXISTS (SELECT FROM {where})")]
        assert absent == []

    def test_it_is_not_built_into_a_database_that_holds_something(self, tensafe: str) -> None:
        with pytest.raises(TargetRefused, match="it is not empty: it holds"):
            build(tensafe, scale=SCALE)

    def test_a_database_that_is_not_there_is_named(self, server: PostgresServer) -> None:
        with pytest.raises((NotFound, Denied), match="nowhere"):
            build(server.dsn("nowhere"), scale=SCALE)


class TestRestoring:
    def test_a_restore_loses_no_row(self, tensafe: str, restored: str) -> None:
        found = contents(tensafe)
        assert found == contents(restored)
        assert len(found) >= 24

    def test_the_rows_of_hashed_enums_may_lie_elsewhere(self, tensafe: str, restored: str) -> None:
        """Whoever compares partition by partition has to know that this is no fault."""
        rows = []
        for dsn in (tensafe, restored):
            with session(dsn) as opened:
                rows.append(opened.value("SELECT count(*) FROM ops.notifications"))
        assert rows == [100, 100]

    def test_large_objects_come_back_holes_and_all(self, tensafe: str, restored: str) -> None:
        query = "SELECT oid, encode(sha256(lo_get(oid)), 'hex') AS sha256 FROM pg_largeobject_metadata ORDER BY oid"
        with session(tensafe) as before, session(restored) as after:
            assert before.rows(query) == after.rows(query)


class TestAuditChain:
    @pytest.fixture
    def copy(self, server: PostgresServer, tensafe: str) -> Iterator[str]:
        """A copy of the database, to be broken; its audit log has forgotten that it is append-only."""
        create(server, "broken", template="tensafe")
        dsn = server.dsn("broken")
        with psycopg.connect(dsn) as connection:
            connection.execute("ALTER TABLE public.audit_logs DISABLE TRIGGER ALL")
        yield dsn
        drop(server, "broken")

    def broken_by(self, dsn: str, *statements: str) -> list[tuple[int, str]]:
        with psycopg.connect(dsn) as connection:
            for statement in statements:
                connection.execute(statement)
        return [(link["sequence"], link["problem"]) for link in broken_links(dsn)]

    def test_the_healthy_chain_has_no_broken_link(self, tensafe: str) -> None:
        assert broken_links(tensafe) == []

    def test_it_is_still_whole_after_a_restore(self, tensafe: str, restored: str) -> None:
        assert broken_links(restored) == []
        assert head(restored) == head(tensafe)

    def test_its_own_definition_agrees(self, tensafe: str) -> None:
        with session(tensafe) as opened:
            walked = opened.value(
                """SELECT audit.chain(sequence, occurred_at, actor, action, tenant_id, payload ORDER BY sequence)
                   FROM public.audit_logs"""
            )
        assert walked == head(tensafe)["last_record_hash"]

    def test_what_is_appended_goes_on_from_there(self, copy: str) -> None:
        appended = "INSERT INTO public.audit_logs (occurred_at, actor, action) VALUES ('2026-05-01', 'é', 'login')"
        assert self.broken_by(copy, "ALTER TABLE public.audit_logs ENABLE TRIGGER ALL", appended, appended) == []
        assert head(copy) | {"last_record_hash": "any"} == {
            "records": 504,
            "first_sequence": 1,
            "last_sequence": 504,
            "last_record_hash": "any",
        }

    def test_nobody_changes_what_was_logged(self, tensafe: str) -> None:
        for statement in ("UPDATE public.audit_logs SET actor = 'x'", "TRUNCATE public.audit_logs"):
            with (
                psycopg.connect(tensafe) as connection,
                pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"),
            ):
                connection.execute(statement)

    def test_a_row_gone_from_the_middle(self, copy: str) -> None:
        found = self.broken_by(copy, "DELETE FROM public.audit_logs WHERE sequence = 150")
        assert found == [(151, "a gap in the sequence")]

    def test_a_row_gone_and_the_gap_closed(self, copy: str) -> None:
        found = self.broken_by(
            copy,
            "DELETE FROM public.audit_logs WHERE sequence = 501",
            "UPDATE public.audit_logs SET sequence = 501 WHERE sequence = 502",
        )
        assert found == [(501, "it does not follow on the row before")]

    @pytest.mark.parametrize(
        "change",
        [
            "actor = actor || ' '",
            "action = upper(action)",
            "occurred_at = occurred_at + interval '1 microsecond'",
            "tenant_id = NULL",
            "tenant_id = '00000000-0000-0000-0000-000000000000'",
            'payload = payload || \'{"ok": "yes"}\'',
            "payload = jsonb_set(payload, '{cost}', '1.000')",
            # What flows from one field into the next shows, because each is preceded by its length.
            "actor = actor || left(action, 1), action = substr(action, 2)",
            "record_hash = repeat('0', 64)",
        ],
    )
    def test_changed_contents(self, copy: str, change: str) -> None:
        [first, *others] = self.broken_by(copy, f"UPDATE public.audit_logs SET {change} WHERE sequence = 77")
        assert first == (77, "its contents are not what was hashed")
        assert others in ([], [(78, "it does not follow on the row before")])

    def test_contents_changed_and_hashed_anew(self, copy: str) -> None:
        found = self.broken_by(
            copy,
            "UPDATE public.audit_logs SET actor = 'nobody' WHERE sequence = 77",
            """UPDATE public.audit_logs SET record_hash =
               audit.record_hash(prev_hash, sequence, occurred_at, actor, action, tenant_id, payload)
               WHERE sequence = 77""",
        )
        assert found == [(78, "it does not follow on the row before")]

    def test_a_swapped_pair(self, copy: str) -> None:
        found = self.broken_by(
            copy,
            "UPDATE public.audit_logs SET sequence = -sequence WHERE sequence IN (50, 51)",
            "UPDATE public.audit_logs SET sequence = 101 + sequence WHERE sequence < 0",
        )
        assert found == [(place, "it does not follow on the row before") for place in (50, 51, 52)]

    def test_a_beginning_that_is_gone(self, copy: str) -> None:
        found = self.broken_by(copy, "DELETE FROM public.audit_logs WHERE sequence <= 10")
        assert found == [(11, "the beginning is missing")]

    def test_a_first_row_that_follows_on_something(self, copy: str) -> None:
        found = self.broken_by(copy, "UPDATE public.audit_logs SET prev_hash = repeat('1', 64) WHERE sequence = 1")
        assert found == [(1, "the first row follows on something")]

    def test_a_row_logged_twice(self, copy: str) -> None:
        found = self.broken_by(
            copy,
            "ALTER TABLE public.audit_logs DROP CONSTRAINT audit_logs_pkey",
            "DROP INDEX public.audit_logs_hash_once",
            "INSERT INTO public.audit_logs SELECT * FROM public.audit_logs WHERE sequence = 60",
        )
        assert found == [(60, "a gap in the sequence")]

    def test_an_end_that_is_gone_shows_in_the_head_alone(self, tensafe: str, copy: str) -> None:
        assert self.broken_by(copy, "DELETE FROM public.audit_logs WHERE sequence > 290") == []
        assert head(copy)["last_sequence"] == 290
        assert head(copy) != head(tensafe)

    def test_an_empty_chain_is_unbroken_and_has_no_head(self, copy: str) -> None:
        assert self.broken_by(copy, "DELETE FROM public.audit_logs") == []
        assert head(copy) == {
            "records": 0,
            "first_sequence": None,
            "last_sequence": None,
            "last_record_hash": None,
        }


def test_every_file_is_a_step() -> None:
    """A file that nobody runs makes nothing."""
    from runbook_lib.sandbox.tensafe.build import _STEPS

    folder = Path(__file__).parents[2] / "runbook_lib" / "sandbox" / "tensafe"
    assert sorted(step.file for step in _STEPS) == sorted(file.stem for file in folder.glob("*.sql"))
