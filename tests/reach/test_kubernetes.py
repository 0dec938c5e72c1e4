"""A cluster is reached by its name, looked at without a trace, changed only over what was seen, and never half."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest
from kubernetes.client import V1ConfigMap
from kubernetes.config import incluster_config

from runbook_lib.errors import (
    DamagedArtefact,
    Denied,
    NoRoom,
    NotFound,
    ProfileInvalid,
    RunbookError,
    TargetRefused,
    ToolFailed,
    ToolMissing,
    Unreachable,
    WaitTimedOut,
)
from runbook_lib.reach.kubernetes import Cluster
from runbook_lib.reach.workspace import Workspace
from runbook_lib.sandbox.kubernetes.api import KubernetesApi
from runbook_lib.sandbox.kubernetes.certificates import Authority
from runbook_lib.sandbox.kubernetes.faults import Fault, Kind
from runbook_lib.sandbox.kubernetes.topology import Container, Pod, Topology, Workload
from runbook_lib.waiting import wait_for

NAME = "primary-cluster"
READY = ("sh", "-c", "echo ready > /dev/fd/$READINESS_FD; echo up; exec cat")
NEVER_READY = ("sh", "-c", "exec cat")
MB = 1 << 20
LINES = "".join(f"line {number}\n" for number in range(1000))


@pytest.fixture(scope="module")
def workspace() -> Iterator[Workspace]:
    with Workspace.open() as opened:
        yield opened


@pytest.fixture(scope="module")
def pods(workspace: Workspace) -> Path:
    """The folder that the pods' folders are in, with a liar among the programs."""
    root = workspace.folder("pods")
    (root / "log").write_text(LINES)
    liars = root / "liars"
    liars.mkdir()
    (liars / "sha256sum").write_text(f"#!/bin/sh\necho {'0' * 64} x\n")
    (liars / "sha256sum").chmod(0o755)
    workspace.give(root)
    return root


@pytest.fixture(scope="module")
def api(workspace: Workspace, pods: Path) -> Iterator[KubernetesApi]:
    box = str(pods / "box")
    containers = (
        Container("main", box, {"COLOUR": "green"}, log=str(pods / "log")),
        Container("side", box),
        Container("liar", box, {"PATH": f"{pods / 'liars'}{os.pathsep}{os.environ['PATH']}"}),
    )
    topology = Topology(
        NAME,
        "11111111-2222-3333-4444-555555555555",
        "tensafe",
        (Pod("box-0", containers, {"app": "box"}), Pod("idle-0", (containers[0],), {"app": "idle"}, ready=False)),
        (Workload("tensafe-api", READY, str(pods / "api")), Workload("never", NEVER_READY, str(pods / "never"))),
        {"settings": {"colour": "green"}},
    )
    started = KubernetesApi.start(workspace, [topology])
    yield started
    started.stop()


def connect(
    api: KubernetesApi, *, read_only: bool = False, timeout_seconds: float = 10, kubeconfig: str = ""
) -> Cluster:
    return Cluster.connect(
        NAME,
        namespace="tensafe",
        kubeconfig=kubeconfig or str(api.kubeconfig),
        read_only=read_only,
        timeout_seconds=timeout_seconds,
    )


@pytest.fixture(scope="module")
def cluster(api: KubernetesApi) -> Iterator[Cluster]:
    with connect(api) as connected:
        yield connected


