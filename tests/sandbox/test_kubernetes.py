"""Behind the sandbox's clusters are real processes, and the API tells of them as they are."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runbook_lib.errors import Unreachable
from runbook_lib.reach.postgres import session
from runbook_lib.sandbox import application
from runbook_lib.sandbox.kubernetes.patches import JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH
from runbook_lib.sandbox.kubernetes.tensafe import postgres_pod
from runbook_lib.waiting import wait_for
from tests.sandbox.clusters import Place, place

PRIMARY = "primary-cluster"
PODS = "/api/v1/namespaces/tensafe/pods"
DEPLOYMENT = "/apis/apps/v1/namespaces/tensafe/deployments/tensafe-api"
CONFIG_MAPS = "/api/v1/namespaces/tensafe/configmaps"


@pytest.fixture(scope="module")
def up() -> Iterator[Place]:
    with place() as found:
        yield found


def ask(
    up: Place,
    path: str,
    *,
    method: str = "GET",
    body: object = None,
    content_type: str = "application/json",
    accept: str = "application/json",
    token: str | None = None,
) -> tuple[int, Any]:
    """Ask the API as it is, without a client in between."""
    api = up.clusters.api
    request = urllib.request.Request(
        f"{api.server_url(PRIMARY)}{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={
            "Authorization": f"Bearer {api.users[0].token if token is None else token}",
            "Content-Type": content_type,
            "Accept": accept,
        },
    )
    trusting = ssl.create_default_context(cadata=api.authority.certificate.decode())
    try:
        with urllib.request.urlopen(request, context=trusting, timeout=10) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, json.loads(refused.read())


class TestThePrimary:
    def test_and_the_other_are_two_clusters(self, up: Place) -> None:
        assert up.cluster.identity() != up.dr.identity()
        assert [pod.name for pod in up.cluster.pods("app=postgres")] == ["postgres-0"]
        assert [pod.name for pod in up.dr.pods()] == ["postgres-dr-0"]
        assert up.dr.deployment("tensafe-api").replicas == 0
        assert up.cluster.pod("postgres-0").containers == ("postgres", "patroni")

    def test_has_postgresqls_programs_and_server_in_its_pod(self, up: Place) -> None:
        query = up.cluster.exec("postgres-0", ["psql", "-Atc", "SELECT current_user"], timeout_seconds=20)
        assert query.stdout == "postgres\n"
        dump = ["pg_dump", "-Fc", "-f", "backup.dump", "tensafe"]
        up.cluster.exec("postgres-0", dump, timeout_seconds=30).must("look")
        listed = up.cluster.exec("postgres-0", ["pg_restore", "--list", "backup.dump"], timeout_seconds=20)
        assert "tensafe_api" in listed.stdout
        assert "database system is ready" in up.cluster.logs("postgres-0", tail_lines=50)

    def test_is_not_reached_from_the_other(self, up: Place) -> None:
        refused = up.dr.exec("postgres-dr-0", ["psql", "-Atc", "SELECT 1"], timeout_seconds=20)
        assert refused.returncode == 2
        assert "No such file" in refused.stderr

    def test_gets_and_loses_members(self, up: Place) -> None:
        root = up.workspace.folder("pods") / PRIMARY
        up.clusters.api.put_pod(PRIMARY, postgres_pod("postgres-1", root, {"COLOUR": "red"}))
        assert [pod.name for pod in up.cluster.pods("role=replica")] == ["postgres-1"]
        assert up.cluster.exec("postgres-1", ["printenv", "COLOUR"], timeout_seconds=10).stdout == "red\n"
        up.clusters.api.remove_pod(PRIMARY, "postgres-1")
        assert up.cluster.pods("role=replica") == []

    def test_can_be_gone_while_the_other_is_there(self, up: Place) -> None:
        up.clusters.api.suspend("dr-cluster")
        with pytest.raises(Unreachable):
            up.dr.version()
        assert up.cluster.version()
        identity = up.clusters.api.clusters["dr-cluster"].uid
        up.clusters.api.resume("dr-cluster")
        assert up.dr.identity() == identity

    def test_lets_python_programs_find_their_python_and_others_nothing_more(self, up: Place) -> None:
        argv = [sys.executable, "-c", "print('found')"]
        found = up.cluster.exec("postgres-0", argv, container="patroni", timeout_seconds=20)
        assert found.stdout == "found\n"
        status = up.cluster.exec("postgres-0", ["cat", "/proc/self/status"], timeout_seconds=20).stdout
        assert "CapEff:\t0000000000000000" in status or os.getuid() != 0
        assert "Uid:\t0\t" not in status or os.getuid() == 0


class TestTheApplication:
    def test_writes_while_it_is_there_and_not_when_it_is_scaled_away(self, up: Place) -> None:
        up.scale(2)
        before = up.rows()
        wait_for("new rows", up.rows, where="tensafe", within_seconds=10, until=lambda rows: rows >= before + 5)
        processes = up.clusters.api.processes(PRIMARY)["pods"].values()
        with session(up.dsn) as connected:
            names = connected.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tensafe-api'")
        assert names >= 2
        up.scale(0)
        assert not any(Path("/proc", str(pid)).exists() for pid in processes)
        left = up.rows()
        with session(up.dsn) as connected:
            seen = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tensafe-api'"
            wait_for(
                "its sessions to end",
                lambda: connected.value(seen),
                where="tensafe",
                within_seconds=10,
                until=lambda sessions: sessions == 0,
            )
        assert up.rows() == left
        up.scale(1)
        wait_for("new rows", up.rows, where="tensafe", within_seconds=10, until=lambda rows: rows > left)
        up.scale(0)

    def test_comes_back_when_it_dies(self, up: Place) -> None:
        up.scale(1)
        (name,) = up.clusters.api.processes(PRIMARY)["pods"]
        os.kill(up.clusters.api.processes(PRIMARY)["pods"][name], signal.SIGKILL)
        wait_for(
            "the pod to be ready again",
            lambda: up.cluster.pod(name),
            where=PRIMARY,
            within_seconds=20,
            until=lambda pod: pod.ready and pod.restarts == 1,
        )
        assert up.cluster.deployment("tensafe-api").ready_replicas == 1
        up.scale(0)

    def test_is_not_ready_while_it_is_locked_out_and_loses_nothing_that_was_acknowledged(self, up: Place) -> None:
        up.scale(1)
        (pod,) = up.cluster.pods("app=tensafe-api")
        with session(up.server.dsn(), read_only=False) as connected:
            connected.execute("ALTER DATABASE tensafe ALLOW_CONNECTIONS false")
            connected.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'tensafe'")
            wait_for(
                "the application to say that it cannot write",
                lambda: up.cluster.pod(pod.name).ready,
                where=PRIMARY,
                within_seconds=15,
                until=lambda ready: not ready,
            )
            assert up.cluster.deployment("tensafe-api").ready_replicas == 0
            connected.execute("ALTER DATABASE tensafe ALLOW_CONNECTIONS true")
        up.cluster.wait_for_replicas("tensafe-api", 1, within_seconds=20)
        told = wait_for(
            "it to have written again",
            lambda: up.cluster.logs(pod.name, tail_lines=10_000),
            where=pod.name,
            within_seconds=15,
            until=lambda log: log.rpartition("not acknowledged")[2].count(" acknowledged") > 3,
        )
        assert "not acknowledged" in told
        assert up.cluster.pod(pod.name).restarts == 0
        acknowledged = {int(number) for number in re.findall(r" acknowledged (\d+)$", told, re.MULTILINE)}
        acknowledged -= {int(number) for number in re.findall(r"not acknowledged (\d+)", told)}
        with session(up.dsn) as connected:
            query = "SELECT array_agg(number) FROM tensafe_api.writes WHERE writer = %s"
            rows = set(connected.value(query, f"{pod.name}.0"))
        assert len(acknowledged) > 3
        assert acknowledged <= rows
        up.scale(0)

    def test_dies_with_its_cluster(self, up: Place) -> None:
        up.scale(1)
        (pid,) = up.clusters.api.processes(PRIMARY)["pods"].values()
        os.kill(up.clusters.api._processes[PRIMARY].pid, signal.SIGKILL)
        wait_for(
            "the writer to notice",
            lambda: Path("/proc", str(pid), "exe").exists() or _is_there(pid),
            where="tensafe",
            within_seconds=10,
            until=lambda there: not there,
        )
        up.clusters.api._processes.pop(PRIMARY).wait(timeout=10)
        up.clusters.api.resume(PRIMARY)
        assert up.cluster.deployment("tensafe-api").replicas == 0

    def test_tries_several_hosts(self) -> None:
        url = application.url({"PGHOST": "a,b", "PGPORT": "5432", "PGUSER": "u", "PGDATABASE": "d"})
        assert url.query["host"] == "a:5432,b:5432"


def _is_there(pid: int) -> bool:
    try:
        return Path("/proc", str(pid), "stat").read_text().split()[2] != "Z"
    except OSError:
        return False


class TestTheApi:
    @pytest.mark.parametrize(
        ("content_type", "patch"),
        [
            (STRATEGIC_PATCH, {"metadata": {"labels": {"by": "strategic"}}}),
            (MERGE_PATCH, {"metadata": {"labels": {"by": "merge"}}}),
            (JSON_PATCH, [{"op": "add", "path": "/metadata/labels/by", "value": "json"}]),
        ],
        ids=["strategic", "merge", "json"],
    )
    def test_takes_three_kinds_of_patch(self, up: Place, content_type: str, patch: object) -> None:
        before = ask(up, DEPLOYMENT)[1]
        status, after = ask(up, DEPLOYMENT, method="PATCH", body=patch, content_type=content_type)
        assert status == 200
        assert after["metadata"]["labels"]["by"] == content_type.partition("/")[2].partition("-")[0]
        assert after["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"]
        assert after["metadata"]["generation"] == before["metadata"]["generation"]
        again = ask(up, DEPLOYMENT, method="PATCH", body=patch, content_type=content_type)[1]
        assert again["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"]

    def test_merges_containers_by_name_where_the_patch_is_strategic(self, up: Place) -> None:
        image = {"spec": {"template": {"spec": {"containers": [{"name": "api", "image": "other"}]}}}}
        after = ask(up, DEPLOYMENT, method="PATCH", body=image, content_type=STRATEGIC_PATCH)[1]
        (container,) = after["spec"]["template"]["spec"]["containers"]
        assert container["image"] == "other"
        assert container["command"]

    @pytest.mark.parametrize("stale", ["put", "patch", "scale"])
    def test_refuses_what_was_decided_on_an_older_version(self, up: Place, stale: str) -> None:
        path = f"{DEPLOYMENT}/scale" if stale == "scale" else DEPLOYMENT
        seen = ask(up, path)[1]
        touch = {"metadata": {"annotations": {"touched": stale}}}
        ask(up, DEPLOYMENT, method="PATCH", body=touch, content_type=MERGE_PATCH)
        if stale == "patch":
            old = {"metadata": {"resourceVersion": seen["metadata"]["resourceVersion"], "labels": {"x": "y"}}}
            status, answer = ask(up, path, method="PATCH", body=old, content_type=MERGE_PATCH)
        else:
            status, answer = ask(up, path, method="PUT", body=seen)
        assert (status, answer["kind"], answer["reason"]) == (409, "Status", "Conflict")
        assert ask(up, path, method="PUT", body=ask(up, path)[1])[0] == 200

    @pytest.mark.parametrize("replicas", [-1, "three", 1.5, None, True])
    def test_refuses_a_number_that_is_none(self, up: Place, replicas: object) -> None:
        wrong = [{"op": "replace", "path": "/spec/replicas", "value": replicas}]
        status, answer = ask(up, DEPLOYMENT, method="PATCH", body=wrong, content_type=JSON_PATCH)
        assert (status, answer["reason"]) == (422, "Invalid")

    def test_keeps_config_maps(self, up: Place) -> None:
        path = f"{CONFIG_MAPS}/x"
        body = {"metadata": {"name": "x"}, "data": {"a": "1"}}
        assert ask(up, CONFIG_MAPS, method="POST", body=body)[0] == 201
        status, answer = ask(up, CONFIG_MAPS, method="POST", body=body)
        assert (status, answer["reason"]) == (409, "AlreadyExists")
        ask(up, path, method="PATCH", body={"data": {"b": "2"}}, content_type=MERGE_PATCH)
        assert up.cluster.config_map("x") == {"a": "1", "b": "2"}
        assert ask(up, path, method="DELETE")[0] == 200
        assert ask(up, path)[0] == 404
        assert up.cluster.config_map("x") is None

    @pytest.mark.parametrize(
        ("query", "names"),
        [
            ("labelSelector=app%3Dpostgres", ["postgres-0"]),
            ("labelSelector=app!%3Dpostgres", []),
            ("labelSelector=role+in+(master,leader),app", ["postgres-0"]),
            ("labelSelector=!app", []),
            ("fieldSelector=metadata.name%3Dpostgres-0", ["postgres-0"]),
            ("fieldSelector=status.phase!%3DRunning", []),
        ],
    )
    def test_selects(self, up: Place, query: str, names: list[str]) -> None:
        assert [item["metadata"]["name"] for item in ask(up, f"{PODS}?{query}")[1]["items"]] == names

    def test_refuses_a_selector_that_it_does_not_understand(self, up: Place) -> None:
        assert ask(up, f"{PODS}?labelSelector=a%3D%3D%3Db")[0] == 400
        assert ask(up, f"{PODS}?fieldSelector=spec.colour%3Dred")[0] == 400

    def test_refuses_strangers_and_those_who_may_not(self, up: Place) -> None:
        for token in "wrong", "":
            status, answer = ask(up, PODS, token=token)
            assert (status, answer["kind"], answer["reason"]) == (401, "Status", "Unauthorized")
        reader = up.clusters.api.users[1].token
        assert ask(up, PODS, token=reader)[0] == 200
        status, answer = ask(up, f"{PODS}/postgres-0", method="DELETE", token=reader)
        assert (status, answer["reason"]) == (403, "Forbidden")
        assert 'User "sandbox-reader" cannot delete resource "pods"' in answer["message"]
        status, _ = ask(up, f"{PODS}/postgres-0/exec?command=id&stdout=true", token=reader)
        assert status == 403

    def test_knows_no_log_of_an_earlier_container(self, up: Place) -> None:
        assert ask(up, f"{PODS}/postgres-0/log?previous=true")[0] == 400

    @pytest.mark.parametrize("path", ["/api/v1/nodes", "/apis/batch/v1/jobs", "/nothing", f"{DEPLOYMENT}/colour"])
    def test_says_what_it_does_not_have(self, up: Place, path: str) -> None:
        status, answer = ask(up, path)
        assert (status, answer["kind"]) == (404, "Status")

    def test_lists_as_a_table_where_that_is_asked_for(self, up: Place) -> None:
        shown = ask(up, PODS, accept="application/json;as=Table;v=v1;g=meta.k8s.io")[1]
        assert shown["kind"] == "Table"
        assert shown["rows"][0]["cells"][:3] == ["postgres-0", "2/2", "Running"]


SCRIPT = """
    import sys, time
    from tests.sandbox.clusters import place
    with place() as up:
        up.scale(1)
        ports = [*up.clusters.api._ports.values()]
        print(up.workspace.path, *ports, up.clusters.api.processes("primary-cluster")["pods"].popitem()[1], flush=True)
        if sys.argv[1] == "waits":
            time.sleep(60)
"""


@pytest.mark.parametrize("end", ["ends", "waits"])
def test_nothing_is_left_of_it(end: str) -> None:
    """Neither when it is closed, nor when its owner was killed."""
    owner = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), end],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    with owner:
        assert owner.stdout is not None
        path, *numbers = owner.stdout.readline().split()
        *ports, writer = map(int, numbers)
        if end == "waits":
            assert Path(path).exists()
            owner.kill()
        owner.wait(timeout=60)
    wait_for("the workspace to be gone", lambda: not Path(path).exists(), where=path, within_seconds=30, until=bool)
    assert not _is_there(writer)
    for port in ports:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
