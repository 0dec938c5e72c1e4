"""Is WAL being archived?

Between two backups the archive is all there is. It stops in silence: the database works on, its disk fills, and
nobody asks until the day it is needed. What PostgreSQL says of its archiver is only one witness, but it is the one
that can be heard without reading the archive.
"""

from __future__ import annotations

from collections.abc import Iterator

from runbook_lib.errors import Denied
from runbook_lib.outcome import Check, Finding, Outcome
from runbook_lib.reach import postgres
from runbook_lib.reach.postgres import Row, Session


def archiving_is_alive(session: Session, *, rpo_seconds: float) -> Check:
    """Look at the archiver of a primary.

    :param rpo_seconds: how old the last archived segment may be. A database at rest archives too, once every
        ``archive_timeout``, as long as anything is written
    """
    row = session.row(postgres.load_sql(__package__, "archiver"))
    last = row["last_archived_wal"] or "none"
    looked_at = f"pg_stat_archiver: {row['archived_count']} archived, {row['failed_count']} failed, last {last}"
    findings = list(_findings(row, rpo_seconds))
    if not row["in_recovery"] and row["archive_mode"] != "off":
        waiting, more = _waiting(session, rpo_seconds)
        looked_at += f"; {waiting}"
        findings += more
    return Check("WAL archiving is alive", postgres.describe(session.dsn), looked_at, tuple(findings))


def _waiting(session: Session, rpo_seconds: float) -> tuple[str, list[Finding]]:
    """Look at what stands in line to be archived, and how long the first has stood there.

    What PostgreSQL counts as archived says nothing of what it has not come to yet: a command that hangs fails never,
    and one that is too slow falls behind with every success.
    """
    try:
        row = session.row(postgres.load_sql(__package__, "waiting"))
    except Denied as refused:
        role = "grant the role pg_monitor, or membership in a role that has it"
        return "what waits is not known", [
            Finding("wal.waiting", "pg_wal/archive_status", refused.why, Outcome.UNPROVEN, role)
        ]
    if not row["files"]:
        return "nothing waits", []
    waiting = f"{row['files']} wait, the first, {row['oldest']}, for {row['oldest_seconds']:.0f} s"
    if row["oldest_seconds"] <= rpo_seconds:
        return waiting, []
    return waiting, [
        Finding(
            "wal.waiting",
            row["oldest"],
            f"has waited for {row['oldest_seconds']:.0f} s to be archived, and {row['files'] - 1} more behind it; the "
            f"RPO is {rpo_seconds:.0f} s",
            remedy="look at what archive_command waits for; until it succeeds these segments are on the primary alone",
        )
    ]


def _findings(row: Row, rpo_seconds: float) -> Iterator[Finding]:
    if row["in_recovery"]:
        yield Finding(
            "wal.archiver",
            "pg_stat_archiver",
            "this is a standby: its archiver says nothing of the primary's",
            Outcome.UNPROVEN,
            "name the primary in the profile",
        )
    elif row["archive_mode"] == "off" or row["wal_level"] == "minimal":
        yield Finding(
            "wal.archive_mode",
            "archive_mode",
            f"archive_mode = {row['archive_mode']}, wal_level = {row['wal_level']}: no WAL is archived, so there is "
            "no recovery to a moment between two backups",
            remedy="set archive_mode = on and an archive_command or archive_library, and restart",
        )
    elif row["is_failing"]:
        yield Finding(
            "wal.archiver",
            row["last_failed_wal"],
            f"failed last at {row['last_failed_time']}, succeeded last at {row['last_archived_time']}",
            remedy="read the server's log for what archive_command says; WAL piles up in pg_wal until it succeeds",
        )
    elif row["last_archived_time"] is None:
        yield Finding(
            "wal.archiver",
            "pg_stat_archiver",
            "nothing was archived since the statistics were reset: neither success nor failure is known",
            Outcome.UNPROVEN,
            "wait for archive_timeout, or have one segment archived: SELECT pg_switch_wal()",
        )
    elif row["last_archived_seconds_ago"] > rpo_seconds:
        yield Finding(
            "wal.archive_age",
            row["last_archived_wal"],
            f"archived {row['last_archived_seconds_ago']:.0f} s ago as the last one; the RPO is {rpo_seconds:.0f} s",
            remedy="set archive_timeout below the RPO, and look at what archive_command waits for",
        )
