"""Is TenSafe's audit log continuous?

Every row of ``public.audit_logs`` carries its place, the hash of the row before it and its own, so that the log can be
proven row by row after any restore, without asking the source.
"""

from __future__ import annotations

import re

from runbook_lib.outcome import Check, Finding, Outcome
from runbook_lib.reach import postgres
from runbook_lib.reach.postgres import Session

_REMEDY = "keep this copy as evidence; compare the row with the next older proven backup before anybody repairs it"


def is_unbroken(session: Session, *, exists: bool = True) -> Check:
    """Compute every link of the chain anew.

    :param exists: whether the profile says that there is such a log
    """
    question, where = "the audit chain is unbroken", postgres.describe(session.dsn)
    if not exists:
        none = Finding(
            "audit.chain",
            "public.audit_logs",
            "the profile says that this database has no audit log",
            Outcome.UNPROVEN,
            "run the scenario for databases without an audit log instead",
        )
        return Check(question, where, "nothing", (none,))
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


def _shown(found: str | None) -> str:
    """Return a number or a hash as it is; what stands in their place is a row's, and is not told."""
    return found if found and re.fullmatch(r"-?\d+|[0-9a-f]{64}", found) else "neither a number nor a hash"
