"""Keeping everybody out of a database.

``pg_terminate_backend`` alone fences nobody: a pool is back before the next statement runs. So the door is shut first,
for everybody; then those on its threshold are let pass, who saw it open and are in no list yet; and then those who are
inside are asked to leave. What is done to the database meanwhile is done from another one. Where nobody may be put out
in time, the door is opened again and nothing was done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from runbook_lib.errors import Denied, NotFound, ToolFailed
from runbook_lib.reach import postgres
from runbook_lib.reach.postgres import DriverError, Row, Session
from runbook_lib.safety.act import Act, Before
from runbook_lib.safety.systems import Systems
from runbook_lib.waiting import wait_for


@dataclass(frozen=True)
class FenceDatabase(Act):
    """Let nobody connect to a database, and put out whoever is connected."""

    kind: ClassVar[str] = "fence a database"

    database: str
    """The database's name."""
    within_seconds: float = 30.0
    """How long those inside may take to be gone."""

    def look(self, systems: Systems) -> Before:
        """Read who may connect, and who is."""
        with systems.control() as session:
            found = self._state(session)
            return {"oid": found["oid"], "allows": found["allows"], "connected": found["connected"]}

    def describe(self, before: Before) -> str:
        """Say how many are put out."""
        return f"let nobody connect to {self.database}, and put out the {before['connected']} sessions in it"

    def describe_undoing(self, before: Before) -> str:
        """Say who may connect again."""
        return f"let {'everybody' if before['allows'] else 'nobody, as before,'} connect to {self.database}"

    def do(self, systems: Systems, before: Before) -> None:
        """Shut the door, put out who is inside, and see that it is empty."""
        with systems.alone(self._lock) as session:
            _allow(session, self.database, allows=False)
            # Whoever was on the threshold when the door was shut is inside before anybody lists them.
            entering = {row["pid"] for row in _entering(session, before["oid"])}
            wait_for(
                f"the database {self.database} to be empty",
                lambda: (
                    [row for row in _entering(session, before["oid"]) if row["pid"] in entering]
                    or self._put_out(session)
                ),
                where=postgres.describe(systems.dsn),
                within_seconds=self.within_seconds,
                until=lambda left: left == [],
                remedy="look at the sessions that are left (pg_stat_activity, pg_prepared_xacts) and end them yourself",
            )

    def undo(self, systems: Systems, before: Before) -> str:
        """Open the door again if it is shut, under whatever name the database goes by now."""
        with systems.alone(self._lock) as session:
            found = session.rows(
                "SELECT datname AS name, datallowconn AS allows FROM pg_catalog.pg_database WHERE oid = %s",
                before["oid"],
            )
            if not found:
                return f"the database {self.database} is not there any more"
            name, allows = found[0]["name"], found[0]["allows"]
            called = name if name == self.database else f"{name}, which was {self.database},"
            if allows == before["allows"]:
                return f"the fence of {called} is down"
            _allow(session, name, allows=before["allows"])
            return f"{'everybody' if before['allows'] else 'nobody, as before,'} may connect to {called} again"

    @property
    def _lock(self) -> str:
        return f"the door of {self.database}"

    def _state(self, session: Session) -> Row:
        found = session.rows(postgres.load_sql(__package__, "fence"), database=self.database)
        if not found:
            raise NotFound(
                f"the database {self.database}",
                where=postgres.describe(session.dsn),
                why="there is none of that name",
                remedy="correct the name in the profile's connection string",
            )
        return found[0]

    def _put_out(self, session: Session) -> list[Row]:
        try:
            return session.rows(postgres.load_sql(__package__, "put_out"), database=self.database)
        except Denied as refused:
            raise Denied(
                f"to put everybody out of {self.database}",
                where=refused.where,
                why=refused.why,
                remedy="connect as a superuser, or as a role with pg_signal_backend where no superuser is inside",
            ) from refused


def _entering(session: Session, oid: int) -> list[Row]:
    return session.rows(postgres.load_sql(__package__, "entering"), oid=oid)


def _allow(session: Session, database: str, *, allows: bool) -> None:
    sought, where = f"to {'open' if allows else 'shut'} the database {database}", postgres.describe(session.dsn)
    try:
        session.execute(f"ALTER DATABASE {postgres.identifier(database)} WITH ALLOW_CONNECTIONS {str(allows).lower()}")
    except DriverError as refused:
        raise Denied(
            sought,
            where=where,
            why=str(refused).splitlines()[0],
            remedy="connect as a superuser, or as the database's owner",
        ) from refused
    found = session.rows("SELECT datallowconn AS allows FROM pg_catalog.pg_database WHERE datname = %s", database)
    if [row["allows"] for row in found] != [allows]:
        raise ToolFailed(
            sought,
            where=where,
            why="the server claims that it is done, and it is not",
            remedy="look at pg_database.datallowconn",
        )
