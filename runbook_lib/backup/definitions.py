"""What the database is made of: one readable line per object, to be compared before and after.

A restore can hold every row and still be wrong: a CHECK that checks less, a foreign key that no longer cascades, a
policy that lets everybody read, a grant that is gone. So everything PostgreSQL knows of a database is written down
as ``(kind, name) -> definition``, by the server's own ``pg_get_*def`` where there is one. The queries are in
``sql/definitions``, one file a class of object; every name in them is written with its schema.

What is left out on purpose: objects that an extension brought along (its version stands for them), OIDs, statistics
of the planner (a dump has none before 18), and whatever exists to hold a password: the values of a user mapping's
options, a subscription's connection, and of every other foreign option the value where its name speaks of a secret.

What is compared is shown where it differs, because a changed CHECK that nobody may see helps nobody: literals in
defaults, constraints, comments and bodies of functions are the database's definition, not its rows. A password that
somebody wrote into one of them is hidden where a difference is shown.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from runbook_lib.reach import postgres
from runbook_lib.reach.postgres import Session
from runbook_lib.secrecy import without_credentials

_LINE = 160
"""How long one side of a difference may be to be read as a line, in characters."""
_PLACES = 3
"""How many places in which two definitions differ are shown."""
_WORDS_AROUND = 3


@dataclass(frozen=True, order=True)
class Definition:
    """One object, or one property of one, as text."""

    kind: str
    """The class of object, such as ``constraint`` or ``grant``."""
    name: str
    """Its name as it is typed in SQL, with its schema and, where it hangs on a table, the table's name."""
    definition: str
    """What it is."""


@dataclass(frozen=True)
class Difference:
    """One object that is not what it was."""

    kind: str
    """The class of object."""
    name: str
    """Its name."""
    expected: str | None
    """Its definition when the backup was taken; None if it did not exist."""
    found: str | None
    """Its definition now; None if it does not exist."""

    def __str__(self) -> str:
        """Return one readable line that shows where the two part, and no credential."""
        # Hidden before anything is cut: what says that a word is a password may be cut away from it.
        before = None if self.expected is None else without_credentials(self.expected)
        after = None if self.found is None else without_credentials(self.found)
        if after is None:
            return f"is missing; it was {_shorten(before or '')}"
        if before is None:
            return f"was not in the backup; it is {_shorten(after)}"
        if before == after:
            return f"differs in a credential, which is not shown: {_shorten(after)}"
        expected, found = _parting(before, after)
        return f"expected {expected}, found {found}"


def definitions(session: Session) -> list[Definition]:
    """Write down every object of the session's database, in a fixed order.

    Takes AccessShareLocks on catalogs only. ``pg_get_*def`` functions look at the catalogs as they are now and not
    as a snapshot saw them, so that DDL running meanwhile shows as a difference: pg_dump has the same limit.
    """
    found = [
        Definition(row["kind"], row["name"], row["definition"] or "")
        for name in postgres.sql_names(__package__, "definitions")
        for row in session.rows(postgres.load_sql(__package__, f"definitions/{name}", session.version_num))
    ]
    return sorted(found)


def differences(expected: Iterable[Definition], found: Iterable[Definition]) -> list[Difference]:
    """Return every object that is missing, new or different, by kind and name."""
    before, after = _by_name(expected), _by_name(found)
    return [
        Difference(kind, name, before.get((kind, name)), after.get((kind, name)))
        for kind, name in sorted(before.keys() | after.keys())
        if before.get((kind, name)) != after.get((kind, name))
    ]


def _by_name(found: Iterable[Definition]) -> Mapping[tuple[str, str], str]:
    return {(each.kind, each.name): each.definition for each in found}


def _parting(expected: str, found: str) -> tuple[str, str]:
    """Return the two texts cut down to the places in which they differ, with a few words around each.

    A definition can differ in several: a condition in other words, and a trigger that is switched off after it. Of
    many places the first and the last two are shown.
    """
    before, after = expected.split(), found.split()
    places = list(difflib.SequenceMatcher(None, before, after, autojunk=False).get_grouped_opcodes(_WORDS_AROUND))
    if not places:
        return repr(expected), repr(found)  # they differ in white space alone: show it
    shown = places if len(places) <= _PLACES else [places[0], *places[1 - _PLACES :]]
    limit = _LINE // len(shown)
    return (
        _joined(_cut(before, place[0][1], place[-1][2], limit) for place in shown),
        _joined(_cut(after, place[0][3], place[-1][4], limit) for place in shown),
    )


def _cut(words: list[str], start: int, end: int, limit: int) -> str:
    text = " ".join(words[start:end])
    return _shorten(f"{'... ' if start else ''}{text}{' ...' if end < len(words) else ''}", limit)


def _joined(places: Iterable[str]) -> str:
    return " ".join(places).replace("... ... ", "... ")


def _shorten(text: str, limit: int = _LINE) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 4]} ..."
