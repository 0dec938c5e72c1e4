"""One verdict on a failover, from one history of what its clients saw.

Four questions: for how long could nobody write, which acknowledged writes are gone, for how long did two servers take
writes, and is it as before afterwards. A gap alone lies: the shortest ones are those in which two primaries went on
writing side by side, and one of them lost everything it had acknowledged. So they are answered together, by a pure
function of what was recorded and of the rows that are there in the end, and none of them passes for lack of evidence:
an empty history, rows that were read from a standby, or a prober that slept are *unproven*, never passed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from runbook_lib.failover import outages as gaps
from runbook_lib.failover import primaries
from runbook_lib.failover.history import Attempt, History
from runbook_lib.failover.outages import SECOND_NS, Blind, Outage
from runbook_lib.failover.primaries import TwoPrimaries
from runbook_lib.failover.rows import FinalRows
from runbook_lib.outcome import Finding, Outcome
from runbook_lib.reach.writing import Acknowledger, WriteOutcome
from runbook_lib.wal.segment import lsn_text

_TOLD = 8
"""How many of a long list are told."""
_AGAIN = "drill again"
_Write = tuple[str, int]
"""A client and the number of its attempt."""


@dataclass(frozen=True)
class Limits:
    """What is promised, and what counts as evidence."""

    rto_seconds: float | None = None
    """How long an outage may be; None where nothing is promised and it is only measured."""
    lost: int = 0
    """How many acknowledged writes may be lost."""
    error_rate: float = 0.01
    """Which share of attempts may fail once everything is stable again."""
    settles_within_seconds: float = 2.0
    """How long after the last outage everything is to be stable."""
    brief_seconds: float = 0.5
    """Outages shorter than this, where there are longer ones, are no new fault: what fails in them counts."""
    window_seconds: float = 2.0
    """Over how long the error rate is then taken, at least; a longer history is looked at to its end."""
    least_acknowledged: int = 20
    """How many acknowledgements there must be at all, and how many attempts in the stable window, to say anything."""
    stall_seconds: float = gaps.STALL_SECONDS
    """How long nothing may be acknowledged, although nothing failed, until that counts as an outage."""
    joined_within_seconds: float = primaries.JOINED_WITHIN_SECONDS
    """How long a server may acknowledge nothing and still be taken to have been writable all the time."""


@dataclass(frozen=True)
class Lost:
    """The acknowledged writes of one server that are not there in the end."""

    server: Acknowledger
    """Who acknowledged them."""
    writes: tuple[Attempt, ...]
    """Each of them, by its position in that server's WAL."""
    wal_bytes: int
    """From the last acknowledged write of that server before them that is there, to the last of them: so much of its
    WAL, at least, is gone, whoever wrote it. From the first of them where there is none before."""

    @property
    def first_lsn(self) -> int:
        """The position behind the first of them."""
        return self.writes[0].lsn

    @property
    def last_lsn(self) -> int:
        """The position behind the last of them; its commit is behind that."""
        return self.writes[-1].lsn


@dataclass(frozen=True)
class ErrorRate:
    """How many attempts failed once everything was to be stable again."""

    began_ns: int
    """From when on, on the monotonic clock."""
    seconds: float
    """For how long."""
    attempts: int
    """How many were sent."""
    failed: int
    """How many of them were not acknowledged."""

    @property
    def rate(self) -> float:
        """The share that failed; 0 where none was sent."""
        return self.failed / self.attempts if self.attempts else 0.0


