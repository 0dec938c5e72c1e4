"""The real database and bucket that bad input is tried on serve here as well."""

from __future__ import annotations

from tests.bad_input.conftest import temporary, user, world

__all__ = ["temporary", "user", "world"]
