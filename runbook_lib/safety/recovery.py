"""Taking back what a killed run left half done.

The journal says what was announced, and nothing of what became of it after the last row. So recovery believes the
journal only in what has to be looked at: every outstanding act looks at reality first, and takes back what it finds to
be still there. What a procedure said is to stay, stays; what only served it is taken back, whichever side of that
moment it died on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from runbook_lib.errors import RunbookError, TargetRefused
from runbook_lib.safety import journal
from runbook_lib.safety.act import Undoable
from runbook_lib.safety.journal import Entry, Header, Journal, Record
from runbook_lib.safety.systems import Systems

_STRAGGLING_SECONDS = 2.0
"""A request that was sent whole is carried out although its sender was killed: seen up to half a second later."""


@dataclass(frozen=True)
class TakenBack:
    """One outstanding act, and what became of it."""

    header: Header
    """The run it was part of."""
    entry: Entry
    """The act as it was announced."""
    says: str
    """What was found and done, or why it could not be taken back."""
    is_stuck: bool
    """True where it could not be taken back, and stays outstanding."""


def recover(
    folder: Path, systems: Systems, kinds: Iterable[type[Undoable]], *, cluster: str, system_identifier: str
) -> list[TakenBack]:
    """Take back all outstanding acts of all journals of a cluster, the last one first; nothing where there are none.

    :param kinds: every kind of act there is
    :param system_identifier: of the database that the systems lead to

    Raise `NotPermitted` where a run is under way, `TargetRefused` where a journal is of another cluster.
    """
    known = {kind.kind: kind for kind in kinds}
    systems = replace(systems, straggling_seconds=_STRAGGLING_SECONDS)
    if not any(record.outstanding for record in journal.read_all(folder)):
        return []
    done: list[TakenBack] = []
    with journal.alone_in(folder):
        records = [record for record in reversed(journal.read_all(folder)) if record.outstanding]
        for record in records:  # all of them, before anything is done
            _must_be_of(record, cluster, system_identifier)
        for record in records:
            with journal.reopened(record) as reopened:
                done += [_take_back(record, entry, reopened, systems, known) for entry in record.outstanding]
    return done


def _must_be_of(record: Record, cluster: str, system_identifier: str) -> None:
    wrote = record.header
    same = wrote.cluster == cluster and wrote.system_identifier in ("", system_identifier)
    if not same:
        raise TargetRefused(
            "to take back what a run left half done",
            where=str(record.path),
            why=f"it was done to the cluster {wrote.cluster} (system identifier {wrote.system_identifier}), and this"
            f" profile leads to {cluster} ({system_identifier})",
            remedy=f"use the profile of that run: {wrote.profile}",
        )


def _take_back(
    record: Record, entry: Entry, reopened: Journal, systems: Systems, known: dict[str, type[Undoable]]
) -> TakenBack:
    try:
        act = known[entry.kind](**entry.arguments)
    except (KeyError, TypeError):
        return _stuck(record, entry, reopened, "this version knows no such act: take it back by hand")
    try:
        says = act.undo(systems, entry.before)
    except RunbookError as error:
        return _stuck(record, entry, reopened, str(error))
    except Exception as error:  # noqa: BLE001 - the others must be taken back all the same
        return _stuck(record, entry, reopened, f"{type(error).__name__}: {error}")
    unwritten = _note(reopened, "undone", entry, says)
    return TakenBack(record.header, entry, says + unwritten, is_stuck=bool(unwritten))


def _stuck(record: Record, entry: Entry, reopened: Journal, why: str) -> TakenBack:
    return TakenBack(record.header, entry, why + _note(reopened, "stuck", entry, why), is_stuck=True)


def _note(reopened: Journal, state: str, entry: Entry, says: str) -> str:
    """Write down what became of an act; return what kept it from the disk, for the others must be taken back too."""
    try:
        reopened.note(state, entry.number, says)
    except RunbookError as unwritten:
        return f"; and this could not be written down: {unwritten.where}: {unwritten.why}"
    return ""
