"""Rows of one table are lost, and come back; nothing else is touched, and everything can be taken back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from runbook_lib.backup import audit_chain, content
from runbook_lib.backup.catalog import Backup
from runbook_lib.backup.content import Content
from runbook_lib.backup.definitions import definitions
from runbook_lib.environment import Environment
from runbook_lib.errors import NotFound, TargetRefused, ToolFailed, Unproven, WaitTimedOut
from runbook_lib.reach import postgres
from runbook_lib.restore import living_table, staging
from runbook_lib.restore.merge import TakeMergeBack
from runbook_lib.restore.restored import RestoredDatabase
from runbook_lib.restore.review import Review, review
from runbook_lib.restore.scratch import Scratch
from runbook_lib.restore.staging import StageRows, marks
from runbook_lib.restore.table import DoneMerge, TableMerge, is_as_it_was
from runbook_lib.restore.table_backup import RestoredTable, TableBackup, belonging
from runbook_lib.safety import journal
from runbook_lib.sandbox.sandbox import Sandbox

ORDERS = "shop.orders"
REFUSED = {"ops.legacy_invoices": "legacy_invoices_number_form", "ops.leases": "violates not-null constraint"}
"""Tables whose rows never satisfied a constraint that is NOT VALID, and what PostgreSQL says of it."""
Restore = Callable[[str], RestoredTable]


@pytest.fixture(scope="module")
def environment() -> Iterator[Environment]:
    with Sandbox.up(scale=0.05, kubernetes=False) as up:
        environment = Environment.of(up.settings)
        run(environment, (Path(__file__).parent / "lost.sql").read_text())
        yield environment


@pytest.fixture(scope="module")
def backup(environment: Environment) -> Backup:
    return environment.take_backup("manual").backup


@pytest.fixture(scope="module")
def place(environment: Environment) -> Iterator[Scratch]:
    with environment.scratch() as opened:
        yield opened


@pytest.fixture(scope="module")
def restore(environment: Environment, backup: Backup, place: Scratch) -> Restore:
    """Restores a table, each once."""
    there: dict[str, RestoredTable] = {}

    def restored(name: str) -> RestoredTable:
        if name not in there:
            held = environment.table_backup(backup, name)
            there[name] = environment.restore_table_into_scratch(held, f"table_{len(there)}", place)
            assert there[name].database.restored.holds()
        return there[name]

    return restored


@pytest.fixture(autouse=True)
def left(environment: Environment, backup: Backup) -> Iterator[None]:
    """What a test leaves behind is what it merged and kept; no act of any is outstanding."""
    yield
    assert not any(each.outstanding for each in journal.read_all(environment.settings.journal_folder))
    with environment.database() as session:
        kept = marks(session)
    for mark in kept:
        run(environment, f"DROP SCHEMA {staging.schema_of(mark.token)} CASCADE")


def run(environment: Environment, *statements: str) -> None:
    """Do something to the database that no trigger of its own keeps from happening."""
    with postgres.session(environment.settings.database.dsn, read_only=False) as session:
        for statement in statements:
            session.execute(statement)


def lose(environment: Environment, *statements: str) -> None:
    """Do it as a disaster does: nothing fires."""
    run(environment, "SET session_replication_role = replica", *statements)


def look(environment: Environment, table: str) -> Content:
    with environment.database() as session:
        found = living_table.read(session, table)
        query = f"SELECT count(*) AS rows, coalesce(sum({found.hash()}), 0)::text AS hash FROM {found.rows} AS t"
        return Content(**session.row(query))


def value(environment: Environment, query: str) -> object:
    with environment.database() as session:
        return session.value(query)


def schemas(environment: Environment) -> int:
    return int(str(value(environment, "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'runbook%'")))


@contextmanager
def untouched(environment: Environment, table: str) -> Iterator[None]:
    """See that a table is, row by row and version by version, what it was, and that nothing is left."""
    query = f"SELECT md5(string_agg(xmin::text || ctid::text, ' ' ORDER BY ctid)) FROM {table}"
    before, there = value(environment, query), schemas(environment)
    yield
    assert value(environment, query) == before
    assert schemas(environment) == there


@pytest.fixture
def orders(environment: Environment) -> Iterator[Content]:
    """The orders as they are in the backup, whatever a test does to them."""
    kept = ("customers", "orders", "lines")
    run(environment, *(f"CREATE TABLE public.kept_{each} AS SELECT * FROM shop.{each}" for each in kept))
    yield look(environment, ORDERS)
    for each in kept:
        with environment.database() as session:
            columns = [
                column for column in living_table.read(session, f"shop.{each}").columns if not column.is_generated
            ]
        names = living_table.listed([column.name for column in columns])
        lose(
            environment,
            "ALTER TABLE shop.orders DISABLE TRIGGER always",
            f"TRUNCATE shop.{each} CASCADE" if each == "customers" else "SELECT 1",
            f"INSERT INTO shop.{each} ({names}) OVERRIDING SYSTEM VALUE SELECT {names} FROM public.kept_{each}",
            f"DROP TABLE public.kept_{each}",
            "ALTER TABLE shop.orders ENABLE ALWAYS TRIGGER always",
            "TRUNCATE shop.fired",
        )


def merged(environment: Environment, restored: RestoredTable, *, changed_too: bool = False) -> DoneMerge:
    return environment.merge(environment.review(restored), restored, changed_too=changed_too)


class TestScratch:
    def test_the_table_and_what_belongs_to_it_come_back_alone(self, restore: Restore, backup: Backup) -> None:
        restored = restore(ORDERS)
        assert restored.compare().findings == ()
        assert backup.manifest is not None
        kinds = {each.kind for each in belonging(backup.manifest.inventory.definitions, restored.held.tree)}
        assert {"table", "column", "constraint", "index", "trigger", "policy", "sequence"} <= kinds
        with restored.database.session() as session:
            assert session.value("SELECT count(*) FROM shop.orders") == 200
            assert session.value("SELECT count(*) FROM shop.lines") == 0
            assert session.value("SELECT count(*) FROM public.training_clients") == 0

    def test_one_that_came_back_otherwise_is_seen(self, restore: Restore) -> None:
        restored = restore("shop.words")
        for change, back, check in (
            (
                "UPDATE shop.words SET meaning = 'z' WHERE word = 'Beta'",
                "UPDATE shop.words SET meaning = 'b' WHERE word = 'Beta'",
                "content.hash",
            ),
            ("CREATE INDEX of_mine ON shop.words (meaning)", "DROP INDEX shop.of_mine", "catalog.index"),
            ("GRANT SELECT ON shop.words TO tensafe", "REVOKE SELECT ON shop.words FROM tensafe", "catalog.grant"),
        ):
            with postgres.session(
                restored.database.dsn, read_only=False, settings={"search_path": "extensions"}
            ) as session:
                session.execute(change)
                assert check in [each.check for each in restored.compare().findings]
                session.execute(back)
        assert restored.compare().findings == ()

    def test_a_backup_of_another_database(self, environment: Environment, backup: Backup) -> None:
        for other in ({"system_identifier": "1"}, {"name": "other"}):
            with pytest.raises(TargetRefused, match="choose a backup of this database"):
                TableBackup.of(backup, ORDERS, replace(environment.identity(), **other))  # type: ignore[arg-type]

    def test_a_backup_without_a_manifest(self, environment: Environment) -> None:
        with pytest.raises(Unproven, match="it has no manifest"):
            environment.table_backup(environment.archive.newest(kind="others"), ORDERS)

    def test_a_table_that_the_backup_does_not_hold(self, environment: Environment, backup: Backup) -> None:
        with pytest.raises(NotFound, match="it held no table of that name"):
            environment.table_backup(backup, "training_clients_restore")
        assert backup.manifest is not None
        others = replace(backup.manifest.inventory, tables=())
        partial = replace(backup, manifest=replace(backup.manifest, inventory=others))
        with pytest.raises(NotFound, match="the rows of other tables only"):
            environment.table_backup(partial, ORDERS)


class TestMissing:
    def test_they_come_back_and_the_table_is_the_same(
        self, environment: Environment, restore: Restore, orders: Content
    ) -> None:
        restored = restore(ORDERS)
        run(environment, "DELETE FROM shop.orders WHERE id BETWEEN 11 AND 17", "TRUNCATE shop.fired")
        run(environment, "UPDATE shop.orders SET amount = 1 WHERE id IN (21, 22)")
        run(environment, "INSERT INTO shop.orders (customer_id) VALUES (1)", "TRUNCATE shop.fired")
        lost = look(environment, ORDERS)
        found = environment.review(restored)
        # 15 followed 14 and 20 another; a row that followed one that was deleted was changed by ON DELETE SET NULL.
        assert (found.missing, found.changed, found.added) == (7, 2, 1)
        done = environment.merge(found, restored)
        assert (done.merged.inserted, done.merged.updated, done.merged.taken) == (7, 0, 0)
        with environment.database() as session:
            assert done.table_is_the_same(session).holds()
        assert environment.foreign_keys_hold(ORDERS).holds()
        assert environment.review(restored).nothing_is_missing.holds()
        assert value(environment, "SELECT count(*) FROM shop.fired") == 0
        assert value(environment, "SELECT count(*) FROM shop.orders WHERE doubled = amount * 2") == 200
        run(environment, "DELETE FROM shop.orders WHERE id > 200", "UPDATE shop.orders SET amount = id + 0.50")
        assert look(environment, ORDERS) == orders
        run(environment, "UPDATE shop.orders SET amount = 1 WHERE id IN (21, 22)")
        assert lost.rows == 194

    def test_the_merge_is_taken_back(self, environment: Environment, restore: Restore, orders: Content) -> None:
        run(environment, "DELETE FROM shop.orders WHERE id BETWEEN 11 AND 17", "TRUNCATE shop.fired")
        lost = look(environment, ORDERS)
        done = merged(environment, restore(ORDERS))
        assert look(environment, ORDERS) != lost
        assert environment.merged_last() == done.mark
        expected = environment.take_merge_back(done.mark)
        assert look(environment, ORDERS) == lost == expected
        with environment.database() as session:
            assert is_as_it_was(session, TakeMergeBack.of(done.mark), expected).holds()
        assert value(environment, "SELECT count(*) FROM shop.fired") == 0
        assert schemas(environment) == 0
        with pytest.raises(NotFound, match="nothing to take back"):
            environment.merged_last()
        run(environment, "UPDATE shop.orders SET amount = 7 WHERE id = 1")
        with environment.database() as session, pytest.raises(Unproven, match="somebody has written to it"):
            is_as_it_was(session, TakeMergeBack.of(done.mark), expected).holds()

    def test_nothing_is_missing_and_nothing_is_written(self, environment: Environment, restore: Restore) -> None:
        restored = restore(ORDERS)
        with untouched(environment, ORDERS):
            done = merged(environment, restored, changed_too=True)
            assert vars(done.merged) == {"inserted": 0, "updated": 0, "taken": 0, "changed_meanwhile": 0}
            environment.take_merge_back(done.mark)

    def test_sequences_move_on(self, environment: Environment, restore: Restore, orders: Content) -> None:
        run(
            environment,
            "DELETE FROM shop.orders WHERE id > 150",
            "ALTER SEQUENCE shop.orders_id_seq RESTART WITH 140",
            "ALTER SEQUENCE shop.orders_number_seq RESTART WITH 1000",
        )
        merged(environment, restore(ORDERS))
        run(environment, "INSERT INTO shop.orders (customer_id) VALUES (1)")
        assert value(environment, "SELECT max(id) FROM shop.orders") == 201
        assert value(environment, "SELECT max(number) FROM shop.orders") == 3000
        run(environment, "ALTER SEQUENCE shop.orders_id_seq RESTART WITH 500", "DELETE FROM shop.orders WHERE id > 190")
        merged(environment, restore(ORDERS))
        assert value(environment, "SELECT last_value FROM shop.orders_id_seq") == 500

    def test_their_place_is_taken(self, environment: Environment, restore: Restore, orders: Content) -> None:
        run(
            environment,
            "DELETE FROM shop.orders WHERE id BETWEEN 11 AND 13",
            "INSERT INTO shop.orders (id, customer_id, reference) VALUES (900, 1, 'order-12')",
        )
        restored = restore(ORDERS)
        found = environment.review(restored)
        run(environment, "INSERT INTO shop.orders (id, customer_id, amount) VALUES (11, 1, 77)")
        done = environment.merge(found, restored)
        assert (done.merged.inserted, done.merged.taken) == (1, 2)
        assert value(environment, "SELECT amount FROM shop.orders WHERE id = 11") == 77

    def test_what_they_refer_to_is_gone(self, environment: Environment, restore: Restore, orders: Content) -> None:
        run(environment, "DELETE FROM shop.customers WHERE id = 3")
        restored = restore(ORDERS)
        assert environment.review(restored).missing == 10
        with (
            untouched(environment, ORDERS),
            pytest.raises(ToolFailed, match=r"bring back the rows of shop\.customers first"),
        ):
            merged(environment, restored)
        merged(environment, restore("shop.customers"))
        assert merged(environment, restored).merged.inserted == 10

    def test_a_key_is_equal_as_its_index_says(self, environment: Environment, restore: Restore) -> None:
        run(environment, "SET search_path = extensions", "UPDATE shop.words SET word = 'ALPHA' WHERE word = 'Alpha'")
        found = environment.review(restore("shop.words"))
        assert (found.missing, found.changed, found.same) == (0, 1, 2)

    def test_a_constraint_that_waits_is_proven(self, environment: Environment, restore: Restore) -> None:
        """PostgreSQL checks it by a trigger, and a merge fires none: two rows would have one seat."""
        restored = restore("shop.seats")
        run(environment, "DELETE FROM shop.seats WHERE id IN (3, 4)", "INSERT INTO shop.seats VALUES (30, 103, 1)")
        with (
            untouched(environment, "shop.seats"),
            pytest.raises(ToolFailed, match="1 rows would stand against others that are there"),
        ):
            merged(environment, restored)
        run(environment, "DELETE FROM shop.seats WHERE id = 30")
        assert merged(environment, restored).merged.inserted == 2

    def test_a_constraint_that_was_added_refuses_them(self, environment: Environment, restore: Restore) -> None:
        restored = restore("shop.seats")
        run(
            environment,
            "DELETE FROM shop.seats WHERE id = 3",
            "ALTER TABLE shop.seats ADD CONSTRAINT larger CHECK (size <> 3)",
        )
        with untouched(environment, "shop.seats"), pytest.raises(ToolFailed, match="one of its constraints refuses"):
            merged(environment, restored)
        run(environment, "ALTER TABLE shop.seats DROP CONSTRAINT larger")
        merged(environment, restored)

    def test_a_partitioned_table(self, environment: Environment, restore: Restore) -> None:
        def leaves() -> dict[str, Content]:
            with environment.database() as session:
                return {
                    each.qualified: content.content_of(session, each)
                    for each in content.tables(session)
                    if each.name.startswith("usage_events")
                }

        before = leaves()
        restored = restore("usage_events")
        assert restored.compare().findings == ()
        lose(environment, "DELETE FROM public.usage_events WHERE id % 3 = 0")
        assert sum(before[each] != now for each, now in leaves().items()) > 4
        done = merged(environment, restored)
        assert leaves() == before
        assert environment.review(restored).nothing_is_missing.holds()
        environment.take_merge_back(done.mark)
        assert leaves() != before
        merged(environment, restored)


class TestChanged:
    def test_they_have_their_values_back_where_asked(
        self, environment: Environment, restore: Restore, orders: Content
    ) -> None:
        run(
            environment,
            'UPDATE shop.orders SET body = \'{"a":1,"b":1}\' WHERE id = 1',
            "UPDATE shop.orders SET amount = 2.500 WHERE id = 2",
            "UPDATE shop.orders SET ratio = 0 WHERE id = 4",
            "UPDATE shop.orders SET place = NULL, labels = '{}', discount = NULL, status = 'open' WHERE id = 5",
            "TRUNCATE shop.fired",
        )
        changed = look(environment, ORDERS)
        done = merged(environment, restore(ORDERS), changed_too=True)
        assert (done.merged.inserted, done.merged.updated) == (0, 4)
        assert look(environment, ORDERS) == orders
        with environment.database() as session:
            assert done.table_is_the_same(session).holds()
        environment.take_merge_back(done.mark)
        assert look(environment, ORDERS) == changed
        assert value(environment, "SELECT count(*) FROM shop.fired") == 0

    def test_they_are_left_alone_where_not_asked(
        self, environment: Environment, restore: Restore, orders: Content
    ) -> None:
        run(environment, "UPDATE shop.orders SET amount = 2.500 WHERE id = 2")
        with untouched(environment, ORDERS):
            environment.take_merge_back(merged(environment, restore(ORDERS)).mark)

    def test_what_was_changed_once_more_is_left_alone(
        self, environment: Environment, restore: Restore, orders: Content
    ) -> None:
        run(environment, "UPDATE shop.orders SET amount = 0 WHERE id IN (1, 2, 3)")
        restored = restore(ORDERS)
        found = environment.review(restored)
        run(environment, "UPDATE shop.orders SET amount = 5 WHERE id = 2", "DELETE FROM shop.orders WHERE id = 3")
        done = environment.merge(found, restored, changed_too=True)
        assert (done.merged.updated, done.merged.changed_meanwhile) == (1, 2)
        assert value(environment, "SELECT amount FROM shop.orders WHERE id = 2") == 5
        assert value(environment, "SELECT count(*) FROM shop.orders WHERE id = 3") == 0

    def test_taken_back_but_for_what_others_changed_or_refer_to(
        self, environment: Environment, restore: Restore, orders: Content
    ) -> None:
        run(environment, "UPDATE shop.orders SET amount = 0 WHERE id IN (1, 2)")
        run(environment, "DELETE FROM shop.orders WHERE id IN (14, 15, 31, 32, 33)")
        restored = restore(ORDERS)
        done = merged(environment, restored, changed_too=True)
        assert (done.merged.inserted, done.merged.updated) == (5, 2)
        run(
            environment,
            "UPDATE shop.orders SET amount = 5 WHERE id = 2",
            "UPDATE shop.orders SET amount = 5 WHERE id = 31",
            "INSERT INTO shop.lines (order_id) VALUES (32)",
        )
        environment.take_merge_back(done.mark)
        with environment.database() as session:
            rows = session.rows("SELECT id, amount::text FROM shop.orders WHERE id IN (1,2,14,15,31,32,33) ORDER BY 1")
        assert [(row["id"], row["amount"]) for row in rows] == [(1, "0"), (2, "5"), (31, "5"), (32, "32.50")]
        assert environment.foreign_keys_hold(ORDERS).holds()

    def test_foreign_keys_to_what_is_changed(self, environment: Environment, restore: Restore, orders: Content) -> None:
        run(
            environment,
            "CREATE TABLE shop.invoices (reference text REFERENCES shop.orders (reference) ON UPDATE CASCADE)",
            "UPDATE shop.orders SET reference = 'another' WHERE id = 9",
            "INSERT INTO shop.invoices VALUES ('another')",
        )
        try:
            with (
                untouched(environment, ORDERS),
                pytest.raises(ToolFailed, match=r"1 rows of shop\.invoices would refer to"),
            ):
                merged(environment, restore(ORDERS), changed_too=True)
        finally:
            run(environment, "DROP TABLE shop.invoices")


class TestOthers:
    def test_writers_go_on_and_nothing_of_theirs_is_overwritten(
        self, environment: Environment, restore: Restore
    ) -> None:
        restored = restore("shop.counters")
        run(environment, "UPDATE shop.counters SET value = -1")
        found = environment.review(restored)
        assert found.changed == 300
        acknowledged: dict[int, int] = {}
        over, began = threading.Event(), threading.Event()
        longest = [0.0]

        def write(first: int) -> None:
            with psycopg.connect(environment.settings.database.dsn, autocommit=True) as connection:
                number = 0
                while not over.is_set():
                    number += 1
                    each = first + 4 * (number % 50)  # 200 of the 300, each by one client alone
                    sent = time.monotonic()
                    connection.execute("UPDATE shop.counters SET value = %s WHERE id = %s", (number, each))
                    acknowledged[each] = number
                    longest[0] = max(longest[0], time.monotonic() - sent)
                    if number == 5:
                        began.set()

        clients = [threading.Thread(target=write, args=(first,)) for first in range(1, 5)]
        for client in clients:
            client.start()
        assert began.wait(10)
        done = environment.merge(found, restored, changed_too=True)
        over.set()
        for client in clients:
            client.join()
        assert done.merged.updated + done.merged.changed_meanwhile == 300
        assert done.merged.updated >= 100
        with environment.database() as session:
            now = {row["id"]: row["value"] for row in session.rows("SELECT id, value FROM shop.counters")}
        assert {each: now[each] for each in acknowledged} == acknowledged
        assert {now[each] for each in now if each not in acknowledged} == {0}
        assert longest[0] < 5

    def test_a_row_that_somebody_holds(self, environment: Environment, restore: Restore, orders: Content) -> None:
        run(environment, "UPDATE shop.orders SET amount = 0 WHERE id IN (1, 2)")
        restored = restore(ORDERS)
        found = environment.review(restored)
        acts = TableMerge.of(
            found,
            changed_too=True,
            now=environment.now,
            keep_for=timedelta(0),
            lock_timeout_seconds=0.2,
        )
        with psycopg.connect(environment.settings.database.dsn) as holder:
            holder.execute("SELECT FROM shop.orders WHERE id = 2 FOR UPDATE")
            with (
                untouched(environment, ORDERS),
                pytest.raises(WaitTimedOut, match="somebody holds one of the rows, and nothing was changed"),
                environment.procedure("merge", acts.acts) as procedure,
            ):
                acts.carry_out(procedure, restored.database, environment.systems)

    def test_what_they_refer_to_is_being_deleted(
        self, environment: Environment, restore: Restore, orders: Content
    ) -> None:
        run(environment, "DELETE FROM shop.orders WHERE id = 12")
        restored = restore(ORDERS)
        found = environment.review(restored)
        acts = TableMerge.of(
            found, changed_too=False, now=environment.now, keep_for=timedelta(0), lock_timeout_seconds=0.2
        )
        with psycopg.connect(environment.settings.database.dsn) as deleting:
            deleting.execute("DELETE FROM shop.customers WHERE id = 13")
            with (
                untouched(environment, ORDERS),
                pytest.raises(WaitTimedOut, match="nothing was changed"),
                environment.procedure("merge", acts.acts) as procedure,
            ):
                acts.carry_out(procedure, restored.database, environment.systems)
            deleting.rollback()

    def test_ended_before_it_is_kept(self, environment: Environment, restore: Restore, orders: Content) -> None:
        run(environment, "DELETE FROM shop.orders WHERE id = 12", "UPDATE shop.orders SET amount = 0 WHERE id = 1")
        lost = look(environment, ORDERS)
        restored = restore(ORDERS)
        acts = environment.table_merge(environment.review(restored), changed_too=True)

        def merge_and_stop() -> None:
            with environment.procedure("merge", acts.acts) as procedure:
                with procedure.doing(acts.stage) as before:
                    acts.stage.do(environment.systems, before)
                    acts.fill(restored.database, environment.systems)
                assert procedure.do(acts.merge) == {"missing": 1, "changed": 1}
                assert look(environment, ORDERS) == orders
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            merge_and_stop()
        assert look(environment, ORDERS) == lost
        assert schemas(environment) == 0
        assert acts.merge.undo(environment.systems, {}) == "nothing is merged into shop.orders"
        assert acts.stage.undo(environment.systems, {}) == f"the schema {acts.stage.schema} was not there"

    def test_a_server_that_crashed_has_forgotten_what_was_there(
        self, environment: Environment, restore: Restore, orders: Content
    ) -> None:
        run(environment, "DELETE FROM shop.orders WHERE id = 12")
        done = merged(environment, restore(ORDERS))
        act = TakeMergeBack.of(done.mark)
        run(environment, f"TRUNCATE {staging.schema_of(act.token)}.after")  # as PostgreSQL does
        with untouched(environment, ORDERS):
            with pytest.raises(ToolFailed, match="1 rows were written, and 0 are remembered"):
                act.undo(environment.systems, {})
            with pytest.raises(TargetRefused, match="take the merge back first"):
                StageRows(act.token, act.table, act.columns, "", "").undo(environment.systems, {})

    def test_nobody_else_may_look(self, environment: Environment, restore: Restore, orders: Content) -> None:
        run(environment, "ALTER DEFAULT PRIVILEGES GRANT USAGE ON SCHEMAS TO tensafe")
        try:
            done = merged(environment, restore(ORDERS))
            schema = staging.schema_of(done.mark.token)
            assert value(environment, f"SELECT has_schema_privilege('tensafe', '{schema}', 'USAGE')") is False
            persistence = (
                "SELECT string_agg(relpersistence, '') FROM pg_class"
                f" WHERE relkind = 'r' AND relnamespace = '{schema}'::regnamespace"
            )
            assert value(environment, persistence) == "uuu"  # or a publication of all tables would send them
            assert value(environment, f"SELECT count(*) FROM {schema}.incoming") == 0
        finally:
            run(environment, "ALTER DEFAULT PRIVILEGES REVOKE USAGE ON SCHEMAS FROM tensafe")


class TestNoLongerTheSame:
    def test_a_column_was_added(self, environment: Environment, restore: Restore) -> None:
        restored = restore("shop.widened")
        run(
            environment,
            "ALTER TABLE shop.widened ADD COLUMN size int NOT NULL DEFAULT 7",
            "DELETE FROM shop.widened WHERE id = 1",
            "UPDATE shop.widened SET size = 8 WHERE id = 2",
            "UPDATE shop.widened SET word = 'x', size = 9 WHERE id = 3",
        )
        with untouched(environment, "shop.widened"), pytest.raises(TargetRefused, match="size was added since"):
            environment.review(restored)
        found = environment.review(restored, common_columns=True)
        assert (found.missing, found.changed) == (1, 1)
        environment.merge(found, restored, changed_too=True)
        query = "SELECT string_agg(size::text, ',' ORDER BY id) FROM shop.widened WHERE id < 4"
        assert value(environment, query) == "7,8,9"

    def test_a_column_was_dropped(self, environment: Environment, restore: Restore) -> None:
        restored = restore("shop.narrowed")
        run(environment, "ALTER TABLE shop.narrowed DROP COLUMN gone", "DELETE FROM shop.narrowed WHERE id = 1")
        with pytest.raises(TargetRefused, match="gone was dropped since, or renamed"):
            environment.review(restored)
        found = environment.review(restored, common_columns=True)
        assert (found.missing, found.changed, found.columns_left_out) == (1, 0, ("gone was dropped since, or renamed",))

    def test_a_column_has_another_type(self, environment: Environment, restore: Restore) -> None:
        restored = restore("shop.retyped")
        run(environment, "ALTER TABLE shop.retyped ALTER COLUMN word TYPE text")
        for common in (False, True):
            with pytest.raises(TargetRefused, match="word was integer, and is text"):
                environment.review(restored, common_columns=common)

    def test_it_is_gone_or_renamed(self, environment: Environment, restore: Restore) -> None:
        run(environment, "ALTER TABLE shop.renamed RENAME TO other_name", "DROP TABLE shop.dropped")
        for name in ("shop.renamed", "shop.dropped"):
            with pytest.raises(NotFound, match="there is none of that name"):
                environment.review(restore(name))

    def test_another_one_of_its_name(self, environment: Environment, restore: Restore) -> None:
        restored = restore("shop.words")
        acts = environment.table_merge(replace(environment.review(restored), oid=1))
        with (
            untouched(environment, "shop.words"),
            pytest.raises(TargetRefused, match="it is another table by now"),
            environment.procedure("merge", acts.acts) as procedure,
        ):
            acts.carry_out(procedure, restored.database, environment.systems)

    def test_nothing_tells_its_rows_apart(self, environment: Environment, restore: Restore) -> None:
        with pytest.raises(TargetRefused, match="which row is which cannot be told"):
            environment.review(restore("shop.keyless"))

    def test_rules_rewrite_what_is_written(self, environment: Environment, restore: Restore) -> None:
        with pytest.raises(TargetRefused, match="it has rules"):
            environment.review(restore("shop.ruled"))


class TestAuditLog:
    def test_it_comes_back_unbroken_and_is_never_changed(self, environment: Environment, restore: Restore) -> None:
        restored = restore("audit_logs")
        before = look(environment, "audit_logs")
        off, on = (
            f"ALTER TABLE public.audit_logs {how} TRIGGER audit_logs_refuse_change"
            for how in ("DISABLE", "ENABLE ALWAYS")
        )
        run(environment, off, "DELETE FROM public.audit_logs WHERE sequence BETWEEN 40 AND 49", on)
        with environment.database() as session:
            assert not audit_chain.is_unbroken(session).holds()
        found = environment.review(restored)
        with pytest.raises(TargetRefused, match="append-only"):
            environment.table_merge(found, changed_too=True)
        lost = look(environment, "audit_logs")
        done = environment.merge(found, restored)
        assert done.merged.inserted == 10
        with environment.database() as session:
            assert audit_chain.is_unbroken(session).holds()
            assert done.table_is_the_same(session).holds()
        assert look(environment, "audit_logs") == before
        environment.take_merge_back(done.mark)
        assert look(environment, "audit_logs") == lost
        merged(environment, restored)

    def test_rows_that_do_not_fit_are_refused(self, environment: Environment, restore: Restore) -> None:
        """The end of the chain is lost, and it went on from there: what is in the backup does not lead to that."""
        restored = restore("audit_logs")
        off, on = (
            f"ALTER TABLE public.audit_logs {how} TRIGGER audit_logs_refuse_change"
            for how in ("DISABLE", "ENABLE ALWAYS")
        )
        last = int(str(value(environment, "SELECT max(sequence) FROM public.audit_logs")))
        run(
            environment,
            off,
            f"DELETE FROM public.audit_logs WHERE sequence > {last - 5}",
            on,
            "INSERT INTO public.audit_logs (occurred_at, actor, action) VALUES (now(), 'x', 'y')",
        )
        with (
            untouched(environment, "public.audit_logs"),
            pytest.raises(ToolFailed, match="more breaks than without"),
        ):
            merged(environment, restored)
        run(environment, off, f"DELETE FROM public.audit_logs WHERE sequence > {last - 5}", on)
        merged(environment, restored)


@pytest.fixture(scope="module")
def whole(environment: Environment, backup: Backup, place: Scratch) -> RestoredDatabase:
    return environment.restore_into_scratch(backup, "tensafe_whole", place)


def test_every_table_that_has_a_key(environment: Environment, whole: RestoredDatabase) -> None:
    """Whatever types and names it has: rows are lost, and afterwards it holds what it held and is what it was."""
    done: list[str] = []
    with environment.database() as session:
        definitions_before = definitions(session)
        names = [each.qualified for each in content.tables(session) if each.kind == "r" and each.schema != "shop"]
    for name in names:
        with environment.database() as session:
            table = living_table.read(session, name)
        if not table.keys or table.has_rules or (before := look(environment, name)).rows == 0:
            continue
        some = f"SELECT {living_table.listed(table.keys[0].columns)} FROM {name} ORDER BY 1 LIMIT 5"
        of_it = f"({living_table.listed(table.keys[0].columns)}) IN ({some})"
        refusing = name == "public.audit_logs"
        if refusing:
            run(environment, "ALTER TABLE public.audit_logs DISABLE TRIGGER audit_logs_refuse_change")
        run(
            environment,
            "SET search_path = extensions",
            "SET session_replication_role = replica",
            f"DELETE FROM {name} WHERE {of_it}",
        )
        if refusing:
            run(environment, "ALTER TABLE public.audit_logs ENABLE ALWAYS TRIGGER audit_logs_refuse_change")
        found: Review = review(whole, environment.systems, name)
        assert (found.missing, found.changed) == (min(5, before.rows), 0), str(found)
        acts = environment.table_merge(found)
        refused = REFUSED.get(name, "")
        with pytest.raises(ToolFailed, match=refused) if refused else nullcontext():
            with environment.procedure("merge", acts.acts) as procedure:
                acts.carry_out(procedure, whole, environment.systems)
            assert look(environment, name) == before, name
        done.append(name)
    assert len(done) > 15
    with environment.database() as session:
        assert [each for each in definitions(session) if "runbook_" not in each.name] == definitions_before
