"""What a run acts on, for its header and its reports.

It stands apart from `plugin`, because a root ``conftest.py`` that imported a module which it also lists in
``pytest_plugins`` would keep pytest from rewriting its assertions, and be warned of that.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from runbook_lib.evidence.record import RunRecord
from runbook_lib.evidence.redaction import redacted_value

RUN = pytest.StashKey[RunRecord]()
"""Where the configuration keeps the record of the run."""


def describe_environment(config: pytest.Config, described: Mapping[str, object]) -> None:
    """Add what the run acts on to pytest's header and to every report; values that look like secrets are hidden.

    Call it from ``pytest_configure`` of the root ``conftest.py``, or later: the reports take whatever is known at
    their end.
    """
    config.stash[RUN].environment.update({name: redacted_value(name, value) for name, value in described.items()})
