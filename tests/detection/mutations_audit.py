"""Faults of the audit log: the chain must break where they are, or the content hash must tell (row 9).

Rows gone from its end leave a perfect chain behind; that alone the manifest's count, hash and head find.
"""

from __future__ import annotations

from tests.detection.mutation import mutation

_LOG = "public.audit_logs"
_OPEN = f"ALTER TABLE {_LOG} DISABLE TRIGGER USER;"
_CLOSE = (
    f"; ALTER TABLE {_LOG} ENABLE TRIGGER audit_logs_append;"
    f" ALTER TABLE {_LOG} ENABLE ALWAYS TRIGGER audit_logs_refuse_change;"
    f" ALTER TABLE {_LOG} ENABLE ALWAYS TRIGGER audit_logs_refuse_truncate"
)
_LOST = (f"content.rows {_LOG}", f"content.hash {_LOG}")
_CHANGED = (f"content.hash {_LOG}",)
_HEAD = "audit.head public.audit_logs"
_BREAKS = "audit.chain public.audit_logs sequence "

AUDIT_LOG = tuple(
    mutation(9, f"audit log: {name}", f"{_OPEN} {sql} {_CLOSE}", *finds)
    for name, sql, *finds in (
        ("a row lost from the middle", f"DELETE FROM {_LOG} WHERE sequence = 100", *_LOST, f"{_BREAKS}101"),
        ("rows lost from the beginning", f"DELETE FROM {_LOG} WHERE sequence <= 10", *_LOST, f"{_BREAKS}11"),
        ("rows lost from the end", f"DELETE FROM {_LOG} WHERE sequence > 900", *_LOST, _HEAD),
        ("an actor changed", f"UPDATE {_LOG} SET actor = 'nobody' WHERE sequence = 50", *_CHANGED, f"{_BREAKS}50"),
        ("a payload's number scale changed",
         f"""UPDATE {_LOG} SET payload = jsonb_set(payload, '{{cost}}', '1.000') WHERE sequence = 51""",
         *_CHANGED, f"{_BREAKS}51"),
        ("two rows changed places",
         f"UPDATE {_LOG} SET sequence = -60 WHERE sequence = 60; UPDATE {_LOG} SET sequence = 60 WHERE sequence = 61;"
         f" UPDATE {_LOG} SET sequence = 61 WHERE sequence = -60", *_CHANGED, *(f"{_BREAKS}{n}" for n in (60, 61, 62))),
        ("a row changed and its own hash computed anew",
         f"UPDATE {_LOG} SET actor = 'mallory', record_hash = audit.record_hash(prev_hash, sequence, occurred_at,"
         f" 'mallory', action, tenant_id, payload) WHERE sequence = 70", *_CHANGED, f"{_BREAKS}71"),
        ("the last row changed and its own hash computed anew",
         f"UPDATE {_LOG} SET actor = 'mallory', record_hash = audit.record_hash(prev_hash, sequence, occurred_at,"
         f" 'mallory', action, tenant_id, payload) WHERE sequence = (SELECT max(sequence) FROM {_LOG})", *_CHANGED,
         _HEAD),
        ("a row put in at its end",
         f"INSERT INTO {_LOG} SELECT sequence + 1, occurred_at, actor, action, tenant_id, payload, record_hash,"
         f" audit.record_hash(record_hash, sequence + 1, occurred_at, actor, action, tenant_id, payload)"
         f" FROM {_LOG} ORDER BY sequence DESC LIMIT 1", *_LOST, _HEAD),
    )
)  # fmt: skip
