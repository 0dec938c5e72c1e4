"""One profile, whole."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pydantic

from runbook_lib.safety.windows import Window
from runbook_lib.settings.sections import (
    Archiving,
    Backups,
    Changes,
    Contact,
    Database,
    Dns,
    Kubernetes,
    Maintenance,
    Patroni,
    Restore,
)


@dataclass(frozen=True)
class Settings:
    """One profile."""

    __pydantic_config__ = pydantic.ConfigDict(extra="forbid")

    name: str
    """The environment's name, such as ``production``."""
    database: Database
    """The database."""
    backups: Backups
    """Its backups."""
    cluster: str = ""
    """The cluster's name as it must be typed to have it changed: ``tensafe-production``; empty for the name above."""
    archiving: Archiving = field(default_factory=Archiving)
    """Its WAL."""
    restore: Restore = field(default_factory=Restore)
    """Rehearsed restores."""
    changes: Changes = field(default_factory=Changes)
    """What may be altered."""
    kubernetes: Kubernetes = field(default_factory=Kubernetes)
    """Where it runs."""
    patroni: Patroni = field(default_factory=Patroni)
    """What keeps it available."""
    dns: Dns = field(default_factory=Dns)
    """The name that leads to it."""
    contacts: tuple[Contact, ...] = ()
    """Whom to turn to."""
    maintenance: Maintenance = field(default_factory=Maintenance)
    """When what may be done."""
    path: str = ""
    """The file it was read from; empty for one that was made in memory. Not a key of the file."""

    @property
    def cluster_name(self) -> str:
        """The name that must be typed in full to have anything altered."""
        return self.cluster or self.name

    @property
    def windows(self) -> Sequence[Window]:
        """The maintenance windows."""
        return [each.window for each in self.maintenance.windows]

    @property
    def journal_folder(self) -> Path:
        """Where the journals of this cluster lie."""
        if self.changes.journal:
            return Path(self.changes.journal)
        state = os.environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser()
        return Path(state) / "tensafe-runbook" / self.cluster_name

    @property
    def recover_command(self) -> str:
        """What to type to have taken back what a killed run left."""
        return f"runbook recover --env {self.path or self.name}"
