"""A database is dropped only if a drill made it, and then whoever is connected to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from runbook_lib.backup import definitions, properties
from runbook_lib.errors import TargetRefused
from runbook_lib.reach import postgres
from runbook_lib.reach.postgres import Session
from runbook_lib.safety import ownership
from tests.backup.real import Databases


@pytest.fixture
def session(databases: Databases) -> Iterator[Session]:
    with postgres.session(databases.server.dsn(), read_only=False) as opened:
        yield opened


def named(dsn: str) -> str:
    return postgres.database_of(dsn)


def test_somebody_elses_is_refused_and_stays(databases: Databases, session: Session) -> None:
    name = named(databases.make("CREATE TABLE public.t (n int)"))
    with pytest.raises(TargetRefused, match="it bears no mark of ours") as raised:
        ownership.remove(session, name)
    assert raised.value.sought == f"the database {name}"
    assert f"DROP DATABASE {name}" in raised.value.remedy
    assert ownership.exists(session, name)
    assert ownership.owner_of(session, name) == ""


def test_ours_is_dropped(databases: Databases, session: Session) -> None:
    name = named(databases.make())
    ownership.mark(session, name, "tensafe-ab12")
    assert ownership.owner_of(session, name) == "tensafe-ab12"
    assert ownership.remove(session, name)
    assert not ownership.exists(session, name)


def test_ours_is_dropped_with_clients_connected(databases: Databases, session: Session) -> None:
    dsn = databases.make()
    name = named(dsn)
    ownership.mark(session, name, "us")
    with postgres.session(dsn) as client:
        assert ownership.remove(session, name)
        with pytest.raises(postgres.DriverError):
            client.rows("SELECT 1")


def test_none_is_no_error(session: Session) -> None:
    assert not ownership.remove(session, "nowhere")
    assert ownership.owner_of(session, "nowhere") is None


@pytest.mark.parametrize("owner", ["it's", "a=b,c", 'with "quotes"', "per%cent"])
def test_any_mark_is_read_as_it_was_written(owner: str, databases: Databases, session: Session) -> None:
    name = named(databases.make())
    ownership.mark(session, name, owner)
    assert ownership.owner_of(session, name) == owner
    assert ownership.remove(session, name)


def test_a_setting_that_only_looks_like_a_mark(databases: Databases, session: Session) -> None:
    name = named(databases.make())
    session.execute(f"ALTER DATABASE {name} SET tensafe.ownedXby = 'us'")
    session.execute(f"ALTER DATABASE {name} SET other.note = 'tensafe.owned_by=us'")
    session.execute(f"ALTER ROLE postgres IN DATABASE {name} SET tensafe.owned_by = 'us'")
    with pytest.raises(TargetRefused):
        ownership.remove(session, name)


def test_a_copy_of_ours_is_not_ours(databases: Databases, session: Session) -> None:
    """CREATE DATABASE ... TEMPLATE takes no settings along: whoever copied it wants to keep the copy."""
    ours = named(databases.make())
    ownership.mark(session, ours, "us")
    copy = named(databases.make(like=ours))
    assert ownership.owner_of(session, copy) == ""
    assert ownership.remove(session, ours)


def test_the_mark_is_no_part_of_the_content(databases: Databases, session: Session) -> None:
    dsn = databases.make()
    with postgres.session(dsn) as before:
        definitions_before, properties_before = definitions.definitions(before), properties.read(before)
    ownership.mark(session, named(dsn), "us")
    with postgres.session(dsn) as after:
        assert definitions.definitions(after) == definitions_before
        assert properties.read(after) == properties_before
