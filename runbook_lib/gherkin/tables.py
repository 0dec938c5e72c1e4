"""A step's data table, with its first row read as the names of the columns.

pytest-bdd hands a table over as bare rows, and every step that takes one would otherwise repeat the same three lines
and the same mistake: a cell too few, noticed as an ``IndexError`` in the middle of a drill.
"""

from __future__ import annotations

from collections.abc import Sequence


def records(datatable: Sequence[Sequence[str]]) -> list[dict[str, str]]:
    """Return each row of a step's ``datatable`` as a mapping from column name to cell.

    Raise `ValueError` for a table without a header, and for two columns of one name: both are mistakes in the text.
    """
    if not datatable:
        raise ValueError("the table is empty: its first row names the columns")
    header, *rows = datatable
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise ValueError(f"two columns of the table are called {', '.join(twice)}: name each column once")
    return [dict(zip(header, row, strict=True)) for row in rows]