@dataclass(frozen=True)
class Verdict:
    """What a failover did to those who wrote."""

    history: History
    """What it was judged from."""
    outages: tuple[Outage, ...]
    """Every stretch in which nobody could write."""
    outages_of_clients: Mapping[str, tuple[Outage, ...]]
    """The same for each client by itself: a pool may hold on to a dead server when others write again."""
    lost: tuple[Lost, ...]
    """Acknowledged writes that are not there in the end, by the server that acknowledged them."""
    landed: tuple[Attempt, ...]
    """Writes that are there though nobody acknowledged them: their answer was lost. No fault, and no proof either."""
    not_landed: tuple[Attempt, ...]
    """Writes without an answer that are not there. No loss: nobody was told that they are."""
    refused_and_there: tuple[Attempt, ...]
    """Writes that certainly were not done, and are there: somebody lied."""
    duplicated: tuple[tuple[_Write, int], ...]
    """Writes that are there more than once, and how often."""
    unrecorded: tuple[_Write, ...]
    """Rows of attempts that a killed recorder did not come to write down."""
    unknown: tuple[_Write, ...]
    """Rows that no client wrote."""
    two_primaries: tuple[TwoPrimaries, ...]
    """Every pair of servers that were writable at once."""
    settled: ErrorRate | None
    """The error rate once everything was to be stable again; None where the history ends before, or in an outage."""
    blind: tuple[Blind, ...]
    """Stretches in which nobody asked."""
    findings: tuple[Finding, ...] = field(default=())
    """Everything that speaks against it, and everything that could not be looked at."""

    @property
    def outcome(self) -> Outcome:
        """Proven, failed or unproven."""
        return Outcome.worst([finding.outcome for finding in self.findings] or [Outcome.PROVEN])

    @property
    def rto_seconds(self) -> float | None:
        """The longest outage, from acknowledgement to acknowledgement; None where there was none, or one has no end."""
        if self.never_recovered or not self.outages:
            return None
        return max(outage.seconds for outage in self.outages)

    @property
    def never_recovered(self) -> bool:
        """Whether nobody could write any more at the end."""
        return any(not outage.recovered for outage in self.outages)

    @property
    def lost_writes(self) -> int:
        """How many acknowledged writes are not there in the end."""
        return sum(len(lost.writes) for lost in self.lost)

    @property
    def two_primaries_seconds(self) -> float:
        """For how long, at least, two servers were writable at once."""
        return primaries.seconds_of(self.two_primaries)

    @property
    def longest_gap_seconds(self) -> float | None:
        """The longest time between two acknowledgements, outage or not; None where there are not two."""
        ended = [each.ended_ns for each in self.history.attempts if each.acknowledged]
        return max(((after - before) / SECOND_NS for before, after in pairwise(ended)), default=None)

    def count(self, outcome: WriteOutcome) -> int:
        """Return how many attempts ended like this."""
        return sum(each.outcome is outcome for each in self.history.attempts)

    def explain(self) -> str:
        """Return the whole verdict as lines of text."""
        return "\n".join(_explained(self))


def judge(history: History, final: FinalRows | None, *, limits: Limits | None = None) -> Verdict:
    """Judge a failover from what its clients saw and from the rows that are there in the end.

    :param history: what they saw
    :param final: the rows, read from the primary that is left after the last attempt; None where that could not be
    :param limits: what is promised

    Whatever is wrong with the evidence becomes a finding; nothing is raised.
    """
    limits = limits or Limits()
    attempts = history.attempts

    def outages_of(some: Sequence[Attempt], witnesses: Collection[str], sampling_seconds: float) -> tuple[Outage, ...]:
        return gaps.outages(
            some,
            witnesses=witnesses,
            sampling_seconds=sampling_seconds,
            ended_ns=history.ended_ns,
            stall_seconds=max(limits.stall_seconds, 5 * sampling_seconds),
        )

    outages = outages_of(attempts, history.witnesses, history.sampling_seconds)
    of_clients: dict[str, list[Attempt]] = {name: [] for name in history.clients}
    for each in attempts:
        of_clients[each.client].append(each)
    of_rows = tuple(_evidence_of_rows(history, final))
    rows = final.rows if final is not None and not of_rows else {}  # rows of the wrong place or time say nothing
    by_write = {(each.client, each.sequence): each for each in attempts}
    highest = {name: max((each.sequence for each in some), default=0) for name, some in of_clients.items()}
    strangers = sorted(rows.keys() - by_write.keys())
    # Attempts end out of order: what was under way when a recorder was killed may be older than what it wrote last.
    cut_off = set() if history.finished else {write for write in strangers if _may_be_cut_off(write, history, highest)}

    def those(outcome: WriteOutcome, *, there: bool) -> tuple[Attempt, ...]:
        return tuple(
            each
            for each in attempts
            if not of_rows and each.outcome is outcome and ((each.client, each.sequence) in rows) is there
        )

    verdict = Verdict(
        history=history,
        outages=outages,
        outages_of_clients={
            name: outages_of(some, {name}, history.clients[name].every_seconds) for name, some in of_clients.items()
        },
        lost=_lost(attempts, those(WriteOutcome.ACKNOWLEDGED, there=False)),
        landed=those(WriteOutcome.INDETERMINATE, there=True),
        not_landed=those(WriteOutcome.INDETERMINATE, there=False),
        refused_and_there=those(WriteOutcome.REFUSED, there=True) + those(WriteOutcome.UNSENT, there=True),
        duplicated=tuple((write, count) for write, count in sorted(rows.items()) if count > 1),
        unrecorded=tuple(write for write in strangers if write in cut_off),
        unknown=tuple(write for write in strangers if write not in cut_off),
        two_primaries=primaries.two_primaries(
            primaries.writable(attempts, joined_within_seconds=limits.joined_within_seconds)
        ),
        settled=_settled(history, outages, limits),
        blind=gaps.blind(history),
    )
    return Verdict(**{**verdict.__dict__, "findings": (*_findings(verdict, limits), *of_rows)})


