"""A place of ours in the living database, for the rows of one merge.

Rows that are to be merged have to be where the table is, and what they replace must be kept where it can be put back
from. So a merge has a schema to itself, whose name only the journal knows and whose comment says what it is for, made
in one transaction with it: what is there without the comment is not ours. Nobody else may look into it, for row-level
security does not follow the rows. Its tables are unlogged, because a publication of all tables would send logged ones
to subscribers who know no such tables; a server that crashes empties them, so that what was merged is counted in the
comment too, which is not lost.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from runbook_lib.errors import Denied, NotFound, TargetRefused
from runbook_lib.reach import postgres
from runbook_lib.reach.postgres import DriverError, Session
from runbook_lib.restore import living_table
from runbook_lib.restore.living_table import listed
from runbook_lib.safety.act import Act, Before
from runbook_lib.safety.systems import Systems

ACTION = "runbook action"
"""The column that says what a row is for: `MISSING` or `CHANGED`."""
REVIEWED = "runbook reviewed"
"""The column that says what the living row hashed to when it was compared."""
MISSING = "missing"
CHANGED = "changed"
_MARK = "tensafe-runbook "
_MAY_NOT = "42501"


@dataclass(frozen=True)
class Mark:
    """What the comment of a merge's schema says."""

    token: str
    """Whose it is."""
    table: str
    """The table that rows are merged into."""
    at: str
    """When it was made, in ISO form."""
    until: str
    """Until when what was there before is kept, in ISO form."""
    merge: Mapping[str, Any] = field(default_factory=dict)
    """The arguments of the act that merged the rows; empty before."""
    merged: Mapping[str, int] = field(default_factory=dict)
    """How many rows it inserted, updated and left alone; empty before."""
    taken_back: Mapping[str, int] = field(default_factory=dict)
    """How many rows were deleted again, had their values back, and were left alone; empty before."""

    @property
    def is_in_effect(self) -> bool:
        """Whether rows were merged and not taken back."""
        return bool(self.merged) and not self.taken_back

    def put(self, session: Session) -> None:
        """Write it to the schema."""
        text = _MARK + json.dumps({name: getattr(self, name) for name in self.__dataclass_fields__})
        session.execute(f"COMMENT ON SCHEMA {postgres.identifier(schema_of(self.token))} IS {postgres.literal(text)}")

    def changed(self, **to: Any) -> Mark:
        """Return it with other fields."""
        return replace(self, **to)


def schema_of(token: str) -> str:
    """Return the name of a merge's schema, unquoted."""
    return f"runbook_{token}"


def marks(session: Session, token: str = "") -> list[Mark]:
    """List the marks of all merges, or of one; the newest first."""
    name = schema_of(token) if token else ""
    found = session.rows(postgres.load_sql(__package__, "merge_schemas"), name=name)
    read = (_mark_of(row["name"], row["mark"]) for row in found)
    return sorted((each for each in read if each is not None), key=lambda each: each.at, reverse=True)


def _mark_of(schema: str, comment: str) -> Mark | None:
    """Read a schema's comment; None where somebody else wrote it, or has written into it."""
    try:
        found = Mark(**json.loads(comment.removeprefix(_MARK)))
    except (ValueError, TypeError):
        return None
    return found if schema == schema_of(found.token) else None


def mark_of(session: Session, token: str) -> Mark:
    """Return one merge's mark. Raise `NotFound` where there is none."""
    found = marks(session, token)
    if not found:
        raise NotFound(
            f"the schema {schema_of(token)}",
            where=postgres.describe(session.dsn),
            why="there is none that bears our mark",
            remedy="merge the rows anew, from the backup",
        )
    return found[0]


