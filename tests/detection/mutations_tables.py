"""Tables, columns, constraints and indexes that are defined otherwise (rows 14 and 15)."""

from __future__ import annotations

from tests.detection.mutation import mutation

_KINDS = "('tokens', 'gpu_seconds', 'storage', 'egress', 'gifts')"

INDEXES = tuple(
    mutation(row, f"index: {name}", sql, f"catalog.index {index}", *more)
    for row, name, sql, index, *more in (
        (14, "invalid",
         "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'public.futures_by_client'::regclass",
         "public.futures_by_client"),
        (14, "unique and invalid",
         "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'public.audit_logs_hash_once'::regclass",
         "public.audit_logs_hash_once"),
        (14, "not ready for writes",
         "UPDATE pg_index SET indisready = false WHERE indexrelid = 'public.artifacts_by_client'::regclass",
         "public.artifacts_by_client"),
        (17, "in the order of another library",
         "CREATE INDEX by_absolute_value ON public.training_clients (step ops.absolute_value_ops); CREATE OR REPLACE"
         " FUNCTION ops.by_absolute_value(integer, integer) RETURNS integer LANGUAGE sql IMMUTABLE STRICT RETURN"
         " abs($2) - abs($1)", "public.by_absolute_value", "integrity.index public.by_absolute_value",
         "catalog.function ops.by_absolute_value(integer,integer)"),
        (15, "lost", "DROP INDEX public.futures_open", "public.futures_open",
         "catalog.comment index public.futures_open"),
        (15, "one too many", "CREATE INDEX left_over ON public.futures (took)", "public.left_over"),
        (15, "another name", "ALTER INDEX public.artifacts_by_client RENAME TO by_client", "public.artifacts_by_client",
         "catalog.index public.by_client"),
        (15, "a value less in the list of its predicate",
         "DROP INDEX public.users_one_owner_by_country; CREATE UNIQUE INDEX users_one_owner_by_country ON public.users"
         " (tenant_id, country, id DESC NULLS LAST) WHERE role IN ('owner') AND is_active",
         "public.users_one_owner_by_country"),
        (15, "its predicate lost",
         "DROP INDEX public.users_one_owner_by_country; CREATE UNIQUE INDEX users_one_owner_by_country ON public.users"
         " (tenant_id, country, id DESC NULLS LAST)", "public.users_one_owner_by_country"),
        (15, "unique no longer",
         "DROP INDEX public.users_one_owner_by_country; CREATE INDEX users_one_owner_by_country ON public.users"
         " (tenant_id, country, id DESC NULLS LAST) WHERE role IN ('owner', 'admin') AND is_active",
         "public.users_one_owner_by_country"),
        (15, "the order of nulls",
         "DROP INDEX public.users_one_owner_by_country; CREATE UNIQUE INDEX users_one_owner_by_country ON public.users"
         " (tenant_id, country, id DESC) WHERE role IN ('owner', 'admin') AND is_active",
         "public.users_one_owner_by_country"),
        (15, "another value in the list of its expression",
         "DROP INDEX public.users_by_standing; CREATE INDEX users_by_standing ON public.users"
         " ((role IN ('owner', 'service')), tenant_id)", "public.users_by_standing"),
        (15, "its expression",
         "DROP INDEX public.users_by_lower_name; CREATE INDEX users_by_lower_name ON public.users"
         " (upper(full_name) text_pattern_ops)", "public.users_by_lower_name"),
        (15, "its operator class",
         "DROP INDEX public.users_by_lower_name; CREATE INDEX users_by_lower_name ON public.users (lower(full_name))",
         "public.users_by_lower_name"),
        (15, "an included column lost",
         "DROP INDEX public.users_by_tenant; CREATE INDEX users_by_tenant ON public.users (tenant_id)"
         " INCLUDE (full_name)", "public.users_by_tenant"),
        (15, "the order of a column",
         "DROP INDEX public.training_clients_by_tenant; CREATE INDEX training_clients_by_tenant ON"
         " public.training_clients (tenant_id, created_at); ALTER TABLE public.training_clients CLUSTER ON"
         " training_clients_by_tenant", "public.training_clients_by_tenant"),
        (15, "its collation",
         "DROP INDEX public.training_clients_by_code_point; CREATE INDEX training_clients_by_code_point ON"
         " public.training_clients (name, status) WITH (fillfactor = 70)", "public.training_clients_by_code_point"),
        (15, "its method",
         "DROP INDEX public.artifacts_by_tenant; CREATE INDEX artifacts_by_tenant ON public.artifacts (tenant_id)",
         "public.artifacts_by_tenant"),
        (15, "a storage parameter", "ALTER INDEX public.training_clients_by_code_point SET (fillfactor = 90)",
         "public.training_clients_by_code_point"),
        (15, "its statistics target", "ALTER INDEX public.futures_by_loss ALTER COLUMN 1 SET STATISTICS 100",
         "public.futures_by_loss"),
        (15, "the mark to cluster by", "ALTER TABLE public.training_clients SET WITHOUT CLUSTER",
         "public.training_clients_by_tenant"),
        (15, "no longer the replica identity", "ALTER TABLE public.users REPLICA IDENTITY DEFAULT",
         "public.users_email_once", "catalog.table public.users"),
    )
)  # fmt: skip


