"""What a run acts on, for its header and its reports.

It stands apart from `plugin`, because a root ``conftest.py`` that imported a module which it also lists in
``pytest_plugins`` would keep pytest from rewriting its assertions, and be warned of that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import pytest

from runbook_lib.evidence import wording
from runbook_lib.evidence.record import RunRecord
from runbook_lib.evidence.redaction import redacted_value

RUN = pytest.StashKey[RunRecord]()
"""Where the configuration keeps the record of the run."""

SAY = pytest.StashKey[Callable[[str], None]]()
"""Where the configuration keeps what writes to the real terminal; not there when pytest is quiet."""


def describe_environment(config: pytest.Config, described: Mapping[str, object]) -> None:
    """Add what the run acts on to pytest's header and to every report; values that look like secrets are hidden.

    Call it from ``pytest_configure`` of the root ``conftest.py``, or later: the reports take whatever is known at
    their end.
    """
    config.stash[RUN].environment.update({name: redacted_value(name, value) for name, value in described.items()})


@contextmanager
def getting_ready(config: pytest.Config, what: str) -> Iterator[None]:
    """Tell of work that belongs to no scenario, such as building a sandbox, and keep the time it took apart.

    :param what: as the beginning of a line: ``the sandbox comes up``
    """
    say = config.stash.get(SAY, lambda _: None)
    say(f"\n{what} ... ")
    began = time.monotonic()
    yield
    seconds = time.monotonic() - began
    taken = wording.duration(seconds)
    config.stash[RUN].environment[what] = taken
    config.stash[RUN].aside_seconds += seconds
    say(f"{taken}\n")
