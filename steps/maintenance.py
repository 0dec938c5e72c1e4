"""Sentences about maintenance: taking the application out of service and keeping everybody out (runbook 2.1 and 7)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pytest_bdd import given, then, when

from runbook_lib.environment import Environment
from runbook_lib.evidence.collector import Evidence
from runbook_lib.restore.maintenance_mode import MaintenanceMode
from runbook_lib.safety.act import Before
from runbook_lib.safety.permit import Procedure
from steps.proof import prove


@pytest.fixture
def mode(environment: Environment) -> MaintenanceMode:
    """What entering maintenance mode consists of here."""
    return environment.maintenance_mode()


@pytest.fixture
def procedure(environment: Environment, mode: MaintenanceMode) -> Iterator[Procedure]:
    """The procedure that the scenario is, taken back at its end whatever happens."""
    with environment.procedure("rehearse maintenance mode", mode.acts) as begun:
        yield begun


@given("the application is in service")
def the_application_is_in_service(
    procedure: Procedure, mode: MaintenanceMode, environment: Environment, evidence: Evidence
) -> None:
    with environment.kubernetes() as cluster:
        prove(mode.application_is_in_service(cluster), evidence)


@when("it is taken out of service", target_fixture="application_before")
def it_is_taken_out_of_service(procedure: Procedure, mode: MaintenanceMode) -> Before:
    return procedure.do(mode.application)


@when("everybody is kept out of the database")
def everybody_is_kept_out(procedure: Procedure, mode: MaintenanceMode) -> None:
    procedure.do(mode.fence)


@when("an empty database is made beside it")
def an_empty_database_is_made(procedure: Procedure, mode: MaintenanceMode) -> None:
    procedure.do(mode.beside)


@then("no pod of the application is left")
def no_pod_is_left(mode: MaintenanceMode, environment: Environment, evidence: Evidence) -> None:
    with environment.kubernetes() as cluster:
        prove(mode.no_pod_is_left(cluster), evidence)


@then("nobody is connected to the database")
def nobody_is_connected(mode: MaintenanceMode, environment: Environment, evidence: Evidence) -> None:
    with environment.beside_the_database() as session:
        prove(mode.nobody_is_connected(session), evidence)


@when("everything is put back")
def everything_is_put_back(procedure: Procedure) -> None:
    problems = procedure.take_back()
    assert not problems, "\n".join(map(str, problems))


@then("the application has its former replicas")
def the_application_has_its_former_replicas(
    mode: MaintenanceMode, application_before: Before, environment: Environment, evidence: Evidence
) -> None:
    with environment.kubernetes() as cluster:
        prove(mode.application_has(cluster, application_before), evidence)


@then("everybody may connect to the database")
def everybody_may_connect(mode: MaintenanceMode, environment: Environment, evidence: Evidence) -> None:
    with environment.beside_the_database() as session:
        prove(mode.everybody_may_connect(session), evidence)


@then("no database was left beside it")
def no_database_was_left(mode: MaintenanceMode, environment: Environment, evidence: Evidence) -> None:
    with environment.beside_the_database() as session:
        prove(mode.nothing_is_left_beside(session), evidence)
