"""A database of ours beside the living one.

PostgreSQL cannot create a database and mark it in one transaction, so that a process that dies in between leaves one
without a mark, which nobody may then drop. So it is created under a name that only the journal knows, marked, and given
its own name last: what bears that name without a mark is somebody else's, and what bears the journal's name is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from runbook_lib.errors import Denied, ProfileInvalid, TargetRefused
from runbook_lib.reach import postgres
from runbook_lib.reach.postgres import DriverError
from runbook_lib.safety import ownership
from runbook_lib.safety.act import Act, Before
from runbook_lib.safety.systems import Systems

_LONGEST_NAME_BYTES = 63
_TAKEN = "42P04"


@dataclass(frozen=True)
class MakeDatabase(Act):
    """Create an empty database that bears our mark."""

    kind: ClassVar[str] = "make a database"

    database: str
    """Its name."""
    token: str
    """What the mark says; nobody else can know it. It is part of the name it is born with, so: letters and digits."""
    kind_of: str = "TEMPLATE template0"
    """What kind of database it is: the options of ``CREATE DATABASE``, as `DatabaseProperties.options` writes them."""

    @property
    def born_as(self) -> str:
        """The name it has until it bears the mark."""
        return f"runbook_{self.token}"

    def look(self, systems: Systems) -> Before:
        """See that there is none of that name, and can be one. Raise `TargetRefused` where there is."""
        if len(self.database.encode()) > _LONGEST_NAME_BYTES:
            raise ProfileInvalid(
                f"to make the database {self.database}",
                where=postgres.describe(systems.dsn),
                why=f"PostgreSQL cuts a name after {_LONGEST_NAME_BYTES} bytes, and would make one of another name",
                remedy="choose a shorter name",
            )
        with systems.control() as session:
            if ownership.exists(session, self.database):
                raise TargetRefused(
                    f"to make the database {self.database}",
                    where=postgres.describe(session.dsn),
                    why="there is one of that name already",
                    remedy=f"choose another name, or look whose it is and drop it: DROP DATABASE {self.database}",
                )
        return {}

    def describe(self, before: Before) -> str:  # noqa: ARG002
        """Say what is made."""
        return f"make an empty database {self.database}"

    def describe_undoing(self, before: Before) -> str:  # noqa: ARG002
        """Say what is dropped."""
        return f"drop the database {self.database}"

    def do(self, systems: Systems, before: Before) -> None:  # noqa: ARG002
        """Create, mark and name it."""
        with systems.alone(self.born_as) as session:
            try:
                session.execute(f"CREATE DATABASE {postgres.identifier(self.born_as)} {self.kind_of}")
                ownership.mark(session, self.born_as, self.token)
                session.execute(
                    f"ALTER DATABASE {postgres.identifier(self.born_as)} RENAME TO {postgres.identifier(self.database)}"
                )
            except DriverError as refused:
                raise Denied(
                    f"to make the database {self.database}",
                    where=postgres.describe(session.dsn),
                    why=str(refused).splitlines()[0],
                    remedy="look whose database it is"
                    if refused.sqlstate == _TAKEN
                    else "connect as a role that may create databases",
                ) from refused

    def undo(self, systems: Systems, before: Before) -> str:  # noqa: ARG002
        """Drop it under whichever of its names it is there; leave alone what bears another mark."""
        with systems.alone(self.born_as) as session:
            if ownership.exists(session, self.born_as):
                ownership.mark(session, self.born_as, self.token)  # the name proves that it is ours
                ownership.remove(session, self.born_as)
                return f"{self.born_as} is dropped"
            owner = ownership.owner_of(session, self.database)
            if owner == self.token:
                ownership.remove(session, self.database)
                return f"{self.database} is dropped"
        return f"{self.database} was not there" if owner is None else f"{self.database} is not ours: left alone"
