"""Are the backups there that should be there?"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from datetime import datetime, timedelta

from runbook_lib.backup.catalog import Archive, Backup, Listing, Schedule
from runbook_lib.backup.manifest import DatabaseIdentity
from runbook_lib.outcome import Check, Finding, Outcome

_SMALLER_THAN_USUAL = 0.5
"""A backup below this share of the median of its predecessors is a finding: something large is missing."""
_PREDECESSORS = 7
"""How many make a median worth the name."""


def every_night_has_one(listing: Listing, schedule: Schedule, now: datetime, *, days: int, where: str) -> Check:
    """Look for a night without a backup, from the last one due back to the end of retention."""
    due = schedule.last_due(now)
    nights = [due - timedelta(days=back) for back in range(days)]
    findings = list(listing.findings)
    for night in nights:
        if not any(night <= backup.taken_at < night + timedelta(days=1) for backup in listing.backups):
            findings.append(
                Finding(
                    "backup.night",
                    f"{night:%Y-%m-%d}",
                    f"no backup was taken between {night:%Y-%m-%d %H:%M} UTC and the same time the next day",
                    remedy="nothing brings it back: check that WAL covers the gap, and find out why nobody noticed",
                )
            )
    return Check(
        f"each of the last {days} nights has a backup", where, f"{len(listing.backups)} backups", tuple(findings)
    )


def nothing_was_overwritten(archive: Archive, listing: Listing) -> Check:
    """Look for dumps that were written more than once, and whose manifest speaks of a version that is gone."""
    findings: list[Finding] = []
    versions: dict[str, set[str]] = {}
    for stored in archive.bucket.versions(archive.prefix):
        versions.setdefault(stored.key, set()).add(stored.version_id)
    for backup in listing.backups:
        kept = versions.get(backup.dump.key, set())
        if backup.manifest and backup.dump.version_id and backup.dump.version_id not in kept:
            findings.append(
                Finding(
                    "backup.version",
                    backup.dump.url,
                    "the version that the manifest speaks of is gone",
                    remedy="find out who may delete versions in this bucket, and consider Object Lock",
                )
            )
        elif len(kept) > 1:
            findings.append(
                Finding(
                    "backup.version",
                    backup.dump.url,
                    f"the key was written {len(kept)} times; the manifest's version is still there",
                    remedy="find the other writer: two jobs with one clock, or a restore of the bucket",
                )
            )
    return Check(
        "no backup was overwritten or removed", archive.where, f"{len(listing.backups)} backups", tuple(findings)
    )


def is_whole(archive: Archive, backup: Backup) -> Check:
    """Look whether the object in the bucket is the one that the manifest speaks of, without reading its bytes."""
    found, _ = archive.bucket.head(backup.dump.key, backup.dump.version_id)
    return Check("the backup is whole", backup.dump.url, f"{found.bytes} bytes", tuple(_wholeness(backup, found.bytes)))


def _wholeness(backup: Backup, found_bytes: int) -> Iterator[Finding]:
    if found_bytes == 0:
        yield Finding("backup.empty", backup.dump.url, "the object is empty: 0 bytes", remedy="take a backup now")
    if backup.manifest is None:
        yield Finding(
            "backup.manifest",
            backup.dump.url,
            "it has no manifest: how many bytes it should have, nobody wrote down",
            Outcome.UNPROVEN,
            "take backups with this runbook (features/backup/manual_backup.feature)",
        )
    elif found_bytes != backup.manifest.dump.bytes:
        yield Finding(
            "backup.size",
            backup.dump.url,
            f"it has {found_bytes} bytes, and {backup.manifest.dump.bytes} were written",
            remedy="do not rely on it; take a backup now",
        )


def is_of(backup: Backup, identity: DatabaseIdentity) -> Check:
    """Look whether a backup is of this very database, and not of one with the same name somewhere else."""
    findings: list[Finding] = []
    manifest = backup.manifest
    if manifest is None:
        findings.append(
            Finding(
                "backup.identity",
                backup.dump.url,
                "it has no manifest: whose it is, nobody wrote down",
                Outcome.UNPROVEN,
                "take backups with this runbook (features/backup/manual_backup.feature)",
            )
        )
    elif manifest.database.system_identifier != identity.system_identifier:
        findings.append(
            Finding(
                "backup.identity",
                backup.dump.url,
                f"it is of cluster {manifest.database.system_identifier}, and this is {identity.system_identifier}",
                remedy="find out which job writes to this prefix; take a backup of the right cluster now",
            )
        )
    elif manifest.database.name != identity.name:
        findings.append(
            Finding(
                "backup.identity",
                backup.dump.url,
                f"it is of the database {manifest.database.name}, and this is {identity.name}",
                remedy="correct the database in the backup job, and take a backup now",
            )
        )
    return Check("the backup is of this database", backup.dump.url, f"database {identity.name}", tuple(findings))


def is_of_usual_size(backup: Backup, listing: Listing) -> Check:
    """Look whether a backup is much smaller than those before it."""
    older = [each.dump.bytes for each in listing.backups if each.taken_at < backup.taken_at][:_PREDECESSORS]
    findings: tuple[Finding, ...] = ()
    if older and backup.dump.bytes < statistics.median(older) * _SMALLER_THAN_USUAL:
        findings = (
            Finding(
                "backup.shrunk",
                backup.dump.url,
                f"it has {backup.dump.bytes} bytes; the median of the {len(older)} before it is "
                f"{statistics.median(older):.0f}",
                remedy="look for a table that was dropped or emptied, or a dump of the wrong database",
            ),
        )
    return Check("the backup is of its usual size", backup.dump.url, f"{len(older)} older backups", findings)
