"""What a scenario may do to its target.

Exactly one of three tags stands on every scenario, and the library holds the scenario to it: a tag that only a reader
sees would be a comment.
"""

from __future__ import annotations

from enum import Enum


class Effect(Enum):
    """What a scenario may do."""

    READS = "reads"
    """It reads, through sessions and clients that cannot write."""
    SCRATCH = "scratch"
    """It makes and removes what bears its own mark, and reads everything else."""
    CHANGES = "changes"
    """It alters the target, with a permit, and takes back whatever is not meant to stay."""
