"""The verdict: against a brute-force oracle, and against real servers whose data is lost, kept, or written twice."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from itertools import combinations, product
from pathlib import Path

import pytest

from runbook_lib.failover.clients import Clients, Plan
from runbook_lib.failover.history import Attempt, Client, Clock, History
from runbook_lib.failover.rows import FinalRows
from runbook_lib.failover.verdict import Limits, Verdict, judge
from runbook_lib.outcome import Outcome
from runbook_lib.reach.writing import Acknowledger, WriteOutcome
from tests.clients.place import Instance, Place, at
from tests.clients.watching import acknowledged, await_attempts, failed

MS = 1_000_000
A, B, C = (Acknowledger("7301", timeline, "10.0.0.4", 5432, "x") for timeline in (1, 2, 3))
LETTERS = {"a": WriteOutcome.ACKNOWLEDGED, "r": WriteOutcome.REFUSED, "i": WriteOutcome.INDETERMINATE}
LETTERS["u"] = WriteOutcome.UNSENT
PROBER = {"prober": Client("prober", 0.02, 1.0)}


def history(attempts: Iterable[Attempt], **changed: object) -> History:
    """A whole history of these attempts."""
    ordered = tuple(sorted(attempts, key=lambda each: each.ended_ns))
    ended_ns = max((each.ended_ns for each in ordered), default=0)
    clock = Clock(0, datetime(2026, 11, 24, tzinfo=UTC), "boot")
    made = History("run", clock, PROBER, ordered, finished=True, torn=False, ended_ns=ended_ns)
    return replace(made, **changed)  # type: ignore[arg-type]


def rows(of: History, *, without: Iterable[int] = (), beside: dict[tuple[str, int], int] | None = None) -> FinalRows:
    """The rows of every acknowledged attempt but some, as the last acknowledger would show them."""
    gone = set(without)
    there = {(each.client, each.sequence): 1 for each in of.attempts if each.acknowledged and each.sequence not in gone}
    timeline = max((each.acknowledger.timeline for each in of.attempts if each.acknowledger), default=1)
    return FinalRows({**there, **(beside or {})}, "7301", timeline, False, of.ended_ns + 1, "here")


def steady(
    text: str, *, server: Acknowledger = A, first: int = 1, every_ms: int = 20, took_ms: int = 1
) -> list[Attempt]:
    """One attempt a letter."""
    made = []
    for sequence, letter in enumerate(text, start=first):
        due_ns = sequence * every_ms * MS
        by = server if letter == "a" else None
        error = "" if letter == "a" else "connect 57P03"
        ended_ns = due_ns + took_ms * MS
        made.append(Attempt("prober", sequence, due_ns, due_ns, ended_ns, LETTERS[letter], error, by, sequence * 100))
    return made


def checks(verdict: Verdict) -> dict[str, Outcome]:
    return {finding.check: finding.outcome for finding in verdict.findings}


def test_writes_that_were_acknowledged_all_the_time() -> None:
    of = history(steady("a" * 200))
    verdict = judge(of, rows(of))
    assert verdict.outcome is Outcome.PROVEN, verdict.explain()
    assert not verdict.findings
    assert (verdict.rto_seconds, verdict.never_recovered, verdict.lost_writes) == (None, False, 0)
    assert (verdict.two_primaries_seconds, verdict.settled and verdict.settled.rate) == (0.0, 0.0)
    assert "0 lost were observed" in verdict.explain()


def test_from_acknowledgement_to_acknowledgement() -> None:
    of = history(steady("a" * 100 + "r" * 50) + steady("a" * 250, first=151, server=B))
    verdict = judge(of, rows(of), limits=Limits(rto_seconds=1.1))
    assert verdict.outcome is Outcome.PROVEN, verdict.explain()
    (outage,) = verdict.outages
    assert outage.seconds == pytest.approx(1.02)
    assert outage.at_least_seconds == pytest.approx(0.98)
    assert outage.at_most_seconds == pytest.approx(1.021)
    assert (outage.refused, outage.indeterminate, outage.errors) == (50, 0, ("connect 57P03",))
    assert (outage.before, outage.after) == (A, B)
    assert verdict.rto_seconds == pytest.approx(1.02)
    assert checks(judge(of, rows(of), limits=Limits(rto_seconds=1.0))) == {"failover.rto": Outcome.FAILED}


def test_a_single_error_is_no_outage_and_waiting_is() -> None:
    two = {**PROBER, "application": Client("application", 0.2, 5.0)}
    error = Attempt("application", 1, 1990 * MS, 1990 * MS, 1995 * MS, WriteOutcome.REFUSED, "statement 25006")
    assert not judge(history([*steady("a" * 200), error], clients=two), None).outages
    # Nothing failed, and for 1.4 s nothing was answered.
    slow = [replace(each, ended_ns=4600 * MS) if each.sent_ns > 3200 * MS else each for each in steady("a" * 220)]
    (outage,) = judge(history(slow), None).outages
    assert outage.seconds == pytest.approx(1.399)


def test_what_never_recovered_is_no_number() -> None:
    of = history(steady("a" * 100 + "r" * 100))
    verdict = judge(of, rows(of), limits=Limits(rto_seconds=3600))
    assert verdict.rto_seconds is None
    assert verdict.never_recovered
    assert checks(verdict) == {"failover.never_recovered": Outcome.FAILED}
    assert "never recovered" in verdict.explain()


@pytest.mark.parametrize(
    ("why", "text", "changed", "expected"),
    [
        ("empty", "", {}, {"failover.history"}),
        ("few", "a" * 19 + "r" * 200, {}, {"failover.history", "failover.never_recovered"}),
        ("nobody was let in", "r" * 200, {}, {"failover.history", "failover.error_rate"}),
        ("killed", "a" * 200, {"finished": False, "torn": True}, {"failover.history"}),
        ("too short", "a" * 50, {}, {"failover.error_rate"}),
        ("slept", "a" * 200, {"ended_ns": 9000 * MS}, {"failover.blind"}),
        ("ends in the middle", "a" * 100 + "r" * 20 + "a" * 50, {}, {"failover.error_rate"}),
        ("does not settle", "a" * 100 + "r" * 20 + "aaar" * 100, {}, {"failover.error_rate"}),
    ],
)
def test_what_was_not_seen_is_not_passed(why: str, text: str, changed: dict[str, object], expected: set[str]) -> None:
    of = history(steady(text), **changed)
    verdict = judge(of, rows(of))
    assert set(checks(verdict)) == expected, verdict.explain()
    failing = {"failover.never_recovered"} | (
        {"failover.error_rate"} if why in {"does not settle", "nobody was let in"} else set()
    )
    assert {check for check, outcome in checks(verdict).items() if outcome is Outcome.FAILED} == failing & expected
    assert verdict.explain()


def test_rows_that_prove_nothing_are_not_looked_at() -> None:
    of = history(steady("a" * 100) + steady("a" * 150, first=101, server=B))
    good = rows(of, without=range(90, 100))
    for wrong in (
        None,
        replace(good, in_recovery=True, timeline=0),
        replace(good, read_at_ns=of.ended_ns - 1),
        replace(good, system_identifier="7302"),
        replace(good, timeline=1),
    ):
        verdict = judge(of, wrong)
        assert checks(verdict) == {"failover.rows": Outcome.UNPROVEN}, verdict.explain()
        assert verdict.lost_writes == 0
        assert "none of" not in verdict.explain()
    assert checks(judge(of, good)) == {"failover.lost": Outcome.FAILED}


def test_a_pool_that_holds_on_to_a_dead_server() -> None:
    two = {**PROBER, "application": Client("application", 0.2, 5.0)}
    text = "a" * 5 + "r" * 20
    slow = [
        replace(each, client="application", error=each.error and "statement 25006")
        for each in steady(text, every_ms=200)
    ]
    of = history([*steady("a" * 250), *slow], clients=two)
    verdict = judge(of, rows(of, beside={("application", n): 1 for n in range(1, 6)}))
    assert checks(verdict)["failover.client_stuck"] is Outcome.FAILED
    assert "25006" in verdict.explain()
    assert not verdict.outages


def test_losses_are_told_by_server_with_their_positions() -> None:
    of = history(steady("a" * 150) + steady("a" * 150, first=151, server=B))
    verdict = judge(of, rows(of, without=[148, 149, 150]))
    (lost,) = verdict.lost
    assert [each.sequence for each in lost.writes] == [148, 149, 150]
    assert (lost.server, lost.first_lsn, lost.last_lsn, lost.wal_bytes) == (A, 14800, 15000, 300)
    assert "3 acknowledged writes are lost: prober 148-150" in verdict.explain()


# A brute-force oracle: the definitions, spelled out over everything that there is, by other ways than the verdict's.


def _random(seed: int) -> tuple[History, FinalRows]:
    rng = random.Random(seed)
    clients = {f"c{n}": Client("prober", 0.02, 0.1) for n in range(rng.randint(1, 3))}
    attempts = []
    servers = [A, B, C][: rng.randint(1, 3)]
    for name in clients:
        weights = rng.choice([(8, 1, 1, 1), (3, 4, 2, 1), (1, 6, 1, 0)])
        switch = sorted(rng.randint(1, 120) for _ in range(len(servers) - 1))
        for sequence in range(1, rng.randint(2, 120)):
            due = sequence * 20
            sent = due + rng.choice([0, 0, 1, 5, 130])
            ended = sent + rng.choice([0, 1, 1, 3, 40, 100])
            letter = rng.choices("ariu", weights)[0]
            if rng.random() < 0.05:
                letter = "r"
            by = servers[sum(sequence > each for each in switch)] if letter == "a" else None
            if by is not None and rng.random() < 0.1:
                by = rng.choice(servers)
            error = "" if by else rng.choice(["connect 57P03", "statement deadline"])
            lsn = sequence * 1000 + int(name[1:])
            attempts.append(Attempt(name, sequence, due * MS, sent * MS, ended * MS, LETTERS[letter], error, by, lsn))
    # Two acknowledgements at the very same moment have no order.
    moments: set[int] = set()
    for number, each in enumerate(attempts):
        ended_ns = each.ended_ns
        while ended_ns in moments:
            ended_ns += 1
        moments.add(ended_ns)
        attempts[number] = replace(each, ended_ns=ended_ns)
    of = replace(history(attempts), clients=clients)
    if rng.random() < 0.3:
        of = replace(of, ended_ns=of.ended_ns + rng.randint(0, 3000) * MS)
    there: dict[tuple[str, int], int] = {}
    for each in attempts:
        chance = {"a": 0.95, "r": 0.01, "i": 0.5, "u": 0.0}[each.outcome.value]
        if rng.random() < chance:
            there[each.client, each.sequence] = 1 if rng.random() < 0.98 else 2
    if rng.random() < 0.2:
        there["nobody", 1] = 1
    return of, FinalRows(there, "7301", 3, False, of.ended_ns, "here")


def _outages_by_hand(of: History, stall_ms: int) -> list[tuple[int, int | None, int, int]]:
    """Every pair of acknowledgements without another one between them, looked at for itself."""
    acks = [each for each in of.attempts if each.acknowledged]
    found: list[tuple[int, int | None, int, int]] = []
    for before in acks:
        later = [each for each in acks if each.ended_ns > before.ended_ns]
        after_ns = min((each.ended_ns for each in later), default=None)
        until_ns = of.ended_ns if after_ns is None else after_ns
        inside = [each for each in of.attempts if each.failed and before.ended_ns <= each.sent_ns < until_ns]
        waited = [until_ns - each.sent_ns for each in acks if each.sent_ns >= before.ended_ns]
        stalled = after_ns is not None and max(waited, default=0) >= stall_ms * MS
        if until_ns - before.ended_ns >= 40 * MS and (len(inside) > 1 or stalled):
            sent = [each.sent_ns for each in inside] or [0]
            found.append((before.ended_ns, after_ns, max(sent) - min(sent), len(inside)))
    return sorted(found)


def _two_primaries_by_hand(of: History, joined_ms: int) -> tuple[int, float]:
    """Stretches by the transitive closure of "close to each other"; overlaps by looking at every millisecond."""
    groups: list[list[Attempt]] = []
    for each in of.attempts:
        if each.acknowledger is None:
            continue
        near = [
            group
            for group in groups
            if any(
                other.acknowledger == each.acknowledger
                and other.sent_ns - each.ended_ns <= joined_ms * MS
                and each.sent_ns - other.ended_ns <= joined_ms * MS
                for other in group
            )
        ]
        groups = [group for group in groups if not any(group is other for other in near)]
        groups.append([each, *(member for group in near for member in group)])
    pairs, moments = 0, set()
    for one, two in combinations(groups, 2):
        if one[0].acknowledger == two[0].acknowledger:
            continue
        one_from, one_until = min(e.ended_ns for e in one), max(e.sent_ns for e in one)
        two_from, two_until = min(e.ended_ns for e in two), max(e.sent_ns for e in two)
        # It can be undone if one of them can be put wholly before the other: its end before the other's beginning.
        if one_until < two_from or two_until < one_from:
            continue
        pairs += 1
        moments |= {t for t in range(3000) if max(one_from, two_from) <= t * MS < min(one_until, two_until)}
    return pairs, len(moments) / 1000


@pytest.mark.parametrize("seed", range(150))
def test_the_verdict_is_what_counting_by_hand_gives(seed: int) -> None:
    of, final = _random(seed)
    limits = Limits(stall_seconds=0.2, joined_within_seconds=0.3)
    verdict = judge(of, final, limits=limits)
    assert [
        (each.began_ns, each.ended_ns, round(each.at_least_seconds * 1e9), each.refused + each.indeterminate)
        for each in verdict.outages
    ] == _outages_by_hand(of, 200)
    pairs, seconds = _two_primaries_by_hand(of, 300)
    assert len(verdict.two_primaries) == pairs
    assert verdict.two_primaries_seconds == pytest.approx(seconds, abs=0.002 * (pairs + 1))
    for outage in verdict.outages:
        if outage.at_most_seconds is not None:
            assert outage.at_least_seconds <= outage.seconds <= outage.at_most_seconds
    for pair in verdict.two_primaries:
        assert 0 <= pair.seconds <= pair.at_most_seconds
    kinds = {
        "lost": {(a.client, a.sequence) for lost in verdict.lost for a in lost.writes},
        "landed": {(a.client, a.sequence) for a in verdict.landed},
        "not landed": {(a.client, a.sequence) for a in verdict.not_landed},
        "lied": {(a.client, a.sequence) for a in verdict.refused_and_there},
        "unknown": set(verdict.unknown),
        "twice": {write for write, _ in verdict.duplicated},
    }
    by_hand: dict[str, set[tuple[str, int]]] = {kind: set() for kind in kinds}
    for client, sequence in product([*of.clients, "nobody"], range(121)):
        of_it = [a.outcome.value for a in of.attempts if (a.client, a.sequence) == (client, sequence)]
        there = final.rows.get((client, sequence), 0)
        kind = {"a": "lost", "i": "not landed"}.get(of_it[0] if of_it else "", "")
        if there:
            kind = {"i": "landed", "r": "lied", "u": "lied", "a": ""}[of_it[0]] if of_it else "unknown"
        if kind:
            by_hand[kind].add((client, sequence))
        if there > 1:
            by_hand["twice"].add((client, sequence))
    assert kinds == by_hand
    wrong = kinds["lost"] or kinds["lied"] or kinds["unknown"] or kinds["twice"] or pairs or verdict.never_recovered
    if wrong:
        assert verdict.outcome is Outcome.FAILED
    if verdict.outcome is Outcome.PROVEN:
        assert not wrong
        assert verdict.count(WriteOutcome.ACKNOWLEDGED) >= limits.least_acknowledged
    assert verdict.explain()


# Real servers.

ON_BOTH = Plan(writers=2, write_every_ms=50, write_deadline_ms=1000, pool_recycle_seconds=1)
QUICK = Limits(settles_within_seconds=0.5, window_seconds=0.5)


def writes(attempts: Iterable[Attempt]) -> set[tuple[str, int]]:
    return {(each.client, each.sequence) for each in attempts}


def speaks_against(verdict: Verdict) -> set[str]:
    """The checks that found something, a machine without a processor for the prober excepted: that is told rightly."""
    found = set(checks(verdict)) - {"failover.blind"}
    assert found or verdict.outcome is (Outcome.UNPROVEN if verdict.blind else Outcome.PROVEN), verdict.explain()
    return found


def lost(verdict: Verdict) -> set[tuple[str, int]]:
    return {write for each in verdict.lost for write in writes(each.writes)}


def test_nothing_happens_to_a_healthy_server(primary: Instance, tmp_path: Path) -> None:
    with Clients.start(tmp_path, primary.dsn, plan=ON_BOTH) as clients:
        await_attempts(clients, 80)
        verdict = judge(clients.stop(), FinalRows.read(primary.dsn, clients.run), limits=QUICK)
    assert speaks_against(verdict) == set(), verdict.explain()
    assert verdict.rto_seconds is None
    assert set(verdict.history.clients) == {"prober", "application-1", "application-2"}
    assert writes(verdict.history.attempts) == primary.rows_of(clients.run)


def test_a_restart_is_measured_and_what_had_no_answer_is_kept_apart(primary: Instance, tmp_path: Path) -> None:
    """Commits that wait for a standby are on the disk, and their clients heard nothing when the server was killed."""
    with Clients.start(tmp_path, primary.dsn, plan=ON_BOTH) as clients:
        await_attempts(clients, 20)
        primary.configure("synchronous_standby_names", "nobody")
        # Those who hear nothing for their deadline are indeterminate, too; the kill takes those who still wait.
        await_attempts(clients, 4, failed)
        down_ns = time.monotonic_ns()
        primary.kill()
        killed_ns = time.monotonic_ns()
        (primary.data / "postgresql.auto.conf").unlink()
        primary.start()
        up_ns = time.monotonic_ns()
        await_attempts(clients, 70)
        verdict = judge(clients.stop(), FinalRows.read(primary.dsn, clients.run), limits=QUICK)
    assert speaks_against(verdict) == set(), verdict.explain()
    (outage,) = verdict.outages
    assert outage.ended_ns is not None
    assert outage.began_ns < down_ns < killed_ns < outage.ended_ns
    assert outage.ended_ns < up_ns + 300 * MS
    assert outage.before.started_at != outage.after.started_at if outage.after else False
    assert verdict.lost_writes == 0
    assert verdict.landed, verdict.explain()
    there = primary.rows_of(clients.run)
    answered = writes(each for each in verdict.history.attempts if each.acknowledged)
    assert there - answered == writes(verdict.landed)
    assert not writes(verdict.not_landed) & there


def test_what_an_asynchronous_standby_did_not_get_is_lost_and_listed(
    servers: Place, primary: Instance, tmp_path: Path
) -> None:
    with servers.standby_of(primary) as standby:
        name = servers.name(primary)
        with Clients.start(tmp_path, at(name), plan=ON_BOTH) as clients:
            await_attempts(clients, 30)
            standby.configure("primary_conninfo", "")
            await_attempts(clients, 30)
            primary.kill()
            await_attempts(clients, 5, failed)
            standby.promote()
            servers.name(standby)
            await_attempts(clients, 70)
            verdict = judge(clients.stop(), FinalRows.read(standby.dsn, clients.run), limits=QUICK)
        primary.start()  # the loss, without the code that is proven here
        gone = primary.rows_of(clients.run) - standby.rows_of(clients.run)
    answered = writes(each for each in verdict.history.attempts if each.acknowledged)
    assert verdict.lost_writes >= 30
    assert lost(verdict) == gone & answered
    assert speaks_against(verdict) == {"failover.lost"}, verdict.explain()
    assert verdict.outcome is Outcome.FAILED
    (by_server,) = verdict.lost
    assert by_server.server.timeline == 1
    assert 0 < by_server.first_lsn < by_server.last_lsn
    assert verdict.rto_seconds is not None, verdict.explain()  # which looks good, and tells nothing of it
    assert verdict.outages[-1].after is not None
    assert verdict.outages[-1].after.timeline == 2


def test_what_a_standby_got_is_not_lost(servers: Place, primary: Instance, tmp_path: Path) -> None:
    """The healthy twin: commits that wait for the standby, and the same end of the primary."""
    with servers.standby_of(primary) as standby:
        primary.configure("synchronous_standby_names", "*")
        name = servers.name(primary)
        with Clients.start(tmp_path, at(name), plan=ON_BOTH) as clients:
            await_attempts(clients, 30)
            primary.kill()
            await_attempts(clients, 5, failed)
            standby.configure("synchronous_standby_names", "")
            standby.promote()
            servers.name(standby)
            await_attempts(clients, 70)
            verdict = judge(clients.stop(), FinalRows.read(standby.dsn, clients.run), limits=QUICK)
    assert speaks_against(verdict) == set(), verdict.explain()
    assert verdict.lost_writes == 0
    assert verdict.two_primaries_seconds == 0
    assert len(verdict.outages) == 1
    assert verdict.rto_seconds is not None


def test_two_primaries_are_seen_and_so_is_what_it_cost(servers: Place, primary: Instance, tmp_path: Path) -> None:
    """The old primary is not fenced: who is connected stays with it, who connects anew finds the new one."""
    with servers.standby_of(primary) as standby:
        name = servers.name(primary)
        with Clients.start(tmp_path, at(name), plan=ON_BOTH) as clients:
            await_attempts(clients, 20)
            standby.promote()
            servers.name(standby)
            await_attempts(
                clients,
                2,
                lambda each: each.acknowledger is not None and each.acknowledger.timeline == 2,
                client="application-1",
            )
            began_ns = time.monotonic_ns()
            await_attempts(clients, 50)
            ended_ns = time.monotonic_ns()
            primary.end(signal.SIGINT)
            await_attempts(clients, 70)
            verdict = judge(clients.stop(), FinalRows.read(standby.dsn, clients.run), limits=QUICK)
        primary.start()
        gone = primary.rows_of(clients.run) - standby.rows_of(clients.run)
    answered = writes(each for each in verdict.history.attempts if each.acknowledged)
    assert speaks_against(verdict) == {"failover.two_primaries", "failover.lost"}, verdict.explain()
    assert verdict.two_primaries_seconds >= (ended_ns - began_ns) / 1e9 - 0.1
    assert verdict.two_primaries_seconds <= (ended_ns - began_ns) / 1e9 + 1.5
    assert {pair.first.server.timeline for pair in verdict.two_primaries} == {1}
    assert {pair.second.server.timeline for pair in verdict.two_primaries} == {2}
    assert lost(verdict) == gone & answered
    assert verdict.lost_writes >= 50
    # A gap alone would have called this the best failover of all.
    assert (verdict.rto_seconds or 0) < 1.0, verdict.explain()


def test_a_primary_that_was_frozen_and_wakes_up_is_seen(servers: Place, primary: Instance, tmp_path: Path) -> None:
    """Its lease is over and another one was promoted; for a moment it goes on as if nothing had been."""
    plan = replace(ON_BOTH, probe_deadline_ms=4000.0, probe_connections=4)
    with servers.standby_of(primary) as standby:
        name = servers.name(primary)
        with Clients.start(tmp_path, at(name), plan=plan) as clients:
            await_attempts(clients, 20)
            with primary.frozen():
                standby.promote()
                servers.name(standby)
                await_attempts(clients, 20, acknowledged, client="application-1")
            await_attempts(clients, 20)
            primary.kill()
            await_attempts(clients, 70)
            verdict = judge(clients.stop(), FinalRows.read(standby.dsn, clients.run), limits=QUICK)
    assert checks(verdict)["failover.two_primaries"] is Outcome.FAILED, verdict.explain()
    assert checks(verdict)["failover.lost"] is Outcome.FAILED, verdict.explain()
    assert verdict.lost_writes >= 15
    assert {each.server.timeline for each in verdict.lost} == {1}