def _again(table: str, constraint: str, definition: str) -> str:
    drop, add = f"DROP CONSTRAINT {constraint}", f"ADD CONSTRAINT {constraint} {definition}"
    return f"ALTER TABLE {table} {drop}; ALTER TABLE {table} {add}"


CONSTRAINTS = tuple(
    mutation(15, f"constraint: {name}", sql, f"catalog.constraint {constraint}", *more)
    for name, sql, constraint, *more in (
        ("a CHECK lost", "ALTER TABLE public.users DROP CONSTRAINT users_role_known", "public.users users_role_known"),
        ("a value more in the list of a CHECK",
         _again("public.users", "users_role_known", "CHECK (role IN ('owner', 'admin', 'member', 'service', 'bot'))"),
         "public.users users_role_known"),
        ("another value in the list of a CHECK",
         _again("public.futures", "futures_status_known",
                "CHECK (status IN ('pending', 'running', 'completed', 'failed', 'canceled')) NOT VALID")
         + "; UPDATE pg_constraint SET convalidated = true WHERE conname = 'futures_status_known'",
         "public.futures futures_status_known"),
        ("a list of a CHECK negated",
         _again("public.users", "users_role_known", "CHECK (role NOT IN ('owner', 'admin', 'member', 'service'))"
                " NOT VALID") + "; UPDATE pg_constraint SET convalidated = true WHERE conname = 'users_role_known'",
         "public.users users_role_known"),
        ("a value more in the list of a CHECK of partitions",
         _again("public.usage_events", "usage_events_kind_known", f"CHECK (kind IN {_KINDS})"),
         "public.usage_events usage_events_kind_known",
         *(f"catalog.constraint public.usage_events_{part} usage_events_kind_known"
           for part in ("2025_10", "2025_11", "2025_12", "2026_01", "2026_01_us", "2026_01_elsewhere", "2026_02",
                        "other"))),
        ("OR turned into AND in a CHECK",
         _again("public.futures", "futures_failed_says_why", "CHECK (status <> 'failed' AND error IS NOT NULL)"
                " NOT VALID") + "; UPDATE pg_constraint SET convalidated = true WHERE conname"
         " = 'futures_failed_says_why'", "public.futures futures_failed_says_why"),
        ("a CHECK no longer valid",
         "UPDATE pg_constraint SET convalidated = false WHERE conname = 'users_role_known'",
         "public.users users_role_known"),
        ("a CHECK valid that was not",
         "UPDATE pg_constraint SET convalidated = true WHERE conname = 'legacy_invoices_number_form'",
         "ops.legacy_invoices legacy_invoices_number_form"),
        ("a CHECK inherited that was not",
         "UPDATE pg_constraint SET connoinherit = false WHERE conname = 'parents_only'", "ops.incidents parents_only"),
        ("a CHECK of a foreign table", _again("ops.remote_invoices", "remote_invoices_state_check",
                                              "CHECK (state IN ('open', 'paid', 'lost'))"),
         "ops.remote_invoices remote_invoices_state_check"),
        ("another name", "ALTER TABLE public.users RENAME CONSTRAINT users_role_known TO role_known",
         "public.users users_role_known", "catalog.constraint public.users role_known"),
        ("a foreign key lost", "ALTER TABLE public.users DROP CONSTRAINT users_invited_by_fkey",
         "public.users users_invited_by_fkey"),
        ("a foreign key that no longer cascades",
         _again("public.users", "users_tenant_fkey", "FOREIGN KEY (tenant_id) REFERENCES public.tenants"),
         "public.users users_tenant_fkey"),
        ("a foreign key's action on update",
         _again("public.users", "users_invited_by_fkey",
                "FOREIGN KEY (invited_by) REFERENCES public.users ON DELETE SET NULL"),
         "public.users users_invited_by_fkey"),
        ("a foreign key that sets more columns to null",
         _again("ops.api_keys", "api_keys_issued_to_fkey", "FOREIGN KEY (tenant_id, issued_to) REFERENCES public.users"
                " (tenant_id, id) ON DELETE SET NULL"), "ops.api_keys api_keys_issued_to_fkey"),
        ("a foreign key no longer deferrable",
         "ALTER TABLE public.futures ALTER CONSTRAINT futures_training_client_fkey NOT DEFERRABLE",
         "public.futures futures_training_client_fkey"),
        ("a foreign key no longer deferred at first",
         "ALTER TABLE public.tenants ALTER CONSTRAINT tenants_owner_fkey DEFERRABLE INITIALLY IMMEDIATE",
         "public.tenants tenants_owner_fkey"),
        ("a foreign key not valid", _again("public.training_windows", "training_windows_tenant_fkey",
         "FOREIGN KEY (tenant_id) REFERENCES public.tenants ON DELETE RESTRICT NOT VALID"),
         "public.training_windows training_windows_tenant_fkey"),
        ("a unique one lost", "ALTER TABLE public.tenants DROP CONSTRAINT tenants_slug_key",
         "public.tenants tenants_slug_key", "catalog.index public.tenants_slug_key"),
        ("a unique one no longer deferrable", _again("public.artifacts", "artifacts_object_key_once",
                                                     "UNIQUE (object_key)"),
         "public.artifacts artifacts_object_key_once"),
        ("two nulls no longer equal", _again("ops.api_keys", "api_keys_label_once", "UNIQUE (tenant_id, label)"),
         "ops.api_keys api_keys_label_once", "catalog.index ops.api_keys_label_once"),
        ("a primary key lost", "ALTER TABLE ops.session_cache DROP CONSTRAINT session_cache_pkey",
         "ops.session_cache session_cache_pkey", "catalog.index ops.session_cache_pkey"),
        ("the condition of an exclusion lost",
         _again("public.training_windows", "training_windows_do_not_overlap",
                "EXCLUDE USING gist (tenant_id WITH OPERATOR(pg_catalog.=), during WITH &&)"),
         "public.training_windows training_windows_do_not_overlap",
         "catalog.index public.training_windows_do_not_overlap"),
        ("an exclusion lost",
         "ALTER TABLE public.training_windows DROP CONSTRAINT training_windows_do_not_overlap",
         "public.training_windows training_windows_do_not_overlap",
         "catalog.index public.training_windows_do_not_overlap"),
    )
)  # fmt: skip

