"""What was kept past its time is found and dropped, and nothing else ever is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from runbook_lib.environment import Environment
from runbook_lib.errors import RunbookError, TargetRefused, WaitTimedOut
from runbook_lib.outcome import Outcome
from runbook_lib.reach import postgres
from runbook_lib.restore.expiry import DropKeptDatabase, DropMerge, Kept, only_what_was_past_its_time_is_gone, why_kept
from runbook_lib.restore.staging import Mark, StageRows, marks, schema_of
from runbook_lib.restore.swap import KEPT_UNTIL, kept, place_of
from runbook_lib.safety import journal
from runbook_lib.sandbox.sandbox import Sandbox
from runbook_lib.waiting import wait_for

NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
PAST, FUTURE = (NOW + timedelta(days=days) for days in (-1, 1))
OLD = "tensafe_old_20260302_120000"
NEW = "tensafe_old_20260304_120000"
Keep = Callable[..., None]


@pytest.fixture(scope="module")
def environment() -> Iterator[Environment]:
    with Sandbox.up(scale=0.05, kubernetes=False) as up:
        yield Environment.of(up.settings)


def run(environment: Environment, *statements: str, inside: bool = False) -> None:
    with environment.systems.inside() if inside else environment.systems.control() as session:
        for statement in statements:
            session.execute(statement)


@pytest.fixture
def keep(environment: Environment) -> Iterator[Keep]:
    """Makes databases as a full restore leaves them, all of which are gone afterwards."""
    made: list[str] = []

    def make(name: str, until: str = PAST.isoformat(), *, shut: bool = True) -> None:
        made.append(name)
        run(environment, f"CREATE DATABASE {name} TEMPLATE template0 STRATEGY file_copy")
        if until:
            run(environment, f"ALTER DATABASE {name} SET {KEPT_UNTIL} = '{until}'")
        if shut:
            run(environment, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")

    yield make
    run(environment, *(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)" for name in made))


@pytest.fixture
def stage(environment: Environment) -> Iterator[Callable[[str, datetime], Mark]]:
    """Makes what merges keep, all of which is gone afterwards."""
    made: list[str] = []

    def make(token: str, until: datetime) -> Mark:
        made.append(token)
        act = StageRows(token, "public.users", ("id",), "2026-03-02T12:00:00+00:00", until.isoformat())
        act.do(environment.systems, act.look(environment.systems))
        return Mark(token, "public.users", act.at, act.until)

    yield make
    run(environment, *(f"DROP SCHEMA IF EXISTS {schema_of(token)} CASCADE" for token in made), inside=True)


def there(environment: Environment) -> set[str]:
    with environment.beside_the_database() as session:
        databases = {row["datname"] for row in session.rows("SELECT datname FROM pg_database")}
    with environment.database() as session:
        return databases | {row["nspname"] for row in session.rows("SELECT nspname FROM pg_namespace")}


def found(environment: Environment, now: datetime = NOW) -> list[tuple[str, Outcome]]:
    check = environment.kept(now=now).nothing_is_past_its_time
    return [(each.subject, each.outcome) for each in check.findings]


def act_on(environment: Environment, name: str, at: datetime = NOW) -> DropKeptDatabase:
    with environment.beside_the_database() as session:
        oid = session.value("SELECT oid::bigint FROM pg_database WHERE datname = %s", name)
    return DropKeptDatabase("tensafe", name, oid, "0123456789abcdef", at.isoformat())


class TestListing:
    def test_nothing_is_kept(self, environment: Environment) -> None:
        listing = environment.kept(now=NOW)
        assert (listing.names, listing.acts, listing.table) == (frozenset(), (), [])
        assert listing.nothing_is_past_its_time.holds()

    def test_what_is_past_its_time_is_found_and_what_is_not_is_not(
        self, environment: Environment, keep: Keep, stage: Callable[[str, datetime], Mark]
    ) -> None:
        keep(OLD)
        keep(NEW, FUTURE.isoformat())
        stage("aaaa", PAST)
        stage("bbbb", FUTURE)
        listing = environment.kept(now=NOW)
        assert listing.names == {OLD, NEW, "runbook_aaaa", "runbook_bbbb"}
        assert found(environment) == [(OLD, Outcome.FAILED), ("runbook_aaaa", Outcome.FAILED)]
        assert not listing.nothing_is_past_its_time.holds()
        assert len(listing.acts) == 2
        assert found(environment, PAST) == []  # its time is not over until the moment has passed
        assert len(found(environment, FUTURE + timedelta(seconds=1))) == 4

    def test_an_offset_counts(self, environment: Environment, keep: Keep) -> None:
        keep(OLD, "2026-03-10T14:30:00+02:00")
        assert found(environment) == []
        assert found(environment, NOW + timedelta(minutes=31)) == [(OLD, Outcome.FAILED)]

    @pytest.mark.parametrize("until", ["2026-03-01", "2026-03-01T12:00:00", "last week"])
    def test_a_time_that_cannot_be_read_is_no_time(self, until: str, environment: Environment, keep: Keep) -> None:
        keep(OLD, until)
        assert found(environment) == [(OLD, Outcome.UNPROVEN)]
        assert environment.kept(now=NOW).acts == ()

    def test_what_others_made_is_not_listed(self, environment: Environment, keep: Keep) -> None:
        keep(OLD, "")  # its name alone makes nothing ours
        keep("tensafe_old_app_old_20260302_120000")  # another database's
        keep("accounting")  # renamed by hand: somebody has taken it over
        run(environment, "CREATE SCHEMA runbook_cccc", "COMMENT ON SCHEMA runbook_cccc IS 'mine'", inside=True)
        run(environment, "CREATE SCHEMA runbook_dddd", inside=True)
        run(environment, "COMMENT ON SCHEMA runbook_dddd IS 'tensafe-runbook {\"token\": 3}'", inside=True)
        try:
            listing = environment.kept(now=NOW)
            assert (listing.names, listing.acts) == (frozenset(), ())
        finally:
            run(environment, "DROP SCHEMA runbook_cccc, runbook_dddd", inside=True)

    def test_a_living_database_that_bears_the_mark(self, environment: Environment) -> None:
        """Somebody renamed what was kept into its old place by hand, and forgot the mark."""
        run(environment, f"ALTER DATABASE tensafe SET {KEPT_UNTIL} = '{PAST.isoformat()}'")
        try:
            assert environment.kept(now=NOW).acts == ()
            with pytest.raises(TargetRefused, match="its name is not that of a database that was replaced"):
                act_on(environment, "tensafe").look(environment.systems)
        finally:
            run(environment, f"ALTER DATABASE tensafe RESET {KEPT_UNTIL}")

    @pytest.mark.parametrize("shut", [True, False])
    def test_one_that_somebody_has_a_use_for(self, shut: bool, environment: Environment, keep: Keep) -> None:
        keep(OLD, shut=False)
        with closing(psycopg.connect(postgres.with_database(environment.settings.database.dsn, OLD))) as inside:
            if shut:
                run(environment, f"ALTER DATABASE {OLD} ALLOW_CONNECTIONS false")
            else:
                inside.close()
            with environment.beside_the_database() as session:
                wait_for(
                    "as many inside as there are",
                    lambda: kept(session)[0].inside,
                    where="the sandbox",
                    within_seconds=10,
                    until=lambda number: number == int(shut),
                )
                why = why_kept(kept(session)[0], NOW)
            assert why == ("1 sessions or prepared transactions are in it" if shut else why)
            assert shut or why.startswith("its door is open")
            listing = environment.kept(now=NOW)
            assert listing.acts == ()
            (finding,) = listing.nothing_is_past_its_time.findings
            assert finding.says.endswith(why)
            with pytest.raises(TargetRefused, match="nothing of it was altered"):
                act_on(environment, OLD).look(environment.systems)


class TestDropping:
    def test_exactly_what_is_past_its_time(
        self, environment: Environment, keep: Keep, stage: Callable[[str, datetime], Mark]
    ) -> None:
        keep(OLD)
        keep(NEW, FUTURE.isoformat())
        keep("accounting")
        stage("aaaa", PAST)
        stage("bbbb", FUTURE)
        before, listing = there(environment), environment.kept(now=NOW)
        environment.drop_kept(listing)
        assert before - there(environment) == {OLD, "runbook_aaaa"}
        after = environment.kept(now=NOW)
        assert after.nothing_is_past_its_time.holds()
        assert only_what_was_past_its_time_is_gone(listing, after).holds()
        assert outstanding(environment) == []
        environment.drop_kept(after)
        assert before - there(environment) == {OLD, "runbook_aaaa"}

    def test_more_than_that_is_found(self, environment: Environment, keep: Keep) -> None:
        keep(OLD)
        keep(NEW, FUTURE.isoformat())
        listing = environment.kept(now=NOW)
        run(environment, f"DROP DATABASE {NEW}")
        check = only_what_was_past_its_time_is_gone(listing, environment.kept(now=NOW))
        assert [each.subject for each in check.findings] == [NEW]

    def test_what_changed_since_it_was_listed_stays(
        self, environment: Environment, keep: Keep, stage: Callable[[str, datetime], Mark]
    ) -> None:
        keep(OLD)
        mark = stage("aaaa", PAST)
        database, merge = environment.kept(now=NOW).acts
        run(environment, f"ALTER DATABASE {OLD} SET {KEPT_UNTIL} = '{FUTURE.isoformat()}'")
        with environment.systems.inside() as session:
            mark.changed(until=FUTURE.isoformat()).put(session)
        for act in (database, merge):
            with pytest.raises(TargetRefused, match="it is kept until"):
                act.do(environment.systems, {})
        assert {OLD, "runbook_aaaa"} <= there(environment)

    def test_another_one_of_its_name(self, environment: Environment, keep: Keep) -> None:
        keep(OLD)
        act = replace(act_on(environment, OLD), oid=1)
        with pytest.raises(TargetRefused, match="is another one by now"):
            act.do(environment.systems, {})
        assert OLD in there(environment)

    def test_one_that_is_swapped_for_it_between_the_looks(
        self, environment: Environment, keep: Keep, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The last look is in the transaction that renames it."""
        keep(OLD)
        act = act_on(environment, OLD)
        must_be_past = DropKeptDatabase._must_be_past

        def look_and_be_overtaken(self: DropKeptDatabase, session: postgres.Session) -> object:
            looked = must_be_past(self, session)
            run(environment, f"ALTER DATABASE {OLD} RENAME TO accounting")
            keep(OLD)
            return looked

        monkeypatch.setattr(DropKeptDatabase, "_must_be_past", look_and_be_overtaken)
        with pytest.raises(TargetRefused, match="it is another database by now, and the one is called 'accounting'"):
            act.do(environment.systems, {})
        assert {OLD, "accounting"} <= there(environment)
        assert act.undo(environment.systems, {}) == f"{OLD} is called accounting by now: left as it is"
        run(environment, "DROP DATABASE accounting")

    def test_somebody_comes_in_at_the_last_moment(self, environment: Environment, keep: Keep) -> None:
        keep(OLD)
        act = act_on(environment, OLD)

        def drop_with_somebody_inside() -> None:
            with environment.procedure("drop", [act]) as procedure, procedure.doing(act) as before:
                run(environment, f"ALTER DATABASE {OLD} ALLOW_CONNECTIONS true")
                with closing(psycopg.connect(postgres.with_database(environment.settings.database.dsn, OLD))):
                    act.do(environment.systems, before)

        with pytest.raises(TargetRefused, match="1 sessions or prepared transactions are in it"):
            drop_with_somebody_inside()
        assert OLD in there(environment)
        assert outstanding(environment) == []

    def test_what_others_made_of_a_merge(
        self, environment: Environment, stage: Callable[[str, datetime], Mark]
    ) -> None:
        stage("aaaa", PAST)
        (act,) = environment.kept(now=NOW).acts
        for make, drop in (
            ("CREATE VIEW public.of_it AS SELECT 1 AS a FROM runbook_aaaa.before", "DROP VIEW public.of_it"),
            ("CREATE TABLE runbook_aaaa.mine ()", "DROP TABLE runbook_aaaa.mine"),
        ):
            run(environment, make, inside=True)
            with pytest.raises(TargetRefused, match="others made something of it"):
                act.do(environment.systems, {})
            run(environment, drop, inside=True)
        with environment.database() as session:
            assert [each.token for each in marks(session)] == ["aaaa"]
            assert session.value("SELECT count(*) FROM pg_class WHERE relnamespace = 'runbook_aaaa'::regnamespace") == 3

    def test_a_halt_leaves_what_is_not_gone_yet(self, environment: Environment, keep: Keep) -> None:
        keep(OLD)
        keep(NEW)
        halted: list[str] = []

        def withheld() -> str:
            halted.append("")
            return "Ann laid down a halt" if len(halted) > 2 else ""  # the procedure, the first act, the second

        halting = replace(environment, permit=replace(environment.permit, withheld=withheld))
        with pytest.raises(RunbookError, match="Ann laid down a halt"):
            halting.drop_kept(environment.kept(now=NOW))
        assert {OLD, NEW} & there(environment) == {NEW}  # the oldest goes first
        assert outstanding(environment) == []

    def test_one_that_somebody_began_to_drop_by_hand(self, environment: Environment, keep: Keep) -> None:
        keep(OLD)
        run(environment, f"UPDATE pg_catalog.pg_database SET datconnlimit = -2 WHERE datname = '{OLD}'")
        assert found(environment) == [(OLD, Outcome.FAILED)]
        environment.drop_kept(environment.kept(now=NOW))
        assert OLD not in there(environment)


