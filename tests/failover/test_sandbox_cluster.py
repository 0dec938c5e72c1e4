"""The sandbox's cluster is real, is this machine's alone, and leaves nothing."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
import urllib3

from runbook_lib.errors import Denied, Unproven, Unreachable
from runbook_lib.failover.steady_state import one_primary
from runbook_lib.outcome import Outcome
from runbook_lib.reach import postgres
from runbook_lib.reach.binaries import PostgresTools
from runbook_lib.reach.workspace import Workspace
from runbook_lib.sandbox.patroni.addresses import port_of_all
from runbook_lib.sandbox.patroni.cluster import Mode, PatroniCluster, Timing
from runbook_lib.waiting import wait_for
from tests.failover.conftest import MAJOR, spoken, state_of

PROJECT = Path(__file__).parents[2]


def processes_of(cluster: PatroniCluster) -> list[psutil.Process]:
    found = [psutil.Process(pid) for each in cluster.members for pid in (each.patroni_pid, each.postmaster_pid) if pid]
    assert cluster.etcd.is_running
    assert cluster.etcd._process is not None
    found.append(psutil.Process(cluster.etcd._process.pid))
    return found


class TestStrangers:
    def test_on_other_machines_find_no_open_port(self, cluster: PatroniCluster) -> None:
        sockets = [
            socket.laddr
            for process in processes_of(cluster)
            for socket in process.net_connections()
            if socket.status == psutil.CONN_LISTEN
        ]
        assert len(sockets) == 2 * len(cluster.members) + 2, "PostgreSQL, Patroni; etcd has two"
        assert all(address.ip.startswith("127.") for address in sockets)
        assert len({address.ip for address in sockets}) == len(cluster.members) + 1

    @pytest.mark.parametrize("user", ["postgres", "replicator"])
    def test_on_this_machine_need_a_password(self, cluster: PatroniCluster, user: str) -> None:
        place = cluster.members[0].place
        for password in "", "wrong":
            dsn = f"host={place.host} port={place.port} user={user} password='{password}' dbname=postgres"
            with pytest.raises(Denied), postgres.session(dsn):
                pass

    def test_may_not_appoint_a_leader(self, cluster: PatroniCluster) -> None:
        told = {"key": "L3NlcnZpY2U=", "value": "eA=="}
        for what in "kv/put", "kv/range":
            answer = urllib3.request("POST", f"{cluster.etcd.url}/v3/{what}", json=told, retries=False)
            assert answer.status == 400
            assert "user name is empty" in answer.data.decode()


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's processes have no capabilities to begin with")
def test_no_server_has_the_capability_that_patroni_may_need(cluster: PatroniCluster) -> None:
    for member in cluster.members:
        status = Path(f"/proc/{member.postmaster_pid}/status").read_text()
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert {fields[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
        assert member.workspace.account is not None
        assert fields["Uid"].split()[0] == str(member.workspace.account.uid)


@pytest.mark.parametrize(
    "told",
    [
        {"ttl_seconds": 19},
        {"loop_wait_seconds": 0},
        {"retry_timeout_seconds": 2},
        {"ttl_seconds": 20, "loop_wait_seconds": 10, "retry_timeout_seconds": 10},
    ],
)
def test_what_patroni_would_change_in_silence_is_refused(told: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="Patroni"):
        Timing(**told)


def test_a_port_is_one_that_is_free_at_every_address() -> None:
    with socket.create_server(("127.9.9.2", 0)) as taken:
        port = taken.getsockname()[1]
        assert port_of_all(["127.9.9.1", "127.9.9.2"], port) != port
        assert port_of_all(["127.9.9.1", "127.9.9.3"], port) == port
    with pytest.raises(Unproven, match=r"192\.0\.2\.1"):
        port_of_all(["192.0.2.1"], 5432)


@pytest.fixture(scope="module")
def dr(running: PatroniCluster, tools: PostgresTools) -> Iterator[PatroniCluster]:
    with PatroniCluster.up(running.members[0].workspace, tools, follows=running) as standby:
        yield standby


class TestAStandbyCluster:
    def test_follows_and_takes_no_writes(self, cluster: PatroniCluster, dr: PatroniCluster) -> None:
        state = state_of(dr, follows=True)
        assert state.outcome is Outcome.PROVEN, state.explain()
        assert dr.api().configuration().standby_cluster is not None
        topology = dr.api().topology()
        assert [(each.name, each.role) for each in topology.members] == [("postgres-dr-0", "standby_leader")]
        with postgres.session(cluster.leader().local_dsn(), read_only=False) as session:
            session.execute("CREATE TABLE public.crosses ()")
        with postgres.session(dr.members[0].dsn()) as session:
            wait_for(
                "what is written at home to arrive",
                lambda: session.value("SELECT to_regclass('public.crosses') IS NOT NULL"),
                where="postgres-dr-0",
                within_seconds=10,
            )

    def test_is_a_failure_where_a_primary_is_expected(self, dr: PatroniCluster) -> None:
        assert ("failover.primary", "postgres-dr-0", "failed") in spoken(state_of(dr))


def test_a_synchronous_cluster_waits_for_its_replicas(tools: PostgresTools) -> None:
    with (
        Workspace.open() as workspace,
        PatroniCluster.up(
            workspace, tools, members=("postgres-0", "postgres-1"), mode=Mode(synchronous=True)
        ) as cluster,
    ):
        state = state_of(cluster)
        assert state.outcome is Outcome.PROVEN, state.explain()
        shared = cluster.api().configuration()
        assert (shared.synchronous_mode, shared.synchronous_mode_strict) == ("quorum", True)
        cluster.member("postgres-1").crash()
        alone = one_primary(state_of(cluster).seen)
        assert [(each.check, each.outcome) for each in alone.findings] == [("failover.synchronous", Outcome.FAILED)], (
            "it takes writes, and confirms none"
        )
        with (
            postgres.session(
                cluster.member("postgres-0").local_dsn(), read_only=False, answer_within_seconds=1
            ) as session,
            pytest.raises(Unreachable, match="silent"),  # no statement_timeout ends a commit that waits
        ):
            session.execute("CREATE TABLE public.unconfirmed ()")


def test_killed_with_its_owner_it_leaves_nothing() -> None:
    program = f"""
        import sys
        sys.path.insert(0, {str(PROJECT)!r})
        from runbook_lib.reach import binaries
        from runbook_lib.reach.workspace import Workspace
        from runbook_lib.sandbox.patroni.cluster import PatroniCluster
        with (
            Workspace.open() as workspace,
            PatroniCluster.up(workspace, binaries.find({MAJOR}), members=("postgres-0",)) as cluster,
        ):
            pids = [pid for each in cluster.members for pid in (each.patroni_pid, each.postmaster_pid)]
            print(workspace.path, *pids, cluster.etcd._process.pid, sep="|", flush=True)
            sys.stdin.read()
    """
    owner = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    try:
        path, *pids = owner.stdout.readline().strip().split("|")
        assert Path(path).exists()
        processes = [psutil.Process(int(pid)) for pid in pids]
        processes += [child for process in processes for child in process.children(recursive=True)]
        assert len(processes) > 3 * len(pids), "the servers' own processes are among them"
        segments = shared_memory()
        owner.kill()
        wait_for(
            "the cluster to be gone",
            lambda: [*filter(lives, processes), *([path] if Path(path).exists() else [])],
            until=lambda left: not left,
            where=path,
            within_seconds=20,
        )
        assert len(shared_memory()) < len(segments), "their shared memory is gone with them"
    finally:
        owner.kill()
        owner.communicate()


def lives(process: psutil.Process) -> bool:
    return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)


def shared_memory() -> set[str]:
    """Return the System V segments of this machine."""
    return {line.split()[1] for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]}
