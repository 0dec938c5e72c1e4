"""The timelines that a recovery follows, one out of the other.

Every promotion begins a timeline, and the numbers of segments go on: segment 5 may be there three times, and only one
of them leads where somebody wants to go. So a recovery names its timeline, and the path to it is read from its history
file, never from which file is the newest.
"""

from __future__ import annotations

from dataclasses import dataclass

from runbook_lib.errors import NotFound, NotRecoverable
from runbook_lib.wal.archive import WalArchive
from runbook_lib.wal.base_backup import BaseBackup
from runbook_lib.wal.segment import Fork, Segment, lsn_text


@dataclass(frozen=True)
class TimelinePath:
    """A timeline with its ancestors, and where each was left."""

    timeline: int
    """The timeline that is recovered along."""
    forks: tuple[Fork, ...]
    """Where its ancestors were left, the oldest first; none of timeline 1."""
    segment_bytes: int
    """The cluster's ``wal_segment_size``."""

    @classmethod
    def to(cls, timeline: int | None, archive: WalArchive) -> TimelinePath:
        """Read the path to a timeline.

        :param timeline: by default the newest that the archive has anything of

        Raise `NotRecoverable` where the archive has nothing of it, or not its history.
        """
        there = archive.timelines()
        named = timeline or max(there, default=1)
        if named not in there:
            raise NotRecoverable(
                f"timeline {named}",
                where=archive.where,
                why=f"the archive has {'nothing but ' if there else ''}"
                f"{'timeline ' + ', '.join(map(str, there)) if there else 'no WAL at all'}",
                remedy="name a timeline that it has"
                if there
                else "name the bucket and the prefix that the primary archives to",
            )
        try:
            return cls(named, archive.history(named), archive.segment_bytes)
        except NotFound as missing:
            raise NotRecoverable(
                f"the way to timeline {named}",
                where=archive.where,
                why=f"there is WAL of it, and no {named:08X}.history to say which timeline it comes from",
                remedy=f"put {named:08X}.history there from pg_wal of a server of that timeline, or name another",
            ) from missing

    def begins(self, timeline: int) -> int:
        """Return the position at which a timeline of the path begins."""
        older = [fork.lsn for fork in self.forks if fork.parent < timeline]
        return older[-1] if older else 0

    def ends(self, timeline: int) -> int | None:
        """Return the position up to which a timeline of the path counts; None of the last one, which is open."""
        return next((fork.lsn for fork in self.forks if fork.parent == timeline), None)

    def segment(self, number: int) -> Segment:
        """Return the segment of this number as a recovery reads it: of the newest timeline that has it."""
        candidates = [*(fork.parent for fork in self.forks), self.timeline]
        timeline = max(each for each in candidates if self.begins(each) // self.segment_bytes <= number)
        return Segment(timeline, number, self.segment_bytes)

    def why_not(self, backup: BaseBackup) -> str:
        """Say why a base backup does not lie on the path; nothing where it does."""
        if backup.timeline not in {*(fork.parent for fork in self.forks), self.timeline}:
            return f"it is of timeline {backup.timeline}, which timeline {self.timeline} does not come from"
        left = self.ends(backup.timeline)
        if left is not None and backup.stop_lsn > left:
            return (
                f"it ended at {lsn_text(backup.stop_lsn)}, and timeline {backup.timeline} was left for"
                f" {self.timeline} at {lsn_text(left)}"
            )
        if backup.start_lsn < self.begins(backup.timeline):
            return f"it began before timeline {backup.timeline} did"
        return ""

    def __str__(self) -> str:
        """Return the timelines in order."""
        return " -> ".join(str(each) for each in (*(fork.parent for fork in self.forks), self.timeline))
