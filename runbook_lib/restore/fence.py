"""Keeping everybody out of a database.

``pg_terminate_backend`` alone fences nobody: a pool is back before the next statement runs. So the door is shut first,
for everybody, and then those who are inside are asked to leave; what is done to the database meanwhile is done from
another one. Where nobody may be put out in time, the door is opened again and nothing was done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from runbook_lib.errors import Denied, NotFound
from runbook_lib.reach import postgres
from runbook_lib.reach.postgres import DriverError, Row, Session
from runbook_lib.safety.act import Act, Before
from runbook_lib.safety.systems import Systems
from runbook_lib.waiting import wait_for

_TERMINATE_MILLISECONDS = 5_000


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

    def do(self, systems: Systems, before: Before) -> None:  # noqa: ARG002
        """Shut the door, put out who is inside, and see that it is empty."""
        with systems.control() as session:
            self._allow(session, allows=False)
            wait_for(
                f"the database {self.database} to be empty",
                lambda: self._put_out(session),
                where=postgres.describe(systems.dsn),
                within_seconds=self.within_seconds,
                until=lambda left: left == [],
                remedy="look at the sessions that are left (pg_stat_activity, pg_prepared_xacts) and end them yourself",
            )

    def undo(self, systems: Systems, before: Before) -> str:
        """Open the door again, if it is still this database and its door is shut."""
        with systems.control() as session:
            try:
                found = self._state(session)
            except NotFound:
                return f"there is no database {self.database} any more"
            if found["oid"] != before["oid"]:
                return f"{self.database} is another database by now: left as it is"
            if found["allows"] == before["allows"]:
                return f"the fence of {self.database} is down"
            self._allow(session, allows=before["allows"])
            return f"everybody may connect to {self.database} again"

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

    def _allow(self, session: Session, *, allows: bool) -> None:
        try:
            session.execute(
                f"ALTER DATABASE {postgres.identifier(self.database)} WITH ALLOW_CONNECTIONS {str(allows).lower()}"
            )
        except DriverError as refused:
            raise Denied(
                f"to {'open' if allows else 'shut'} the database {self.database}",
                where=postgres.describe(session.dsn),
                why=str(refused).splitlines()[0],
                remedy="connect as a superuser, or as the database's owner",
            ) from refused
        if self._state(session)["allows"] is not allows:
            raise Denied(
                f"to {'open' if allows else 'shut'} the database {self.database}",
                where=postgres.describe(session.dsn),
                why="the server claims that it is done, and it is not",
                remedy="look at pg_database.datallowconn",
            )

    def _put_out(self, session: Session) -> list[Row]:
        return session.rows(
            postgres.load_sql(__package__, "put_out"),
            database=self.database,
            timeout_milliseconds=_TERMINATE_MILLISECONDS,
        )
