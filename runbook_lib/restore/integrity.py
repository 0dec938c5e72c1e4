"""Are heap and indexes sound?

An index whose order is not the order the server sorts by answers wrongly and reports nothing; a new version of libc
or ICU between source and copy is enough. amcheck, which ships with PostgreSQL, looks at every page of every table and
B-tree. It leaves invalid indexes out, which the comparison of catalogs does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from runbook_lib.outcome import Check, Finding, Outcome
from runbook_lib.phases import Progress, Watcher, nobody
from runbook_lib.reach import postgres
from runbook_lib.reach.postgres import Row
from runbook_lib.reach.workers import work_off

_AMCHECK = """
SELECT pg_catalog.quote_ident(n.nspname) AS schema
  FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
 WHERE e.extname = 'amcheck'
"""
_RELATIONS = """
SELECT c.oid, c.oid::pg_catalog.regclass::text AS name, c.relkind = 'i' AS is_index,
       pg_catalog.pg_relation_size(c.oid) AS bytes
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
 WHERE c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema')
   AND (c.relkind IN ('r', 'm', 't') AND c.relam = (SELECT am.oid FROM pg_catalog.pg_am am WHERE am.amname = 'heap')
        OR c.relkind = 'i' AND i.indisvalid AND i.indisready
           AND c.relam = (SELECT am.oid FROM pg_catalog.pg_am am WHERE am.amname = 'btree'))
 ORDER BY bytes DESC
"""


def heap_and_indexes_are_sound(dsn: str, *, deep: bool = False, workers: int = 2, watch: Watcher = nobody) -> Check:
    """Check every table and B-tree of a scratch copy with amcheck, which is installed in it for that.

    :param deep: look up every row of every table in every index, and every index entry from the root: many times
        the cost, and a tier of its own
    """
    question, where = "heap and indexes are sound", postgres.describe(dsn)
    try:
        with _amcheck(dsn) as (session, schema):
            relations = session.rows(_RELATIONS)
            findings = _check_all(dsn, relations, schema, deep=deep, workers=workers, watch=watch)
    except _NotInstalled as missing:
        finding = Finding(
            "integrity.amcheck",
            "amcheck",
            str(missing),
            Outcome.UNPROVEN,
            "install PostgreSQL's contrib modules on the drill's machine",
        )
        return Check(question, where, "nothing", (finding,))
    indexes = sum(1 for row in relations if row["is_index"])
    looked_at = f"{len(relations) - indexes} tables and {indexes} B-trees{', every row in every index' if deep else ''}"
    return Check(question, where, looked_at, tuple(findings))


class _NotInstalled(Exception):
    """The server cannot give us amcheck; the text says why."""


@contextmanager
def _amcheck(dsn: str) -> Iterator[tuple[postgres.Session, str]]:
    """Have amcheck in the copy for a while; yields a session and the schema of its functions.

    A source that uses amcheck brought its own along, in whatever schema. One that we install is removed again, so that
    the copy can be compared afterwards as well as before; and no event trigger of the copy's is to take note of it.
    """
    with postgres.session(dsn, read_only=False, settings={"session_replication_role": "replica"}) as session:
        there = session.rows(_AMCHECK)
        if not there:
            try:
                session.execute("CREATE EXTENSION amcheck SCHEMA pg_catalog")
            except postgres.DriverError as missing:
                raise _NotInstalled(str(missing).splitlines()[0]) from missing
        try:
            yield session, session.value(_AMCHECK)
        finally:
            if not there:
                session.execute("DROP EXTENSION amcheck")


def _check_all(
    dsn: str, relations: Sequence[Row], schema: str, *, deep: bool, workers: int, watch: Watcher
) -> list[Finding]:
    findings: list[Finding] = []
    total = sum(row["bytes"] for row in relations)
    done: list[int] = []

    def work(session: postgres.Session, row: Row) -> None:
        findings.extend(_check_one(session, row, schema, deep=deep))
        done.append(row["bytes"])
        watch(Progress("amcheck", sum(done), total, "bytes", row["name"]))

    work_off(
        relations,
        work,
        open_session=lambda: postgres.session(dsn, application_name="runbook/amcheck"),
        workers=workers,
    )
    return findings


def _check_one(session: postgres.Session, row: Row, schema: str, *, deep: bool) -> list[Finding]:
    remedy = "do not rely on this backup or this machine's libraries; run pg_amcheck on the source"
    try:
        if not row["is_index"]:
            corrupt = session.rows(f"SELECT blkno, msg FROM {schema}.verify_heapam(%s::oid::regclass)", row["oid"])
            return [
                Finding("integrity.heap", row["name"], f"block {each['blkno']}: {each['msg']}", remedy=remedy)
                for each in corrupt
            ]
        call = "bt_index_parent_check(%s::oid::regclass, true, true)" if deep else "bt_index_check(%s::oid::regclass)"
        session.rows(f"SELECT {schema}.{call}", row["oid"])
    except postgres.DriverError as corrupt:
        return [Finding("integrity.index", row["name"], str(corrupt).splitlines()[0], remedy=remedy)]
    return []
