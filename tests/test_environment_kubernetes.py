"""Which Kubernetes cluster this is, and a halt that everybody who reaches it can lay down."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from kubernetes import client, config

from runbook_lib import doctor
from runbook_lib.environment import Environment
from runbook_lib.errors import NotPermitted, ProfileInvalid, TargetRefused
from runbook_lib.outcome import Outcome
from runbook_lib.safety.permit import Procedure
from runbook_lib.sandbox.kubernetes.tensafe import Clusters
from runbook_lib.sandbox.sandbox import Sandbox
from runbook_lib.settings import Kubernetes, Settings


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox.up(scale=0.02) as up:
        yield up


@pytest.fixture(scope="module")
def clusters(sandbox: Sandbox) -> Clusters:
    assert sandbox.kubernetes is not None
    return sandbox.kubernetes


def with_primary(settings: Settings, **changed: str) -> Settings:
    primary = settings.kubernetes.primary
    assert primary is not None
    return replace(settings, kubernetes=Kubernetes(replace(primary, **changed), settings.kubernetes.dr))


class TestIdentity:
    def test_the_cluster_that_was_named(self, sandbox: Sandbox) -> None:
        with Environment.of(sandbox.settings).kubernetes() as cluster:
            assert cluster.deployment("tensafe-api").replicas == 3

    @pytest.mark.parametrize("changed", [{"cluster_uid": "another"}, {"context": "dr-cluster"}])
    def test_another_cluster_is_refused_before_anything_is_asked_of_it(
        self, changed: dict[str, str], sandbox: Sandbox, clusters: Clusters
    ) -> None:
        environment = Environment.of(with_primary(sandbox.settings, **changed))
        asked = changed.get("context", clusters.primary_context)
        clusters.api.requests(asked)
        with pytest.raises(TargetRefused, match="the uid of its namespace kube-system is"):
            environment.kubernetes()
        mode = environment.maintenance_mode()
        with pytest.raises(TargetRefused), environment.procedure("rehearse", mode.acts) as procedure:
            procedure.do(mode.application)
        seen = clusters.api.requests(asked)
        assert seen
        assert [each for each in seen if "/api/v1/namespaces/kube-system" not in each] == []

    def test_a_region_that_nobody_named(self, sandbox: Sandbox) -> None:
        with pytest.raises(ProfileInvalid, match=r"the Kubernetes cluster of the region 'primary'"):
            Environment.of(replace(sandbox.settings, kubernetes=Kubernetes())).kubernetes()


class TestHalt:
    def test_stops_a_change_at_its_next_step_and_has_it_take_back_what_it_did(
        self, sandbox: Sandbox, clusters: Clusters
    ) -> None:
        changes = replace(sandbox.settings.changes, halt_config_map="tensafe/runbook-halt")
        environment = Environment.of(replace(sandbox.settings, changes=changes))
        mode = environment.maintenance_mode()
        with config.new_client_from_config(  # type: ignore[no-untyped-call]
            str(clusters.kubeconfig), context=clusters.primary_context
        ) as api:
            core = client.CoreV1Api(api)

            def halt_in_the_middle(procedure: Procedure) -> None:
                procedure.do(mode.application)
                body = client.V1ConfigMap(
                    metadata=client.V1ObjectMeta(name="runbook-halt"), data={"halt": "Ada: the disk is filling up"}
                )
                core.create_namespaced_config_map("tensafe", body)
                procedure.do(mode.fence)

            with (
                pytest.raises(NotPermitted, match="Ada: the disk is filling up"),
                environment.procedure("rehearse", mode.acts) as begun,
            ):
                halt_in_the_middle(begun)
            core.delete_namespaced_config_map("runbook-halt", "tensafe")
        with environment.kubernetes() as cluster:
            assert mode.application_is_in_service(cluster).holds()
        with environment.beside_the_database() as session:
            assert mode.everybody_may_connect(session).holds()
        assert environment.recover() == []


class TestDoctor:
    def test_of_an_environment_in_which_nothing_is_missing(self, sandbox: Sandbox) -> None:
        found = list(doctor.examine(Environment.of(sandbox.settings)))
        assert [each for each in found if each.outcome is not Outcome.PROVEN] == []

    def test_of_somebody_who_may_only_look(self, sandbox: Sandbox, clusters: Clusters) -> None:
        reader = replace(sandbox.settings, kubernetes=clusters.as_profile(clusters.kubeconfig_reader))
        found = [each.says for each in doctor.examine(Environment.of(reader)) if each.outcome is not Outcome.PROVEN]
        assert [says for says in found if says.startswith("we may not create pods/exec")]
        assert [says for says in found if says.startswith("we may not update deployments/scale")]
        assert len(found) == 4

    def test_of_another_cluster(self, sandbox: Sandbox) -> None:
        wrong = with_primary(sandbox.settings, cluster_uid="another")
        found = list(doctor.examine(Environment.of(wrong)))
        assert [each.what for each in found if each.outcome is Outcome.FAILED] == ["kubernetes primary"]