def as_a_replica(session: Session) -> None:
    """Have no trigger, rule or event trigger fire on what this session does. Raise `Denied` where it may not.

    Rows come back as they were, and what they set off once must not be set off again. Switching the triggers off by
    ALTER TABLE would do as much, and have everybody who writes to the table wait until the end.
    """
    try:
        session.execute("SET session_replication_role = replica")
    except DriverError as refused:
        if refused.sqlstate != _MAY_NOT:
            raise
        raise Denied(
            "to write rows without firing triggers",
            where=postgres.describe(session.dsn),
            why=str(refused).splitlines()[0],
            remedy="connect as a superuser, or from 15 on: GRANT SET ON PARAMETER session_replication_role TO the role",
        ) from refused


@dataclass(frozen=True)
class StageRows(Act):
    """Make the schema of a merge, with empty tables."""

    kind: ClassVar[str] = "stage rows"

    token: str
    """What its name ends with; nobody else can know it: letters and digits."""
    table: str
    """The table that rows will be merged into, as it is typed in SQL."""
    columns: Sequence[str]
    """The columns of the rows."""
    at: str
    """When, in ISO form."""
    until: str
    """Until when what was there before is kept, in ISO form."""

    @property
    def schema(self) -> str:
        """The schema's name, unquoted."""
        return schema_of(self.token)

    def look(self, systems: Systems) -> Before:
        """See that the table is there."""
        with systems.inside(read_only=True) as session:
            return {"oid": living_table.read(session, self.table).oid}

    def describe(self, before: Before) -> str:  # noqa: ARG002
        """Say what is made."""
        return f"make the schema {self.schema}, for the rows to merge into {self.table}"

    def describe_undoing(self, before: Before) -> str:  # noqa: ARG002
        """Say what is dropped."""
        return f"drop the schema {self.schema}"

    def do(self, systems: Systems, before: Before) -> None:  # noqa: ARG002
        """Make and mark it, in one transaction."""
        with systems.alone(self.schema, inside=True) as session:
            as_a_replica(session)
            table = living_table.read(session, self.table)
            schema = postgres.identifier(self.schema)
            try:
                with session.transaction():
                    session.execute(f"CREATE SCHEMA {schema}")
                    Mark(self.token, self.table, self.at, self.until).put(session)
                    for row in session.rows(postgres.load_sql(__package__, "merge_schema_grants"), name=self.schema):
                        session.execute(f"REVOKE ALL ON SCHEMA {schema} FROM {row['grantee']}")
                    # Before: the rows as they were. After: as they were left, to see whether they still are.
                    for name, columns in (("incoming", self.columns), ("before", table.names), ("after", table.names)):
                        session.execute(
                            f"CREATE UNLOGGED TABLE {schema}.{name} AS SELECT {listed(columns)}"
                            f"{', ' if columns else ''}''::pg_catalog.text AS {postgres.identifier(ACTION)},"
                            f" 0::bigint AS {postgres.identifier(REVIEWED)} FROM {table.rows} WITH NO DATA"
                        )
            except DriverError as refused:
                if refused.sqlstate != _MAY_NOT:
                    raise
                raise Denied(
                    f"to make the schema {self.schema}",
                    where=postgres.describe(session.dsn),
                    why=str(refused).splitlines()[0],
                    remedy="connect as a superuser, or GRANT CREATE ON DATABASE ... TO the role of the profile",
                ) from refused

    def undo(self, systems: Systems, before: Before) -> str:  # noqa: ARG002
        """Drop it, if it is there and bears our mark.

        Raise `TargetRefused` while what was merged is still there: it is all that the merge can be taken back by.
        """
        with systems.alone(self.schema, inside=True) as session:
            found = marks(session, self.token)
            if not found:
                return f"the schema {self.schema} was not there"
            if found[0].is_in_effect:
                raise TargetRefused(
                    f"to drop the schema {self.schema}",
                    where=postgres.describe(session.dsn),
                    why=f"it keeps what was in {self.table} before the merge, which was not taken back",
                    remedy="take the merge back first",
                )
            as_a_replica(session)
            session.execute(f"DROP SCHEMA IF EXISTS {postgres.identifier(self.schema)} CASCADE")
            return f"the schema {self.schema} is dropped"
