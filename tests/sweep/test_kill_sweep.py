"""A procedure that is killed at any row of its journal is taken back by `runbook recover`, and the world is as before.

The first run is not killed: it says which rows there are. Then there is one run for each position, killed in the middle
of a row, or behind it and so before the act that it announces; after each a user recovers, twice, and the world is
compared with what it was.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from runbook_lib.reach import postgres
from tests.sweep.conftest import Swept
from tests.sweep.runner import PROCEDURES
from tests.sweep.world import CLUSTER, KEPT, REPLICAS, Look, World

_MAINTENANCE = ["run", *["intent", "done"] * 3, *["undone"] * 3]
ROWS = {
    "maintenance_mode": _MAINTENANCE,
    "maintenance_mode_that_fails": ["run", "intent", "done", "intent", "failed", "undone", "undone"],
    "manual_backup": ["run", "intent", "done", "kept"],
    "manual_backup_that_fails": ["run", "intent", "failed", "undone"],
    "full_restore": ["run", *["intent", "done"] * 4, "kept", "undone"],
    "table_restore": ["run", *["intent", "done"] * 2, "kept"],
    "table_restore_taken_back": ["run", "intent", "done", "undone"],
    "drop_kept": ["run", *["intent", "done", "kept"] * 2],
}


def test_what_is_left_is_seen(world: World) -> None:
    """The sweep's own eyes: whatever a procedure could leave behind makes the world another one."""
    before = world.look()
    assert world.look() == before
    with postgres.session(world.server.dsn(), read_only=False) as session:
        for leave, remove in (
            ("ALTER DATABASE tensafe ALLOW_CONNECTIONS false", "ALTER DATABASE tensafe ALLOW_CONNECTIONS true"),
            ("CREATE DATABASE runbook_0123", "DROP DATABASE runbook_0123"),
        ):
            session.execute(leave)
            seen = world.look(besides=session.backend_pid)
            session.execute(remove)
            assert seen != before, leave
    with postgres.session(world.server.dsn("tensafe"), read_only=False) as session:
        session.execute("UPDATE public.training_clients SET word = 'other' WHERE id = 77")
        seen = world.look(besides=session.backend_pid)
        session.execute("UPDATE public.training_clients SET word = md5('77') WHERE id = 77")
        assert seen != before
    upload = world.bucket.client.create_multipart_upload(Bucket=world.bucket.name, Key="postgres/manual/x.dump")
    assert world.look() != before
    world.bucket.client.abort_multipart_upload(
        Bucket=world.bucket.name, Key="postgres/manual/x.dump", UploadId=upload["UploadId"]
    )
    world.bucket.remove("x", world.bucket.write_once("x", b"").object.version_id)
    assert world.look() == before
    world.api.scale(CLUSTER, "tensafe-api", 1)
    assert world.look() != before
    with world.cluster(read_only=False) as cluster:
        cluster.scale("tensafe-api", REPLICAS, expected=None)
        cluster.wait_for_replicas("tensafe-api", REPLICAS, within_seconds=60)
    assert world.look() == before


@pytest.fixture
def disaster(procedure: str, world: World) -> Iterator[None]:
    """One row is lost and another one changed, where that is what a procedure is for."""
    if not procedure.startswith("table_restore"):
        yield
        return
    dsn, table = world.server.dsn("tensafe"), "public.training_clients"
    with postgres.session(dsn, read_only=False) as session:
        session.execute(f"DELETE FROM {table} WHERE id = 77")
        session.execute(f"UPDATE {table} SET word = 'other' WHERE id = 78")
    yield
    with postgres.session(dsn, read_only=False) as session:
        session.execute(f"INSERT INTO {table} VALUES (77, md5('77'))")
        session.execute(f"UPDATE {table} SET word = md5('78') WHERE id = 78")