class TestKilled:
    """Wherever it dies, what recovery says is so."""

    def test_before_it_was_begun(self, environment: Environment, keep: Keep) -> None:
        keep(OLD)
        act = act_on(environment, OLD)
        before = act.look(environment.systems)
        assert act.undo(environment.systems, before) == f"{OLD} is there, under its own name"

    def test_behind_the_renaming(self, environment: Environment, keep: Keep) -> None:
        keep(OLD)
        act = act_on(environment, OLD)
        before = act.look(environment.systems)
        run(environment, f"ALTER DATABASE {OLD} RENAME TO {act.aside}")
        assert act.undo(environment.systems, before) == f"{OLD} has its name again"
        assert act.undo(environment.systems, before) == f"{OLD} is there, under its own name"
        assert act.look(environment.systems) == before

    def test_when_the_server_had_half_dropped_it(self, environment: Environment, keep: Keep) -> None:
        keep(OLD)
        act = act_on(environment, OLD)
        before = act.look(environment.systems)
        run(
            environment,
            f"ALTER DATABASE {OLD} RENAME TO {act.aside}",
            f"UPDATE pg_catalog.pg_database SET datconnlimit = -2 WHERE datname = '{act.aside}'",
        )
        assert "was half dropped" in act.undo(environment.systems, before)
        assert "nothing brings it back" in act.undo(environment.systems, before)

    def test_behind_the_drop(
        self, environment: Environment, keep: Keep, stage: Callable[[str, datetime], Mark]
    ) -> None:
        keep(OLD)
        stage("aaaa", PAST)
        for act in environment.kept(now=NOW).acts:
            assert isinstance(act, DropKeptDatabase | DropMerge)
            before = act.look(environment.systems)
            assert "is there" in act.undo(environment.systems, before)
            act.do(environment.systems, before)
            assert act.undo(environment.systems, before).endswith(
                f"is dropped: it was kept until {PAST.isoformat()}, and nothing brings it back"
            )

    def test_while_the_server_goes_on(self, environment: Environment, keep: Keep) -> None:
        """What the act's own session still does is waited for."""
        keep(OLD)
        act = act_on(environment, OLD)
        before = act.look(environment.systems)
        said: list[str] = []
        with environment.systems.alone(place_of("tensafe")) as session:
            recovering = threading.Thread(target=lambda: said.append(act.undo(environment.systems, before)))
            recovering.start()
            session.execute(f"ALTER DATABASE {OLD} RENAME TO {act.aside}")
            session.execute(f"DROP DATABASE {act.aside}")
            assert said == []
        recovering.join(20)
        assert "is dropped" in said[0]

    def test_a_merge_that_somebody_reads(
        self, environment: Environment, stage: Callable[[str, datetime], Mark]
    ) -> None:
        stage("aaaa", PAST)
        (act,) = environment.kept(now=NOW).acts
        assert isinstance(act, DropMerge)
        with closing(psycopg.connect(environment.settings.database.dsn)) as reading:
            reading.execute("SELECT FROM runbook_aaaa.before")
            with pytest.raises(WaitTimedOut, match="nothing was changed"):
                act.do(environment.systems, {})
        with environment.database() as session:
            assert [each.token for each in marks(session)] == ["aaaa"]


def test_a_kept_listing_is_of_one_moment(environment: Environment) -> None:
    with environment.database() as session:
        assert Kept.of(session, "tensafe", NOW).now == NOW
    assert abs(environment.kept().now - datetime.now(UTC)) < timedelta(minutes=1)


def outstanding(environment: Environment) -> list[str]:
    return [entry.says for each in journal.read_all(environment.settings.journal_folder) for entry in each.outstanding]
