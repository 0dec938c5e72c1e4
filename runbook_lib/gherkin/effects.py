"""Which effect a scenario's tags give it."""

from __future__ import annotations

import pytest

from runbook_lib.effect import Effect


def effect_of(node: pytest.Item) -> Effect:
    """Return the effect that a scenario is tagged with; the check of the text sees to it that it is exactly one."""
    return next(effect for effect in Effect if node.get_closest_marker(effect.value))
