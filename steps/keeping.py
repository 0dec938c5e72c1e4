"""Sentences about what restores keep, and for how long (runbook sections 2.1 and 2.3)."""

from __future__ import annotations

from pytest_bdd import given, then, when

from runbook_lib.environment import Environment
from runbook_lib.evidence.collector import Evidence
from runbook_lib.restore.expiry import Kept, only_what_was_past_its_time_is_gone
from steps.proof import prove


@given("what restores keep", target_fixture="kept")
def what_restores_keep(environment: Environment, evidence: Evidence) -> Kept:
    found = environment.kept()
    evidence.table("what restores keep", found.table)
    return found


@when("what is past its time is dropped")
def what_is_past_its_time_is_dropped(kept: Kept, environment: Environment) -> None:
    environment.drop_kept(kept)


@then("nothing is kept past its time")
def nothing_is_kept_past_its_time(environment: Environment, evidence: Evidence) -> None:
    prove(environment.kept().nothing_is_past_its_time, evidence)


@then("what is not past its time is still there")
def what_is_not_past_its_time_is_there(kept: Kept, environment: Environment, evidence: Evidence) -> None:
    prove(only_what_was_past_its_time_is_gone(kept, environment.kept()), evidence)
