"""Is TenSafe's audit log continuous?

Every row of ``public.audit_logs`` carries its place, the hash of the row before it and its own, so that the log can be
proven row by row after any restore, without asking the source. One thing the rows alone cannot tell: whether the newest
of them are missing, for a chain that was cut is a chain. So a backup notes its head, the last row's place and hash, in
the dump's own snapshot; what was restored must end there, and what lives on must lead on from there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from runbook_lib.outcome import Check, Finding, Outcome
from runbook_lib.reach import postgres
from runbook_lib.reach.postgres import Session

LOG = "public.audit_logs"
"""The table that it is in."""
_REMEDY = "keep this copy as evidence; compare the row with the next older proven backup before anybody repairs it"


def is_unbroken(session: Session, *, exists: bool = True) -> Check:
    """Compute every link of the chain anew.

    :param exists: whether the profile says that there is such a log
    """
    question, where = "the audit chain is unbroken", postgres.describe(session.dsn)
    if not exists:
        return Check(question, where, "nothing", (_none_in_profile(),))
    if session.value("SELECT pg_catalog.to_regclass('public.audit_logs') IS NULL"):
        return Check(
            question, where, "nothing", (Finding("audit.chain", "public.audit_logs", "there is no such table"),)
        )
    head = session.row(postgres.load_sql(__package__, "audit_chain_head"))
    broken = session.rows(postgres.load_sql(__package__, "audit_chain"))
    findings = tuple(
        Finding(
            "audit.chain",
            f"public.audit_logs sequence {row['sequence']}",
            f"{row['problem']}: expected {row['expected']}, found {_shown(row['found'])}",
            remedy=_REMEDY,
        )
        for row in broken
    )
    return Check(question, where, f"{head['records']} records up to sequence {head['last_sequence']}", findings)


@dataclass(frozen=True)
class Head:
    """The end of a chain."""

    last_sequence: int
    """The place of the last one; 0 where there is none."""
    last_record_hash: str
    """Its own hash, in hexadecimal; empty where there is none."""

    def __str__(self) -> str:
        """Return it in one line."""
        return (
            f"sequence {self.last_sequence}, hash {_shown(self.last_record_hash)}" if self.last_sequence else "no row"
        )


def head(session: Session) -> Head | None:
    """Read the end of the chain; None where there is no such log, or one of another make."""
    if not session.value(postgres.load_sql(__package__, "audit_chain_exists")):
        return None
    found = session.rows(
        "SELECT sequence, record_hash::text AS hash FROM public.audit_logs ORDER BY sequence DESC NULLS LAST LIMIT 1"
    )
    return Head(found[0]["sequence"] or 0, found[0]["hash"] or "") if found else Head(0, "")


def ends_where_noted(session: Session, noted: Head | None, *, exists: bool = True) -> Check:
    """Say whether a chain ends where it ended when its head was noted: neither earlier, nor later, nor otherwise.

    :param noted: the head, as a backup's manifest or whoever wrote to the log has it; None where nobody noted it
    :param exists: whether the profile says that there is such a log
    """

    def wrong(noted: Head) -> Iterator[Finding]:
        found = head(session)
        if found is None:
            yield _cut("there is no such log")
        elif found.last_sequence < noted.last_sequence:
            yield _cut(f"its newest rows are missing: it ended with {noted}, and ends with {found}")
        elif found != noted:
            yield _cut(f"it has another end: {noted} was noted, and {found} is there")

    return _beside_noted("the audit chain ends where it ended", session, noted, wrong, exists=exists)


def leads_on_from(session: Session, noted: Head | None, *, exists: bool = True) -> Check:
    """Say whether a chain that may have grown still holds the row that was its head once, in its place.

    Where it is unbroken too, everything up to there is what it was: each hash is made of the one before it.

    :param noted: the head, as a backup's manifest has it; None where nobody noted it
    :param exists: whether the profile says that there is such a log
    """

    def wrong(noted: Head) -> Iterator[Finding]:
        found = head(session)
        if found is None:
            yield _cut("there is no such log")
        elif found.last_sequence < noted.last_sequence:
            yield _cut(f"its newest rows are missing: it had reached {noted}, and ends with {found}")
        elif noted.last_sequence and (there := _hash_at(session, noted.last_sequence)) != noted.last_record_hash:
            told = "no row" if there is None else f"the hash {_shown(there)}"
            yield _cut(f"it is another chain: sequence {noted.last_sequence} has {told}, and had reached {noted}")

    return _beside_noted("the audit chain leads on from its noted head", session, noted, wrong, exists=exists)


def _beside_noted(
    question: str,
    session: Session,
    noted: Head | None,
    wrong: Callable[[Head], Iterator[Finding]],
    *,
    exists: bool,
) -> Check:
    where = postgres.describe(session.dsn)
    if not exists:
        return Check(question, where, "nothing", (_none_in_profile(),))
    if noted is None:
        says = "nobody noted where it ended: the backup is of an earlier version, or keeps no such log"
        remedy = "take a new backup (features/backup/manual_backup.feature); the log's contents are compared anyway"
        return Check(question, where, "nothing", (Finding("audit.head", LOG, says, Outcome.UNPROVEN, remedy),))
    return Check(question, where, str(noted), tuple(wrong(noted)))


def _hash_at(session: Session, sequence: int) -> str | None:
    found = session.rows("SELECT record_hash::text AS hash FROM public.audit_logs WHERE sequence = %s", sequence)
    return str(found[0]["hash"]) if found else None


def _cut(says: str) -> Finding:
    return Finding("audit.head", LOG, says, remedy=_REMEDY)


def _none_in_profile() -> Finding:
    return Finding(
        "audit.chain",
        LOG,
        "the profile says that this database has no audit log",
        Outcome.UNPROVEN,
        "run the scenario for databases without an audit log instead",
    )


def _shown(found: str | None) -> str:
    """Return a number or a hash as it is; what stands in their place is a row's, and is not told."""
    return found if found and re.fullmatch(r"-?\d+|[0-9a-f]{64}", found) else "neither a number nor a hash"
