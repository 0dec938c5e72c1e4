"""What restores keep, and what becomes of it when its time has come.

A full restore keeps the database that it replaced, a merge what it needs to be taken back, each with a mark that says
until when. Without somebody who drops them a disk fills up with good intentions; and whoever drops them by hand, at
three in the morning and from a list of names that look alike, will one day drop the wrong one.

Dropping is the one act of this runbook that nothing takes back. So it is done as late and as narrowly as can be: what
is dropped bears our mark, belongs to this database, is past its time by the moment that was given, is shut, and has
nobody inside, all of it asked once more when the lock is held. A database is first renamed to a name that only the
journal knows, in one transaction with a look at its oid, and dropped by that name: whatever anybody calls or renames
meanwhile, it is no other one. Up to the drop itself, recovery puts everything back; behind it, it says that it is gone.
Each is kept by itself once it is gone, so that one that comes to grief is not a reason to announce the others again.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from runbook_lib.errors import TargetRefused, ToolFailed, WaitTimedOut
from runbook_lib.outcome import Check, Finding, Outcome
from runbook_lib.reach import postgres
from runbook_lib.reach.postgres import DriverError, Session
from runbook_lib.restore import staging
from runbook_lib.restore.staging import Mark, schema_of
from runbook_lib.restore.swap import KEPT_AS, KeptDatabase, kept, place_of
from runbook_lib.safety.act import Act, Before
from runbook_lib.safety.permit import Procedure
from runbook_lib.safety.systems import Systems

_IN_USE = "55006"
_DEPENDED_UPON = "2BP01"
_LOCKED = "55P03"
_LOCK_SECONDS = 2
_REMEDY = "have it dropped: features/restore/kept_databases.feature"


@dataclass(frozen=True)
class Kept:
    """Everything that restores of one database keep, at one moment."""

    living: str
    """The living database's name."""
    where: str
    """Where it is."""
    now: datetime
    """The moment by which it is judged what is past its time."""
    databases: Sequence[KeptDatabase]
    """The databases that were replaced."""
    merges: Sequence[Mark]
    """The merges whose schemas are there."""

    @classmethod
    def of(cls, session: Session, living: str, now: datetime) -> Kept:
        """List what is kept of a database, by a session in it.

        :param now: the moment to judge by, with its offset
        """
        theirs = tuple(each for each in kept(session) if _was_replaced_in(living, each.name))
        return cls(living, postgres.describe(session.dsn), now, theirs, tuple(staging.marks(session)))

    @property
    def table(self) -> Sequence[Mapping[str, object]]:
        """What is kept, and until when, a row each."""
        databases = [
            {"kept": each.name, "what": "the database that was replaced", "until": each.until}
            for each in self.databases
        ]
        merges = [
            {"kept": schema_of(each.token), "what": f"a merge into {each.table}", "until": each.until}
            for each in self.merges
        ]
        return [*databases, *merges]

    @property
    def names(self) -> frozenset[str]:
        """The names of everything."""
        return frozenset(each.name for each in self.databases) | {schema_of(each.token) for each in self.merges}

    @property
    def acts(self) -> Sequence[Act]:
        """The acts that drop what is past its time, the oldest first, where nothing keeps them from it."""
        at = self.now.isoformat(timespec="milliseconds")
        databases = (
            DropKeptDatabase(self.living, each.name, each.oid, secrets.token_hex(8), at)
            for each in sorted(self.databases, key=lambda each: each.name)
            if not why_kept(each, self.now)
        )
        merges = (
            DropMerge(each.token, each.table, at) for each in self.merges if not _why_not_yet(each.until, self.now)
        )
        return (*databases, *merges)

    @property
    def nothing_is_past_its_time(self) -> Check:
        """Say whether everything that is kept is still to be kept."""
        looked_at = f"{len(self.databases)} databases that were replaced, {len(self.merges)} merges"
        return Check("nothing is kept past its time", self.where, looked_at, tuple(self._findings()))

    def _findings(self) -> Iterator[Finding]:
        for database in self.databases:
            yield from self._finding("kept.database", database.name, database.until, _obstacle(database))
        for merge in self.merges:
            says = f"what was in {merge.table} before the merge of {merge.at}"
            yield from self._finding("kept.merge", schema_of(merge.token), merge.until, "", says)

    def _finding(self, check: str, name: str, until: str, obstacle: str, what: str = "") -> Iterator[Finding]:
        moment = _moment(until)
        if moment is None:
            remedy = "look who wrote it; to have it kept, write a moment with its offset"
            yield Finding(check, name, f"until when it is kept cannot be read: {until!r}", Outcome.UNPROVEN, remedy)
        elif moment < self.now:
            told = f"{what}{': ' if what else ''}it was kept until {until}, and is still there"
            yield Finding(check, name, f"{told}{'; ' if obstacle else ''}{obstacle}", remedy=_REMEDY)


