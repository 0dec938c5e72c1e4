"""What may not be changed is not changed, and is neither proven nor failed."""

from __future__ import annotations

import pytest

from runbook_lib.errors import Unproven
from runbook_lib.safety.permit import Permit


def test_granted() -> None:
    Permit("production", granted=True, reason="the profile grants changes").require("add a backup")


def test_withheld_says_what_to_type() -> None:
    withheld = Permit("production", granted=False, reason="set granted = true under [changes]")
    with pytest.raises(Unproven) as raised:
        withheld.require("add a backup to s3://b/postgres/")
    assert str(raised.value) == (
        "permission to add a backup to s3://b/postgres/, production: not permitted: "
        "this run may change nothing there. To fix this: set granted = true under [changes]"
    )
