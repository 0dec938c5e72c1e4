"""One database through the whole weekly drill, and everything that any of its checks has to say about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runbook_lib.backup import audit_chain, dump, retention, sequences
from runbook_lib.backup.catalog import Archive
from runbook_lib.backup.manifest import Manifest
from runbook_lib.outcome import Check, Finding, Outcome
from runbook_lib.reach import postgres
from runbook_lib.reach.binaries import PostgresTools
from runbook_lib.restore import integrity
from runbook_lib.restore.scratch import Scratch, into_scratch
from runbook_lib.safety.permit import Permit

PERMIT = Permit("a test's own archive", granted=True, reason="the test made it")


@dataclass(frozen=True)
class Drilled:
    """What a drill had to say."""

    manifest: Manifest
    """What the backup was said to hold."""
    checks: tuple[Check, ...]
    """Every question that a weekly drill asks."""

    @property
    def outcome(self) -> Outcome:
        """The worst of all answers."""
        return Outcome.worst(check.outcome for check in self.checks)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Everything that speaks against the backup, or could not be looked at."""
        return tuple(finding for check in self.checks for finding in check.findings)

    def says(self) -> str:
        """Return all of it, for an assertion's message."""
        return "\n".join(check.explain() for check in self.checks)


def drill(
    dsn: str,
    archive: Archive,
    *,
    audit_log: bool = False,
    tools: PostgresTools | None = None,
    tools_directory: Path | None = None,
    jobs: int = 2,
) -> Drilled:
    """Take a backup of a database, restore the newest one, ask everything of it, and drop it."""
    dump.take(dsn, archive, permit=PERMIT, kind="daily", tools=tools)
    backup = archive.newest()
    assert backup.manifest is not None
    with postgres.session(dsn) as session:
        identity = dump.identify(session)
    checks = [
        retention.is_whole(archive, backup),
        retention.is_of(backup, identity),
        dump.source_is_dumped_whole(backup),
    ]
    with Scratch.open(tools_directory=tools_directory) as place:
        restored = into_scratch(backup, "tensafe_verify", archive=archive, scratch=place, jobs=jobs)
        checks += [restored.restored, *restored.compare().checks]
        with restored.session() as session:
            checks.append(sequences.will_not_collide(session))
            if audit_log:
                checks.append(audit_chain.is_unbroken(session))
                checks.append(audit_chain.ends_where_noted(session, backup.manifest.audit_head))
        checks.append(integrity.heap_and_indexes_are_sound(restored.dsn, deep=True))
        assert restored.remove()
        assert restored.is_gone
    return Drilled(backup.manifest, tuple(checks))
