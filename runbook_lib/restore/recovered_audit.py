"""Does a recovered audit log end where the moment says that it must?

A log that was cut is a chain as well. But the living database still has what was written later: the row that follows
the recovered head was written by a transaction, and whether that one had committed at the moment, the recovered server
itself knows. So the head is right where the living log leads on from it, with a row that the moment came before.
"""

from __future__ import annotations

from runbook_lib.backup import audit_chain
from runbook_lib.outcome import Check, Finding, Outcome
from runbook_lib.reach import postgres
from runbook_lib.reach.postgres import Session
from runbook_lib.restore.point_in_time import RecoveredDatabase, Recovery

_FOLLOWING = """
SELECT sequence, xmin::text::bigint AS xid FROM public.audit_logs WHERE sequence > %s ORDER BY sequence LIMIT 1
"""


def ends_at_the_moment(recovery: Recovery, recovered: RecoveredDatabase, living: Session, *, exists: bool) -> Check:
    """Look whether the recovered log is the living one up to the moment: not a row less, and none of its own.

    To be asked before the instance is promoted: then its own transactions have the ids of those it left out.
    """
    question, where = "the audit chain ends where it ended at that moment", postgres.describe(recovered.dsn)
    with recovered.session() as session:
        head = audit_chain.head(session)
        if head is None or not exists:
            return audit_chain.is_unbroken(session, exists=exists)
        found = list(audit_chain.leads_on_from(living, head).findings)
        following = living.rows(_FOLLOWING, head.last_sequence)
        if not session.value("SELECT pg_catalog.pg_is_in_recovery()"):
            says = "it is promoted, and has transactions of its own"
            found.append(Finding("audit.head", audit_chain.LOG, says, Outcome.UNPROVEN, "look before it is promoted"))
        elif following and recovery.has_committed(session, following[0]["xid"]):
            says = f"it ends with {head}, and sequence {following[0]['sequence']} was written before the moment"
            found.append(Finding("audit.head", audit_chain.LOG, says, remedy="recover anew; keep both as evidence"))
    beyond = (
        f"the living one leads on with sequence {following[0]['sequence']}" if following else "so does the living one"
    )
    return Check(question, where, f"{head}; {beyond}", tuple(found))
