"""Rows of a backup are merged into the living table, in one transaction, and the merge can be taken back.

The table stays: its oid, and with it everything that hangs on it. What is written is what was reviewed, and only where
nobody has been since. A missing row is inserted unless its key, or another unique value of it, is taken by now; a
changed row has its values back, if that was asked for, only while it still hashes to what it did when it was compared,
which the UPDATE itself asks of the row that it has locked. So writers go on, none of their work is overwritten, and
only who wants one of the very rows waits, until the end of one transaction.

Nothing fires: neither triggers nor the actions of foreign keys, see `runbook_lib.restore.staging.as_a_replica`. Nothing
checks foreign keys either, so that they are proven before the transaction ends, and so are constraints that wait for
that.

What was there before, and what was left, is kept: a row is put back where it is still as the merge left it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import ClassVar, Self

from runbook_lib.backup import audit_chain
from runbook_lib.backup.content import Content
from runbook_lib.errors import TargetRefused, ToolFailed, WaitTimedOut
from runbook_lib.reach import postgres
from runbook_lib.reach.postgres import DriverError, Session
from runbook_lib.restore import deferrable, foreign_keys, living_table, staging
from runbook_lib.restore.deferrable import Deferrable
from runbook_lib.restore.living_table import Key, LivingTable, listed
from runbook_lib.restore.staging import ACTION, CHANGED, MISSING, REVIEWED, Mark, StageRows
from runbook_lib.safety.act import Act, Before
from runbook_lib.safety.systems import Systems

AUDIT_LOG = "public.audit_logs"
"""The table whose rows are never changed."""
_BUSY = {"55P03": "somebody holds one of the rows", "40P01": "others and it would have waited for each other"}
_INTEGRITY = "23"
"""The class of errors by which PostgreSQL says that a constraint does not hold."""
_HANDED_OUT_AT_MOST = 1_000_000
"""How many values of a sequence are handed out to nobody, before it is set."""


@dataclass(frozen=True)
class Merged:
    """What a merge did."""

    inserted: int
    """Missing rows that are there again."""
    updated: int
    """Changed rows that have the backup's values back."""
    taken: int
    """Missing rows whose place was taken meanwhile, by their key or another unique value."""
    changed_meanwhile: int
    """Changed rows that were changed once more after they were compared, or whose identity no UPDATE may set."""

    def __str__(self) -> str:
        """Return it as one sentence."""
        return (
            f"{self.inserted} rows inserted, {self.updated} updated; left alone: {self.taken} whose place is taken,"
            f" {self.changed_meanwhile} that were changed meanwhile or have another identity"
        )


