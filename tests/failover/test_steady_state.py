"""Whatever is wrong with a real cluster is seen by SQL, within a bound; and a healthy one is proven."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from runbook_lib.errors import Unproven
from runbook_lib.failover.members import MemberAddress, addresses, look
from runbook_lib.failover.steady_state import (
    nobody_takes_writes,
    one_cluster,
    one_primary,
    replicas_are_close,
    steady_state,
)
from runbook_lib.outcome import Outcome
from runbook_lib.reach import postgres, programs
from runbook_lib.reach.binaries import PostgresTools
from runbook_lib.reach.patroni import PatroniApi
from runbook_lib.reach.server import FAST, PostgresServer
from runbook_lib.sandbox.patroni.cluster import MIB, PatroniCluster
from runbook_lib.sandbox.patroni.member import Member
from runbook_lib.waiting import wait_for
from tests.failover.conftest import addresses_of, spoken, state_of

BOUND_SECONDS = 12.0
"""Two looks of 2 s each for the connection and for the answer, and three REST APIs of 2 s, on a busy machine."""


def replicas(cluster: PatroniCluster) -> list[Member]:
    leader = cluster.leader()
    return [member for member in cluster.members if member is not leader]


def execute(member: Member, *statements: str) -> None:
    with postgres.session(member.local_dsn(), read_only=False) as session:
        for statement in statements:
            session.execute(statement)


class TestAHealthyCluster:
    def test_is_proven(self, cluster: PatroniCluster) -> None:
        state = state_of(cluster)
        assert state.outcome is Outcome.PROVEN, state.explain()
        assert [sighting.name for sighting in state.seen.writable] == [cluster.leader().name]
        assert {sighting.receiver for sighting in state.seen.sightings if sighting.in_recovery} == {"streaming"}
        assert {check.question for check in state.checks} == {
            "exactly one member takes writes",
            "every member answers",
            "all members have the same system identifier",
            "all members are on the same timeline",
            "all replicas stream and are close behind",
            "Patroni's labels are true",
        }

    def test_tells_where_its_members_are(self, cluster: PatroniCluster) -> None:
        found = addresses(cluster.api().topology(), cluster.members[0].dsn())
        assert [(each.name, postgres.describe(each.dsn)) for each in found] == [
            (each.name, postgres.describe(each.dsn)) for each in addresses_of(cluster)
        ]


class TestAMember:
    def test_that_was_killed_is_missed_and_is_no_second_primary(self, cluster: PatroniCluster) -> None:
        victim = replicas(cluster)[0]
        victim.crash()
        try:
            state = state_of(cluster)
            assert state.outcome is Outcome.FAILED
            assert ("failover.member", victim.name, "failed") in spoken(state)
            assert ("failover.label", victim.name, "failed") in spoken(state), "Patroni still says that it streams"
            assert one_primary(state.seen).outcome is Outcome.PROVEN, "where nobody listens, nobody takes a write"
            assert ("failover.timeline", victim.name, "unproven") in spoken(state)
        finally:
            victim.start()

    def test_that_is_frozen_is_unproven_within_a_bound(self, cluster: PatroniCluster) -> None:
        victim = replicas(cluster)[0]
        victim.signal_postgres(signal.SIGSTOP, all_processes=True)
        try:
            began = time.monotonic()
            state = state_of(cluster)
            assert time.monotonic() - began < BOUND_SECONDS
            assert ("failover.primary", victim.name, "unproven") in spoken(state)
            assert ("failover.member", victim.name, "unproven") in spoken(state)
            with pytest.raises(Unproven, match="exactly one member takes writes"):
                one_primary(state.seen).holds()
        finally:
            victim.signal_postgres(signal.SIGCONT, all_processes=True)

    def test_that_the_profile_names_and_nobody_knows_is_missed(self, cluster: PatroniCluster) -> None:
        nowhere = MemberAddress("postgres-9", postgres.at_address(cluster.members[0].dsn(), "127.0.0.1", 1))
        assert spoken(state_of(cluster, nowhere)) == {
            ("failover.member", "postgres-9", "failed"),
            ("failover.identity", "postgres-9", "unproven"),
            ("failover.timeline", "postgres-9", "unproven"),
            ("failover.lag", "postgres-9", "unproven"),
        }

    def test_that_was_not_asked_is_told(self, cluster: PatroniCluster) -> None:
        left_out = replicas(cluster)[0].name
        others = [each for each in addresses_of(cluster) if each.name != left_out]
        state = steady_state([cluster.api()], others, maximum_lag_bytes=MIB)
        assert spoken(state) == {("failover.label", left_out, "unproven")}


class TestWrites:
    def test_taken_by_two_are_seen_although_patroni_calls_one_a_replica(
        self, cluster: PatroniCluster, tools: PostgresTools
    ) -> None:
        leader, rogue = cluster.leader(), replicas(cluster)[0]
        rogue.signal_patroni(signal.SIGKILL)
        try:
            programs.run(
                [tools.program("pg_ctl"), "promote", "-w", "-D", rogue.data_directory],
                sought="a promotion that Patroni knows nothing of",
                timeout_seconds=30,
                workspace=rogue.workspace,
            ).must("look at its log")
            execute(rogue, "CREATE TABLE public.only_here ()")  # it really takes writes
            state = state_of(cluster)
            primary = one_primary(state.seen)
            assert primary.outcome is Outcome.FAILED
            assert leader.name in primary.findings[0].subject
            assert rogue.name in primary.findings[0].subject
            assert ("failover.label", rogue.name, "failed") in spoken(state)
            assert any(check == "failover.timeline" and outcome == "failed" for check, _, outcome in spoken(state))
        finally:
            rogue.crash()
            rogue.start()
        cluster.await_steady(within_seconds=60)
        with postgres.session(rogue.local_dsn()) as session:
            assert session.value("SELECT to_regclass('public.only_here')") is None, "it was rewound"

    def test_taken_by_nobody_are_seen(self, cluster: PatroniCluster) -> None:
        leader = cluster.leader()
        with refusing_writes(leader):
            state = state_of(cluster)
            assert {
                ("failover.primary", "postgres-0, postgres-1, postgres-2", "failed"),
                ("failover.read_only", leader.name, "failed"),
            } <= spoken(state)

    def test_in_a_cluster_that_only_follows_are_seen(self, cluster: PatroniCluster) -> None:
        check = nobody_takes_writes(look(addresses_of(cluster)))
        assert [finding.subject for finding in check.findings] == [cluster.leader().name]


@contextmanager
def refusing_writes(member: Member) -> Iterator[None]:
    def is_read_only() -> bool:
        return look([MemberAddress(member.name, member.local_dsn())]).sightings[0].read_only

    execute(member, "ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
    try:
        wait_for("writes to be refused", is_read_only, where=member.name, within_seconds=10)
        yield
    finally:
        execute(
            member,
            "SET default_transaction_read_only = off",
            "ALTER SYSTEM RESET default_transaction_read_only",
            "SELECT pg_reload_conf()",
        )
        wait_for("writes to be taken", lambda: not is_read_only(), where=member.name, within_seconds=10)


def test_another_cluster_is_told_apart(cluster: PatroniCluster, tools: PostgresTools) -> None:
    foreign = PostgresServer.start(
        cluster.members[0].workspace, tools, name="foreign", settings={**FAST, "shared_buffers": "16MB"}
    )
    try:
        seen = look([*addresses_of(cluster)[1:], MemberAddress("postgres-0", foreign.dsn())])
        odd = one_cluster(seen)
        assert odd.outcome is Outcome.FAILED
        assert any(finding.subject == "postgres-0" or "postgres-0" in finding.says for finding in odd.findings)
    finally:
        foreign.stop()


def test_a_replica_that_receives_nothing_falls_behind(cluster: PatroniCluster) -> None:
    leader, victim = cluster.leader(), replicas(cluster)[0]
    with postgres.session(victim.local_dsn()) as session:
        pid = session.value("SELECT pid FROM pg_catalog.pg_stat_wal_receiver")
    os.kill(pid, signal.SIGSTOP)
    try:
        execute(leader, "SELECT pg_catalog.pg_logical_emit_message(false, 'filler', repeat('x', 3000000))")
        behind = replicas_are_close(look(addresses_of(cluster)), maximum_lag_bytes=MIB)
        assert [(finding.check, finding.subject) for finding in behind.findings] == [("failover.lag", victim.name)]
        enough = replicas_are_close(look(addresses_of(cluster)), maximum_lag_bytes=100 * MIB)
        assert enough.outcome is Outcome.PROVEN, "so much was allowed"
    finally:
        os.kill(pid, signal.SIGCONT)


def test_what_a_role_may_not_see_is_unproven(cluster: PatroniCluster) -> None:
    execute(cluster.leader(), "CREATE ROLE watcher LOGIN PASSWORD 'watcher'")
    try:
        members = [MemberAddress(each.name, f"{each.dsn()} user=watcher password=watcher") for each in cluster.members]

        def looked() -> set[str]:
            check = replicas_are_close(look(members), maximum_lag_bytes=MIB)
            return {finding.check for finding in check.findings if finding.outcome is Outcome.UNPROVEN}

        wait_for(
            "the role to arrive at the replicas",
            lambda: not look(members).absences,
            where="the replicas",
            within_seconds=10,
        )
        assert looked() == {"failover.streaming"}
        execute(cluster.leader(), "GRANT pg_monitor TO watcher")
        wait_for(
            "it to be allowed to look", looked, until=lambda left: not left, where="the replicas", within_seconds=10
        )
    finally:
        execute(cluster.leader(), "DROP ROLE watcher")


def test_without_patroni_its_labels_are_unproven_and_the_rest_is_not(cluster: PatroniCluster) -> None:
    nobody = PatroniApi("http://127.0.0.1:1", timeout_seconds=2)
    state = steady_state([nobody], addresses_of(cluster), maximum_lag_bytes=MIB)
    assert spoken(state) == {("failover.label", "GET /cluster", "unproven")}
    assert state.outcome is Outcome.UNPROVEN


def test_a_paused_cluster_is_not_steady(cluster: PatroniCluster) -> None:
    api = cluster.api(read_only=False)
    assert api.pause().paused
    try:
        assert ("failover.paused", cluster.scope, "failed") in spoken(state_of(cluster))
    finally:
        assert not api.resume().paused
