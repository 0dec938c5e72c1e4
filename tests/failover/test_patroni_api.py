"""Patroni's REST API, spoken to as it is: what was done, what was refused, and what nobody knows, are told apart."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from runbook_lib.errors import Denied, NotFound, RunbookError, TargetRefused, ToolFailed, Unproven, Unreachable
from runbook_lib.reach import postgres
from runbook_lib.reach.patroni import PatroniApi, ask_any
from runbook_lib.sandbox.patroni.cluster import MIB, PatroniCluster


def is_standby(cluster: PatroniCluster, name: str) -> bool:
    with postgres.session(cluster.member(name).dsn()) as session:
        return bool(session.value("SELECT pg_catalog.pg_is_in_recovery()"))


def others(cluster: PatroniCluster) -> list[str]:
    leader = cluster.leader()
    return [member.name for member in cluster.members if member is not leader]


class TestQuestions:
    def test_are_answered_as_the_cluster_was_made(self, cluster: PatroniCluster) -> None:
        topology = cluster.api().topology()
        assert topology.scope == cluster.scope
        assert [(each.name, each.host, each.port) for each in topology.members] == [
            (each.name, each.place.host, each.place.port) for each in cluster.members
        ]
        assert topology.leader is not None
        assert topology.leader.name == cluster.leader().name
        assert all(member.works for member in topology.members)
        assert not topology.paused

        shared, timing = cluster.api().configuration(), cluster.mode.timing
        assert (shared.ttl_seconds, shared.loop_wait_seconds, shared.retry_timeout_seconds) == (
            timing.ttl_seconds,
            timing.loop_wait_seconds,
            timing.retry_timeout_seconds,
        )
        assert shared.maximum_lag_on_failover_bytes == MIB
        assert (shared.synchronous_mode, shared.standby_cluster) == ("off", None)

        status = cluster.api(cluster.leader().name).status()
        assert (status.role, status.state, status.unlocked) == ("primary", "running", False)
        with postgres.session(cluster.leader().dsn()) as session:
            assert session.server().system_identifier == status.system_identifier

    def test_go_to_whoever_answers(self, cluster: PatroniCluster) -> None:
        dead = PatroniApi("http://127.0.0.1:1")
        assert ask_any([dead, cluster.api()], PatroniApi.topology).scope == cluster.scope
        with pytest.raises(Unreachable, match=r"127\.0\.0\.1:1: .*refused"):
            ask_any([dead, dead], PatroniApi.topology)

    def test_to_one_that_is_frozen_end_in_time(self, cluster: PatroniCluster) -> None:
        frozen = cluster.member(others(cluster)[0])
        frozen.signal_patroni(signal.SIGSTOP)
        try:
            began = time.monotonic()
            with pytest.raises(Unreachable, match="timed out"):
                cluster.api(frozen.name, timeout_seconds=1).status()
            assert time.monotonic() - began < 3
        finally:
            frozen.signal_patroni(signal.SIGCONT)

    def test_of_a_member_itself_are_answered_without_etcd(self, cluster: PatroniCluster) -> None:
        cluster.etcd.freeze()
        try:
            assert cluster.api().status().dcs_last_seen > time.time() - 10
        finally:
            cluster.etcd.thaw()

    def test_to_something_else_are_told(self, cluster: PatroniCluster) -> None:
        with pytest.raises(Unreachable):
            PatroniApi(cluster.etcd.url).topology()


class TestASwitchover:
    def test_moves_the_primary_and_is_remembered(self, cluster: PatroniCluster) -> None:
        old, candidate = cluster.leader().name, others(cluster)[-1]
        before = len(cluster.api().history())
        claim = cluster.api(others(cluster)[0], read_only=False).switchover(old, candidate)
        assert claim.leader == candidate, claim.says
        cluster.await_steady(within_seconds=60)
        assert not is_standby(cluster, candidate)
        assert is_standby(cluster, old)
        history = cluster.api().history()
        assert len(history) > before
        assert history[-1].new_leader == candidate
        assert history[-1].at is not None

    def test_from_somebody_who_does_not_lead_is_refused(self, cluster: PatroniCluster) -> None:
        leader, (first, second) = cluster.leader().name, others(cluster)
        with pytest.raises(Denied, match="412: leader name does not match"):
            cluster.api(read_only=False).switchover(first, second)
        assert cluster.leader().name == leader

    def test_to_somebody_who_is_not_there_is_refused(self, cluster: PatroniCluster) -> None:
        with pytest.raises(Denied, match="412: candidate does not exists"):
            cluster.api(read_only=False).switchover(cluster.leader().name, "postgres-9")

    def test_to_somebody_who_is_dead_is_refused(self, cluster: PatroniCluster) -> None:
        dead = cluster.member(others(cluster)[0])
        dead.crash()
        try:
            with pytest.raises(Denied, match=r"412: .*no good candidates"):
                cluster.api(cluster.leader().name, read_only=False).switchover(cluster.leader().name, dead.name)
        finally:
            dead.start()

    def test_without_the_password_is_refused(self, cluster: PatroniCluster) -> None:
        stranger = PatroniApi(cluster.api_urls[0], read_only=False)
        with pytest.raises(Denied, match="401"):
            stranger.switchover(cluster.leader().name, others(cluster)[0])

    def test_by_a_client_that_may_only_look_is_not_sent(self, cluster: PatroniCluster) -> None:
        with pytest.raises(TargetRefused, match="nothing was sent"):
            cluster.api().switchover(cluster.leader().name, others(cluster)[0])

    def test_that_is_not_answered_in_time_is_unproven_and_may_still_happen(self, cluster: PatroniCluster) -> None:
        old, (asked, candidate) = cluster.leader(), others(cluster)
        old.signal_patroni(signal.SIGSTOP)
        try:
            with pytest.raises(Unproven, match=r"(?s)no answer came.*do not repeat"):
                cluster.api(asked, read_only=False).switchover(old.name, candidate, answer_within_seconds=3)
            assert cluster.leader() is old
        finally:
            old.signal_patroni(signal.SIGCONT)
        assert cluster.await_leader(within_seconds=30, other_than=old.name).name == candidate

    def test_told_to_a_dead_member_is_unreachable(self, cluster: PatroniCluster) -> None:
        dead = PatroniApi("http://127.0.0.1:1", read_only=False)
        with pytest.raises(Unreachable, match="nothing was sent"):
            dead.switchover("postgres-0", "postgres-1")


def test_a_restart_restarts_postgresql(cluster: PatroniCluster) -> None:
    member = cluster.member(others(cluster)[0])
    before = member.postmaster_pid
    assert "success" in cluster.api(member.name, read_only=False).restart().says
    assert member.postmaster_pid not in {None, before}


@contextmanager
def answering(status: int, body: str) -> Iterator[str]:
    """Somebody who says what Patroni says at moments that cannot be brought about in a test's time."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        do_GET = do_POST  # noqa: N815  (http.server's names)

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (503, "Switchover status unknown", Unproven),
        (503, "failed to write failover key into DCS", Unproven),
        (503, "Switchover failed", ToolFailed),
        (400, "Switchover target and source are the same", Denied),
        (409, "", Denied),
        (500, "", Unreachable),
    ],
)
def test_an_answer_is_told_for_what_it_is(status: int, body: str, error: type[RunbookError]) -> None:
    with answering(status, body) as url, pytest.raises(RunbookError) as told:
        PatroniApi(url, read_only=False).switchover("postgres-0", "postgres-1")
    assert type(told.value) is error
    assert body in told.value.why


def test_somebody_else_may_lead_than_was_asked_for() -> None:
    with answering(200, 'Switched over to "postgres-2" instead of "postgres-1"') as url:
        assert PatroniApi(url, read_only=False).switchover("postgres-0", "postgres-1").leader == "postgres-2"


def test_settings_that_are_nowhere_are_not_found() -> None:
    with answering(502, "") as url, pytest.raises(NotFound):
        PatroniApi(url).configuration()


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"members": 5}', '{"members": [{"name": "x"}]}', "<html>"])
def test_an_answer_of_another_shape_is_not_patronis(body: str) -> None:
    with answering(200, body) as url, pytest.raises(Unreachable, match="not Patroni"):
        PatroniApi(url).topology()
