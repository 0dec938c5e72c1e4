"""What we made is dropped, in whatever state its maker died; what somebody else made never is."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo

from runbook_lib.errors import Denied, ProfileInvalid, TargetRefused
from runbook_lib.reach import postgres
from runbook_lib.reach.postgres import Session
from runbook_lib.restore.made_database import MakeDatabase
from runbook_lib.safety import ownership
from runbook_lib.safety.permit import Permit
from runbook_lib.safety.systems import Systems
from tests.backup.real import Databases

PROJECT = Path(__file__).parents[2]
PERMIT = Permit("here", granted=True, reason="a test")
ACT = MakeDatabase("app_rehearsal", "0123abcd")
KILLED = """
import os, signal, sys
from runbook_lib.reach.postgres import Session
from runbook_lib.restore.made_database import MakeDatabase
from runbook_lib.safety.systems import Systems

dsn, statements, sent = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "sent"
execute, count = Session.execute, 0

def until_killed(session, statement, *arguments):
    global count
    count += statement.split()[0] in ("CREATE", "ALTER")
    if count > statements:
        if sent:
            session.connection.pgconn.send_query(statement.encode())
            session.connection.pgconn.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    execute(session, statement, *arguments)

Session.execute = until_killed
MakeDatabase("app_rehearsal", "0123abcd").do(Systems(dsn), {})
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def session(databases: Databases) -> Iterator[Session]:
    with postgres.session(databases.server.dsn(), read_only=False) as opened:
        yield opened
        for name in (ACT.database, ACT.born_as):
            opened.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture
def systems(databases: Databases, session: Session) -> Systems:
    return Systems(databases.server.dsn("app"))


def there(session: Session) -> dict[str, str]:
    """Our two names, and what the mark of each says, as far as they are there."""
    found = {name: ownership.owner_of(session, name) for name in (ACT.database, ACT.born_as)}
    return {name: owner for name, owner in found.items() if owner is not None}


def killed(systems: Systems, after: int, sent: str = "kept back") -> None:
    ran = subprocess.run(
        [sys.executable, "-c", KILLED, systems.dsn, str(after), sent], cwd=PROJECT, timeout=60, check=False
    )
    assert ran.returncode == -signal.SIGKILL


def test_it_bears_our_mark_from_when_it_bears_its_name(systems: Systems, session: Session) -> None:
    with PERMIT.procedure("make it", systems) as procedure:
        procedure.do(ACT)
        assert there(session) == {"app_rehearsal": "0123abcd"}
    assert there(session) == {}


@pytest.mark.parametrize(
    ("after", "left"),
    [
        (0, {}),
        (1, {"runbook_0123abcd": ""}),
        (2, {"runbook_0123abcd": "0123abcd"}),
        (3, {"app_rehearsal": "0123abcd"}),
    ],
    ids=["before all", "created", "marked", "named"],
)
def test_killed_in_between(after: int, left: dict[str, str], systems: Systems, session: Session) -> None:
    killed(systems, after)
    assert there(session) == left
    for _ in range(2):
        ACT.undo(systems, {})
        assert there(session) == {}


@pytest.mark.parametrize("after", [0, 1, 2])
def test_killed_while_the_server_goes_on(after: int, systems: Systems, session: Session) -> None:
    """The client is gone and its statement is not: whoever looks at once finds less than there will be in a moment."""
    for _ in range(3):
        killed(systems, after, "sent")
        ACT.undo(systems, {})
        assert there(session) == {}
        with systems.alone(ACT.born_as):  # nobody is at work any more
            assert there(session) == {}


class TestSomebodyElses:
    def test_is_seen_before_anything_is_done(self, systems: Systems, session: Session) -> None:
        session.execute("CREATE DATABASE app_rehearsal")
        with pytest.raises(TargetRefused, match="there is one of that name already"):
            ACT.look(systems)
        assert there(session) == {"app_rehearsal": ""}

    @pytest.mark.parametrize("mark", ["", "another run"])
    def test_that_came_meanwhile_stays(self, mark: str, systems: Systems, session: Session) -> None:
        """The act fails, and takes back its own alone."""

        class Late(MakeDatabase):
            def look(self, systems: Systems) -> dict[str, object]:  # it saw nothing yet
                return {}

        session.execute("CREATE DATABASE app_rehearsal")
        if mark:
            ownership.mark(session, "app_rehearsal", mark)
        late = Late(ACT.database, ACT.token)
        with pytest.raises(Denied, match="already exists"), PERMIT.procedure("make it", systems) as procedure:
            procedure.do(late)
        assert there(session) == {"app_rehearsal": mark}
        assert ACT.undo(systems, {}) == "app_rehearsal is not ours: left alone"
        assert there(session) == {"app_rehearsal": mark}


def test_somebody_is_connected_to_it(systems: Systems, session: Session, databases: Databases) -> None:
    ACT.do(systems, {})
    with postgres.session(databases.server.dsn("app_rehearsal")):
        assert ACT.undo(systems, {}) == "app_rehearsal is dropped"
    assert there(session) == {}


def test_a_role_that_may_not(systems: Systems, session: Session) -> None:
    session.execute("CREATE ROLE may_not LOGIN")
    theirs = Systems(make_conninfo(systems.dsn, user="may_not"))
    with pytest.raises(Denied, match="permission denied to create database"):
        ACT.do(theirs, {})
    ACT.do(systems, {})
    with pytest.raises(Denied, match="must be owner"):
        ACT.undo(theirs, {})
    assert there(session) == {"app_rehearsal": "0123abcd"}
    session.execute("DROP ROLE may_not")


def test_a_name_that_postgresql_would_cut(systems: Systems) -> None:
    with pytest.raises(ProfileInvalid, match="cuts a name after 63 bytes"):
        MakeDatabase("ä" * 32, "0123").look(systems)
    assert MakeDatabase("ä" * 31, "0123").look(systems) == {}
