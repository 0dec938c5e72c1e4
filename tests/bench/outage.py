"""How long nobody can write while a full restore changes two databases, at two sizes.

It is seconds, not a ratio, and so only the comparison of the two says anything: whoever waits, waits for two renames,
and not for a restore.
"""

from __future__ import annotations

from collections.abc import Callable

from runbook_lib.environment import Environment
from runbook_lib.reach import postgres
from runbook_lib.sandbox.sandbox import Sandbox
from runbook_lib.waiting import wait_for
from tests.restore.writing import writing

_TABLE = "public.acknowledged"
_ENOUGH = 300


def outage(scale: float) -> str:
    """Replace a database of one size under writers, and return the line that tells how long they waited."""
    with Sandbox.up(scale=scale) as sandbox:
        environment = Environment.of(sandbox.settings)
        dsn = environment.settings.database.dsn
        with postgres.session(dsn, read_only=False) as session:
            session.execute(f"CREATE TABLE {_TABLE} (number bigint PRIMARY KEY)")
        backup = environment.take_backup("manual").backup
        acts = environment.full_restore(backup)
        with writing(dsn, _TABLE) as writers, environment.procedure("replace it", acts.acts) as procedure:
            procedure.do(acts.make)
            restored = environment.restore_beside(backup, acts.make.database)
            assert restored.restored.holds()
            assert restored.compare().findings == ()
            _more(writers.count, dsn)
            for act in (acts.application, acts.fence, acts.swap):
                procedure.do(act)
            procedure.keep(*acts.to_stay)
            _more(writers.count, dsn)
        size = environment.identity().bytes
    return (
        f"full restore under 6 writers: no write was acknowledged for {writers.longest_gap_seconds:.2f} s"
        f" while a database of {size / 1e6:.0f} MB was replaced (promised: it does not grow with the size)"
    )


def _more(count: Callable[[], int], where: str) -> None:
    begun = count()
    wait_for("more writes", count, where=where, within_seconds=30, until=lambda found: found > begun + _ENOUGH)
