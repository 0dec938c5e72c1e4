"""Is the cluster as it should be?

It is asked before a failover, during it and after it, and the answer must not depend on the one who is being tested.
So it is put together from what every member's PostgreSQL says, and Patroni's labels are only compared with that: a
label that is wrong is a finding of its own, since scripts and services route by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from runbook_lib.errors import RunbookError
from runbook_lib.failover.members import ANSWER_SECONDS, MemberAddress, Seen, Sighting, look
from runbook_lib.outcome import Check, Finding, Outcome
from runbook_lib.reach.patroni import MemberReport, PatroniApi, Topology, ask_any


@dataclass(frozen=True)
class SteadyState:
    """How a cluster is."""

    seen: Seen
    """What its members say."""
    topology: Topology | None
    """What Patroni says; None where it says nothing."""
    checks: tuple[Check, ...]
    """What was asked, and what speaks against it."""

    @property
    def outcome(self) -> Outcome:
        """The worst of the checks' outcomes."""
        return Outcome.worst(check.outcome for check in self.checks)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Whatever speaks against it."""
        return tuple(finding for check in self.checks for finding in check.findings)

    def explain(self) -> str:
        """Return every check with its findings."""
        return "\n".join(check.explain().rstrip() for check in self.checks)


def steady_state(
    apis: Sequence[PatroniApi],
    members: Sequence[MemberAddress],
    *,
    maximum_lag_bytes: int,
    follows: bool = False,
    within_seconds: float = ANSWER_SECONDS,
) -> SteadyState:
    """Look at a cluster, which takes no longer than a few times ``within_seconds`` whatever state it is in.

    :param apis: the members' REST APIs; the first that answers is believed to say what Patroni's labels are
    :param members: those that there should be, whatever Patroni says
    :param maximum_lag_bytes: how far a replica may be behind
    :param follows: whether it is a standby cluster, in which nobody takes writes
    """
    seen = look(members, within_seconds=within_seconds)
    topology: Topology | None = None
    silence: RunbookError | None = None
    try:
        topology = ask_any(apis, PatroniApi.topology)
    except RunbookError as unknown:
        silence = unknown
    checks = (
        nobody_takes_writes(seen) if follows else one_primary(seen),
        every_member_answers(seen),
        one_cluster(seen),
        one_timeline(seen),
        replicas_are_close(seen, maximum_lag_bytes=maximum_lag_bytes, follows=follows),
        labels_are_true(seen, topology) if topology else _labels_unknown(seen, silence),
    )
    return SteadyState(seen, topology, checks)


def one_primary(seen: Seen) -> Check:
    """Say whether exactly one member takes writes, and can confirm them."""
    writable = seen.writable
    findings = list(_silent(seen))
    if len(writable) > 1:
        names = ", ".join(sighting.name for sighting in writable)
        says = f"{len(writable)} members take writes at the same time: " + "; ".join(map(_position, writable))
        remedy = "fence all but one at once, and keep the others' data directories: they hold writes that no other has"
        findings.insert(0, Finding("failover.primary", names, says, remedy=remedy))
    if not writable:
        remedy = "see who is elected next; where nobody is, what keeps each candidate from it"
        says = "none of the members that answer takes writes"
        outcome = Outcome.UNPROVEN if findings else Outcome.FAILED
        findings.append(Finding("failover.primary", seen.where, says, outcome, remedy))
    findings += [
        Finding(
            "failover.read_only",
            sighting.name,
            "is no standby, and refuses writes: default_transaction_read_only is on",
            remedy="find out who set it, and why; ALTER SYSTEM RESET default_transaction_read_only",
        )
        for sighting in seen.sightings
        if not sighting.in_recovery and sighting.read_only
    ]
    for sighting in writable:
        findings += _confirmation(sighting)
    return Check("exactly one member takes writes", seen.where, _looked_at(seen), tuple(findings))


def nobody_takes_writes(seen: Seen) -> Check:
    """Say whether no member takes writes, as it has to be in a cluster that follows another one."""
    findings = [
        Finding(
            "failover.primary",
            sighting.name,
            f"takes writes in a cluster that only follows: {_position(sighting)}",
            remedy="fence it at once, and find out who promoted it",
        )
        for sighting in seen.writable
    ]
    return Check("no member takes writes", seen.where, _looked_at(seen), (*findings, *_silent(seen)))


def every_member_answers(seen: Seen) -> Check:
    """Say whether every member's PostgreSQL answers."""
    findings = tuple(
        Finding(
            "failover.member",
            absence.name,
            absence.error.why,
            Outcome.FAILED if absence.nobody_listens else Outcome.UNPROVEN,
            "start it; until then there is one candidate less" if absence.nobody_listens else absence.error.remedy,
        )
        for absence in seen.absences
    )
    return Check("every member answers", seen.where, _looked_at(seen), findings)