def _may_be_cut_off(write: _Write, history: History, highest: Mapping[str, int]) -> bool:
    client, sequence = write
    if client not in history.clients:
        return False
    told = history.clients[client]
    # As many as can be under way at once: one an interval until the deadline.
    return sequence > highest[client] - told.deadline_seconds / told.every_seconds


def _lost(attempts: Sequence[Attempt], missing: Sequence[Attempt]) -> tuple[Lost, ...]:
    gone = {(each.client, each.sequence) for each in missing}
    servers: dict[Acknowledger, list[Attempt]] = {}
    for each in missing:
        assert each.acknowledger is not None, "it was acknowledged"
        servers.setdefault(each.acknowledger, []).append(each)
    found = []
    for server, writes in servers.items():
        writes.sort(key=lambda each: each.lsn)
        kept = [
            each.lsn
            for each in attempts
            if each.acknowledger == server and (each.client, each.sequence) not in gone and each.lsn <= writes[0].lsn
        ]
        found.append(Lost(server, tuple(writes), writes[-1].lsn - max(kept, default=writes[0].lsn)))
    return tuple(sorted(found, key=lambda lost: lost.writes[0].ended_ns))


def _settled(history: History, outages: Sequence[Outage], limits: Limits) -> ErrorRate | None:
    if not history.attempts:
        return None
    began_ns = min(each.sent_ns for each in history.attempts)
    if outages:
        longest = max(outages, key=lambda outage: outage.seconds)
        last = max([each for each in outages if each.seconds >= limits.brief_seconds] or [longest], key=_began).ended_ns
        if last is None:
            return None
        began_ns = last + round(limits.settles_within_seconds * SECOND_NS)
    inside = [each for each in history.attempts if each.sent_ns >= began_ns and each.outcome is not WriteOutcome.UNSENT]
    seconds = (history.ended_ns - began_ns) / SECOND_NS
    if seconds < limits.window_seconds:
        return None
    return ErrorRate(began_ns, seconds, len(inside), sum(each.failed for each in inside))


def _began(outage: Outage) -> int:
    return outage.began_ns


def _findings(verdict: Verdict, limits: Limits) -> Iterator[Finding]:
    yield from _evidence(verdict, limits)
    yield from _writability(verdict, limits)
    yield from _rows(verdict, limits)
    yield from _stability(verdict, limits)


def _evidence(verdict: Verdict, limits: Limits) -> Iterator[Finding]:
    history = verdict.history
    acknowledged = verdict.count(WriteOutcome.ACKNOWLEDGED)
    if acknowledged < limits.least_acknowledged:
        says = (
            f"{acknowledged} writes were acknowledged; from fewer than {limits.least_acknowledged} nothing can be said"
        )
        yield _unproven("failover.history", history.run, says, "let clients write before, during and after")
    if not history.finished:
        says = "its recorder did not come to its end: what it was waiting for, and what came later, nobody wrote down"
        if history.torn:
            says += "; the last line is cut off"
        yield _unproven("failover.history", history.run, says, "stop the clients, and judge then; or " + _AGAIN)
    for stretch in verdict.blind:
        says = f"nobody tried to write for {stretch.seconds:.2f} s from {_at(history, stretch.began_ns)} on"
        yield _unproven("failover.blind", history.run, says, "give the prober a processor, and " + _AGAIN)


