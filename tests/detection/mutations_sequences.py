"""Sequences and materialized views that stand elsewhere than they did (rows 12 and 13)."""

from __future__ import annotations

from tests.detection.mutation import mutation


def _position(sequence: str) -> str:
    return f"sequence.position {sequence}"


def _collides(sequence: str) -> str:
    return f"sequence.collides {sequence}"


_FUTURES, _USERS, _TENANTS = "public.futures_id_seq", "public.users_id_seq", "public.tenants_number_seq"
_INVOICES, _SHARDS, _LEDGER = "ops.invoice_number", "ops.shard_turn", "ops.ledger_entry"
_DEFINED = f"catalog.sequence {_SHARDS}"

SEQUENCES = tuple(
    mutation(12, f"sequence: {name}", sql, *finds)
    for name, sql, *finds in (
        ("behind its column", f"SELECT setval('{_FUTURES}', 5)", _position(_FUTURES), _collides(_FUTURES)),
        ("of an identity behind its column", f"SELECT setval('{_TENANTS}', 100)", _position(_TENANTS),
         _collides(_TENANTS)),
        ("at its column's maximum, as if never called",
         f"SELECT setval('{_USERS}', (SELECT max(id) FROM public.users), false)", _position(_USERS), _collides(_USERS)),
        ("ahead of its column", f"SELECT setval('{_FUTURES}', 9999999)", _position(_FUTURES)),
        ("of its own, as if called", f"SELECT setval('{_INVOICES}', 1000, true)", _position(_INVOICES)),
        ("of its own, back at its start", f"SELECT setval('{_LEDGER}', 5000000000, false)", _position(_LEDGER)),
        ("running backwards, set back", f"SELECT setval('{_SHARDS}', 10)", _position(_SHARDS)),
        ("its increment", f"ALTER SEQUENCE {_SHARDS} INCREMENT BY -4", _DEFINED),
        ("its bounds", f"ALTER SEQUENCE {_SHARDS} MAXVALUE 12", _DEFINED),
        ("no longer a cycle", f"ALTER SEQUENCE {_SHARDS} NO CYCLE", _DEFINED),
        ("its type", f"ALTER SEQUENCE {_SHARDS} AS integer", _DEFINED),
        ("its start", f"ALTER SEQUENCE {_SHARDS} START WITH 8", _DEFINED),
        ("its cache", f"ALTER SEQUENCE {_INVOICES} CACHE 1", f"catalog.sequence {_INVOICES}"),
        ("owned by no column any more", "ALTER SEQUENCE public.training_windows_id_seq OWNED BY NONE",
         "catalog.sequence public.training_windows_id_seq"),
        ("unlogged", f"ALTER SEQUENCE {_LEDGER} SET UNLOGGED", f"catalog.sequence {_LEDGER}"),
        ("lost", f"DROP SEQUENCE {_LEDGER}", f"sequence.missing {_LEDGER}", f"catalog.sequence {_LEDGER}",
         f"catalog.grant sequence {_LEDGER}"),
        ("one too many", "CREATE SEQUENCE ops.left_over", "sequence.missing ops.left_over",
         "catalog.sequence ops.left_over", "catalog.grant sequence ops.left_over"),
    )
)  # fmt: skip

_USAGE = "public.usage_by_month"

MATERIALIZED_VIEWS = tuple(
    mutation(13, f"materialized view: {name}", sql, *finds, also=("catalog.* *usage_by_month*",) * also)
    for name, sql, also, *finds in (
        ("came back without its rows", f"REFRESH MATERIALIZED VIEW {_USAGE} WITH NO DATA", False,
         f"catalog.materialized_view {_USAGE}"),
        ("came back with rows it had not", "REFRESH MATERIALIZED VIEW ops.largest_tenants", False,
         "catalog.materialized_view ops.largest_tenants"),
        ("stale: its table has moved on",
         "UPDATE public.usage_events SET quantity = quantity + 1 WHERE id = (SELECT min(id) FROM"
         " public.usage_events_2025_10 WHERE kind = 'tokens')", False, f"content.materialized_view {_USAGE}",
         "content.hash public.usage_events_2025_10"),
        ("stale: it holds what its table does not",
         "UPDATE public.usage_events_2025_10 SET quantity = quantity + 1 WHERE kind = 'tokens';"
         f" REFRESH MATERIALIZED VIEW {_USAGE};"
         " UPDATE public.usage_events_2025_10 SET quantity = quantity - 1 WHERE kind = 'tokens'", False,
         f"content.materialized_view {_USAGE}"),
        ("its query",
         f"""DROP MATERIALIZED VIEW {_USAGE}; CREATE MATERIALIZED VIEW {_USAGE} AS SELECT tenant_id,
         date_trunc('month', occurred_at AT TIME ZONE 'UTC') AS month, kind, sum(quantity) AS quantity,
         sum(quantity * unit_price) AS price FROM public.usage_events WHERE kind IN ('tokens', 'gpu_seconds')
         GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;
         CREATE UNIQUE INDEX usage_by_month_once ON {_USAGE} (tenant_id, month, kind)""", True,
         f"catalog.materialized_view_query {_USAGE}"),
        ("lost", f"DROP MATERIALIZED VIEW {_USAGE}", True, f"content.table {_USAGE}",
         f"catalog.materialized_view {_USAGE}"),
    )
)  # fmt: skip
