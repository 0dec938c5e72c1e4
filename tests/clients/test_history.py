"""What clients saw is written down as it was, can be read at any time, and says what it lacks."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from runbook_lib.errors import DamagedArtefact, NotFound, ToolFailed, Unproven
from runbook_lib.failover.clients import Clients, Plan
from runbook_lib.failover.history import Client, History, Recorder
from runbook_lib.failover.rows import FinalRows
from runbook_lib.failover.verdict import Limits, judge
from runbook_lib.outcome import Outcome
from runbook_lib.reach import postgres
from runbook_lib.reach.pooled_writing import ApplicationStack, PooledWriter
from runbook_lib.reach.writing import Acknowledger, Answer, DirectWriter, WriteOutcome, Writer
from runbook_lib.waiting import wait_for
from tests.clients.place import Instance
from tests.clients.watching import acknowledged, await_attempts, failed

PROBER_ALONE = Plan(writers=0)
SERVER = Acknowledger("7301", 3, "10.0.0.4", 5432, "2026-11-24 09:00:00+00")
OTHER = Acknowledger("7301", 4, "", 0, "2026-11-24 09:30:00+00")
CLIENTS = {"prober": Client("prober", 0.02, 1.0)}


def _answers(began: int) -> list[Answer]:
    return [
        Answer(WriteOutcome.ACKNOWLEDGED, began + 10, "", SERVER, "0/1A2B3C8"),
        Answer(WriteOutcome.REFUSED, began + 20, "connect 57P03"),
        Answer(WriteOutcome.INDETERMINATE, began + 30, "statement deadline"),
        Answer(WriteOutcome.UNSENT, began + 40, "all connections are waiting"),
        Answer(WriteOutcome.ACKNOWLEDGED, began + 50, "", OTHER, "1/0"),
        Answer(WriteOutcome.ACKNOWLEDGED, began + 60, "", SERVER, "0/1A2B4D0"),
    ]


def _written(path: Path, *, run: str = "r", name: str = "prober") -> Recorder:
    recorder = Recorder(path, run=run, clients={name: Client("prober", 0.02, 1.0)})
    began = time.monotonic_ns()
    for sequence, answer in enumerate(_answers(began), start=1):
        recorder.add(name, sequence, began, began + 1, answer)
    return recorder


def test_what_was_written_down_is_read_as_it_was(tmp_path: Path) -> None:
    _written(tmp_path / "h").finish()
    history = History.read(tmp_path / "h")
    assert history.finished
    assert not history.torn
    assert (history.run, history.clients) == ("r", CLIENTS)
    began = history.attempts[0].due_ns
    for attempt, answer in zip(history.attempts, _answers(began), strict=True):
        assert (attempt.outcome, attempt.error, attempt.acknowledger) == (
            answer.outcome,
            answer.error,
            answer.acknowledger,
        )
        assert (attempt.sent_ns, attempt.ended_ns) == (began + 1, answer.ended_ns)
    assert history.attempts[0].lsn == 0x1A2B3C8
    assert history.attempts[4].lsn == 1 << 32
    assert abs(history.clock.at(time.monotonic_ns()).timestamp() - time.time()) < 1


def test_it_is_read_while_it_is_written(tmp_path: Path) -> None:
    recorder = _written(tmp_path / "h")
    history = History.read(tmp_path / "h")
    assert len(history.attempts) == len(_answers(0))
    assert not history.finished
    assert not history.torn
    recorder.finish()


def test_a_cut_off_last_line_costs_that_line_alone(tmp_path: Path) -> None:
    path = tmp_path / "h"
    _written(path).finish()
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for keep in range(len(lines[0]), len(whole)):
        path.write_bytes(whole[:keep])
        history = History.read(path)
        kept = whole[:keep].count(b"\n")
        attempts = sum(line.startswith(b"[") for line in lines[:kept])
        assert len(history.attempts) == attempts
        assert history.torn is not whole[:keep].endswith(b"\n")
        assert not history.finished


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: [lines[0], b'["prober",1,5', *lines[1:]],
        lambda lines: [lines[0].replace(b"tensafe-client-history", b"something else"), *lines[1:]],
        lambda lines: [lines[0].replace(b'"version":1', b'"version":2'), *lines[1:]],
        lambda lines: [lines[0], *lines[2:]],  # an acknowledger that was never introduced
        lambda lines: [*lines, b'["prober",9,1,1,1,"r","x"]'],  # behind its end
        lambda lines: [lines[0], b'["stranger",9,1,1,1,"r","x"]', *lines[1:]],
        lambda lines: [lines[0], b'["prober",9,1,1,1,"?","x"]', *lines[1:]],
        lambda lines: [lines[0], b"17", *lines[1:]],
        lambda lines: [b"\x00" * 64, *lines[1:]],
    ],
    ids=(
        "cut",
        "other format",
        "other version",
        "unknown server",
        "behind its end",
        "stranger",
        "outcome",
        "number",
        "zeros",
    ),
)
def test_a_damaged_line_is_no_history(tmp_path: Path, damage: Callable[[list[bytes]], list[bytes]]) -> None:
    path = tmp_path / "h"
    _written(path).finish()
    path.write_bytes(b"\n".join(damage(path.read_bytes().splitlines())) + b"\n")
    with pytest.raises(DamagedArtefact):
        History.read(path)


def test_nothing_there_is_no_history(tmp_path: Path) -> None:
    for content in (None, b"", b'{"format": "tensafe'):
        if content is not None:
            (tmp_path / "h").write_bytes(content)
        with pytest.raises(NotFound):
            History.read(tmp_path / "h")


def test_a_history_is_never_overwritten(tmp_path: Path) -> None:
    _written(tmp_path / "h").finish()
    before = (tmp_path / "h").read_bytes()
    with pytest.raises(FileExistsError):
        Recorder(tmp_path / "h", run="r", clients=CLIENTS)
    assert (tmp_path / "h").read_bytes() == before


def test_histories_of_one_run_are_read_as_one(tmp_path: Path) -> None:
    _written(tmp_path / "a").finish()
    _written(tmp_path / "b", name="application").finish()
    both = History.read(tmp_path / "a", tmp_path / "b")
    assert len(both.attempts) == 2 * len(_answers(0))
    assert set(both.clients) == {"prober", "application"}
    assert [each.ended_ns for each in both.attempts] == sorted(each.ended_ns for each in both.attempts)
    assert both.finished


@pytest.mark.parametrize("why", ["run", "boot", "client"])
def test_histories_that_cannot_be_compared_are_not(tmp_path: Path, why: str) -> None:
    _written(tmp_path / "a").finish()
    _written(tmp_path / "b", run="s" if why == "run" else "r", name="prober" if why == "client" else "other").finish()
    if why == "boot":
        first, _, rest = (tmp_path / "b").read_bytes().partition(b"\n")
        header = json.loads(first)
        header["clock"]["boot_id"] = "another"
        (tmp_path / "b").write_bytes(json.dumps(header).encode() + b"\n" + rest)
    with pytest.raises(Unproven):
        History.read(tmp_path / "a", tmp_path / "b")


def test_attempts_are_due_at_fixed_times_also_while_nothing_answers(primary: Instance, tmp_path: Path) -> None:
    """Where each waited for the one before, one attempt alone would stand for the whole freeze."""
    plan = Plan(writers=0, probe_deadline_ms=300, probe_connections=15)
    with Clients.start(tmp_path, primary.dsn, plan=plan) as clients:
        await_attempts(clients, 20)
        with primary.frozen():
            began_ns = time.monotonic_ns()
            await_attempts(clients, 40, failed)
            ended_ns = time.monotonic_ns()
        await_attempts(clients, 20)
        history = clients.stop()
    ours = sorted(history.attempts, key=lambda each: each.sequence)
    assert [each.sequence for each in ours] == list(range(1, len(ours) + 1))
    assert {after.due_ns - before.due_ns for before, after in pairwise(ours)} == {20_000_000}
    inside = [each for each in ours if began_ns < each.sent_ns < ended_ns - 300_000_000]
    # None waited longer than its deadline; on a busy machine we ourselves may be a little late.
    assert max(each.ended_ns - each.sent_ns for each in inside) < 600_000_000
    assert not any(each.acknowledged for each in inside)
    assert sum(each.failed for each in inside) >= 0.5 * (ended_ns - began_ns - 300_000_000) / 20_000_000
    verdict = judge(history, FinalRows.read(primary.dsn, clients.run))
    assert verdict.rto_seconds is not None
    assert verdict.rto_seconds >= (ended_ns - began_ns) / 1e9 - 0.1, verdict.explain()
    assert verdict.lost_writes == 0, verdict.explain()


def test_a_killed_prober_loses_what_it_waited_for_and_says_so(primary: Instance, tmp_path: Path) -> None:
    with Clients.start(tmp_path, primary.dsn, plan=PROBER_ALONE) as clients:
        await_attempts(clients, 50)
        os.kill(clients.pids["prober"], signal.SIGKILL)
        history = clients.stop()
        assert not history.finished
        rows = primary.rows_of(clients.run)
        recorded = {(each.client, each.sequence) for each in history.attempts if each.acknowledged}
        assert recorded <= rows
        assert len(rows - recorded) <= 1
        verdict = judge(history, FinalRows.read(primary.dsn, clients.run))
        assert verdict.outcome is Outcome.UNPROVEN, verdict.explain()
        assert "did not come to its end" in verdict.explain()
        assert set(verdict.unrecorded) == rows - recorded
        assert not verdict.unknown


def test_a_prober_that_slept_is_blind_and_proves_nothing(primary: Instance, tmp_path: Path) -> None:
    with Clients.start(tmp_path, primary.dsn, plan=PROBER_ALONE) as clients:
        await_attempts(clients, 30)
        os.kill(clients.pids["prober"], signal.SIGSTOP)
        began = time.monotonic()
        wait_for("some time to pass", lambda: time.monotonic() - began > 1.4, where="here", within_seconds=5)
        os.kill(clients.pids["prober"], signal.SIGCONT)
        await_attempts(clients, 60)
        verdict = judge(clients.stop(), FinalRows.read(primary.dsn, clients.run), limits=Limits(window_seconds=1.0))
    assert verdict.outcome is Outcome.UNPROVEN, verdict.explain()
    assert not verdict.outages, verdict.explain()
    assert {finding.check for finding in verdict.findings} == {"failover.blind"}, verdict.explain()
    assert verdict.count(WriteOutcome.UNSENT) >= 10  # overdue by more than a deadline
    assert max(stretch.seconds for stretch in verdict.blind) > 1.2


def test_what_cannot_be_written_down_ends_the_prober(primary: Instance, tmp_path: Path) -> None:
    clients = Clients.start(tmp_path, primary.dsn)
    await_attempts(clients, 5)
    size = (tmp_path / "prober.jsonl").stat().st_size + 1000
    resource.prlimit(clients.pids["prober"], resource.RLIMIT_FSIZE, (size, size))
    wait_for(
        "the prober to end",
        lambda: Path(f"/proc/{clients.pids['prober']}/stat").read_text().split()[2] == "Z",
        where="here",
        within_seconds=20,
    )
    assert not clients.history().finished
    with pytest.raises(ToolFailed, match="it ended with code 1"):
        clients.stop()


def test_clients_are_gone_with_whoever_started_them(primary: Instance, tmp_path: Path) -> None:
    clients = Clients.start(tmp_path, primary.dsn)
    await_attempts(clients, 5)
    pids = dict(clients.pids)
    history = clients.stop()
    assert set(pids) == {"prober", "application"}
    assert history.finished
    assert not [pid for pid in pids.values() if Path(f"/proc/{pid}").exists()]
    assert clients.stop().finished  # stopping twice is no error


def test_there_is_nobody_to_write_to(tmp_path: Path) -> None:
    """That clients cannot write is for the history to tell, not for whoever starts them."""
    with Clients.start(tmp_path, f"host={tmp_path} dbname=none user=none", plan=PROBER_ALONE) as clients:
        await_attempts(clients, 10, failed)
        history = clients.stop()
    assert {each.error for each in history.attempts} == {"connect FileNotFoundError"}
    assert {each.outcome for each in history.attempts} == {WriteOutcome.REFUSED}
    assert judge(history, None).outcome is Outcome.UNPROVEN


def _ask(dsn: str, monkeypatch: pytest.MonkeyPatch, what: Callable[[], object], *, pooled: bool) -> list[Answer]:
    """Write once, have something happen, write again; and once more."""
    for name, value in postgres.libpq_environment(dsn).items():
        monkeypatch.setenv(name, value)

    async def run() -> list[Answer]:
        writer: Writer = DirectWriter(deadline_seconds=0.5, application_name="asking")
        if pooled:
            stack = ApplicationStack(connections=1, deadline_seconds=0.5, application_name="asking", options=None)
            writer = PooledWriter(stack)
        answers = [await writer.write("ask", "me", 1)]
        await asyncio.to_thread(what)
        for _ in range(3):
            await asyncio.sleep(0)  # what has arrived is read, as it is while a prober waits for its next attempt
        answers += [await writer.write("ask", "me", 2), await writer.write("ask", "me", 3)]
        await writer.close()
        return answers

    return asyncio.run(run())


ASKING = "application_name = 'asking'"
TERMINATE = f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {ASKING}"


@pytest.mark.parametrize("pooled", [False, True])
def test_how_a_write_ended(primary: Instance, monkeypatch: pytest.MonkeyPatch, pooled: bool) -> None:
    def outcomes(what: Callable[[], object]) -> list[str]:
        primary.execute("TRUNCATE runbook_history.writes")
        return [
            f"{each.outcome.name} {each.error}".strip() for each in _ask(primary.dsn, monkeypatch, what, pooled=pooled)
        ]

    def hold_commits() -> None:
        primary.configure("synchronous_standby_names", "nobody")

    def end_its_session() -> None:
        primary.value(TERMINATE)
        ended = f"SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE {ASKING})"
        wait_for("its session to end", lambda: primary.value(ended), where="here", within_seconds=10)

    well = "ACKNOWLEDGED"
    assert outcomes(lambda: None) == [well, well, well]
    assert outcomes(end_its_session) == [well, well, well]
    read_only = outcomes(lambda: primary.configure("default_transaction_read_only", "on"))
    assert read_only == [well, "REFUSED statement 25006", "REFUSED statement 25006"]
    assert primary.rows_of("ask") == {("me", 1)}
    primary.configure("default_transaction_read_only", "off")
    # Committed here and waiting for a standby that is not there: nobody may call that refused, nor lost.
    stage = "commit" if pooled else "statement"
    held = outcomes(hold_commits)
    assert held == [well, f"INDETERMINATE {stage} deadline", f"INDETERMINATE {stage} deadline"]
    primary.configure("synchronous_standby_names", "")
    wait_for(
        "what was committed to be seen",
        lambda: primary.rows_of("ask") == {("me", 1), ("me", 2), ("me", 3)},
        where="here",
        within_seconds=10,
    )
    answers = outcomes(lambda: primary.end(signal.SIGINT))
    assert answers[0] == well
    assert all(each.startswith("REFUSED connect ") for each in answers[1:]), answers


def test_an_acknowledgement_with_a_warning_is_none(primary: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelled while it waits for a standby, a statement succeeds, and its row may be gone after a failover."""
    for name, value in postgres.libpq_environment(primary.dsn).items():
        monkeypatch.setenv(name, value)

    async def run() -> Answer:
        writer = DirectWriter(deadline_seconds=5.0, application_name="asking")
        await writer.write("warn", "me", 1)
        await asyncio.to_thread(primary.configure, "synchronous_standby_names", "nobody")
        waiting = asyncio.create_task(writer.write("warn", "me", 2))
        cancel = (
            "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity"
            " WHERE application_name = 'asking' AND wait_event = 'SyncRep'"
        )
        await asyncio.to_thread(
            wait_for, "the wait to be cancelled", lambda: primary.value(cancel), where="here", within_seconds=10
        )
        answer = await waiting
        await writer.close()
        return answer

    answer = asyncio.run(run())
    assert (answer.outcome, answer.error) == (WriteOutcome.INDETERMINATE, "commit warning")
    assert primary.rows_of("warn") == {("me", 1), ("me", 2)}


def test_each_of_a_probers_fresh_connections_is_new(primary: Instance, tmp_path: Path) -> None:
    plan = Plan(writers=0, fresh=True)
    with Clients.start(tmp_path, primary.dsn, plan=plan) as clients:
        await_attempts(clients, 20, acknowledged)
        looks = 0
        opened = "SELECT sessions FROM pg_stat_database WHERE datname = current_database()"
        before = int(str(primary.value(opened)))

        def sessions_of_others() -> int:
            nonlocal looks
            looks += 1
            return int(str(primary.value(opened))) - before - looks

        wait_for("connections", sessions_of_others, where="here", within_seconds=30, until=lambda found: found > 20)
        history = clients.stop()
    assert all(each.acknowledged for each in history.attempts)
