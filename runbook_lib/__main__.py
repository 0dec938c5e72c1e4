"""What is not a scenario: looking at an environment, and taking back what a killed run left.

``runbook doctor --env NAME`` tells what is reachable, permitted or missing, and alters nothing. ``runbook recover
--env NAME`` takes back the acts that a killed run announced and did not take back. Everything else is a scenario, and
pytest runs those.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runbook_lib import doctor
from runbook_lib.environment import Environment
from runbook_lib.errors import RunbookError
from runbook_lib.evidence.redaction import redacted
from runbook_lib.outcome import Outcome
from runbook_lib.safety.permit import Asked
from runbook_lib.sandbox.choosing import Wanted, settings_of

_EXIT = {Outcome.PROVEN: 0, Outcome.FAILED: 1, Outcome.UNPROVEN: 5}
"""The same numbers that a run of scenarios ends with."""


def main(arguments: list[str] | None = None) -> int:
    """Carry out one command and return its exit status."""
    parser = argparse.ArgumentParser(prog="runbook", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, helps in (
        ("doctor", "tell what is reachable, permitted or missing; alter nothing"),
        ("recover", "take back what a killed run left half done"),
    ):
        command = commands.add_parser(name, help=helps)
        command.add_argument("--env", default="sandbox", metavar="NAME", help="sandbox, or a profile's name or path")
        command.add_argument("--pg-bin", type=Path, metavar="DIR", help="where PostgreSQL's programs are")
        command.add_argument("--allow-changes-to", default="", metavar="CLUSTER", help=argparse.SUPPRESS)
        command.add_argument("--reason", default="", help=argparse.SUPPRESS)
    told = parser.parse_args(arguments)
    asked = Asked(told.allow_changes_to, told.reason)
    try:
        with settings_of(Wanted(told.env, scale=0.05, tools_directory=told.pg_bin), telling=_telling) as settings:
            environment = Environment.of(settings, asked=asked, tools_directory=told.pg_bin)
            return _doctor(environment) if told.command == "doctor" else _recover(environment)
    except RunbookError as error:
        print(redacted(str(error)), file=sys.stderr)  # noqa: T201
        return _EXIT[Outcome.UNPROVEN]
    except KeyboardInterrupt:
        return 2


def _doctor(environment: Environment) -> int:
    outcomes: list[Outcome] = []
    for found in doctor.examine(environment):
        outcomes.append(found.outcome)
        _say(f"{found.outcome.value:<9} {found.what:<19} {found.says}")
        if found.remedy:
            _say(f"{'':<29} -> {found.remedy}")
    worst = Outcome.worst(outcomes)
    counted = ", ".join(f"{outcomes.count(each)} {each.value}" for each in Outcome if each in outcomes)
    _say(f"\n{counted}; nothing was altered")
    return _EXIT[worst]


def _recover(environment: Environment) -> int:
    taken_back = environment.recover()
    if not taken_back:
        _say(f"nothing is outstanding in {environment.settings.journal_folder}")
    for each in taken_back:
        _say(f"{'STUCK' if each.is_stuck else 'taken back':<10}  {each.entry.says} ({each.header.at}): {each.says}")
    stuck = sum(each.is_stuck for each in taken_back)
    if stuck:
        _say(f"\n{stuck} acts are still outstanding: mend what kept them, and recover again")
    return _EXIT[Outcome.FAILED if stuck else Outcome.PROVEN]


@contextmanager
def _telling(what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    _say(f"{what}: {time.monotonic() - began:.1f} s")


def _say(line: str) -> None:
    print(redacted(line), flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
