"""Sentences about finding the transaction that removed rows (runbook section 2.2)."""

from __future__ import annotations

from pytest_bdd import given, parsers, then, when

from runbook_lib.environment import Environment
from runbook_lib.evidence.collector import Evidence
from runbook_lib.wal import moment
from steps.proof import prove


@given(parsers.parse("rows that vanished, by default from {table} within the last hour"), target_fixture="lost")
def rows_that_vanished(
    table: str, vanished: tuple[str, tuple[str, str] | None], environment: Environment, evidence: Evidence
) -> moment.Lost:
    lost = moment.Lost.told(*vanished, table=table, now=environment.now)
    evidence.text("what is looked for", str(lost))
    return lost


@when("the archived WAL of that time is read", target_fixture="found_moment")
def the_wal_is_read(lost: moment.Lost, environment: Environment, evidence: Evidence) -> moment.Moment:
    found = environment.find_the_moment(lost.table, lost.since, lost.until)
    evidence.text("what the WAL says", found.explain())
    return found


@then("it was read without a hole")
def it_was_read_whole(found_moment: moment.Moment, evidence: Evidence) -> None:
    prove(found_moment.read_whole, evidence)


@then("each transaction that removed rows is named, with what a recovery to just before it gives up")
def each_is_named(found_moment: moment.Moment, evidence: Evidence) -> None:
    evidence.table("transactions that removed rows", moment.describe(found_moment.losses))
    prove(found_moment.all_are_named, evidence)
