"""One database takes the place of another, in one transaction.

The runbook drops the living database before its successor is proven, which is the one step nobody can take back. Two
renames in one transaction do the same without it: whoever looks sees the one or the other, and never none; and what was
replaced is still there, shut and as it was, under a name that says since when.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from runbook_lib.errors import NotFound, TargetRefused, ToolFailed
from runbook_lib.reach import postgres
from runbook_lib.reach.postgres import DriverError, Row, Session
from runbook_lib.safety import ownership
from runbook_lib.safety.act import Act, Before
from runbook_lib.safety.systems import Systems
from runbook_lib.waiting import wait_for

KEPT_UNTIL = "tensafe.kept_until"
"""The setting that a replaced database bears: until when nobody may drop it."""
KEPT_AS = "_old_"
"""What stands in a replaced database's name between the one it had and the moment it was replaced."""

_IN_USE = "55006"
_EMPTY_SECONDS = 30.0


@dataclass(frozen=True)
class SwapDatabases(Act):
    """Rename the living database away and another one into its place."""

    kind: ClassVar[str] = "swap two databases"

    living: str
    """The name that applications connect to."""
    incoming: str
    """The name of the database that takes its place."""
    kept_as: str
    """The name that the replaced one has from then on."""
    kept_until: str
    """Until when the replaced one is kept, in ISO form with its offset."""

    def look(self, systems: Systems) -> Before:
        """See that both are there and the new name is not; remember which is which, and the incoming one's marks."""
        with systems.control() as session:
            rows = _states(session, (self.living, self.incoming, self.kept_as))
            if self.kept_as in rows:
                raise TargetRefused(
                    f"to keep {self.living} as {self.kept_as}",
                    where=postgres.describe(session.dsn),
                    why="there is a database of that name already",
                    remedy="choose another name",
                )
            for name in (self.living, self.incoming):
                if name not in rows:
                    raise NotFound(
                        f"the database {name}",
                        where=postgres.describe(session.dsn),
                        why="there is none of that name",
                        remedy="list the databases (\\l), and correct the name",
                    )
            incoming = rows[self.incoming]
            return {
                "living_oid": rows[self.living]["oid"],
                "incoming_oid": incoming["oid"],
                "incoming_owner": incoming["owner"],
                "incoming_kept_until": incoming["kept_until"],
                "incoming_allows": incoming["allows"],
            }

    def describe(self, before: Before) -> str:  # noqa: ARG002
        """Say what takes whose place."""
        return f"put {self.incoming} in the place of {self.living}, which is kept as {self.kept_as}"

    def describe_undoing(self, before: Before) -> str:  # noqa: ARG002
        """Say what is put back."""
        return f"put {self.kept_as} back in the place of {self.living}"

    def do(self, systems: Systems, before: Before) -> None:
        """Swap them, and see that they are swapped."""
        living, kept = postgres.identifier(self.living), postgres.identifier(self.kept_as)
        with systems.alone(self._lock) as session:
            self._exchange(
                session,
                (self.living, self.incoming),
                (
                    f"ALTER DATABASE {living} RENAME TO {kept}",
                    f"ALTER DATABASE {postgres.identifier(self.incoming)} RENAME TO {living}",
                    f"ALTER DATABASE {living} RESET {ownership.SETTING}",
                    f"ALTER DATABASE {living} RESET {KEPT_UNTIL}",
                    f"ALTER DATABASE {living} WITH ALLOW_CONNECTIONS true",
                    f"ALTER DATABASE {kept} SET {KEPT_UNTIL} = {postgres.literal(self.kept_until)}",
                ),
            )
            self._must_be(session, {self.living: before["incoming_oid"], self.kept_as: before["living_oid"]})

    def undo(self, systems: Systems, before: Before) -> str:
        """Swap them back, if they are swapped, with the marks that the incoming one had."""
        living, incoming = postgres.identifier(self.living), postgres.identifier(self.incoming)
        with systems.alone(self._lock) as session:
            rows = _states(session, (self.living, self.kept_as))
            is_living = rows.get(self.living, {}).get("oid")
            if is_living == before["living_oid"]:
                return f"{self.living} is in its own place"
            if is_living != before["incoming_oid"] or rows.get(self.kept_as, {}).get("oid") != before["living_oid"]:
                return f"{self.living} and {self.kept_as} are other databases by now: left as they are"
            marks = [
                f"ALTER DATABASE {incoming} SET {setting} = {postgres.literal(before[key])}"
                for setting, key in ((ownership.SETTING, "incoming_owner"), (KEPT_UNTIL, "incoming_kept_until"))
                if before[key]
            ]
            self._exchange(
                session,
                (self.living, self.kept_as),
                (
                    f"ALTER DATABASE {living} RENAME TO {incoming}",
                    f"ALTER DATABASE {postgres.identifier(self.kept_as)} RENAME TO {living}",
                    f"ALTER DATABASE {living} RESET {KEPT_UNTIL}",
                    f"ALTER DATABASE {incoming} WITH ALLOW_CONNECTIONS {str(before['incoming_allows']).lower()}",
                    *marks,
                ),
            )
            self._must_be(session, {self.living: before["living_oid"], self.incoming: before["incoming_oid"]})
            return f"{self.living} is in its own place again"

    @property
    def _lock(self) -> str:
        return place_of(self.living)

    def _exchange(self, session: Session, databases: Sequence[str], statements: Sequence[str]) -> None:
        """Carry out the renames in one transaction, once nobody is in either database."""

        def attempt() -> str:
            for database in databases:
                session.rows(postgres.load_sql(__package__, "put_out"), database=database)
            try:
                with session.transaction():
                    for statement in statements:
                        session.execute(statement)
            except DriverError as refused:
                if refused.sqlstate != _IN_USE:
                    raise
                return str(refused).splitlines()[0]
            return ""

        wait_for(
            f"{' and '.join(databases)} to be empty",
            attempt,
            where=postgres.describe(session.dsn),
            within_seconds=_EMPTY_SECONDS,
            until=lambda in_use: not in_use,
            remedy="shut them first (ALTER DATABASE ... ALLOW_CONNECTIONS false), and end who is still inside",
        )

    def _must_be(self, session: Session, expected: dict[str, int]) -> None:
        found = {name: row["oid"] for name, row in _states(session, tuple(expected)).items()}
        if found != expected:
            raise ToolFailed(
                f"to swap {self.living} and {self.incoming}",
                where=postgres.describe(session.dsn),
                why=f"the server claims that it is done, and finds {found} instead of {expected}",
                remedy="look at pg_database before anything else is done",
            )