@dataclass(frozen=True)
class MergeTable(Act):
    """Write staged rows to the living table."""

    kind: ClassVar[str] = "merge rows into a table"

    token: str
    """Which staged rows."""
    table: str
    """The table, as it is typed in SQL."""
    oid: int
    """Its oid when the rows were compared."""
    key: Sequence[str]
    """The columns that tell its rows apart."""
    operators: Sequence[str]
    """The equality of each."""
    columns: Sequence[str]
    """The columns that are written."""
    changed_too: bool = False
    """Whether changed rows have the backup's values back; missing ones alone where not."""
    lock_timeout_seconds: float = 5.0
    """How long it waits for a row that somebody else holds; then nothing is done."""

    def look(self, systems: Systems) -> Before:
        """See that the table is the one that was compared, and count the rows that wait for it."""
        with systems.inside(read_only=True) as session:
            self._must_be_it(session, living_table.read(session, self.table))
            return {MISSING: self._waiting(session, MISSING), CHANGED: self._waiting(session, CHANGED)}

    def describe(self, before: Before) -> str:
        """Say how many rows are written."""
        says = f"insert the {before.get(MISSING, 0)} rows that are missing from {self.table}"
        if self.changed_too:
            says += f", and give {before.get(CHANGED, 0)} others back what the backup holds"
        return says

    def describe_undoing(self, before: Before) -> str:  # noqa: ARG002
        """Say what is put back."""
        return f"put {self.table} back as it was, as far as nobody has changed it since"

    def do(self, systems: Systems, before: Before) -> None:  # noqa: ARG002
        """Write the rows in one transaction, see that foreign keys hold, and keep what was there."""
        with systems.alone(self._lock, inside=True) as session:
            table = living_table.read(session, self.table)
            self._must_be_it(session, table)
            mark = staging.mark_of(session, self.token)
            with self._at_once(session, table):
                chain = self._broken_links(session)
                written = self._write(session, table)
                if written.inserted or written.updated:
                    self._move_sequences(session, table)
                self._must_not_break(session, chain)
                mark.changed(merge=self.arguments, merged=vars(written)).put(session)
                session.execute(f"TRUNCATE {self._staged('incoming')}")
            if written.inserted or written.updated:
                with suppress(DriverError):  # autovacuum does so sooner or later
                    session.execute(f"ANALYZE {table.qualified}")

    def undo(self, systems: Systems, before: Before) -> str:  # noqa: ARG002
        """Put back what is still as the merge left it, in one transaction."""
        with systems.alone(self._lock, inside=True) as session:
            found = staging.marks(session, self.token)
            if not found or not found[0].is_in_effect:
                return f"nothing is merged into {self.table}"
            table = living_table.read(session, self.table)
            self._must_be_it(session, table)
            merged = Merged(**found[0].merged)
            self._must_be_kept(session, merged)
            with self._at_once(session, table):
                waiting = deferrable.held(session, table) if merged.updated else []
                deleted, put_back = self._delete(session, table), self._put_back(session, table)
                if deleted or put_back:
                    same = self._same("t", "b")
                    now = f"(SELECT t.* FROM {table.rows} AS t JOIN {self._staged('before')} AS b ON {same})"
                    deferrable.must_hold(session, table, waiting, written=now, same=self._same)
                    foreign_keys.must_hold(session, table, written=now, lost=self._staged("after"))
                left = merged.inserted + merged.updated - deleted - put_back
                took = {"deleted": deleted, "put_back": put_back, "left_alone": left}
                found[0].changed(taken_back=took).put(session)
            says = f"{deleted} rows of {self.table} are deleted again, {put_back} have their values back"
            return f"{says}; {left} were changed since, or are referred to, and are left as they are" if left else says

    def expected_back(self, session: Session) -> Content:
        """Return what the table will hold once the merge is taken back, if nobody writes to it."""
        table = living_table.read(session, self.table)
        return Content(
            **session.row(
                "SELECT (n.rows - a.rows + b.rows)::bigint AS rows, (n.hash - a.hash + b.hash)::text AS hash FROM"
                f" {self._sum(table.rows, table)} AS n, {self._sum(self._staged('after'), table)} AS a,"
                f" {self._sum(self._staged('before'), table)} AS b"
            )
        )

    def content(self, session: Session) -> Content:
        """Return what the table holds."""
        table = living_table.read(session, self.table)
        return Content(**session.row(f"SELECT rows, hash::text FROM {self._sum(table.rows, table)} AS n"))

    @property
    def _lock(self) -> str:
        return f"the rows of {self.table}"

    def _sum(self, rows: str, table: LivingTable) -> str:
        total = f"coalesce(pg_catalog.sum({table.hash()}), 0)"
        return f"(SELECT pg_catalog.count(*) AS rows, {total} AS hash FROM {rows} AS t)"

    def _staged(self, name: str) -> str:
        return postgres.identifier(staging.schema_of(self.token), name)

    def _same(self, one: str, other: str) -> str:
        return Key(self.key, self.operators).same(one, other)

    def _waiting(self, session: Session, action: str) -> int:
        if not staging.marks(session, self.token):
            return 0  # nothing is staged yet: this is a plan
        query = f"SELECT pg_catalog.count(*) FROM {self._staged('incoming')} WHERE {_is(action)}"
        return int(session.value(query))

    def _must_be_it(self, session: Session, table: LivingTable) -> None:
        why = ""
        if table.oid != self.oid:
            why = f"it is another table by now: its oid was {self.oid}, and is {table.oid}"
        elif missing := sorted({*self.key, *self.columns} - set(table.names)):
            why = f"columns are gone since: {', '.join(missing)}"
        if why:
            raise TargetRefused(
                f"to write rows to {self.table}",
                where=postgres.describe(session.dsn),
                why=why,
                remedy="find out who changed it, and compare the rows anew",
            )

    def _must_be_kept(self, session: Session, merged: Merged) -> None:
        kept = session.value(f"SELECT pg_catalog.count(*) FROM {self._staged('after')}")
        if kept != merged.inserted + merged.updated:
            raise ToolFailed(
                f"to take the merge into {self.table} back",
                where=postgres.describe(session.dsn),
                why=f"{merged.inserted + merged.updated} rows were written, and {kept} are remembered: the server has"
                " crashed since, which empties unlogged tables",
                remedy=f"restore the table from a backup taken before the merge; then drop the schema"
                f" {staging.schema_of(self.token)}",
            )

    @contextmanager
    def _at_once(self, session: Session, table: LivingTable) -> Iterator[None]:
        """Do what is in the block in one transaction that fires nothing, and waits for nobody for long."""
        staging.as_a_replica(session)
        session.execute(f"SET lock_timeout = {round(self.lock_timeout_seconds * 1000)}")
        try:
            with session.transaction():
                triggers = session.rows(postgres.load_sql(__package__, "table_triggers"), oid=table.oid)
                if triggers and session.value(
                    f"SELECT EXISTS (SELECT FROM {self._staged('incoming')})"
                    f" OR EXISTS (SELECT FROM {self._staged('after')})"
                ):
                    with _switched_off(session, triggers):
                        yield
                else:
                    yield
        except DriverError as refused:
            if (refused.sqlstate or "").startswith(_INTEGRITY):
                raise ToolFailed(
                    f"to write rows to {self.table}",
                    where=postgres.describe(session.dsn),
                    why=f"one of its constraints refuses them, and nothing was changed: {str(refused).splitlines()[0]}",
                    remedy="look which constraint was added, or which rows took their place, since the backup",
                ) from refused
            if refused.sqlstate not in _BUSY:
                raise
            raise WaitTimedOut(
                f"the rows of {self.table} to be free",
                where=postgres.describe(session.dsn),
                why=f"{_BUSY[refused.sqlstate]}, and nothing was changed: {str(refused).splitlines()[0]}",
                remedy="end the sessions that hold them (SELECT * FROM pg_locks WHERE NOT granted), and try again",
            ) from refused

    def _write(self, session: Session, table: LivingTable) -> Merged:
        missing, changed = self._waiting(session, MISSING), self._waiting(session, CHANGED)
        waiting = deferrable.held(session, table) if missing or changed else []
        inserted = self._insert(session, table, waiting) if missing else 0
        updated = self._update(session, table) if changed and self.changed_too else 0
        if inserted or updated:
            after = self._staged("after")
            deferrable.must_hold(session, table, waiting, written=after, same=self._same)
            foreign_keys.must_hold(session, table, written=after, lost=self._staged("before"))
        return Merged(inserted, updated, missing - inserted, changed - updated if self.changed_too else 0)

    def _insert(self, session: Session, table: LivingTable, waiting: Sequence[Deferrable]) -> int:
        columns = listed(self.columns)
        # Without columns any unique value that is taken counts; PostgreSQL refuses that where one of them waits.
        taken = f"ON CONFLICT ({listed(self.key)})" if waiting else "ON CONFLICT"
        return int(
            session.value(
                f"WITH written AS (INSERT INTO {table.qualified} AS t ({columns}) OVERRIDING SYSTEM VALUE"
                f" SELECT {columns} FROM {self._staged('incoming')} WHERE {_is(MISSING)} {taken} DO NOTHING"
                f" RETURNING {listed(table.names, 't')}, {table.hash()} AS hash),"
                f" noted AS (INSERT INTO {self._staged('after')} SELECT {listed(table.names)}, '{MISSING}', hash"
                " FROM written RETURNING 1) SELECT pg_catalog.count(*) FROM noted"
            )
        )

    def _update(self, session: Session, table: LivingTable) -> int:
        fixed = [each.name for each in table.columns if each.is_always_identity]
        to_set = [name for name in self.columns if name not in (*self.key, *fixed)]
        if not to_set:
            return 0
        # What no UPDATE may set has to be right already.
        still = " AND ".join(
            [f"{self._same('t', 'i')} AND i.{_is(CHANGED)} AND {table.hash()} = i.{postgres.identifier(REVIEWED)}"]
            + [
                f"t.{postgres.identifier(name)} = i.{postgres.identifier(name)}"
                for name in fixed
                if name in self.columns and name not in self.key
            ]
        )
        # In the order of the key, so that two of the kind do not wait for each other.
        session.rows(
            f"SELECT pg_catalog.count(*) FROM (SELECT FROM {table.rows} AS t JOIN {self._staged('incoming')} AS i"
            f" ON {self._same('t', 'i')} WHERE i.{_is(CHANGED)} ORDER BY {listed(self.key, 't')}"
            " FOR NO KEY UPDATE OF t) AS held"
        )
        session.execute(
            f"INSERT INTO {self._staged('before')} SELECT {listed(table.names, 't')}, '{CHANGED}', {table.hash()}"
            f" FROM {table.rows} AS t JOIN {self._staged('incoming')} AS i ON {still}"
        )
        return int(
            session.value(
                f"WITH written AS (UPDATE {table.rows} AS t SET {_setting(to_set, 'i')}"
                f" FROM {self._staged('incoming')} AS i WHERE {still}"
                f" RETURNING {listed(table.names, 't')}, {table.hash()} AS hash),"
                f" noted AS (INSERT INTO {self._staged('after')} SELECT {listed(table.names)}, '{CHANGED}', hash"
                " FROM written RETURNING 1) SELECT pg_catalog.count(*) FROM noted"
            )
        )

    def _as_left(self, action: str, table: LivingTable) -> str:
        return f"{self._same('t', 'a')} AND a.{_is(action)} AND {table.hash()} = a.{postgres.identifier(REVIEWED)}"

    def _delete(self, session: Session, table: LivingTable) -> int:
        unreferred = "".join(
            f" AND NOT EXISTS (SELECT FROM {key.children} AS c WHERE {key.refers('t', 'c')})"
            for key in foreign_keys.of(session, table)
            if key.is_to_it
        )
        deleted = 0
        while count := session.value(  # again for those that only others of them referred to
            f"WITH gone AS (DELETE FROM {table.rows} AS t USING {self._staged('after')} AS a"
            f" WHERE {self._as_left(MISSING, table)}{unreferred} RETURNING 1) SELECT pg_catalog.count(*) FROM gone"
        ):
            deleted += count
        return deleted

    def _put_back(self, session: Session, table: LivingTable) -> int:
        fixed = {each.name for each in table.columns if each.is_always_identity or each.is_generated}
        to_set = [name for name in self.columns if name not in fixed and name not in self.key]
        if not to_set:
            return 0
        return int(
            session.value(
                f"WITH back AS (UPDATE {table.rows} AS t SET {_setting(to_set, 'b')}"
                f" FROM {self._staged('before')} AS b, {self._staged('after')} AS a"
                f" WHERE {self._same('t', 'b')} AND {self._as_left(CHANGED, table)}"
                " RETURNING 1) SELECT pg_catalog.count(*) FROM back"
            )
        )

    def _move_sequences(self, session: Session, table: LivingTable) -> None:
        """Move the table's sequences past what was written, and never back: somebody may be using them."""
        for row in session.rows(postgres.load_sql("runbook_lib.backup", "sequences")):
            if row["owner_table"] != table.qualified:
                continue
            name, step = postgres.identifier(row["schema"], row["name"]), row["increment"]
            column = postgres.identifier(row["owner_column"])
            furthest = "max" if step > 0 else "min"
            reached = session.value(f"SELECT pg_catalog.{furthest}({column}) FROM {self._staged('after')}")
            now = session.row(f"SELECT last_value, is_called FROM {name}")
            following = now["last_value"] + (step if now["is_called"] else 0)
            if reached is None or (reached - following) * step < 0:
                continue
            behind = math.floor((reached - following) / step) + 1
            quoted = postgres.literal(name)
            if behind <= _HANDED_OUT_AT_MOST:
                # setval() could throw back one that others have moved on meanwhile; this cannot.
                session.rows(
                    f"SELECT pg_catalog.count(pg_catalog.nextval({quoted}::pg_catalog.regclass))"
                    f" FROM pg_catalog.generate_series(1, {behind})"
                )
            else:
                session.rows(f"SELECT pg_catalog.setval({quoted}::pg_catalog.regclass, {reached})")

    def _broken_links(self, session: Session) -> int:
        return len(audit_chain.is_unbroken(session).findings) if self.table == AUDIT_LOG else 0

    def _must_not_break(self, session: Session, before: int) -> None:
        if self._broken_links(session) > before:
            raise ToolFailed(
                f"to merge rows into {self.table}",
                where=postgres.describe(session.dsn),
                why="with them the audit chain would have more breaks than without; nothing was changed",
                remedy="look which rows were appended since: the backup's do not lead to them",
            )


