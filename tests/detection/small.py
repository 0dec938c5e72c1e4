"""A small database, for tests of the way a backup takes rather than of what is in it."""

from __future__ import annotations

from tests.detection.place import Place

ROWS = """
CREATE TABLE ledger (id serial PRIMARY KEY, says text NOT NULL, amount numeric(12, 2) NOT NULL);
INSERT INTO ledger (says, amount) SELECT md5(i::text), i * 1.25 FROM generate_series(1, 400) AS i;
CREATE INDEX ledger_by_amount ON ledger (amount);
CREATE TABLE holders (id integer PRIMARY KEY, name text NOT NULL);
INSERT INTO holders SELECT i, 'holder ' || i FROM generate_series(1, 100) AS i;
CREATE FUNCTION twice(integer) RETURNS integer LANGUAGE sql AS 'SELECT 2 * $1';
"""


def ledger(place: Place, name: str, *more: str) -> str:
    """Make the small database under a name of its own, and return its connection string."""
    return place.create(name, ROWS, *more)
