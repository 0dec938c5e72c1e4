"""Waiting for what clients have seen."""

from __future__ import annotations

from collections.abc import Callable

from runbook_lib.failover.clients import Clients
from runbook_lib.failover.history import Attempt
from runbook_lib.waiting import wait_for


def acknowledged(each: Attempt) -> bool:
    return each.acknowledged


def failed(each: Attempt) -> bool:
    return each.failed


def await_attempts(
    clients: Clients, count: int, which: Callable[[Attempt], bool] = acknowledged, *, client: str = "prober"
) -> None:
    """Wait until a client has seen so many more attempts of a kind."""
    begun = _count(clients, which, client)
    wait_for(
        f"{count} more attempts of {client}",
        lambda: _count(clients, which, client) - begun >= count,
        where=str(clients.folder),
        within_seconds=20,
    )


def _count(clients: Clients, which: Callable[[Attempt], bool], client: str) -> int:
    return sum(which(each) for each in clients.history().attempts if each.client == client)
