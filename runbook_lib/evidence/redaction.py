"""Keeps secrets and the values of rows out of whatever is told of a run.

The library puts neither into its errors and findings, and the words of PostgreSQL are cleaned where they enter it (see
`runbook_lib.secrecy`). This is the last line, not the first: every text passes here before it reaches a terminal's log,
a report or an attachment, for the sake of what nobody foresaw.
"""

from __future__ import annotations

from runbook_lib.secrecy import HIDDEN, SECRET_NAME, without_credentials, without_row_values


def redacted(text: str) -> str:
    """Return a text with everything that looks like a secret or like the value of a row hidden."""
    return without_credentials(without_row_values(text))


def redacted_value(name: str, value: object) -> str:
    """Return a named value as text; hidden altogether where the name says that it is a secret."""
    return HIDDEN if SECRET_NAME.fullmatch(name) and value not in (None, "") else redacted(str(value))
