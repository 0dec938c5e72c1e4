"""One table of twenty comes back, beside a restore of all of them.

Ours is all that it takes: fetching the dump, restoring the table, comparing it with its manifest, comparing it row by
row with the living one, and merging what is missing. Theirs is the restore alone, as this project does it: nothing is
compared. Both find their server running.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

from runbook_lib.environment import Environment
from runbook_lib.reach import postgres
from runbook_lib.restore.scratch import Scratch

TABLES = 20
ROWS_AT_SCALE_1 = 50_000
LOST = 100
"""One row of so many is lost."""


def measure(environment: Environment, *, scale: float, rounds: int) -> tuple[dict[str, list[float]], str]:
    """Return the seconds of both arms, ``table`` and ``full``, round by round, and a line that says where they went."""
    dsn = environment.settings.database.dsn
    with postgres.session(dsn, read_only=False) as session:
        session.execute("CREATE DATABASE twenty")
    database = replace(environment.settings.database, dsn=postgres.with_database(dsn, "twenty"), audit_log=False)
    twenty = Environment.of(
        replace(environment.settings, database=database), tools_directory=environment.tools_directory
    )
    _fill(twenty, round(ROWS_AT_SCALE_1 * scale))
    backup = twenty.take_backup("manual").backup
    took: dict[str, list[float]] = {"table": [], "full": []}
    last: Mapping[str, float] = {}
    for _ in range(rounds + 1):  # the first one warms up
        with twenty.scratch() as place:
            place.server(17)
            began = time.monotonic()
            restored = twenty.restore_into_scratch(backup, "whole", place)
            took["full"].append(time.monotonic() - began)
            assert restored.restored.holds()
            restored.remove()
            with postgres.session(twenty.settings.database.dsn, read_only=False) as session:
                session.execute(f"DELETE FROM public.t7 WHERE id % {LOST} = 0")
            began = time.monotonic()
            last = _our_way(twenty, place)
            took["table"].append(time.monotonic() - began)
    spent = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in last.items())
    return {arm: seconds[1:] for arm, seconds in took.items()}, f"table restore: {spent}"


def _our_way(environment: Environment, place: Scratch) -> Mapping[str, float]:
    backup = environment.archive.newest(kind="manual")
    restored = environment.restore_table_into_scratch(environment.table_backup(backup, "t7"), "one", place)
    assert restored.compare().findings == ()
    found = environment.review(restored)
    done = environment.merge(found, restored)
    assert done.merged.inserted == found.missing > 0
    return {phase.name: phase.seconds for phase in restored.database.phases}


def _fill(environment: Environment, rows: int) -> None:
    with postgres.session(environment.settings.database.dsn, read_only=False) as session:
        for number in range(TABLES):
            table = f"public.t{number}"
            session.execute(
                f"CREATE TABLE {table} (id bigint PRIMARY KEY, tenant int, at timestamptz, word text, body jsonb)"
            )
            session.execute(
                f"INSERT INTO {table} SELECT n, n % 97, to_timestamp(n), md5(n::text),"
                f" jsonb_build_object('n', n, 'word', md5((n + 1)::text)) FROM generate_series(1, {rows}) n"
            )
            session.execute(f"CREATE INDEX ON {table} (tenant, at)")
        session.execute("VACUUM ANALYZE")
