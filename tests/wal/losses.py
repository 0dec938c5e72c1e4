"""A primary on which rows were lost in every way there is, and what is known of each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from runbook_lib.reach import postgres
from runbook_lib.reach.postgres import Session
from runbook_lib.waiting import wait_for
from runbook_lib.wal.records import WalReader
from runbook_lib.wal.segment import lsn_of
from tests.wal.place import ARCHIVING, Primary, Store, await_archived, primary

POINT = "after everything; a 'point'"
LONG_BEFORE = timedelta(seconds=2.5)
"""How long before its end the beginning of a long transaction was archived, at least: S3 tells whole seconds."""
MANY = 22
"""How many transactions deleted from one table: more than are kept."""
WIDE = "(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 200) i)"


@dataclass(frozen=True)
class Losses:
    """What happened."""

    primary: Primary
    xids: dict[str, int]
    """The transaction that did it, by the name of the table that it was done to."""
    before: dict[str, int]
    """The end of the WAL before it was done, likewise."""
    tables: dict[str, int]
    """The OID of every table, dropped ones too."""
    database: int
    """The OID of their database."""

    def reader(self, folder: Path) -> WalReader:
        return WalReader(self.primary.archive, self.primary.server.tools, folder)

    @property
    def dsn(self) -> str:
        return self.primary.server.dsn()


@contextmanager
def lost(store: Store) -> Iterator[Losses]:
    settings = {**ARCHIVING, "max_prepared_transactions": "5", "autovacuum": "off"}
    with (
        primary(store, steps=1, prefix="moment/", name="moment", settings=settings) as began,
        postgres.session(began.server.dsn(), read_only=False) as one,
        postgres.session(began.server.dsn(), read_only=False) as two,
        postgres.session(began.server.dsn(), read_only=False) as three,
    ):
        yield _lose(began, one, two, three)


def _lose(began: Primary, one: Session, two: Session, three: Session) -> Losses:
    xids: dict[str, int] = {}
    before: dict[str, int] = {}
    plain = ("deleted", "aborted", "savepoint", "prepared", "truncated", "dropped", "rewritten", "wide", "healthy")
    for table in (*plain, "truncated_too", "unsure", "many", "long"):
        one.execute(f"CREATE TABLE public.{table} (n int PRIMARY KEY, x text)")
        one.execute(f"INSERT INTO public.{table} SELECT n, md5(n::text) FROM generate_series(1, 1000) n")
    one.execute("CREATE TABLE public.parted (n int, x text) PARTITION BY RANGE (n)")
    for low in (1, 501):
        one.execute(
            f"CREATE TABLE public.parted_{low} PARTITION OF public.parted FOR VALUES FROM ({low}) TO ({low + 500})"
        )
    one.execute("INSERT INTO public.parted SELECT n, md5(n::text) FROM generate_series(1, 1000) n")
    one.execute("CREATE TABLE public.cleared (n int, x text) PARTITION BY RANGE (n)")
    for low in (1, 501):
        one.execute(
            f"CREATE TABLE public.cleared_{low} PARTITION OF public.cleared FOR VALUES FROM ({low}) TO ({low + 500})"
        )
    one.execute("INSERT INTO public.cleared SELECT n, '' FROM generate_series(1, 1000) n")
    one.execute("CREATE TABLE public.moved (n int, x text) PARTITION BY RANGE (n)")
    for low in (1, 501):
        one.execute(
            f"CREATE TABLE public.moved_{low} PARTITION OF public.moved FOR VALUES FROM ({low}) TO ({low + 500})"
        )
    one.execute("INSERT INTO public.moved SELECT n, md5(n::text) FROM generate_series(1, 400) n")
    names = "relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
    tables = {row["relname"]: row["oid"] for row in one.rows(f"SELECT relname, oid::int FROM pg_class WHERE {names}")}

    def begin(table: str, session: Session = one) -> None:
        before[table] = lsn_of(session.value("SELECT pg_current_wal_insert_lsn()::text"))
        session.execute("BEGIN")
        xids[table] = int(session.value("SELECT pg_current_xact_id()::text"))

    # It began in WAL that is archived long before it commits, and there is a place after it that says who was running.
    begin("long", three)
    three.execute("DELETE FROM public.long WHERE n <= 5")
    early = one.value("SELECT pg_walfile_name(pg_switch_wal())")
    one.execute("CHECKPOINT")
    one.execute("INSERT INTO public.healthy VALUES (5000, '')")
    await_archived(one, one.value("SELECT pg_walfile_name(pg_switch_wal())"))

    # Among other writers, one of which deletes from the same table at the same time and takes it back.
    begin("deleted")
    one.execute("DELETE FROM public.deleted WHERE n <= 137")
    two.execute("UPDATE public.healthy SET x = x WHERE n <= 50")
    two.execute("BEGIN")
    two.execute("DELETE FROM public.deleted WHERE n BETWEEN 500 AND 900")
    two.execute("INSERT INTO public.healthy SELECT n, '' FROM generate_series(2001, 2050) n")
    one.execute("UPDATE public.deleted SET x = '' WHERE n = 138")
    one.execute("COMMIT")
    two.execute("ROLLBACK")
    two.execute("DELETE FROM public.deleted WHERE n IN (990, 991)")

    begin("aborted")
    one.execute("DELETE FROM public.aborted")
    one.execute("ROLLBACK")

    begin("savepoint")
    one.execute("SAVEPOINT kept")
    one.execute("DELETE FROM public.savepoint WHERE n <= 11")
    one.execute("SAVEPOINT gone")
    one.execute("DELETE FROM public.savepoint WHERE n > 11")
    one.execute("SAVEPOINT below_it")
    one.execute("DELETE FROM public.healthy")
    one.execute("RELEASE below_it")
    one.execute("ROLLBACK TO gone")
    one.execute("SAVEPOINT kept_too")
    one.execute("DELETE FROM public.savepoint WHERE n BETWEEN 12 AND 14")
    one.execute("COMMIT")

    begin("prepared")
    one.execute("DELETE FROM public.prepared WHERE n <= 21")
    one.execute("PREPARE TRANSACTION 'a gid: with; signs'")
    two.execute("INSERT INTO public.healthy VALUES (3001, '')")
    one.execute("COMMIT PREPARED 'a gid: with; signs'")

    # The old file is gone when anybody looks: twice rewritten, once moved aside by TRUNCATE.
    begin("rewritten")
    one.execute("DELETE FROM public.rewritten WHERE n <= 31")
    one.execute("COMMIT")
    one.execute("VACUUM FULL public.rewritten")
    one.execute("ALTER TABLE public.rewritten ALTER n TYPE bigint")

    # The same, and its rows went in between: in a file that had neither its first number nor its last.
    one.execute("VACUUM FULL public.unsure")
    begin("unsure")
    one.execute("DELETE FROM public.unsure WHERE n <= 8")
    one.execute("COMMIT")
    one.execute("VACUUM FULL public.unsure")

    for number in range(1, MANY + 1):
        two.execute("DELETE FROM public.many WHERE n = %s", number)

    begin("truncated")
    one.execute("TRUNCATE public.truncated_too, public.truncated")
    one.execute("INSERT INTO public.truncated VALUES (1, '')")
    one.execute("COMMIT")
    one.execute("VACUUM FULL public.truncated")

    begin("cleared")
    one.execute("TRUNCATE public.cleared")
    one.execute("COMMIT")

    begin("parted")
    one.execute("DELETE FROM public.parted WHERE n BETWEEN 480 AND 520")
    one.execute("COMMIT")
    one.execute("UPDATE public.moved SET n = n + 500 WHERE n <= 5")

    one.execute(f"INSERT INTO public.wide SELECT n, {WIDE} || n FROM generate_series(2001, 2004) n")
    begin("wide")
    one.execute("DELETE FROM public.wide WHERE n > 2000")
    one.execute("COMMIT")

    archived_at = began.archive.bucket.head(began.archive.key(early))[0].modified
    wait_for(
        "the beginning of a long transaction to lie before a window",
        lambda: datetime.now(UTC) - archived_at > LONG_BEFORE,
        where=early,
        within_seconds=10,
    )
    one.execute("INSERT INTO public.healthy VALUES (5001, '')")
    three.execute("DELETE FROM public.long WHERE n BETWEEN 6 AND 8")
    three.execute("COMMIT")

    one.execute("INSERT INTO public.healthy VALUES (4000, '') ON CONFLICT DO NOTHING")
    one.execute("DELETE FROM public.dropped WHERE n <= 7")
    one.execute("ALTER TABLE public.dropped SET UNLOGGED")
    one.execute("ALTER TABLE public.dropped SET LOGGED")
    begin("dropped")
    one.execute("DROP TABLE public.dropped")
    one.execute("COMMIT")
    one.value("SELECT pg_create_restore_point(%s)::text", POINT)
    await_archived(one, one.value("SELECT pg_walfile_name(pg_switch_wal())"))
    database = one.value("SELECT oid::int FROM pg_database WHERE datname = current_database()")
    return Losses(began, xids, before, tables, database)
