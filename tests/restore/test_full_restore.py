"""The whole database is replaced under clients that go on writing; nothing that was acknowledged is lost."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest

from runbook_lib.backup import audit_chain
from runbook_lib.backup.catalog import Backup
from runbook_lib.environment import Environment
from runbook_lib.errors import NotFound, TargetRefused, Unproven
from runbook_lib.reach import postgres
from runbook_lib.restore.full_restore import FullRestore, application_writes
from runbook_lib.restore.swap import KEPT_UNTIL, SwapDatabases, kept
from runbook_lib.safety import ownership
from runbook_lib.safety.permit import Procedure
from runbook_lib.sandbox.sandbox import Sandbox
from runbook_lib.waiting import wait_for
from tests.restore.writing import writing

NUMBERS = "public.acknowledged"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox.up(scale=0.05) as up:
        yield up


@pytest.fixture(scope="module")
def environment(sandbox: Sandbox) -> Environment:
    return Environment.of(sandbox.settings)


@pytest.fixture(scope="module")
def backup(environment: Environment) -> Backup:
    """A backup that knows the clients' table, and none of what they write."""
    with postgres.session(environment.settings.database.dsn, read_only=False) as session:
        session.execute(f"CREATE TABLE {NUMBERS} (number bigint PRIMARY KEY)")
    return environment.take_backup("manual").backup


def replace(environment: Environment, backup: Backup) -> tuple[FullRestore, int, float]:
    """Replace the database as the feature does; return the acts, the replaced one's oid, and when its door was shut."""
    acts = environment.full_restore(backup)
    with environment.procedure("replace the database", acts.acts) as procedure:
        procedure.do(acts.make)
        restored = environment.restore_beside(backup, acts.make.database)
        assert restored.restored.holds()
        assert restored.compare().findings == ()
        procedure.do(acts.application)
        before = procedure.do(acts.fence)
        shut_at = time.monotonic()
        procedure.do(acts.swap)
        procedure.keep(*acts.to_stay)
    return acts, before["oid"], shut_at


def databases(environment: Environment) -> dict[str, bool]:
    with environment.beside_the_database() as session:
        return {
            row["datname"]: row["datallowconn"]
            for row in session.rows("SELECT datname, datallowconn FROM pg_database WHERE datname LIKE 'tensafe%%'")
        }


def numbers_in(environment: Environment, database: str) -> set[int]:
    """What a database holds of the clients' numbers; its door is opened for a moment if it is shut."""
    with environment.systems.control() as session:
        session.execute(f"ALTER DATABASE {postgres.identifier(database)} WITH ALLOW_CONNECTIONS true")
        try:
            dsn = postgres.with_database(environment.settings.database.dsn, database)
            with postgres.session(dsn) as inside:
                return {row["number"] for row in inside.rows(f"SELECT number FROM {NUMBERS}")}
        finally:
            if database != "tensafe":
                session.execute(f"ALTER DATABASE {postgres.identifier(database)} WITH ALLOW_CONNECTIONS false")


def drop(environment: Environment, database: str) -> None:
    with environment.systems.control() as session:
        session.execute(f"DROP DATABASE {postgres.identifier(database)} WITH (FORCE)")


def test_under_clients_that_go_on_writing(environment: Environment, backup: Backup) -> None:
    dsn = environment.settings.database.dsn
    with writing(dsn, NUMBERS) as writers:
        wait_for("some writes", writers.count, where=dsn, within_seconds=20, until=lambda count: count > 200)
        acts, oid, shut_at = replace(environment, backup)
        swapped = writers.count()
        wait_for("writes again", writers.count, where=dsn, within_seconds=20, until=lambda count: count > swapped + 200)
        acknowledged_before = writers.before(shut_at)
    assert len(acknowledged_before) > 200
    assert acknowledged_before <= numbers_in(environment, acts.swap.kept_as)
    after = set(writers.acknowledged) - acknowledged_before
    assert after <= numbers_in(environment, "tensafe")
    assert numbers_in(environment, "tensafe").isdisjoint(acknowledged_before)
    assert writers.longest_gap_seconds < 30
    with environment.beside_the_database() as session:
        assert acts.replaced_is_kept(session, oid).holds()
        (found,) = kept(session)
        assert ownership.owner_of(session, "tensafe") == ""
    assert (found.name, found.oid, found.allows) == (acts.swap.kept_as, oid, False)
    with environment.database() as session, environment.kubernetes() as cluster:
        assert audit_chain.is_unbroken(session, exists=True).holds()
        assert audit_chain.leads_on_from(session, backup.audit_head).holds()
        assert application_writes(session, cluster, "tensafe-api", within_seconds=30).holds()
        told = cluster.deployment("tensafe-api")
    assert (told.replicas, told.ready_replicas) == (3, 3)

    back = environment.put_back(environment.replaced_last())
    with environment.procedure("put it back", back.acts) as procedure:
        for act in (back.application, back.fence, back.swap):
            procedure.do(act)
        procedure.keep(*back.to_stay)
    assert acknowledged_before <= numbers_in(environment, "tensafe")
    assert set(databases(environment)) == {"tensafe", back.swap.kept_as}
    with environment.database() as session:
        assert not session.value("SELECT count(*) FROM pg_db_role_setting WHERE setconfig::text LIKE %s", f"%{acts}%")
    drop(environment, back.swap.kept_as)


