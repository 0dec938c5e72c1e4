"""The application goes, and comes back with as many replicas as it had, unless somebody else decided otherwise."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from runbook_lib.errors import Denied, RunbookError, WaitTimedOut
from runbook_lib.reach.kubernetes import Cluster
from runbook_lib.reach.workspace import Workspace
from runbook_lib.restore.application import TakeApplicationOut
from runbook_lib.safety.permit import Permit
from runbook_lib.safety.systems import Systems
from runbook_lib.sandbox.kubernetes.api import KubernetesApi
from runbook_lib.sandbox.kubernetes.faults import Fault, Kind
from runbook_lib.sandbox.kubernetes.topology import Topology, Workload

PERMIT = Permit("here", granted=True, reason="a test")
NAME = "a-cluster"
POD = ("sh", "-c", "echo ready > /dev/fd/$READINESS_FD; exec cat")
STUBBORN = ("sh", "-c", "trap '' TERM; echo ready > /dev/fd/$READINESS_FD; while :; do sleep 0.1; done")
ACT = TakeApplicationOut("primary", "api", 30.0)


@pytest.fixture(scope="module")
def api() -> Iterator[KubernetesApi]:
    with Workspace.open() as workspace:
        folder = str(workspace.folder("pods"))
        workloads = (Workload("api", POD, folder), Workload("stubborn", STUBBORN, folder))
        started = KubernetesApi.start(workspace, [Topology(NAME, "u-i-d", "tensafe", workloads=workloads)])
        yield started
        started.stop()


def reach(api: KubernetesApi, *, kubeconfig: str = "") -> Cluster:
    path = kubeconfig or str(api.kubeconfig)
    return Cluster.connect(NAME, namespace="tensafe", kubeconfig=path, read_only=False)


@pytest.fixture
def systems(api: KubernetesApi) -> Systems:
    """With the application at two replicas."""
    with reach(api) as cluster:
        cluster.scale("api", 2, expected=None)
        cluster.wait_for_replicas("api", 2, within_seconds=30)
    return Systems(clusters={"primary": lambda: reach(api)})


def seen(api: KubernetesApi) -> tuple[int, int]:
    """How many replicas it is to have, and how many pods there are."""
    with reach(api) as cluster:
        found = cluster.deployment("api")
        return found.replicas, len(cluster.pods(found.selector))


def test_goes_and_comes_back(systems: Systems, api: KubernetesApi) -> None:
    with PERMIT.procedure("take it out", systems) as procedure:
        before = procedure.do(ACT)
        assert ACT.describe(before) == "scale api in primary from 2 replicas to none"
        assert ACT.describe_undoing(before) == "scale api in primary back to 2 replicas"
        assert seen(api) == (0, 0)
    assert seen(api) == (2, 2)


def test_undone_twice_and_without_having_been_done(systems: Systems, api: KubernetesApi) -> None:
    before = ACT.look(systems)
    assert ACT.undo(systems, before) == "api already had 2 replicas"
    ACT.do(systems, before)
    assert ACT.undo(systems, before) == "api scaled back to 2 replicas"
    assert ACT.undo(systems, before) == "api already had 2 replicas"
    assert seen(api) == (2, 2)


def test_none_before_is_none_afterwards(systems: Systems, api: KubernetesApi) -> None:
    with reach(api) as cluster:
        cluster.scale("api", 0, expected=None)
        cluster.wait_for_replicas("api", 0, within_seconds=30)
    with PERMIT.procedure("take it out", systems) as procedure:
        procedure.do(ACT)
    assert seen(api) == (0, 0)


class TestAnotherHand:
    def test_before_it_is_done(self, systems: Systems, api: KubernetesApi) -> None:
        before = ACT.look(systems)
        api.scale(NAME, "api", 3)
        with pytest.raises(Denied, match="it had 2 replicas a moment ago and has 3 replicas now"):
            ACT.do(systems, before)
        assert ACT.undo(systems, before) == "somebody else has scaled it to 3 replicas meanwhile: left so"
        assert seen(api)[0] == 3

    def test_while_it_is_done(self, systems: Systems, api: KubernetesApi) -> None:
        """Between the last look and the request itself."""
        before = ACT.look(systems)
        fault = Fault(Kind.OTHER_HAND, "update", "deployments/scale", times=1, value=4)
        with api.fault(NAME, fault), pytest.raises(Denied, match="changed by another hand"):
            ACT.do(systems, before)
        assert seen(api)[0] == 4
        assert ACT.undo(systems, before).startswith("somebody else has scaled it to 4 replicas")

    def test_afterwards(self, systems: Systems, api: KubernetesApi) -> None:
        before = ACT.look(systems)
        ACT.do(systems, before)
        api.scale(NAME, "api", 1)
        assert ACT.undo(systems, before) == "somebody else has scaled it to 1 replica meanwhile: left so"
        assert seen(api)[0] == 1

    def test_made_anew(self, systems: Systems) -> None:
        before = {**ACT.look(systems), "uid": "of another one"}
        assert ACT.undo(systems, before) == "api was made anew meanwhile, with 2 replicas: left as it is"

    def test_deleted(self, systems: Systems) -> None:
        gone = TakeApplicationOut("primary", "gone", 5.0)
        assert (
            gone.undo(systems, {"replicas": 3, "uid": "x"}) == "gone was deleted meanwhile: there is nothing to scale"
        )


def test_something_else_writes_to_it_all_the_time(systems: Systems, api: KubernetesApi) -> None:
    """A status, a label: whatever changes its version and not its scale keeps nobody from it."""
    before = ACT.look(systems)
    with api.fault(NAME, Fault(Kind.CONFLICT, "update", "deployments/scale", times=3)):
        ACT.do(systems, before)
    assert seen(api) == (0, 0)
    with api.fault(NAME, Fault(Kind.CONFLICT, "update", "deployments/scale", times=3)):
        ACT.undo(systems, before)
    assert seen(api) == (2, 2)


def test_an_answer_that_is_lost(systems: Systems, api: KubernetesApi) -> None:
    """It is undone once, whatever the server's answers say."""
    before = ACT.look(systems)
    ACT.do(systems, before)
    with api.fault(NAME, Fault(Kind.ANSWER_LOST, "update", "deployments/scale", times=1)):
        assert ACT.undo(systems, before) == "api scaled back to 2 replicas"
    assert seen(api) == (2, 2)


def test_a_pod_that_does_not_end(systems: Systems, api: KubernetesApi) -> None:
    """A number in a status is no proof; where the pods do not go in time, it is told and taken back."""
    with reach(api) as cluster:
        cluster.scale("stubborn", 1, expected=None)
        cluster.wait_for_replicas("stubborn", 1, within_seconds=30)
    act = TakeApplicationOut("primary", "stubborn", 1.0)
    before = act.look(systems)
    with pytest.raises(WaitTimedOut, match="stubborn"):
        act.do(systems, before)
    assert TakeApplicationOut("primary", "stubborn", 60.0).undo(systems, before).endswith("1 replica")


def test_a_region_that_the_profile_does_not_name() -> None:
    with pytest.raises(RunbookError, match=r"fill in \[kubernetes.primary\]"):
        ACT.look(Systems(clusters={}))


def test_a_role_that_may_only_look(systems: Systems, api: KubernetesApi) -> None:
    theirs = Systems(clusters={"primary": lambda: reach(api, kubeconfig=str(api.kubeconfig_reader))})
    with pytest.raises(Denied), PERMIT.procedure("take it out", theirs) as procedure:
        procedure.do(ACT)
    assert seen(api) == (2, 2)
