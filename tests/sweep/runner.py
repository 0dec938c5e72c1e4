"""Runs procedures to a chosen row of their journal, and no further: there it kills itself.

It imports everything once and forks for every run, so that a kill costs no more than the acts before it. It is started
as a program, has no thread and no connection when it forks, and answers every line of its input with one.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any

from runbook_lib.__main__ import main as command
from runbook_lib.environment import Environment
from runbook_lib.phases import Progress
from runbook_lib.safety.journal import Journal
from runbook_lib.safety.permit import Asked
from runbook_lib.settings import load


class WentWrong(Exception):
    """What ends the procedures that fail."""


def maintenance_mode(environment: Environment) -> None:
    mode = environment.maintenance_mode()
    with environment.procedure("rehearse maintenance mode", mode.acts) as procedure:
        for act in mode.acts:
            procedure.do(act)


def maintenance_mode_that_fails(environment: Environment) -> None:
    mode = environment.maintenance_mode()
    with environment.procedure("rehearse maintenance mode", mode.acts) as procedure:
        procedure.do(mode.fence)
        with procedure.doing(mode.beside) as before:
            mode.beside.do(environment.systems, before)
            raise WentWrong


def manual_backup(environment: Environment) -> None:
    environment.take_backup("manual")


def manual_backup_that_fails(environment: Environment) -> None:
    def watch(progress: Progress) -> None:
        raise WentWrong

    environment.take_backup("manual", watch=watch)


def full_restore(environment: Environment) -> None:
    backup = environment.last_nights_backup()
    acts = environment.full_restore(backup)
    with environment.procedure("replace the database", acts.acts) as procedure:
        procedure.do(acts.make)
        restored = environment.restore_beside(backup, acts.make.database)
        assert restored.restored.holds()
        assert restored.compare().findings == ()
        for act in (acts.application, acts.fence, acts.swap):
            procedure.do(act)
        procedure.keep(*acts.to_stay)


def table_restore(environment: Environment) -> None:
    held = environment.table_backup(environment.last_nights_backup(), "training_clients")
    with environment.scratch() as place:
        restored = environment.restore_table_into_scratch(held, "tensafe_table", place)
        assert restored.compare().findings == ()
        found = environment.review(restored)
        assert (found.missing, found.changed) == (1, 1)
        environment.merge(found, restored, changed_too=True)


def table_restore_taken_back(environment: Environment) -> None:
    environment.take_merge_back(environment.merged_last())


def drop_kept(environment: Environment) -> None:
    environment.drop_kept(environment.kept())


PROCEDURES: Mapping[str, Callable[[Environment], None]] = {
    each.__name__: each
    for each in (
        maintenance_mode,
        maintenance_mode_that_fails,
        manual_backup,
        manual_backup_that_fails,
        full_restore,
        table_restore,
        table_restore_taken_back,
        drop_kept,
    )
}


def kill_at(position: int) -> list[str]:
    """Have this process kill itself at a position of the journal, and return the list of rows that it will get.

    There are two positions for each row: an odd one is in the middle of it, when half of it has reached the disk; an
    even one is behind it. Position 0 is never come to.
    """
    rows: list[str] = []
    really_write = Journal._write

    def write(journal: Journal, row: Mapping[str, Any]) -> None:
        rows.append(str(row["row"]))
        if position == 2 * len(rows) - 1:
            line = json.dumps(row).encode()
            os.write(journal._descriptor, line[: len(line) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        really_write(journal, row)
        if position == 2 * len(rows):
            os.kill(os.getpid(), signal.SIGKILL)

    Journal._write = write  # type: ignore[method-assign, assignment]
    return rows


def run(told: Mapping[str, Any]) -> dict[str, Any]:
    """Run a procedure as the operator who typed what has to be typed, and say which rows its journal got."""
    if "recover" in told:
        return recover(told["recover"])
    rows = kill_at(told["kill_at"])
    settings = load(told["profile"])
    environment = Environment.of(settings, asked=Asked(settings.cluster_name, "the kill sweep"))
    try:
        PROCEDURES[told["procedure"]](environment)
    except WentWrong as error:
        notes = getattr(error, "__notes__", [])
        return {"rows": rows, "ended": "failed as it was to", "notes": notes}
    return {"rows": rows, "ended": "well", "notes": []}


def recover(profile: str) -> dict[str, Any]:
    """Do what ``python -m runbook_lib recover`` does, without waiting for its imports once more."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = command(["recover", "--env", profile])
    return {"status": status, "said": said.getvalue()}


def main() -> None:
    for line in sys.stdin:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.close(reading)
                os.write(writing, json.dumps(run(json.loads(line))).encode())
                status = 0
            except BaseException as error:  # noqa: BLE001 - told to the parent, which asserts
                os.write(writing, json.dumps({"rows": [], "ended": f"{error!r}", "notes": []}).encode())
            finally:
                os._exit(status)
        os.close(writing)
        with os.fdopen(reading, "rb") as answer:
            said = answer.read().decode()
        _, status = os.waitpid(child, 0)
        told = {"exit": os.waitstatus_to_exitcode(status), **(json.loads(said) if said else {})}
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
