"""What every object bears that this library writes into a bucket: who made it, and in which run."""

from __future__ import annotations

from collections.abc import Mapping

MARK: Mapping[str, str] = {"made-by": "tensafe-runbook"}
"""Metadata of every object that this library writes."""
WRITER = "written-by"
"""Metadata beside the mark: which run wrote the object, so that only that run's work is ever taken back."""