_ORDER = """
CREATE TABLE ops.again (beat_at timestamptz NOT NULL, host text NOT NULL, load float4 NOT NULL);
INSERT INTO ops.again SELECT beat_at, host, load FROM ops.heartbeats;
DROP TABLE ops.heartbeats; ALTER TABLE ops.again RENAME TO heartbeats"""

_CASCADES = {
    "its type": ("content.hash ops.documents",),
    "its collation": ("catalog.index public.training_clients_by_name",),
    "another name": ("catalog.rule ops.heartbeats heartbeats_tell",),
}

COLUMNS = (*(
    mutation(15, f"column: {name}", sql, *finds, also=_CASCADES.get(name, ()))
    for name, sql, *finds in (
        ("a default changed", "ALTER TABLE public.users ALTER COLUMN role SET DEFAULT 'owner'",
         "catalog.column_default public.users role"),
        ("a default lost", "ALTER TABLE public.training_clients ALTER COLUMN budget DROP DEFAULT",
         "catalog.column_default public.training_clients budget"),
        ("a serial's default lost", "ALTER TABLE public.futures ALTER COLUMN id DROP DEFAULT",
         "catalog.column_default public.futures id"),
        ("a default too many", "ALTER TABLE public.users ALTER COLUMN country SET DEFAULT 'US'",
         "catalog.column_default public.users country"),
        ("an identity's kind", "ALTER TABLE public.tenants ALTER COLUMN number SET GENERATED BY DEFAULT",
         "catalog.column public.tenants.number"),
        ("an identity lost", "ALTER TABLE ops.nothing_yet ALTER COLUMN id DROP IDENTITY",
         "catalog.column ops.nothing_yet.id", "catalog.sequence ops.nothing_yet_id_seq",
         "sequence.missing ops.nothing_yet_id_seq", "catalog.grant sequence ops.nothing_yet_id_seq"),
        ("a generated column's expression",
         "ALTER TABLE public.artifacts ALTER COLUMN size_mib SET EXPRESSION AS (round(size_bytes / 1048576.0, 3) + 0)",
         "catalog.generated_column public.artifacts size_mib"),
        ("a value more in the list of a generated column's expression",
         "ALTER TABLE public.tenants ALTER COLUMN is_paying SET EXPRESSION AS"
         " (plan IN ('team', 'enterprise', 'trial'))", "catalog.generated_column public.tenants is_paying"),
        ("no longer generated", "ALTER TABLE public.tenants ALTER COLUMN is_paying DROP EXPRESSION",
         "catalog.generated_column public.tenants is_paying"),
        ("its type", "ALTER TABLE ops.documents ALTER COLUMN id TYPE bigint", "catalog.column ops.documents.id"),
        ("its length", "ALTER TABLE public.audit_logs ALTER COLUMN actor TYPE varchar(100)",
         "catalog.column public.audit_logs.actor"),
        ("a length lost", "ALTER TABLE public.audit_logs ALTER COLUMN action TYPE varchar",
         "catalog.column public.audit_logs.action"),
        ("may be null", "ALTER TABLE public.users ALTER COLUMN password_hash DROP NOT NULL",
         "catalog.column public.users.password_hash"),
        ("may not be null", "ALTER TABLE public.users ALTER COLUMN last_seen_from SET NOT NULL",
         "catalog.column public.users.last_seen_from"),
        ("its collation",
         "UPDATE pg_attribute SET attcollation = 'pg_catalog.\"C\"'::regcollation WHERE attname = 'name'"
         " AND attrelid = 'public.training_clients'::regclass", "catalog.column public.training_clients.name"),
        ("its storage", "ALTER TABLE ops.documents ALTER COLUMN raw SET STORAGE EXTENDED",
         "catalog.column ops.documents.raw"),
        ("its compression", "ALTER TABLE ops.documents ALTER COLUMN body SET COMPRESSION pglz",
         "catalog.column ops.documents.body"),
        ("its statistics target", "ALTER TABLE ops.documents ALTER COLUMN body SET STATISTICS -1",
         "catalog.column ops.documents.body"),
        ("an option", "ALTER TABLE ops.documents ALTER COLUMN id RESET (n_distinct)",
         "catalog.column ops.documents.id"),
        ("an option of a foreign table's column",
         "ALTER FOREIGN TABLE ops.remote_invoices ALTER COLUMN id OPTIONS (SET column_name 'id')",
         "catalog.column ops.remote_invoices.id"),
        ("a view's column default lost", "ALTER VIEW public.active_users ALTER COLUMN full_name SET DEFAULT 'nobody'",
         "catalog.column_default public.active_users full_name"),
        ("lost", "ALTER TABLE ops.settings_history DROP COLUMN value", "catalog.column ops.settings_history.value",
         "content.hash ops.settings_history", "catalog.column ops.settings_history.at"),
        ("one too many", "ALTER TABLE ops.settings_history ADD COLUMN left_over integer",
         "catalog.column ops.settings_history.left_over", "content.hash ops.settings_history"),
        ("another name", "ALTER TABLE ops.heartbeats RENAME COLUMN load TO weight",
         "catalog.column ops.heartbeats.load", "catalog.column ops.heartbeats.weight"),
    )),
    mutation(15, "column: another order", _ORDER, "catalog.column ops.heartbeats.host",
             "catalog.column ops.heartbeats.beat_at", also=("catalog.* *ops.heartbeats*",)),
)  # fmt: skip