def why_kept(database: KeptDatabase, now: datetime) -> str:
    """Return why a database that was replaced may not be dropped at a moment; empty where it may."""
    return _why_not_yet(database.until, now) or _obstacle(database)


def drop(acts: Sequence[Act], procedure: Procedure) -> None:
    """Carry out what `Kept.acts` gave. What is dropped is not announced any more: nothing takes it back."""
    for act in acts:
        procedure.do(act)
        procedure.keep(act)


def only_what_was_past_its_time_is_gone(before: Kept, after: Kept) -> Check:
    """Say whether what was kept before is kept still, but for what was past its time by then."""
    past = {finding.subject for finding in before.nothing_is_past_its_time.findings}
    gone = sorted(before.names - after.names - past)
    findings = tuple(Finding("kept.gone", name, "it is gone, and was not past its time") for name in gone)
    looked_at = f"{len(before.names - past)} that were not past their time, {len(past)} that were"
    return Check("what is not past its time is still there", after.where, looked_at, findings)


@dataclass(frozen=True)
class DropKeptDatabase(Act):
    """Drop a database that was replaced, and is past its time."""

    kind: ClassVar[str] = "drop a database that was kept"

    living: str
    """The living database's name."""
    database: str
    """The name of the one that is dropped."""
    oid: int
    """Its oid."""
    token: str
    """What its last name ends with; nobody else can know it: letters and digits."""
    at: str
    """The moment by which it is past its time, in ISO form."""

    @property
    def aside(self) -> str:
        """The name that it is dropped by."""
        return f"runbook_drop_{self.token}"

    def look(self, systems: Systems) -> Before:
        """See that it may be dropped. Raise `TargetRefused` where it may not."""
        with systems.control(read_only=True) as session:
            return {"until": self._must_be_past(session).until}

    def describe(self, before: Before) -> str:
        """Say what is dropped."""
        return f"drop the database {self.database}, which was kept until {before['until']}"

    def describe_undoing(self, before: Before) -> str:  # noqa: ARG002
        """Say that there is no way back."""
        return f"give {self.database} its name back while it is there; once it is dropped, nothing brings it back"

    def do(self, systems: Systems, before: Before) -> None:  # noqa: ARG002
        """Rename it to where nobody finds it, see that it is the one, and drop it."""
        with systems.alone(place_of(self.living)) as session:
            self._must_be_past(session)
            with self._explained(session):
                with session.transaction():
                    session.execute(f"ALTER DATABASE {postgres.identifier(self.database)} RENAME TO {self.aside}")
                    if (found := self._called(session)) != self.aside:
                        raise self._refused(session, f"it is another database by now, and the one is called {found!r}")
                session.execute(f"DROP DATABASE {self.aside}")
            if self._called(session):
                raise ToolFailed(
                    f"to drop the database {self.database}",
                    where=postgres.describe(session.dsn),
                    why="the server claims that it was dropped, and it is still there",
                    remedy="look at pg_database before anything else is done",
                )

    def undo(self, systems: Systems, before: Before) -> str:
        """Give it its name back, if it is still there."""
        with systems.alone(place_of(self.living)) as session:
            name = self._called(session)
            if name == self.database:
                return f"{self.database} is there, under its own name"
            if not name:
                return f"{self.database} is dropped: it was kept until {before['until']}, and nothing brings it back"
            if name != self.aside:
                return f"{self.database} is called {name} by now: left as it is"
            if session.value("SELECT datconnlimit = -2 FROM pg_catalog.pg_database WHERE oid = %s", self.oid):
                session.execute(f"DROP DATABASE {self.aside}")
                return f"{self.database} was half dropped, and nobody could use it any more: it is dropped"
            session.execute(f"ALTER DATABASE {self.aside} RENAME TO {postgres.identifier(self.database)}")
            return f"{self.database} has its name again"

    def _called(self, session: Session) -> str:
        found = session.rows("SELECT datname AS name FROM pg_catalog.pg_database WHERE oid = %s", self.oid)
        return str(found[0]["name"]) if found else ""

    def _must_be_past(self, session: Session) -> KeptDatabase:
        found = next((each for each in kept(session) if each.name == self.database), None)
        if found is None or found.oid != self.oid:
            raise self._refused(session, "it is not there, or bears no mark of ours, or is another one by now")
        if not _was_replaced_in(self.living, self.database):
            raise self._refused(session, f"its name is not that of a database that was replaced in {self.living}")
        if why := why_kept(found, datetime.fromisoformat(self.at)):
            raise self._refused(session, why)
        return found

    @contextmanager
    def _explained(self, session: Session) -> Iterator[None]:
        try:
            yield
        except DriverError as refused:
            if refused.sqlstate != _IN_USE:
                raise
            raise self._refused(session, str(refused).splitlines()[0]) from refused

    def _refused(self, session: Session, why: str) -> TargetRefused:
        return TargetRefused(
            f"to drop the database {self.database}",
            where=postgres.describe(session.dsn),
            why=why,
            remedy="look whose it is and who uses it; nothing of it was altered",
        )


