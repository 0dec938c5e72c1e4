"""Will the first INSERT after a restore collide?

A sequence that came back behind its column hands out a number that is already there: the restore looks perfect, and
the application's first write fails.
"""

from __future__ import annotations

from runbook_lib.outcome import Check, Finding
from runbook_lib.reach import postgres
from runbook_lib.reach.postgres import Session


def will_not_collide(session: Session) -> Check:
    """Compare what every owned sequence hands out next with the largest value in its column."""
    owned = [row for row in session.rows(postgres.load_sql(__package__, "sequences")) if row["owner_table"]]
    findings: list[Finding] = []
    for row in owned:
        sequence = postgres.identifier(row["schema"], row["name"])
        column = postgres.identifier(row["owner_column"])
        found = session.row(
            f"SELECT s.last_value, s.is_called, (SELECT max({column}) FROM {row['owner_table']}) AS largest,"
            f" (SELECT min({column}) FROM {row['owner_table']}) AS smallest FROM {sequence} s"
        )
        following = found["last_value"] + (row["increment"] if found["is_called"] else 0)
        reached = found["largest"] if row["increment"] > 0 else found["smallest"]
        if reached is not None and (following - reached) * row["increment"] <= 0:
            findings.append(
                Finding(
                    "sequence.collides",
                    row["qualified"],
                    f"hands out {following} next, and {row['owner_table']}.{row['owner_column']} has reached {reached}",
                    remedy=f"SELECT setval('{row['qualified']}', (SELECT max({column}) FROM {row['owner_table']}))",
                )
            )
    return Check(
        "sequences will not collide", postgres.describe(session.dsn), f"{len(owned)} owned sequences", tuple(findings)
    )