def one_cluster(seen: Seen) -> Check:
    """Say whether all members come from the same initdb."""
    identifiers = {sighting.name: sighting.system_identifier for sighting in seen.sightings}
    return Check(
        "all members have the same system identifier",
        seen.where,
        ", ".join(sorted(set(identifiers.values()))) or "nobody answered",
        (
            *_odd_ones(seen, identifiers, "failover.identity", "system identifier", "it is another cluster: fence it"),
            *_unasked(seen, "failover.identity"),
        ),
    )


def one_timeline(seen: Seen) -> Check:
    """Say whether all members are on the same timeline."""
    timelines = {sighting.name: sighting.timeline for sighting in seen.sightings}
    return Check(
        "all members are on the same timeline",
        seen.where,
        ", ".join(f"{name}: {timeline}" for name, timeline in timelines.items()) or "nobody answered",
        (
            *_odd_ones(
                seen,
                timelines,
                "failover.timeline",
                "timeline",
                "a member behind follows nobody, or diverged: rewind it, after keeping what only it has",
            ),
            *_unasked(seen, "failover.timeline"),
        ),
    )


def replicas_are_close(seen: Seen, *, maximum_lag_bytes: int, follows: bool = False) -> Check:
    """Say whether all standbys stream, and have received almost everything that the primary has written.

    The primary is asked last, so that what is said of a lag is never less than it was.

    :param maximum_lag_bytes: how far a standby may be behind
    :param follows: whether the primary is elsewhere, so that only the streaming can be looked at
    """
    findings = list(_unasked(seen, "failover.lag"))
    lags = []
    for sighting in seen.sightings:
        if not sighting.in_recovery:
            continue
        findings += _streaming(sighting)
        if follows:
            continue
        if seen.written_afterwards_bytes is None:
            says = "there is no single primary to compare it with"
            remedy = "see first that exactly one member takes writes"
            findings.append(Finding("failover.lag", sighting.name, says, Outcome.UNPROVEN, remedy))
            continue
        lag = max(0, seen.written_afterwards_bytes - (sighting.written_bytes or 0))
        lags.append(f"{sighting.name} {lag:,}")
        if lag > maximum_lag_bytes:
            says = f"is {lag:,} bytes behind; allowed are {maximum_lag_bytes:,}"
            remedy = "look at its disk and at the network; a failover to it would lose what it lacks"
            findings.append(Finding("failover.lag", sighting.name, says, remedy=remedy))
    looked_at = f"bytes behind, at most: {', '.join(lags)}" if lags else _looked_at(seen)
    return Check("all replicas stream and are close behind", seen.where, looked_at, tuple(findings))


def labels_are_true(seen: Seen, topology: Topology) -> Check:
    """Say whether Patroni calls every member what it is, and would elect another leader at all."""
    findings = []
    if topology.leader is None:
        remedy = "see why nobody is elected: pause, lag, tags, etcd"
        findings.append(Finding("failover.label", topology.scope, "Patroni names no leader", remedy=remedy))
    if topology.paused:
        says = "Patroni is paused: it would elect nobody"
        findings.append(Finding("failover.paused", topology.scope, says, remedy="patronictl resume, when it is time"))
    for sighting in seen.sightings:
        report = topology.member(sighting.name)
        if report is None:
            says = "is not known to Patroni, and answers"
            remedy = "see whether its Patroni is dead: nobody supervises that server, and it may not be fenced"
            findings.append(Finding("failover.label", sighting.name, says, remedy=remedy))
        else:
            findings += _label(sighting, report)
    for absence in seen.absences:
        report = topology.member(absence.name)
        if report is not None and report.works:
            says = f"Patroni says that it is {report.state}; {absence.error.why}"
            outcome = Outcome.FAILED if absence.nobody_listens else Outcome.UNPROVEN
            remedy = "wait until its lease has run out, and look again"
            findings.append(Finding("failover.label", absence.name, says, outcome, remedy))
    for report in topology.members:
        if report.name not in seen.names:
            says = f"is called {report.role} by Patroni, and was not asked"
            remedy = "name it in the profile, or remove it from the cluster"
            findings.append(Finding("failover.label", report.name, says, Outcome.UNPROVEN, remedy))
    said = ", ".join(f"{report.name} {report.role} {report.state}" for report in topology.members)
    return Check(
        "Patroni's labels are true", seen.where, f"{said or 'no members'}, says {topology.said_by}", (*findings,)
    )