@dataclass(frozen=True)
class DropMerge(Act):
    """Drop what a merge keeps to be taken back, when it is past its time."""

    kind: ClassVar[str] = "drop what a merge kept"

    token: str
    """Whose it is."""
    table: str
    """The table that rows were merged into."""
    at: str
    """The moment by which it is past its time, in ISO form."""

    def look(self, systems: Systems) -> Before:
        """See that it may be dropped. Raise `TargetRefused` where it may not."""
        with systems.inside(read_only=True) as session:
            return {"until": self._must_be_past(session).until}

    def describe(self, before: Before) -> str:
        """Say what is dropped."""
        return (
            f"drop the schema {schema_of(self.token)}, which kept what was in {self.table} before a merge,"
            f" until {before['until']}"
        )

    def describe_undoing(self, before: Before) -> str:  # noqa: ARG002
        """Say that there is no way back."""
        return "nothing brings it back: the merge can then not be taken back any more"

    def do(self, systems: Systems, before: Before) -> None:  # noqa: ARG002
        """Drop its tables and the schema in one transaction, and nothing that others made of them or put there."""
        schema = postgres.identifier(schema_of(self.token))
        with systems.alone(schema_of(self.token), inside=True) as session:
            staging.as_a_replica(session)
            session.execute(f"SET lock_timeout = '{_LOCK_SECONDS}s'")
            try:
                with session.transaction():
                    self._must_be_past(session)
                    session.execute(f"DROP TABLE {schema}.incoming, {schema}.before, {schema}.after RESTRICT")
                    session.execute(f"DROP SCHEMA {schema} RESTRICT")
            except DriverError as refused:
                if refused.sqlstate == _LOCKED:
                    raise WaitTimedOut(
                        f"the tables of {schema_of(self.token)} to be free",
                        where=postgres.describe(session.dsn),
                        why=f"somebody reads them, and nothing was changed: {str(refused).splitlines()[0]}",
                        remedy="end the sessions that hold them (SELECT * FROM pg_locks WHERE NOT granted)",
                    ) from refused
                if refused.sqlstate != _DEPENDED_UPON:
                    raise
                raise self._refused(
                    session, f"others made something of it: {str(refused).splitlines()[0]}"
                ) from refused

    def undo(self, systems: Systems, before: Before) -> str:
        """Say whether it is still there: it is dropped in one transaction, or not at all."""
        with systems.alone(schema_of(self.token), inside=True) as session:
            if staging.marks(session, self.token):
                return f"the schema {schema_of(self.token)} is there"
        return (
            f"the schema {schema_of(self.token)} is dropped: it was kept until {before['until']}, and nothing brings"
            " it back"
        )

    def _must_be_past(self, session: Session) -> Mark:
        found = next(iter(staging.marks(session, self.token)), None)
        if found is None:
            raise self._refused(session, "it is not there, or bears no mark of ours")
        if why := _why_not_yet(found.until, datetime.fromisoformat(self.at)):
            raise self._refused(session, why)
        return found

    def _refused(self, session: Session, why: str) -> TargetRefused:
        return TargetRefused(
            f"to drop the schema {schema_of(self.token)}",
            where=postgres.describe(session.dsn),
            why=why,
            remedy="look whose it is and who uses it; nothing of it was altered",
        )


def _was_replaced_in(living: str, name: str) -> bool:
    """Return whether a name is one that a full restore gives what it replaces: another one was given by hand."""
    return re.fullmatch(rf"{re.escape(living + KEPT_AS)}\d{{8}}_\d{{6}}", name) is not None


def _why_not_yet(until: str, now: datetime) -> str:
    moment = _moment(until)
    if moment is None:
        return f"until when it is kept cannot be read: {until!r}"
    return f"it is kept until {until}" if moment >= now else ""


def _obstacle(database: KeptDatabase) -> str:
    if database.is_half_dropped:
        return ""
    if database.inside:
        return f"{database.inside} sessions or prepared transactions are in it"
    return "its door is open: somebody has a use for it" if database.allows else ""


def _moment(until: str) -> datetime | None:
    """Read a moment; None where it is none, or says nothing of its offset and so may be another one."""
    try:
        found = datetime.fromisoformat(until)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None
