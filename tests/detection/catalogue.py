"""All mutations, in batches, with a healthy twin between them every so often.

Each mutation is carried out in a copy of the restored database. Several share one copy where none can be taken for
another: they concern other objects, so that each must be found under its own name, and what is found besides explains
itself by none of them. `AT_A_TIME` = 1 gives each a copy of its own, and takes minutes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase

from tests.detection.mutation import Mutation
from tests.detection.mutations_access import ACCESS
from tests.detection.mutations_audit import AUDIT_LOG
from tests.detection.mutations_code import CODE
from tests.detection.mutations_content import CONTENT
from tests.detection.mutations_database import AROUND
from tests.detection.mutations_sequences import MATERIALIZED_VIEWS, SEQUENCES
from tests.detection.mutations_tables import COLUMNS, CONSTRAINTS, INDEXES, TABLES

Batch = tuple[Mutation, ...]
"""Mutations of one copy; none for a healthy twin."""

AT_A_TIME = 5
_HEALTHY_EVERY = 10

MUTATIONS: tuple[Mutation, ...] = (
    *CONTENT, *AUDIT_LOG, *SEQUENCES, *MATERIALIZED_VIEWS, *INDEXES, *CONSTRAINTS, *COLUMNS, *TABLES, *CODE, *ACCESS,
    *AROUND,
)  # fmt: skip


def batches(at_a_time: int = AT_A_TIME) -> Iterator[Batch]:
    """Yield every mutation once, and a twin that nothing is done to at first, at last, and every tenth time."""
    found: list[list[Mutation]] = []
    for mutation in MUTATIONS:
        room = (
            batch for batch in found if len(batch) < at_a_time and not any(_meet(mutation, other) for other in batch)
        )
        batch = next(room, None)
        if batch is None:
            found.append([mutation])
        else:
            batch.append(mutation)
    for number, batch in enumerate(found):
        if number % _HEALTHY_EVERY == 0:
            yield ()
        yield tuple(batch)
    yield ()


def name_of(batch: Batch) -> str:
    """Return what to call a batch in a report."""
    return "; ".join(mutation.name for mutation in batch) or "a healthy twin"


def _meet(one: Mutation, other: Mutation) -> bool:
    """Whether two mutations concern, or may concern, the same object."""
    return one.outcome is not other.outcome or any(
        fnmatchcase(name, pattern) or fnmatchcase(pattern, name)
        for name in _objects(one)
        for pattern in _objects(other)
    )


def _objects(mutation: Mutation) -> set[str]:
    """Return the names that a mutation's findings speak of: words that only a name can be, else the whole subject."""
    subjects = [named.split(" ", 1)[1] for named in (*mutation.finds, *mutation.also)]
    return {name for subject in subjects for name in (re.findall(r"\S*[._]\S*", subject) or [subject])}