def _labels_unknown(seen: Seen, silence: RunbookError | None) -> Check:
    why = silence.why if silence else "nobody was asked"
    remedy = silence.remedy if silence else "name the addresses of the REST APIs in the profile"
    finding = Finding("failover.label", "GET /cluster", why, Outcome.UNPROVEN, remedy)
    return Check("Patroni's labels are true", seen.where, "nothing: no REST API answered", (finding,))


def _label(sighting: Sighting, report: MemberReport) -> Iterator[Finding]:
    called_primary = report.role == "leader"
    if called_primary and sighting.in_recovery:
        says = f"is called {report.role}, and is a standby"
        remedy = "whoever routes by the label sends writes there, and they are refused: wait for its promotion"
        yield Finding("failover.label", sighting.name, says, remedy=remedy)
    if not called_primary and not sighting.in_recovery:
        says = f"is called {report.role}, and is no standby: {_position(sighting)}"
        remedy = "fence it: it takes writes that nobody replicates"
        yield Finding("failover.label", sighting.name, says, remedy=remedy)


def _confirmation(sighting: Sighting) -> Iterator[Finding]:
    if not sighting.waits_for or sighting.confirming:
        return
    if sighting.confirming is None:
        says = f"waits for {sighting.waits_for}; whether anybody confirms is hidden from us"
        remedy = "grant the role pg_monitor"
        yield Finding("failover.synchronous", sighting.name, says, Outcome.UNPROVEN, remedy)
    else:
        says = f"every commit waits for {sighting.waits_for}, and no standby confirms"
        remedy = "bring a synchronous standby back: until then writes hang, and may be visible after a restart"
        yield Finding("failover.synchronous", sighting.name, says, remedy=remedy)


def _streaming(sighting: Sighting) -> Iterator[Finding]:
    if sighting.receiver == "hidden":
        says, remedy = "what its WAL receiver does is hidden from us", "grant the role pg_monitor"
        yield Finding("failover.streaming", sighting.name, says, Outcome.UNPROVEN, remedy)
    elif sighting.receiver != "streaming":
        says = f"does not stream: its WAL receiver is {sighting.receiver or 'not there'}"
        remedy = "read its log: a missing slot, a password, WAL that was removed, a timeline that diverged"
        yield Finding("failover.streaming", sighting.name, says, remedy=remedy)


def _silent(seen: Seen) -> Iterator[Finding]:
    """Yield those who may be taking writes, for all that is known."""
    for absence in seen.absences:
        if not absence.nobody_listens:
            says = f"whether it takes writes is not known: {absence.error.why}"
            yield Finding("failover.primary", absence.name, says, Outcome.UNPROVEN, absence.error.remedy)


def _unasked(seen: Seen, check: str) -> Iterator[Finding]:
    """Yield those who did not answer, for whom nothing can be said."""
    for absence in seen.absences:
        yield Finding(check, absence.name, "did not answer", Outcome.UNPROVEN, absence.error.remedy)


def _odd_ones(
    seen: Seen, values: dict[str, str] | dict[str, int], check: str, what: str, remedy: str
) -> Iterator[Finding]:
    """Yield those who differ from the one that takes writes, or where that is not one, from the first."""
    if len(set(values.values())) < 2:
        return
    right = seen.writable[0].name if len(seen.writable) == 1 else next(iter(values))
    for name, value in values.items():
        if value != values[right]:
            yield Finding(check, name, f"{what} {value}; that of {right} is {values[right]}", remedy=remedy)


def _position(sighting: Sighting) -> str:
    written = sighting.written_bytes or 0
    return f"{sighting.name} on timeline {sighting.timeline} at {written >> 32:X}/{written & 0xFFFFFFFF:X}"


def _looked_at(seen: Seen) -> str:
    return f"pg_is_in_recovery and more of {len(seen.sightings)} members; {len(seen.absences)} did not answer"