@dataclass(frozen=True)
class KeptDatabase:
    """A database that was replaced and is kept."""

    name: str
    """Its name."""
    oid: int
    """Its oid."""
    until: str
    """Until when it is kept, in ISO form."""
    allows: bool
    """Whether anybody may connect to it."""
    inside: int = 0
    """How many sessions and prepared transactions are in it."""
    is_half_dropped: bool = False
    """Whether the server began to drop it and did not come to the end: nobody can use it any more."""


def place_of(living: str) -> str:
    """Return what is locked while a database is put into the living one's place, or one that was there is dropped."""
    return f"the place of {living}"


def kept(session: Session) -> list[KeptDatabase]:
    """List the databases that were replaced and are kept, the one replaced last first."""
    rows = session.rows(postgres.load_sql(__package__, "databases"), names=[])
    found = [
        KeptDatabase(
            row["name"], row["oid"], row["kept_until"], row["allows"], row["inside"], bool(row["is_half_dropped"])
        )
        for row in rows
        if row["kept_until"]
    ]
    return sorted(found, key=lambda each: each.until, reverse=True)


def _states(session: Session, names: Sequence[str]) -> dict[str, Row]:
    rows = session.rows(postgres.load_sql(__package__, "databases"), names=list(names))
    return {row["name"]: row for row in rows}