_DETACHED = (
    "catalog.index public.usage_events_2025_12*",
    "catalog.constraint public.usage_events_2025_12 *",
    "catalog.trigger public.usage_events_2025_12 *",
)

TABLES = tuple(
    mutation(15, f"table: {name}", sql, *finds, also=also)
    for name, sql, also, *finds in (
        ("row-level security switched off", "ALTER TABLE public.training_clients DISABLE ROW LEVEL SECURITY", (),
         "catalog.table public.training_clients"),
        ("row-level security no longer forced", "ALTER TABLE public.artifacts NO FORCE ROW LEVEL SECURITY", (),
         "catalog.table public.artifacts"),
        ("logged that was not", "ALTER TABLE ops.session_cache SET LOGGED", (), "catalog.table ops.session_cache"),
        ("unlogged", "ALTER TABLE ops.heartbeats SET UNLOGGED", (), "catalog.table ops.heartbeats"),
        ("a storage parameter", "ALTER TABLE public.users SET (fillfactor = 100)", (), "catalog.table public.users"),
        ("a storage parameter of its TOAST table", "ALTER TABLE public.users RESET (toast.autovacuum_enabled)", (),
         "catalog.table public.users"),
        ("its replica identity", "ALTER TABLE ops.heartbeats REPLICA IDENTITY DEFAULT", (),
         "catalog.table ops.heartbeats"),
        ("a partition detached",
         "ALTER TABLE public.usage_events DETACH PARTITION public.usage_events_2025_12",
         (*_DETACHED, "content.materialized_view public.usage_by_month"), "catalog.table public.usage_events_2025_12"),
        ("a partition's bounds",
         "DELETE FROM public.usage_events_2025_12 WHERE occurred_at >= '2025-12-31 00:00:00+00';"
         " ALTER TABLE public.usage_events DETACH PARTITION public.usage_events_2025_12; ALTER TABLE"
         " public.usage_events ATTACH PARTITION public.usage_events_2025_12 FOR VALUES FROM"
         " ('2025-12-01 00:00:00+00') TO ('2025-12-31 00:00:00+00'); REFRESH MATERIALIZED VIEW public.usage_by_month",
         (*_DETACHED, "content.* public.usage_events_2025_12"), "catalog.table public.usage_events_2025_12"),
        ("an ancestor lost", "ALTER TABLE ops.security_incidents NO INHERIT ops.incidents",
         ("catalog.column ops.security_incidents.*",), "catalog.table ops.security_incidents"),
        ("a foreign table's options", "ALTER FOREIGN TABLE ops.remote_invoices OPTIONS (SET table_name 'bills')", (),
         "catalog.foreign_table ops.remote_invoices"),
        ("a foreign table lost", "DROP FOREIGN TABLE ops.remote_invoices", ("catalog.* *ops.remote_invoices*",),
         "catalog.foreign_table ops.remote_invoices"),
    )
)  # fmt: skip