def _evidence_of_rows(history: History, final: FinalRows | None) -> Iterator[Finding]:
    if final is None:
        says = "the rows were not read in the end: whether acknowledged writes are lost cannot be said"
        yield _unproven("failover.rows", history.run, says, "read them from the primary that is left")
        return
    if final.in_recovery:
        says = "the rows were read from a standby, which shows neither all that is kept nor only that"
        yield _unproven("failover.rows", final.where, says, "read them from the primary that is left")
    if final.read_at_ns < history.ended_ns:
        says = "the rows were read before the last attempt had ended"
        yield _unproven("failover.rows", final.where, says, "stop the clients, and read them then")
    acknowledgers = {each.acknowledger for each in history.attempts if each.acknowledger is not None}
    clusters = {each.system_identifier for each in acknowledgers} - {""}
    if clusters and final.system_identifier not in clusters:
        says = f"the rows are of the cluster {final.system_identifier}; {', '.join(sorted(clusters))} acknowledged"
        yield _unproven("failover.rows", final.where, says, "read them from the cluster that was written to")
    latest = max((each.timeline for each in acknowledgers), default=0)
    if not final.in_recovery and final.timeline < latest:
        says = f"the rows are of timeline {final.timeline}, and writes were acknowledged on timeline {latest}"
        yield _unproven(
            "failover.rows", final.where, says, "read them from the primary that is left, not from the old one"
        )


def _writability(verdict: Verdict, limits: Limits) -> Iterator[Finding]:
    history = verdict.history
    for outage in verdict.outages:
        if not outage.recovered:
            says = f"no write was acknowledged any more from {_at(history, outage.began_ns)} on, {outage.seconds:.2f} s"
            says += f" until the end ({', '.join(outage.errors[:3])})"
            yield Finding("failover.never_recovered", history.run, says, remedy="see which server is the primary now")
        elif limits.rto_seconds is not None and outage.seconds > limits.rto_seconds:
            says = f"no write was acknowledged for {_length(outage)}; {limits.rto_seconds:g} s are promised"
            yield Finding("failover.rto", history.run, says, remedy="see which phase of it took longest")
    if not verdict.never_recovered:
        for name, outages in verdict.outages_of_clients.items():
            if outages and not outages[-1].recovered:
                says = f"others write again, and it does not, from {_at(history, outages[-1].began_ns)} on"
                says += f" ({', '.join(outages[-1].errors[:3])})"
                remedy = "have its pool take 25006 for a broken connection, and recycle connections"
                yield Finding("failover.client_stuck", name, says, remedy=remedy)
    for pair in verdict.two_primaries:
        says = (
            f"two servers took writes at once, for {pair.seconds:.3f} s at least and {pair.at_most_seconds:.3f} s at "
            f"most, from {_at(history, pair.began_ns)} on: {pair.first.server} ({pair.first.acknowledged} writes) and "
            f"{pair.second.server} ({pair.second.acknowledged} writes)"
        )
        yield Finding("failover.two_primaries", history.run, says, remedy="fence the old primary before promoting")


def _rows(verdict: Verdict, limits: Limits) -> Iterator[Finding]:
    if verdict.lost_writes > limits.lost:
        for lost in verdict.lost:
            says = (
                f"{len(lost.writes)} acknowledged writes are lost: {_listed(lost.writes)}; from "
                f"{lsn_text(lost.first_lsn)} to {lsn_text(lost.last_lsn)}, {lost.wal_bytes} bytes of WAL at least"
            )
            remedy = "keep the old primary's data directory: pg_rewind removes what is left of them"
            yield Finding("failover.lost", str(lost.server), says, remedy=remedy)
    if verdict.refused_and_there:
        says = f"they were refused, and are there: {_listed(verdict.refused_and_there)}"
        yield Finding("failover.refused", verdict.history.run, says, remedy="see what stands between client and server")
    for (client, sequence), count in verdict.duplicated[:_TOLD]:
        says = f"it was written once, and is there {count} times"
        yield Finding("failover.duplicate", f"{client} {sequence}", says, remedy="see who sends statements again")
    if verdict.unknown:
        says = f"{len(verdict.unknown)} rows are there that no client wrote: {verdict.unknown[:_TOLD]}"
        yield Finding("failover.unknown", verdict.history.run, says, remedy="see who else writes as this run")


