"""Sentences about archived WAL and base backups (runbook sections 1.1 and 2.2)."""

from __future__ import annotations

from datetime import timedelta

import pytest
from pytest_bdd import given, then, when

from runbook_lib.environment import Environment
from runbook_lib.evidence.collector import Evidence
from runbook_lib.wal import base_backup, base_backup_taking, window
from steps.proof import prove


@pytest.fixture
def bases(environment: Environment) -> base_backup.BaseListing:
    """The base backups that are there when they are first asked for."""
    return environment.base_backups.listing()


@given("the base backups")
def the_base_backups(bases: base_backup.BaseListing, evidence: Evidence) -> None:
    evidence.text("the base backups", "\n".join(map(str, bases.backups)) or "none")


@when("a base backup is taken", target_fixture="base_taken")
def base_backup_taken(environment: Environment, evidence: Evidence) -> base_backup_taking.TakenBaseBackup:
    taken = environment.take_base_backup(watch=evidence.watch)
    evidence.phases("taking the base backup", taken.phases)
    return taken


@then("the WAL archive is continuous")
def the_wal_archive_is_continuous(environment: Environment, evidence: Evidence) -> None:
    prove(environment.wal_is_continuous(), evidence)


@then("a recent one is there")
def a_recent_one_is_there(environment: Environment, bases: base_backup.BaseListing, evidence: Evidence) -> None:
    at_most = timedelta(days=environment.settings.archiving.base_within_days)
    where, now = environment.base_backups.where, environment.now
    prove(window.a_recent_base_backup_is_there(bases, where=where, now=now, at_most=at_most), evidence)


@then("it is of this cluster")
def it_is_of_this_cluster(environment: Environment, bases: base_backup.BaseListing, evidence: Evidence) -> None:
    with environment.database() as session:
        check = window.it_is_of_this_cluster(bases, session, where=environment.base_backups.where)
    prove(check, evidence)


@then("its WAL is archived")
def its_wal_is_archived(environment: Environment, bases: base_backup.BaseListing, evidence: Evidence) -> None:
    prove(window.its_wal_is_archived(bases, environment.wal_archive, where=environment.base_backups.where), evidence)


@then("it is the newest one")
def it_is_the_newest_one(
    bases: base_backup.BaseListing, base_taken: base_backup_taking.TakenBaseBackup, evidence: Evidence
) -> None:
    evidence.text("the base backup", str(base_taken.backup))
    assert bases.backups[0] == base_taken.backup
