from __future__ import annotations

from tests.evidence.project import project

__all__ = ["project"]
