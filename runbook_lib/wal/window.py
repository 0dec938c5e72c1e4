"""What a recovery to a moment can begin from, and whether it can go on from there.

Neither half is worth anything alone: a base backup without the WAL since then recovers to nothing, and WAL without a
base backup before it to even less. That both are written every day is no proof that they fit: the base backup may be of
the cluster as it was before an upgrade, older than anybody wants to replay, or missing the few segments that were
written while it was taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from runbook_lib.outcome import Check, Finding
from runbook_lib.reach.postgres import Session
from runbook_lib.wal.archive import WalArchive
from runbook_lib.wal.base_backup import BaseBackup, BaseListing
from runbook_lib.wal.continuity import archive_is_continuous
from runbook_lib.wal.segment import Segment

_TAKE_ONE = "take a base backup now, and have one taken by schedule"
_CUT_SHORT = "base_backup.incomplete"
_SETTINGS = """
SELECT pg_catalog.pg_size_bytes(current_setting('wal_segment_size')) AS segment_bytes,
       (SELECT a.last_archived_wal FROM pg_catalog.pg_stat_archiver AS a) AS last_archived
"""


def wal_is_continuous(
    session: Session, archive: WalArchive, backups: BaseListing, *, retained_since: datetime
) -> Check:
    """Look whether the archive has all WAL that a recovery could need.

    :param session: on the primary, which says how large a segment is and which one it archived last
    :param retained_since: the beginning of the retention window. What was archived before the oldest base backup that
        lies in it is of no use, and may be gone

    Cost: one request for a thousand files, and one for each file since then.
    """
    row = session.row(_SETTINGS)
    begins = [backup.started_at for backup in backups.backups if backup.started_at >= retained_since]
    return archive_is_continuous(
        archive.of_segments(row["segment_bytes"]),
        since=min(begins, default=retained_since),
        through=row["last_archived"] or None,
    )


def a_recent_base_backup_is_there(backups: BaseListing, *, where: str, now: datetime, at_most: timedelta) -> Check:
    """Look whether the newest base backup is recent enough, and every record can be believed.

    :param where: where the base backups are, for the report

    A tar without a record is told and is no fault: one that is being taken looks the same.
    """
    cut_short = [finding for finding in backups.findings if finding.check == _CUT_SHORT]
    findings = [finding for finding in backups.findings if finding.check != _CUT_SHORT]
    newest = next(iter(backups.backups), None)
    if newest is None:
        findings.append(_none(where))
    elif now - newest.stopped_at > at_most:
        says = f"the newest ended {_days(now - newest.stopped_at)} ago; it may be {_days(at_most)} old"
        findings.append(Finding("base_backup.age", newest.key, says, remedy=_TAKE_ONE))
    looked_at = f"{len(backups.backups)} base backups, the newest {newest or 'none'}"
    looked_at += f"; {len(cut_short)} tars without a record" if cut_short else ""
    return Check("a recent base backup is there", where, looked_at, tuple(findings))


def it_is_of_this_cluster(backups: BaseListing, session: Session, *, where: str) -> Check:
    """Look whether the newest base backup is of this cluster, and of its major version."""
    server = session.server()
    newest = next(iter(backups.backups), None)
    findings = [_none(where)] if newest is None else list(_of_another(newest, server.system_identifier, server.major))
    looked_at = f"{newest or 'none'} beside {server.system_identifier}, PostgreSQL {server.major}"
    return Check("the newest base backup is of this cluster", where, looked_at, tuple(findings))


def _of_another(newest: BaseBackup, system_identifier: str, major: int) -> Iterator[Finding]:
    if newest.system_identifier != system_identifier:
        says = f"it is of the cluster {newest.system_identifier}, and {system_identifier} answers"
        remedy = f"give each cluster a place of its own; {_TAKE_ONE}"
        yield Finding("base_backup.system_identifier", newest.key, says, remedy=remedy)
    elif newest.major != major:
        says = f"it is of PostgreSQL {newest.major}, and the server is {major}: the WAL of one does not fit the other"
        yield Finding("base_backup.major", newest.key, says, remedy=_TAKE_ONE)


def its_wal_is_archived(backups: BaseListing, archive: WalArchive, *, where: str) -> Check:
    """Look whether the archive has every segment from the newest base backup's beginning to its end.

    Cost: one request for a thousand segments.
    """
    newest = next(iter(backups.backups), None)
    if newest is None:
        return Check("its WAL is archived", where, "no base backup", (_none(where),))
    first = newest.first_segment
    last = Segment.at(newest.timeline, newest.stop_lsn - 1, newest.segment_bytes)
    names = [first.after(count).name for count in range(last.number - first.number + 1)]
    there = {stored.key: stored for stored in archive.bucket.objects(archive.key(f"{newest.timeline:08X}"))}
    findings = []
    for name in names:
        stored = there.get(archive.key(name))
        says = ""
        if stored is None:
            says = "it is not in the archive: this base backup cannot become whole, and nothing begins from it"
        elif stored.bytes != newest.segment_bytes:
            says = f"it has {stored.bytes} bytes in the archive, and a segment has {newest.segment_bytes}"
        if says:
            remedy = f"look for it in pg_wal of every server, and among older versions in the bucket; else {_TAKE_ONE}"
            findings.append(Finding("base_backup.wal", name, says, remedy=remedy))
    looked_at = f"{len(names)} segments, {names[0]} to {names[-1]}, which {newest.key} needs"
    return Check("its WAL is archived", archive.where, looked_at, tuple(findings))


def _none(where: str) -> Finding:
    return Finding("base_backup.none", where, "there is none: nothing can be recovered to a moment", remedy=_TAKE_ONE)


def _days(span: timedelta) -> str:
    return f"{span / timedelta(days=1):.1f} days"