def _stability(verdict: Verdict, limits: Limits) -> Iterator[Finding]:
    settled = verdict.settled
    if verdict.never_recovered or not verdict.history.attempts:
        return  # said already
    if settled is None or settled.attempts < limits.least_acknowledged:
        says = f"the history ends before it was stable for {limits.window_seconds:g} s"
        yield _unproven("failover.error_rate", verdict.history.run, says, "let clients write for longer afterwards")
    elif settled.rate > limits.error_rate:
        says = (
            f"{settled.failed} of {settled.attempts} attempts failed when it was to be stable again, {settled.rate:.1%}"
        )
        says += f"; {limits.error_rate:.1%} may"
        yield Finding("failover.error_rate", verdict.history.run, says, remedy="see how they failed, client by client")


def _explained(verdict: Verdict) -> Iterator[str]:
    history = verdict.history
    counts = ", ".join(f"{verdict.count(outcome)} {outcome.name.lower()}" for outcome in WriteOutcome)
    yield (
        f"{verdict.outcome.value}: {len(history.attempts)} attempts of {len(history.clients)} clients, one every "
        f"{history.sampling_seconds * 1000:g} ms: {counts}"
    )
    for outage in verdict.outages:
        failed = f"{outage.refused} refused and {outage.indeterminate} indeterminate ({', '.join(outage.errors[:3])})"
        ended = _length(outage) if outage.recovered else f"never recovered in {outage.seconds:.2f} s"
        yield f"  no write acknowledged from {_at(history, outage.began_ns)} on: {ended}; {failed}"
        yield f"    before it {outage.before}; after it {outage.after or 'nobody'}"
    if not verdict.outages:
        longest = verdict.longest_gap_seconds
        yield f"  no outage was seen: acknowledgements were never further apart than {longest or 0:.3f} s"
    for lost in verdict.lost:
        yield (
            f"  lost, though {lost.server} had acknowledged them: {_listed(lost.writes)}; "
            f"{lsn_text(lost.first_lsn)} to {lsn_text(lost.last_lsn)}"
        )
    if not verdict.lost and not any(each.check == "failover.rows" for each in verdict.findings):
        acknowledged = verdict.count(WriteOutcome.ACKNOWLEDGED)
        yield f"  none of {acknowledged} acknowledged writes is missing: 0 lost were observed"
    if verdict.landed or verdict.not_landed:
        yield (
            f"  without an answer: {len(verdict.landed)} that are there ({_listed(verdict.landed) or 'none'}), "
            f"{len(verdict.not_landed)} that are not"
        )
    if verdict.unrecorded:
        yield f"  there, and not recorded by whoever was killed: {len(verdict.unrecorded)} rows"
    if verdict.two_primaries:
        yield f"  two servers took writes at once for {verdict.two_primaries_seconds:.3f} s at least"
    if verdict.settled is not None:
        settled = verdict.settled
        yield f"  stable again: {settled.failed} of {settled.attempts} attempts failed in {settled.seconds:.1f} s"
    for finding in verdict.findings:
        yield f"  {finding.outcome.value}: {finding}"


def _length(outage: Outage) -> str:
    most = f"{outage.at_most_seconds:.3f}" if outage.at_most_seconds is not None else "ever"
    return f"{outage.seconds:.3f} s from acknowledgement to acknowledgement ({outage.at_least_seconds:.3f} to {most} s)"


def _listed(attempts: Sequence[Attempt]) -> str:
    """Name writes by client, numbers that follow each other as one."""
    numbers: dict[str, list[int]] = {}
    for each in attempts:
        numbers.setdefault(each.client, []).append(each.sequence)
    told = []
    for client, some in sorted(numbers.items()):
        stretches: list[list[int]] = []
        for number in sorted(some):
            if stretches and number == stretches[-1][1] + 1:
                stretches[-1][1] = number
            else:
                stretches.append([number, number])
        named = [str(first) if first == last else f"{first}-{last}" for first, last in stretches[:_TOLD]]
        more = [f"and {len(stretches) - _TOLD} more"] if len(stretches) > _TOLD else []
        told.append(f"{client} {', '.join([*named, *more])}")
    return "; ".join(told)


def _at(history: History, monotonic_ns: int) -> str:
    return history.clock.at(monotonic_ns).strftime("%H:%M:%S.%f")[:-3]


def _unproven(check: str, subject: str, says: str, remedy: str) -> Finding:
    return Finding(check, subject, says, Outcome.UNPROVEN, remedy)