@pytest.fixture
def scaled(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster, with two pods of tensafe-api."""
    cluster.scale("tensafe-api", 2, expected=None)
    cluster.wait_for_replicas("tensafe-api", 2, within_seconds=20)
    yield cluster
    cluster.scale("tensafe-api", 0, expected=None)
    cluster.wait_for_replicas("tensafe-api", 0, within_seconds=20)


def written(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def config_of(api: KubernetesApi) -> dict[str, Any]:
    return cast("dict[str, Any]", json.loads(api.kubeconfig.read_text()))


def secrets_of(api: KubernetesApi) -> list[str]:
    return [user.token for user in api.users]


class TestAContext:
    def test_that_is_named_is_reached(self, api: KubernetesApi, cluster: Cluster) -> None:
        assert cluster.context == NAME
        assert str(cluster) == f"namespace tensafe of context {NAME} at {api.server_url(NAME)}"
        assert not any(secret in f"{cluster} {cluster!r}" for secret in secrets_of(api))

    def test_that_is_current_is_never_taken(self, api: KubernetesApi, tmp_path: Path) -> None:
        current = written(tmp_path / "config", json.dumps({**config_of(api), "current-context": NAME}))
        with pytest.raises(ProfileInvalid, match="names no context"):
            Cluster.connect("", namespace="tensafe", kubeconfig=current)

    def test_that_is_not_there_is_named_with_those_that_are(self, api: KubernetesApi) -> None:
        with pytest.raises(ProfileInvalid, match=f"no context of that name; it has: {NAME}"):
            Cluster.connect("elsewhere", namespace="tensafe", kubeconfig=str(api.kubeconfig))

    def test_is_found_through_the_environment(self, api: KubernetesApi, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig))
        with Cluster.connect(NAME, namespace="tensafe") as found:
            assert found.version() == "v1.35.0"

    def test_is_refused_where_two_have_its_name(self, api: KubernetesApi, tmp_path: Path) -> None:
        config = config_of(api)
        twice = written(tmp_path / "config", json.dumps({**config, "contexts": config["contexts"] * 2}))
        with pytest.raises(ProfileInvalid, match="2 of contexts have that name"):
            connect(api, kubeconfig=twice)

    @pytest.mark.parametrize("kind", ["contexts", "clusters", "users"])
    def test_is_refused_where_two_files_differ(self, api: KubernetesApi, tmp_path: Path, kind: str) -> None:
        config = config_of(api)
        config[kind][0]["colour"] = "red"
        other = written(tmp_path / "config", json.dumps(config))
        with pytest.raises(ProfileInvalid, match=f"2 of {kind} have that name"):
            connect(api, kubeconfig=f"{api.kubeconfig}{os.pathsep}{other}")

    def test_is_taken_where_two_files_say_the_same(self, api: KubernetesApi, tmp_path: Path) -> None:
        same = written(tmp_path / "config", api.kubeconfig.read_text())
        with connect(api, kubeconfig=f"{api.kubeconfig}{os.pathsep}{same}") as found:
            assert found.version()

    @pytest.mark.parametrize(
        ("content", "why"),
        [
            (b"", "it is empty"),
            (b"- a\n", "it is not a kubeconfig"),
            (b"a: [b\npassw0rd", "it is not YAML"),
            (b"\xff\xfe\x00", "it is not text"),
            (None, "there is no such file"),
            (b"contexts: 5", "no context of that name; it has: none"),
            (b"contexts: [{name: primary-cluster}]", "ConfigException"),
            (b"contexts: [{name: primary-cluster, context: {cluster: gone}}]", "there is no cluster of that name"),
        ],
    )
    def test_of_a_file_that_cannot_be_understood(
        self, api: KubernetesApi, tmp_path: Path, content: bytes | None, why: str
    ) -> None:
        path = tmp_path / "config"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ProfileInvalid, match=why) as refused:
            connect(api, kubeconfig=str(path))
        assert "passw0rd" not in str(refused.value)

    def test_is_connected_to_only_when_something_is_asked(self, api: KubernetesApi, tmp_path: Path) -> None:
        config = config_of(api)
        config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
        with (
            connect(api, kubeconfig=written(tmp_path / "config", json.dumps(config))) as nobody,
            pytest.raises(Unreachable, match="refused"),
        ):
            nobody.version()

    def test_leaves_no_key_in_the_temporary_folder(
        self, api: KubernetesApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pair = api.authority.client("sandbox-operator")
        credentials = {
            "client-certificate-data": base64.b64encode(pair.certificate).decode(),
            "client-key-data": base64.b64encode(pair.key).decode(),
        }
        text = api.kubeconfig_text(api.users[0], credentials=credentials)
        empty = tmp_path / "empty"
        empty.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(empty))
        with connect(api, kubeconfig=written(tmp_path / "config", text)) as found:
            assert found.version()
            assert list(empty.iterdir()) == []
            assert found.exec("box-0", ["echo", "hello"], timeout_seconds=10).stdout == "hello\n"

    def test_is_the_pods_own_inside_a_cluster(
        self, api: KubernetesApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        host, _, port = api.server_url(NAME).removeprefix("https://").partition(":")
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
        token = written(tmp_path / "token", api.users[1].token)
        (tmp_path / "ca.crt").write_bytes(api.authority.certificate)
        monkeypatch.setattr(incluster_config.InClusterConfigLoader.__init__, "__defaults__", (True, os.environ))
        monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", token)
        monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
        with Cluster.connect("in-cluster", namespace="tensafe") as own:
            assert own.identity() == api.clusters[NAME].uid
            assert not own.may("delete", "pods")

    def test_inside_a_cluster_needs_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        with pytest.raises(ProfileInvalid, match="Service host/port is not set"):
            Cluster.connect("in-cluster", namespace="tensafe")


class TestCredentials:
    def test_that_have_run_out_are_refused_before_anything_is_sent(self, api: KubernetesApi, tmp_path: Path) -> None:
        pair = api.authority.client("sandbox-operator", valid_for=timedelta(days=-1))
        credentials = {
            "client-certificate-data": base64.b64encode(pair.certificate).decode(),
            "client-key-data": base64.b64encode(pair.key).decode(),
        }
        text = api.kubeconfig_text(api.users[0], credentials=credentials)
        api.requests(NAME)
        with pytest.raises(Denied, match=r"client certificate.*it expired on"):
            connect(api, kubeconfig=written(tmp_path / "config", text))
        assert api.requests(NAME) == []

    @pytest.mark.parametrize(("expires", "runs_out"), [(1_000_000_000, True), (9_000_000_000, False)])
    def test_of_a_web_token(self, api: KubernetesApi, tmp_path: Path, expires: int, runs_out: bool) -> None:
        claims = base64.urlsafe_b64encode(json.dumps({"exp": expires}).encode()).decode().rstrip("=")
        token = f"e30.{claims}.c2lnbmF0dXJl"
        path = written(tmp_path / "config", api.kubeconfig_text(api.users[0], credentials={"token": token}))
        if runs_out:
            with pytest.raises(Denied, match=r"bearer token.*it expired on 2001-09-09"):
                connect(api, kubeconfig=path)
        else:
            with connect(api, kubeconfig=path) as stranger, pytest.raises(Denied, match="401") as refused:
                stranger.pods()
            assert token not in str(refused.value)

    def test_that_nobody_knows_are_refused(self, api: KubernetesApi, tmp_path: Path) -> None:
        text = api.kubeconfig_text(api.users[0], credentials={"token": "wrong-and-secret"})
        with connect(api, kubeconfig=written(tmp_path / "config", text)) as stranger:
            with pytest.raises(Denied, match=r"to list pods.*401.*log in again") as refused:
                stranger.pods()
            with pytest.raises(Denied, match="401"):
                stranger.exec("box-0", ["true"], timeout_seconds=5)
        assert "wrong-and-secret" not in str(refused.value)

    def test_of_a_plugin_that_gives_none(self, api: KubernetesApi, tmp_path: Path) -> None:
        plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": "false", "interactiveMode": "Never"}
        text = json.loads(api.kubeconfig_text(api.users[0]))
        text["users"][0]["user"] = {"exec": plugin}
        with pytest.raises(Denied, match="credential plugin false"):
            connect(api, kubeconfig=written(tmp_path / "config", json.dumps(text)))

    def test_of_another_authority_are_not_believed(self, api: KubernetesApi, tmp_path: Path) -> None:
        config = config_of(api)
        other = base64.b64encode(Authority().certificate).decode()
        config["clusters"][0]["cluster"]["certificate-authority-data"] = other
        with connect(api, kubeconfig=written(tmp_path / "config", json.dumps(config))) as impostor:
            with pytest.raises(Unreachable, match="certificate"):
                impostor.version()
            with pytest.raises(Unreachable, match="certificate"):
                impostor.exec("box-0", ["true"], timeout_seconds=5)


DEEDS: dict[str, Callable[[Cluster], object]] = {
    "scale": lambda cluster: cluster.scale("tensafe-api", 1, expected=cluster.deployment("tensafe-api")),
    "exec": lambda cluster: cluster.exec("box-0", ["true"], timeout_seconds=5),
    "copy in": lambda cluster: cluster.copy_in("box-0", Path(__file__), "x"),
    "delete": lambda cluster: cluster._core.delete_namespaced_pod("box-0", "tensafe"),
    "create": lambda cluster: cluster._core.create_namespaced_config_map("tensafe", V1ConfigMap()),
    "patch": lambda cluster: cluster._apps.patch_namespaced_deployment("tensafe-api", "tensafe", {}),
    "exec by GET": lambda cluster: cluster._core.connect_get_namespaced_pod_exec("box-0", "tensafe", command=["true"]),
    "proxy by GET": lambda cluster: cluster._core.connect_get_namespaced_pod_proxy("box-0", "tensafe"),
}


class TestAClientThatMayOnlyRead:
    @pytest.mark.parametrize("act", DEEDS.values(), ids=DEEDS)
    def test_sends_nothing_that_writes(self, api: KubernetesApi, act: Callable[[Cluster], object]) -> None:
        with connect(api, read_only=True) as reader:
            api.requests(NAME)
            with pytest.raises(TargetRefused, match="read only"):
                act(reader)
        assert [seen for seen in api.requests(NAME) if not seen.startswith("GET")] == []
        assert reader.read_only

    def test_is_what_one_gets_unasked(self, api: KubernetesApi) -> None:
        with (
            Cluster.connect(NAME, namespace="tensafe", kubeconfig=str(api.kubeconfig)) as unasked,
            pytest.raises(TargetRefused),
        ):
            unasked.exec("box-0", ["true"], timeout_seconds=5)

    def test_may_ask_everything(self, api: KubernetesApi) -> None:
        with connect(api, read_only=True) as reader:
            assert reader.pods()
            assert reader.deployment("tensafe-api").name == "tensafe-api"
            assert reader.may("delete", "pods")
            assert reader.logs("box-0", tail_lines=1)


class TestLooking:
    def test_at_the_cluster(self, api: KubernetesApi, cluster: Cluster) -> None:
        assert cluster.identity() == "11111111-2222-3333-4444-555555555555"
        assert cluster.version() == "v1.35.0"

    def test_at_pods(self, cluster: Cluster) -> None:
        assert [pod.name for pod in cluster.pods()] == ["box-0", "idle-0"]
        assert [pod.name for pod in cluster.pods("app=box")] == ["box-0"]
        assert [pod.name for pod in cluster.pods("app notin (box)")] == ["idle-0"]
        box, idle = cluster.pod("box-0"), cluster.pod("idle-0")
        assert (box.ready, box.phase, box.restarts, box.terminating) == (True, "Running", 0, False)
        assert box.containers == ("main", "side", "liar")
        assert not idle.ready
        assert box.uid != idle.uid
        with pytest.raises(NotFound, match='pods "gone" not found'):
            cluster.pod("gone")

    def test_at_a_deployment_whose_status_leaves_out_what_is_zero(self, cluster: Cluster) -> None:
        seen = cluster.deployment("tensafe-api")
        assert (seen.replicas, seen.current_replicas, seen.ready_replicas, seen.updated) == (0, 0, 0, 0)
        assert seen.selector == "app=tensafe-api"
        with pytest.raises(NotFound):
            cluster.deployment("gone")

    def test_at_a_config_map(self, cluster: Cluster) -> None:
        assert cluster.config_map("settings") == {"colour": "green"}
        assert cluster.config_map("gone") is None

    def test_at_what_we_may(self, api: KubernetesApi, cluster: Cluster) -> None:
        assert cluster.may("update", "deployments", subresource="scale", group="apps")
        with connect(api, kubeconfig=str(api.kubeconfig_reader)) as reader:
            assert reader.may("get", "deployments", subresource="scale", group="apps")
            assert not reader.may("update", "deployments", subresource="scale", group="apps")
            assert not reader.may("create", "pods", subresource="exec")
        with api.fault(NAME, Fault(Kind.FORBID, "list", "pods")):
            assert not cluster.may("list", "pods")
            assert cluster.may("get", "pods")

    def test_at_logs(self, cluster: Cluster) -> None:
        assert cluster.logs("box-0", tail_lines=2) == "line 998\nline 999\n"
        assert cluster.logs("box-0", "side", tail_lines=2) == ""
        assert cluster.logs("box-0", tail_lines=5, limit_bytes=4) == "line"
        assert cluster.logs("box-0", tail_lines=5000) == LINES
        with pytest.raises(NotFound, match="it has main, side, liar"):
            cluster.logs("box-0", "gone", tail_lines=1)


class TestAnAnswer:
    def test_that_refuses_names_the_rule_that_is_missing(self, api: KubernetesApi, cluster: Cluster) -> None:
        with api.fault(NAME, Fault(Kind.FORBID, "list", "pods")):
            with pytest.raises(Denied, match=r'apiGroups: \[""\], resources: \["pods"\], verbs: \["list"\]'):
                cluster.pods()
            assert cluster.pod("box-0").name == "box-0"
        assert cluster.pods()
        with (
            api.fault(NAME, Fault(Kind.FORBID, "update", "deployments/scale")),
            pytest.raises(Denied, match=r'\["apps"\], resources: \["deployments/scale"\], verbs: \["update"\]'),
        ):
            cluster.scale("tensafe-api", 1, expected=None)
        with (
            api.fault(NAME, Fault(Kind.FORBID, "create", "pods/exec")),
            pytest.raises(Denied, match=r'resources: \["pods/exec"\], verbs: \["create"\]'),
        ):
            cluster.exec("box-0", ["true"], timeout_seconds=5)

    def test_that_asks_to_try_again_is_obeyed(self, api: KubernetesApi, cluster: Cluster) -> None:
        api.requests(NAME)
        began = time.monotonic()
        with api.fault(NAME, Fault(Kind.STATUS, "list", "pods", times=2, status=429, retry_after=1)):
            assert len(cluster.pods()) == 2
        assert time.monotonic() - began >= 2
        assert len(api.requests(NAME)) == 3

    def test_that_goes_on_failing_is_believed(self, api: KubernetesApi, cluster: Cluster) -> None:
        api.requests(NAME)
        with (
            api.fault(NAME, Fault(Kind.STATUS, "list", "pods", status=503)),
            pytest.raises(Unreachable, match=r"503.*\(5 attempts\)"),
        ):
            cluster.pods()
        assert len(api.requests(NAME)) == 5
        with (
            api.fault(NAME, Fault(Kind.STATUS, "list", "pods", status=429, retry_after=3600)),
            pytest.raises(Unreachable, match=r"\(1 attempt\)"),
        ):
            cluster.pods()

    def test_to_a_write_that_might_happen_twice_is_not_asked_for_again(
        self, api: KubernetesApi, cluster: Cluster
    ) -> None:
        api.requests(NAME)
        with (
            api.fault(NAME, Fault(Kind.STATUS, "patch", "deployments", status=503)),
            pytest.raises(Unreachable, match=r"\(1 attempt\)"),
        ):
            cluster._client.perform(
                lambda: cluster._apps.patch_namespaced_deployment("tensafe-api", "tensafe", {}),
                sought="x",
                verb="patch",
                resource="deployments",
            )
        assert len(api.requests(NAME)) == 1

    def test_that_is_late_is_not_waited_for(self, api: KubernetesApi) -> None:
        with connect(api, timeout_seconds=0.5) as hasty:
            for kind in Kind.SLOW, Kind.DRIP:
                began = time.monotonic()
                with api.fault(NAME, Fault(kind, seconds=3)), pytest.raises(Unreachable):
                    hasty.pods()
                assert time.monotonic() - began < 2
            assert hasty.pods()

    def test_that_is_cut_off(self, api: KubernetesApi, cluster: Cluster) -> None:
        with api.fault(NAME, Fault(Kind.CUT)), pytest.raises(Unreachable):
            cluster.pods()

    def test_that_is_none_of_kubernetes(self, api: KubernetesApi, cluster: Cluster) -> None:
        with api.fault(NAME, Fault(Kind.GARBAGE)):
            for ask in (
                cluster.pods,
                cluster.version,
                cluster.identity,
                lambda: cluster.deployment("x"),
                lambda: cluster.config_map("x"),
                lambda: cluster.may("get", "pods"),
            ):
                with pytest.raises(Unreachable, match="not a Kubernetes API server"):
                    ask()

    @pytest.mark.parametrize(
        ("status", "body"),
        [(200, b"{}"), (200, b"[]"), (200, b'{"kind": 5, "items": "x"}'), (404, b"<html>"), (200, b"\xff")],
    )
    def test_of_another_server(self, tmp_path: Path, status: int, body: bytes) -> None:
        class Answers(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        with HTTPServer(("127.0.0.1", 0), Answers) as server:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            config = {
                "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
                "contexts": [{"name": NAME, "context": {"cluster": "c"}}],
            }
            path = written(tmp_path / "config", json.dumps(config))
            try:
                with Cluster.connect(NAME, namespace="tensafe", kubeconfig=path) as other:
                    for ask in other.pods, lambda: other.config_map("x"):
                        with pytest.raises(Unreachable, match="not a Kubernetes API server"):
                            ask()
            finally:
                server.shutdown()


class TestScaling:
    def test_starts_and_ends_processes(self, api: KubernetesApi, cluster: Cluster) -> None:
        before = cluster.deployment("tensafe-api")
        after = cluster.scale("tensafe-api", 2, expected=before)
        assert (after.replicas, after.uid) == (2, before.uid)
        assert after.generation == before.generation + 1
        settled = cluster.wait_for_replicas("tensafe-api", 2, within_seconds=20)
        assert (settled.ready_replicas, settled.observed_generation) == (2, after.generation)
        processes = api.processes(NAME)["pods"]
        assert len(processes) == 2
        assert all(Path("/proc", str(pid)).exists() for pid in processes.values())
        cluster.scale("tensafe-api", 0, expected=settled)
        cluster.wait_for_replicas("tensafe-api", 0, within_seconds=20)
        assert not any(Path("/proc", str(pid)).exists() for pid in processes.values())
        assert cluster.pods("app=tensafe-api") == []

    def test_is_decided_anew_after_a_conflict(self, api: KubernetesApi, scaled: Cluster) -> None:
        seen = scaled.deployment("tensafe-api")
        with api.fault(NAME, Fault(Kind.CONFLICT, "update", "deployments/scale", times=3)):
            scaled.scale("tensafe-api", 1, expected=seen)
        scaled.wait_for_replicas("tensafe-api", 1, within_seconds=20)

    def test_is_given_up_where_conflicts_never_end(self, api: KubernetesApi, scaled: Cluster) -> None:
        with (
            api.fault(NAME, Fault(Kind.CONFLICT, "update", "deployments/scale")),
            pytest.raises(Denied, match="10 times in a row"),
        ):
            scaled.scale("tensafe-api", 1, expected=scaled.deployment("tensafe-api"))
        assert scaled.deployment("tensafe-api").replicas == 2

    @pytest.mark.parametrize("others", [1, 3, 0])
    def test_is_not_done_over_another_hand(self, api: KubernetesApi, scaled: Cluster, others: int) -> None:
        seen = scaled.deployment("tensafe-api")
        fault = Fault(Kind.OTHER_HAND, "update", "deployments/scale", times=1, value=others)
        with (
            api.fault(NAME, fault),
            pytest.raises(Denied, match=f"by another hand.* {others} pods now, and had 2"),
        ):
            scaled.scale("tensafe-api", 0, expected=seen)
        assert scaled.deployment("tensafe-api").replicas == others

    def test_is_not_done_to_another_deployment_of_that_name(self, scaled: Cluster) -> None:
        seen = replace(scaled.deployment("tensafe-api"), uid="another", resource_version="1")
        with pytest.raises(Denied, match="made anew"):
            scaled.scale("tensafe-api", 0, expected=seen)
        assert scaled.deployment("tensafe-api").replicas == 2

    def test_that_was_obeyed_and_whose_answer_was_lost_is_no_other_hand(
        self, api: KubernetesApi, scaled: Cluster
    ) -> None:
        seen = scaled.deployment("tensafe-api")
        with api.fault(NAME, Fault(Kind.ANSWER_LOST, "update", "deployments/scale", times=1)):
            assert scaled.scale("tensafe-api", 1, expected=seen).replicas == 1

    def test_of_what_is_not_there(self, cluster: Cluster) -> None:
        with pytest.raises(NotFound):
            cluster.scale("gone", 1, expected=None)
        with pytest.raises(ToolFailed, match="greater than"):
            cluster.scale("tensafe-api", -1, expected=None)

    def test_that_does_not_come_about_says_what_was_seen_last(self, cluster: Cluster) -> None:
        cluster.scale("never", 1, expected=None)
        try:
            with pytest.raises(WaitTimedOut, match=r"to have 1, has 1, ready 0, .* pods: never-\S+ Running"):
                cluster.wait_for_replicas("never", 1, within_seconds=0.8)
        finally:
            cluster.scale("never", 0, expected=None)
        cluster.wait_for_replicas("never", 0, within_seconds=20)


class TestACommand:
    def test_has_two_outputs_and_an_exit_code(self, cluster: Cluster) -> None:
        said = cluster.exec("box-0", ["sh", "-c", "echo out; echo err >&2; exit 3"], timeout_seconds=10)
        assert (said.stdout, said.stderr, said.returncode) == ("out\n", "err\n", 3)
        with pytest.raises(ToolFailed, match="exit code 3: err"):
            said.must("look")

    @pytest.mark.parametrize(
        ("script", "code"), [("exit 0", 0), ("exit 1", 1), ("exit 255", 255), ("kill -9 $$", 137), ("kill -15 $$", 143)]
    )
    def test_ends_as_it_ends(self, cluster: Cluster, script: str, code: int) -> None:
        assert cluster.exec("box-0", ["sh", "-c", script], timeout_seconds=10).returncode == code

    def test_is_never_a_shells(self, cluster: Cluster) -> None:
        odd = ["a b", "$HOME", "`id`", "; exit 9", "'\"", "*", "", "ü", "\n", "-n", "%00&stdin=true"]
        said = cluster.exec("box-0", ["printf", "<%s>", *odd], timeout_seconds=10)
        assert said.stdout == "".join(f"<{one}>" for one in odd)

    def test_finds_its_containers_environment_and_folder(self, pods: Path, cluster: Cluster) -> None:
        assert cluster.exec("box-0", ["printenv", "COLOUR"], timeout_seconds=10).stdout == "green\n"
        assert cluster.exec("box-0", ["printenv", "COLOUR"], container="side", timeout_seconds=10).returncode == 1
        assert cluster.exec("box-0", ["pwd"], timeout_seconds=10).stdout == f"{pods / 'box'}\n"

    def test_runs_as_the_workspaces_account(self, workspace: Workspace, cluster: Cluster) -> None:
        said = cluster.exec("box-0", ["id", "-u"], timeout_seconds=10).stdout
        assert int(said) == (workspace.account.uid if workspace.account else os.getuid())
        status = cluster.exec("box-0", ["cat", "/proc/self/status"], timeout_seconds=10).stdout
        if os.getuid() == 0:
            assert "CapEff:\t0000000000000000" in status

    def test_passes_all_bytes_both_ways(self, cluster: Cluster) -> None:
        content = bytes(range(256)) * 1000 + b"\r\n\n\r\xff\xfe\0" * 1000 + b"\xc3"
        out = io.BytesIO()
        said = cluster.exec("box-0", ["cat"], stdin=io.BytesIO(content), stdout=out, timeout_seconds=20)
        assert said.succeeded
        assert said.stdout == ""
        assert out.getvalue() == content

    def test_finds_an_empty_input_empty(self, cluster: Cluster) -> None:
        assert cluster.exec("box-0", ["wc", "-c"], stdin=io.BytesIO(), timeout_seconds=10).stdout.strip() == "0"
        assert cluster.exec("box-0", ["wc", "-c"], timeout_seconds=10).stdout.strip() == "0"

    def test_need_not_read_all(self, cluster: Cluster) -> None:
        said = cluster.exec("box-0", ["head", "-c", "5"], stdin=io.BytesIO(b"x" * 5 * MB), timeout_seconds=20)
        assert (said.stdout, said.returncode) == ("xxxxx", 0)

    def test_reads_a_pipe_and_writes_one(self, cluster: Cluster) -> None:
        source = subprocess.Popen(["head", "-c", str(3 * MB), "/dev/zero"], stdout=subprocess.PIPE)
        sink = subprocess.Popen(["wc", "-c"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        with source, sink:
            assert source.stdout is not None
            assert sink.stdin is not None
            said = cluster.exec(
                "box-0",
                ["cat"],
                stdin=cast("BinaryIO", source.stdout),
                stdout=cast("BinaryIO", sink.stdin),
                timeout_seconds=20,
            )
            counted, _ = sink.communicate()
        assert said.succeeded
        assert int(counted) == 3 * MB

    def test_whose_readers_are_slow_is_not_waited_for_for_ever(self, cluster: Cluster) -> None:
        reader, writer = os.pipe()
        with (
            os.fdopen(reader, "rb"),
            os.fdopen(writer, "wb", buffering=0) as stuck,
            pytest.raises(WaitTimedOut, match="had not ended after 1 s"),
        ):
            cluster.exec("box-0", ["cat", "/dev/zero"], stdout=cast("BinaryIO", stuck), timeout_seconds=1)

    def test_that_is_not_there(self, cluster: Cluster) -> None:
        with pytest.raises(ToolMissing, match="executable file not found"):
            cluster.exec("box-0", ["no-such-program"], timeout_seconds=10)
        with pytest.raises(NotFound, match="it has main, side, liar"):
            cluster.exec("box-0", ["true"], container="gone", timeout_seconds=10)
        with pytest.raises(NotFound, match='pods "gone" not found'):
            cluster.exec("gone", ["true"], timeout_seconds=10)

    def test_that_does_not_end_is_left_and_dies(self, api: KubernetesApi, cluster: Cluster) -> None:
        with pytest.raises(WaitTimedOut, match=r"after 1 s.*it said last: waiting"):
            cluster.exec("box-0", ["sh", "-c", "echo waiting >&2; sleep 600"], timeout_seconds=1)
        wait_for(
            "the command to be gone",
            lambda: api.processes(NAME)["execs"] == [],
            where="the sandbox",
            within_seconds=5,
        )

    def test_that_prints_without_end_needs_a_file(self, cluster: Cluster) -> None:
        with pytest.raises(Unreachable, match="more than 16 MB, and nobody gave a file"):
            cluster.exec("box-0", ["cat", "/dev/zero"], timeout_seconds=20)

    def test_complains_without_end_and_its_last_words_are_kept(self, cluster: Cluster) -> None:
        said = cluster.exec(
            "box-0", ["sh", "-c", "head -c 5000000 /dev/zero >&2; echo last >&2; exit 1"], timeout_seconds=20
        )
        assert said.stderr.endswith("last\n")
        assert len(said.stderr) < 3 * MB


class TestOurOwnEnd:
    def test_that_is_full_is_no_fault_of_the_cluster(self, cluster: Cluster) -> None:
        with Path("/dev/full").open("wb", buffering=0) as full, pytest.raises(NoRoom, match="No space left"):
            cluster.exec("box-0", ["echo", "x"], stdout=cast("BinaryIO", full), timeout_seconds=10)

    def test_that_nobody_reads_any_more(self, cluster: Cluster) -> None:
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "wb", buffering=0) as broken, pytest.raises(ToolFailed, match="Broken pipe"):
            cluster.exec("box-0", ["cat", "/dev/zero"], stdout=cast("BinaryIO", broken), timeout_seconds=10)

    def test_that_cannot_be_read_is_not_taken_for_its_end(self, cluster: Cluster) -> None:
        class Damaged(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                if self.tell() > MB:
                    raise OSError(5, "Input/output error")
                return super().read(size)

        with pytest.raises(ToolFailed, match="Input/output error"):
            cluster.exec("box-0", ["wc", "-c"], stdin=Damaged(bytes(2 * MB)), timeout_seconds=10)

    def test_that_is_not_there(self, cluster: Cluster, tmp_path: Path) -> None:
        with pytest.raises(NotFound, match="No such file"):
            cluster.copy_in("box-0", tmp_path / "gone", "x")
        with pytest.raises(ToolFailed, match="No such file"):
            cluster.copy_out("box-0", "/etc/hostname", tmp_path / "gone" / "x")


class TestAStreamThatBreaks:
    def test_in_good_order_without_a_word_is_no_success(self, api: KubernetesApi, cluster: Cluster) -> None:
        with (
            api.fault(NAME, Fault(Kind.NO_STATUS)),
            pytest.raises(Unreachable, match="after 6 bytes of output, and nobody said how the command ended"),
        ):
            cluster.exec("box-0", ["echo", "hello"], timeout_seconds=10)

    def test_in_the_middle_is_no_success(self, api: KubernetesApi, cluster: Cluster) -> None:
        with (
            api.fault(NAME, Fault(Kind.CUT, "create", "pods/exec", bytes=MB)),
            pytest.raises(Unreachable, match="bytes of output"),
        ):
            cluster.exec("box-0", ["head", "-c", str(5 * MB), "/dev/zero"], stdout=io.BytesIO(), timeout_seconds=10)

    def test_because_the_pod_was_replaced(self, api: KubernetesApi, cluster: Cluster) -> None:
        before = cluster.pod("box-0")
        replacing = threading.Timer(0.5, lambda: api.replace_pod(NAME, "box-0"))
        replacing.start()
        with pytest.raises(Unreachable, match="pod was replaced"):
            cluster.exec("box-0", ["sleep", "60"], timeout_seconds=10)
        replacing.join()
        assert cluster.pod("box-0").uid != before.uid

    def test_of_an_older_cluster_lets_a_command_end_that_counts(self, api: KubernetesApi, cluster: Cluster) -> None:
        with api.fault(NAME, Fault(Kind.SLOW, "none")):
            api.speak_only(NAME, "v4.channel.k8s.io")
            said = cluster.exec("box-0", ["head", "-c", "3"], stdin=io.BytesIO(b"abc"), timeout_seconds=10)
            assert said.stdout == "abc"
            with pytest.raises(WaitTimedOut, match=r"older than 1.30"):
                cluster.exec("box-0", ["cat"], stdin=io.BytesIO(b"abc"), timeout_seconds=1)

    def test_of_a_cluster_that_speaks_neither(self, api: KubernetesApi, cluster: Cluster) -> None:
        with api.fault(NAME, Fault(Kind.SLOW, "none")):
            api.speak_only(NAME, "v9.channel.k8s.io")
            with pytest.raises(Unreachable, match="speaks none of"):
                cluster.exec("box-0", ["true"], timeout_seconds=10)


def test_300_megabytes_pass_both_ways_in_constant_memory(api: KubernetesApi, tmp_path: Path) -> None:
    script = """
        import sys
        from pathlib import Path
        from runbook_lib.reach.kubernetes import Cluster

        def peak_kb():
            return int(next(l for l in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in l).split()[1])

        nowhere = open("/dev/null", "wb")
        cluster = Cluster.connect(sys.argv[1], namespace="tensafe", kubeconfig=sys.argv[2], read_only=False)
        cluster.exec("box-0", ["head", "-c", "20000000", "/dev/zero"], stdout=nowhere, timeout_seconds=30)
        before = peak_kb()
        with open(sys.argv[3], "wb") as into:
            cluster.exec("box-0", ["head", "-c", "300000000", "/dev/zero"], stdout=into, timeout_seconds=60).must("")
        with open(sys.argv[3], "rb") as source:
            counted = cluster.exec("box-0", ["wc", "-c"], stdin=source, timeout_seconds=60).must("").stdout
        print(int(counted), Path(sys.argv[3]).stat().st_size, peak_kb() - before)
    """
    told = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), NAME, str(api.kubeconfig), str(tmp_path / "big")],
        capture_output=True,
        text=True,
        timeout=150,
        cwd=Path(__file__).parents[2],
        check=True,
    )
    counted, size, grown_kb = map(int, told.stdout.split())
    assert (counted, size) == (300_000_000, 300_000_000)
    assert grown_kb < 12_000


class TestAFile:
    NAMES = ("plain", "with space", "-rf", "'; rm x", "$HOME", "back\\slash", "ü", "new\nline")

    @pytest.mark.parametrize("name", NAMES)
    def test_comes_back_as_it_went(self, cluster: Cluster, pods: Path, tmp_path: Path, name: str) -> None:
        content = os.urandom(300_000) + bytes(range(256))
        source, back = tmp_path / "source", tmp_path / "back"
        source.write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        assert cluster.copy_in("box-0", source, name) == sha256
        assert (pods / "box" / name).read_bytes() == content
        assert cluster.copy_out("box-0", name, back) == sha256
        assert back.read_bytes() == content
        assert back.stat().st_mode & 0o777 == 0o600
        assert {path.name for path in tmp_path.iterdir()} == {"source", "back"}
        (pods / "box" / name).unlink()
        assert not list((pods / "box").iterdir())

    def test_may_be_empty_and_has_a_path(self, cluster: Cluster, pods: Path, tmp_path: Path) -> None:
        (tmp_path / "empty").touch()
        path = str(pods / "box" / "empty")
        cluster.copy_in("box-0", tmp_path / "empty", path)
        cluster.copy_out("box-0", path, tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == b""
        Path(path).unlink()

    def test_goes_into_an_older_cluster_too(
        self, api: KubernetesApi, cluster: Cluster, pods: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "source").write_bytes(b"x" * 100_001)
        with api.fault(NAME, Fault(Kind.SLOW, "none")):
            api.speak_only(NAME, "v4.channel.k8s.io")
            cluster.copy_in("box-0", tmp_path / "source", "old")
        assert (pods / "box" / "old").stat().st_size == 100_001
        (pods / "box" / "old").unlink()

    def test_that_is_not_there(self, cluster: Cluster, tmp_path: Path) -> None:
        with pytest.raises(NotFound, match="No such file"):
            cluster.copy_out("box-0", "gone", tmp_path / "back")
        assert not list(tmp_path.iterdir())

    def test_is_never_overwritten_here(self, cluster: Cluster, tmp_path: Path) -> None:
        (tmp_path / "back").write_text("mine")
        with pytest.raises(TargetRefused, match="is there"):
            cluster.copy_out("box-0", "/etc/hostname", tmp_path / "back")
        assert (tmp_path / "back").read_text() == "mine"

    def test_that_arrives_as_another_is_damaged(self, cluster: Cluster, pods: Path, tmp_path: Path) -> None:
        (pods / "box" / "there").write_text("before")
        (tmp_path / "source").write_text("after")
        with pytest.raises(DamagedArtefact, match=f"there it is {'0' * 64}"):
            cluster.copy_out("box-0", "there", tmp_path / "back", "liar")
        with pytest.raises(DamagedArtefact, match=f"there it is {'0' * 64}"):
            cluster.copy_in("box-0", tmp_path / "source", "there", "liar")
        assert [path.name for path in tmp_path.iterdir()] == ["source"]
        assert [(path.name, path.read_text()) for path in (pods / "box").iterdir()] == [("there", "before")]
        (pods / "box" / "there").unlink()

    def test_whose_stream_breaks_leaves_nothing(
        self, api: KubernetesApi, cluster: Cluster, pods: Path, tmp_path: Path
    ) -> None:
        (pods / "box" / "there").write_bytes(b"x" * 5 * MB)
        with api.fault(NAME, Fault(Kind.CUT, "create", "pods/exec", bytes=MB)), pytest.raises(Unreachable):
            cluster.copy_out("box-0", "there", tmp_path / "back")
        assert not list(tmp_path.iterdir())
        (pods / "box" / "there").unlink()
        (tmp_path / "source").write_bytes(b"x" * 5 * MB)
        with api.fault(NAME, Fault(Kind.NO_STATUS, times=1)), pytest.raises(Unreachable):
            cluster.copy_in("box-0", tmp_path / "source", "there")
        assert not list((pods / "box").iterdir())


def test_every_error_here_says_what_to_do(api: KubernetesApi, cluster: Cluster) -> None:
    with api.fault(NAME, Fault(Kind.STATUS, status=500)), pytest.raises(RunbookError) as told:
        cluster.deployment("tensafe-api")
    assert "To fix this:" in str(told.value)
    assert NAME in str(told.value)
    assert not any(secret in str(told.value) for secret in secrets_of(api))