def test_a_restore_that_does_not_compare_touches_nothing(environment: Environment, backup: Backup) -> None:
    acts = environment.full_restore(backup)
    before = databases(environment)

    class Differs(Exception):
        pass

    def restore_and_lose_a_row(procedure: Procedure) -> None:
        procedure.do(acts.make)
        restored = environment.restore_beside(backup, acts.make.database)
        with restored.session() as session:
            assert audit_chain.ends_where_noted(session, backup.audit_head).holds()
        with postgres.session(restored.dsn, read_only=False) as session:
            session.execute("ALTER TABLE public.audit_logs DISABLE TRIGGER USER")
            session.execute(
                "DELETE FROM public.audit_logs WHERE sequence > (SELECT max(sequence) - 3 FROM public.audit_logs)"
            )
        with restored.session() as session:
            assert audit_chain.is_unbroken(session).holds()
            assert not audit_chain.ends_where_noted(session, backup.audit_head).holds()
        with postgres.session(restored.dsn, read_only=False) as session:
            session.execute("DELETE FROM public.users WHERE id = (SELECT max(id) FROM public.users)")
        assert [each.check for each in restored.compare().findings if each.check == "content.rows"]
        raise Differs

    with pytest.raises(Differs), environment.procedure("replace the database", acts.acts) as begun:
        restore_and_lose_a_row(begun)
    assert databases(environment) == before
    with environment.kubernetes() as cluster:
        assert cluster.deployment("tensafe-api").ready_replicas == 3


def test_one_that_ends_between_fence_and_swap_puts_everything_back(environment: Environment, backup: Backup) -> None:
    acts = environment.full_restore(backup)
    before = databases(environment)

    def swap_and_stop(procedure: Procedure) -> None:
        for act in acts.acts:
            procedure.do(act)
        assert databases(environment)[acts.swap.kept_as] is False
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), environment.procedure("replace", acts.acts) as begun:
        swap_and_stop(begun)
    assert databases(environment) == before
    with environment.kubernetes() as cluster:
        assert cluster.deployment("tensafe-api").ready_replicas == 3
    with environment.database() as session:
        assert session.value("SELECT count(*) FROM public.tenants") > 0


def test_a_backup_without_a_manifest_is_not_trusted(environment: Environment) -> None:
    others = environment.archive.newest(kind="others")
    with pytest.raises(Unproven, match="it has no manifest"):
        environment.full_restore(others)


@pytest.mark.parametrize(
    ("other", "says"),
    [({"system_identifier": "1"}, "it is of cluster 1"), ({"name": "other"}, "of the database other")],
)
def test_a_backup_of_another_database(
    other: dict[str, str], says: str, environment: Environment, backup: Backup
) -> None:
    assert backup.manifest is not None
    its = dataclasses.replace(backup.manifest.database, **other)  # type: ignore[arg-type]
    foreign = dataclasses.replace(backup, manifest=dataclasses.replace(backup.manifest, database=its))
    before = databases(environment)
    with pytest.raises(TargetRefused, match=says):
        environment.full_restore(foreign)
    assert databases(environment) == before


def test_there_is_room(environment: Environment, backup: Backup) -> None:
    assert environment.room_for_a_copy(backup).holds()


class TestSwap:
    @pytest.fixture
    def made(self, environment: Environment) -> Iterator[str]:
        with environment.systems.control() as session:
            session.execute("CREATE DATABASE incoming")
            ownership.mark(session, "incoming", "a-token")
        yield "incoming"
        with environment.systems.control() as session:
            session.execute("DROP DATABASE IF EXISTS incoming WITH (FORCE)")

    def swap(self, **changed: str) -> SwapDatabases:
        told = {"living": "tensafe", "incoming": "incoming", "kept_as": "tensafe_old_x", "kept_until": "2030-01-01"}
        return SwapDatabases(**{**told, **changed})

    def test_back_and_forth_leaves_every_mark_as_it_was(self, environment: Environment, made: str) -> None:
        act = self.swap()
        before = act.look(environment.systems)
        act.do(environment.systems, before)
        with environment.beside_the_database() as session:
            assert ownership.owner_of(session, "tensafe") == ""
            assert [each.until for each in kept(session)] == ["2030-01-01"]
        assert act.undo(environment.systems, before) == "tensafe is in its own place again"
        assert act.undo(environment.systems, before) == "tensafe is in its own place"
        assert act.look(environment.systems) == before
        with environment.beside_the_database() as session:
            assert ownership.owner_of(session, made) == "a-token"
            assert kept(session) == []
            assert not session.rows("SELECT 1 FROM pg_db_role_setting WHERE setconfig::text LIKE %s", f"%{KEPT_UNTIL}%")

    def test_puts_out_whoever_came_in_again(self, environment: Environment, made: str) -> None:
        act = self.swap()
        before = act.look(environment.systems)
        with psycopg.connect(postgres.with_database(environment.settings.database.dsn, made), autocommit=True):
            act.do(environment.systems, before)
        assert "again" in act.undo(environment.systems, before)

    def test_a_name_that_is_taken(self, environment: Environment, made: str) -> None:
        with pytest.raises(TargetRefused, match="there is a database of that name already"):
            self.swap(kept_as="postgres").look(environment.systems)

    def test_a_database_that_is_not_there(self, environment: Environment) -> None:
        with pytest.raises(NotFound, match="the database nothing"):
            self.swap(incoming="nothing").look(environment.systems)

    def test_leaves_alone_what_is_another_database_by_now(self, environment: Environment, made: str) -> None:
        act = self.swap()
        before = {**act.look(environment.systems), "living_oid": 1, "incoming_oid": 2}
        assert "are other databases by now: left as they are" in act.undo(environment.systems, before)


def test_a_replaced_database_is_kept_for_its_time(environment: Environment, backup: Backup) -> None:
    acts = environment.full_restore(backup)
    until = (environment.now + timedelta(days=environment.settings.restore.keep_replaced_days)).date().isoformat()
    assert acts.swap.kept_until.startswith(until)