@pytest.mark.usefixtures("disaster")
@pytest.mark.parametrize("procedure", PROCEDURES)
def test_sweep(procedure: str, world: World, swept: list[Swept]) -> None:
    counted = Swept(procedure)
    swept.append(counted)
    before = world.look()
    assert before.replicas == (2, 2)
    assert (before.unfinished, before.outstanding) == ((), ())

    if procedure == "table_restore_taken_back":
        world.merge()
    if procedure == "drop_kept":
        world.keep()
    first = world.run(procedure)
    assert first["rows"] == ROWS[procedure], first
    assert first["notes"] == []
    after = world.look()
    if procedure == "manual_backup":
        after = world.forget_backup(before, after)
    if procedure == "full_restore":
        after = world.forget_replaced(before, after)
    if procedure == "table_restore":
        after = world.take_merge_back()
    assert after == before

    counted.positions = 2 * len(first["rows"])
    problems = [_kill(world, counted, at, first["rows"]) for at in range(1, counted.positions + 1)]
    assert [problem for problem in problems if problem] == []
    assert (counted.killed, counted.recovered) == (counted.positions, counted.positions)


def _kill(world: World, counted: Swept, at: int, rows: list[str]) -> str:
    """Kill it there, recover twice, and return what is not as it was."""
    before = world.look()
    if counted.procedure == "table_restore_taken_back":
        world.merge()
    if counted.procedure == "drop_kept":
        world.keep()
    where = f"position {at}, {'in the middle of' if at % 2 else 'behind'} the row {rows[(at - 1) // 2]}"
    ended = world.run(counted.procedure, kill_at=at)
    if ended["exit"] != -9:
        return f"{where}: it was not killed: {ended}"
    counted.killed += 1
    status, first = world.recover()
    if status != 0:
        return f"{where}: recover ended with {status}: {first}"
    again, second = world.recover_again()
    if again != 0 or not second.startswith("nothing is outstanding"):
        return f"{where}: recover found something a second time ({again}): {second}"
    if counted.procedure == "drop_kept" and (wrong := _not_dropped_as_told(world, at, first)):
        return f"{where}: {wrong}; recover said: {first}"
    after = world.drop_kept() if counted.procedure == "drop_kept" else world.look()
    if "done" in rows[: (at + 1) // 2] and counted.procedure == "manual_backup":
        after = world.forget_backup(before, after)  # it was whole when the row was begun, and nothing else is left
    if counted.procedure == "full_restore" and at >= 2 * rows.index("kept") + 2:
        after = world.forget_replaced(before, after)  # it has taken the other's place, and stays there
    if counted.procedure == "table_restore" and at >= 2 * rows.index("kept") + 2:
        after = world.take_merge_back()  # the rows are there again, and stay
    if counted.procedure == "table_restore_taken_back" and at <= 2 * rows.index("intent") + 1:
        after = world.take_merge_back()  # it was never announced: they are still there
    if after != before:
        return f"{where}: {_difference(before, after)}; recover said: {first}"
    counted.recovered += 1
    return ""


def _not_dropped_as_told(world: World, at: int, said: str) -> str:
    """Return what is wrong with what is left of two things that were to be dropped, and with what was said of it.

    What was not begun is there as it was made; what was dropped is gone, and that is what recovery says of it.
    """
    intents = [number for number, row in enumerate(ROWS["drop_kept"], start=1) if row == "intent"]
    expected = {name for name, intent in zip(KEPT, intents, strict=True) if at <= 2 * intent}
    if (left := world.kept()) != expected:
        return f"{left} are left, and {expected} should be"
    announced_and_gone = any(2 * intent < at < 2 * (intent + 2) for intent in intents)
    return "" if ("nothing brings it back" in said) == announced_and_gone else "it is not told that it is gone"


def _difference(before: Look, after: Look) -> str:
    changed = {
        name: (was, after.__dict__[name]) for name, was in before.__dict__.items() if after.__dict__[name] != was
    }
    return "; ".join(f"{name} was {was} and is {now}" for name, (was, now) in changed.items())
