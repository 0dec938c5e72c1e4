"""Where a backup is restored to, as far as a restore needs to know it."""

from __future__ import annotations

from typing import Protocol

from runbook_lib.reach.binaries import PostgresTools
from runbook_lib.reach.workspace import Workspace


class Target(Protocol):
    """A server that a backup is restored to."""

    @property
    def tools(self) -> PostgresTools:
        """Programs of its major version, on this machine."""

    @property
    def workspace(self) -> Workspace | None:
        """Where those programs run, unprivileged; None where they need our own way to the server."""

    def dsn(self, dbname: str = "postgres") -> str:
        """Return the connection string of one of its databases, as a role that may make everything in a dump."""