@dataclass(frozen=True)
class TakeMergeBack(MergeTable):
    """Take back a merge that was to stay, and drop what it kept.

    It is done by its undoing: it is announced, and not kept. So whoever is killed on the way has it brought to its end
    by the recovery, and not half of it left for another day.
    """

    kind: ClassVar[str] = "take a merge back"

    @classmethod
    def of(cls, mark: Mark) -> Self:
        """Return the act for the merge that a mark tells of."""
        return cls(**mark.merge)

    def describe(self, before: Before) -> str:  # noqa: ARG002
        """Say what is taken back."""
        return f"take back what was merged into {self.table}"

    def describe_undoing(self, before: Before) -> str:  # noqa: ARG002
        """Say that it is brought to its end."""
        return f"put {self.table} back as it was, as far as nobody has changed it since, and drop what was kept of it"

    def do(self, systems: Systems, before: Before) -> None:
        """Do nothing yet: it is done when it is not kept."""

    def undo(self, systems: Systems, before: Before) -> str:
        """Put back what is still as the merge left it, and drop the schema."""
        says = super().undo(systems, before)
        return f"{says}; {StageRows(self.token, self.table, self.columns, '', '').undo(systems, before)}"


@contextmanager
def _switched_off(session: Session, triggers: Sequence[Mapping[str, str]]) -> Iterator[None]:
    """Have triggers not fire that would even in a replica's session; whoever writes to the table waits meanwhile."""
    for each in triggers:
        session.execute(f"ALTER TABLE ONLY {each['relation']} DISABLE TRIGGER {postgres.identifier(each['name'])}")
    yield
    for each in triggers:
        how = {"A": "ALWAYS", "R": "REPLICA"}[each["enabled"]]
        session.execute(f"ALTER TABLE ONLY {each['relation']} ENABLE {how} TRIGGER {postgres.identifier(each['name'])}")


def _is(action: str) -> str:
    return f"{postgres.identifier(ACTION)} = '{action}'"


def _setting(columns: Sequence[str], source: str) -> str:
    return ", ".join(f"{postgres.identifier(name)} = {source}.{postgres.identifier(name)}" for name in columns)
