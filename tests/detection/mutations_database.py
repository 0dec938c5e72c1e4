"""The database's own properties, and what no table shows: settings, publications, statistics, comments, extensions
(rows 19 and 20).
"""

from __future__ import annotations

from runbook_lib.outcome import Outcome
from tests.detection.mutation import mutation

DATABASE = tuple(
    mutation(20, f"database: {name}", sql, finds)
    for name, sql, finds in (
        ("a setting lost", "ALTER DATABASE {database} RESET timezone", "catalog.database_setting TimeZone"),
        ("a setting changed", "ALTER DATABASE {database} SET statement_timeout = 0",
         "catalog.database_setting statement_timeout"),
        ("a setting too many", "ALTER DATABASE {database} SET synchronous_commit = off",
         "catalog.database_setting synchronous_commit"),
        ("the order of its search_path", 'ALTER DATABASE {database} SET search_path = public, audit, "$user"',
         "catalog.database_setting search_path"),
        ("its search_path one name", "ALTER DATABASE {database} SET search_path = '\"$user\", public, audit'",
         "catalog.database_setting search_path"),
        ("a role's setting in it lost", "ALTER ROLE tensafe IN DATABASE {database} RESET work_mem",
         "catalog.role_setting_in_the_database tensafe work_mem"),
        ("a role's setting in it changed",
         "ALTER ROLE tensafe_report IN DATABASE {database} SET statement_timeout = '5h'",
         "catalog.role_setting_in_the_database tensafe_report statement_timeout"),
        ("its owner", "UPDATE pg_database SET datdba = 10 WHERE datname = '{database}'", "catalog.database owner"),
        ("its number of connections", "ALTER DATABASE {database} CONNECTION LIMIT 3",
         "catalog.database connection limit"),
        ("its comment", "COMMENT ON DATABASE {database} IS NULL", "catalog.database comment"),
        ("its order of sorting", "UPDATE pg_database SET datcollate = 'C' WHERE datname = '{database}'",
         "catalog.database collate"),
        ("its case", "UPDATE pg_database SET datctype = 'C' WHERE datname = '{database}'", "catalog.database ctype"),
    )
)  # fmt: skip

EXTENSIONS = (
    mutation(19, "extension: another version", "UPDATE pg_extension SET extversion = '1.0' WHERE extname = 'hstore'",
             "catalog.extension hstore", outcome=Outcome.UNPROVEN),
    mutation(19, "extension: in another schema", "ALTER EXTENSION btree_gist SET SCHEMA ops",
             "catalog.extension btree_gist"),
    mutation(19, "extension: lost", "DROP EXTENSION pg_trgm CASCADE", "catalog.extension pg_trgm",
             "catalog.index public.training_clients_by_name", "catalog.comment extension pg_trgm",
             "catalog.grant function extensions.show_trgm(text)"),
    mutation(19, "extension: one too many", "CREATE EXTENSION unaccent SCHEMA extensions",
             "catalog.extension unaccent", "catalog.comment extension unaccent"),
)  # fmt: skip

_FINISHED = "catalog.published_table tensafe_finished public.futures"
_SOLD = "public.tenants WHERE (plan <> 'free')"

PUBLICATIONS = tuple(
    mutation(20, f"publication: {name}", sql, finds, also=also)
    for name, sql, finds, also in (
        ("lost", "DROP PUBLICATION tensafe_people", "catalog.publication tensafe_people",
         ("catalog.published_table tensafe_people *",)),
        ("without one of its tables", "ALTER PUBLICATION tensafe_people DROP TABLE public.users",
         "catalog.published_table tensafe_people public.users", ()),
        ("with a table too many", "ALTER PUBLICATION tensafe_people ADD TABLE public.futures",
         "catalog.published_table tensafe_people public.futures", ()),
        ("what it publishes", "ALTER PUBLICATION tensafe_usage SET (publish = 'insert, truncate')",
         "catalog.publication tensafe_usage", ()),
        ("not by way of the root", "ALTER PUBLICATION tensafe_usage SET (publish_via_partition_root = false)",
         "catalog.publication tensafe_usage", ()),
        ("a condition lost", "ALTER PUBLICATION tensafe_finished SET TABLE public.futures (id, status, created_at),"
         f" {_SOLD}", _FINISHED, ()),
        ("a value less in a condition", "ALTER PUBLICATION tensafe_finished SET TABLE public.futures (id, status,"
         f" created_at) WHERE (status = 'completed'), {_SOLD}", _FINISHED, ()),
        ("a column too many", "ALTER PUBLICATION tensafe_finished SET TABLE public.futures (id, status, created_at,"
         f" error) WHERE (status = 'completed' OR status = 'failed'), {_SOLD}", _FINISHED, ()),
        ("without a schema", "ALTER PUBLICATION tensafe_audit DROP TABLES IN SCHEMA audit",
         "catalog.published_schema tensafe_audit audit", ()),
    )
)  # fmt: skip

_DONE = "ops.futures_done"

OTHERS = tuple(
    mutation(20, name, sql, *finds)
    for name, sql, *finds in (
        ("extended statistics: lost", f"DROP STATISTICS {_DONE}", f"catalog.extended_statistics {_DONE}"),
        ("extended statistics: a kind less", "DROP STATISTICS public.training_clients_tenant_and_user;"
         " CREATE STATISTICS public.training_clients_tenant_and_user (ndistinct) ON tenant_id, created_by"
         " FROM public.training_clients", "catalog.extended_statistics public.training_clients_tenant_and_user",
         "catalog.comment statistics object public.training_clients_tenant_and_user"),
        ("extended statistics: a value less in the list of its expression",
         f"DROP STATISTICS {_DONE}; CREATE STATISTICS {_DONE} ON (status IN ('completed')), kind FROM public.futures",
         f"catalog.extended_statistics {_DONE}"),
        ("extended statistics: its target", "ALTER STATISTICS ops.futures_status_and_kind SET STATISTICS -1",
         "catalog.extended_statistics ops.futures_status_and_kind"),
        ("foreign server: its options", "ALTER SERVER billing OPTIONS (SET host 'elsewhere.tensafe.invalid')",
         "catalog.foreign_server billing"),
        ("foreign server: its version", "ALTER SERVER billing VERSION '18'", "catalog.foreign_server billing"),
        ("foreign data wrapper: its options", "ALTER FOREIGN DATA WRAPPER elsewhere OPTIONS (DROP note)",
         "catalog.foreign_data_wrapper elsewhere"),
        ("user mapping: lost", "DROP USER MAPPING FOR PUBLIC SERVER billing", "catalog.user_mapping PUBLIC on billing"),
        ("user mapping: an option lost",
         'ALTER USER MAPPING FOR tensafe_readonly SERVER billing OPTIONS (DROP "user")',
         "catalog.user_mapping tensafe_readonly on billing"),
        ("cast: lost", "DROP CAST (public.postal_address AS text)", "catalog.cast public.postal_address as text",
         "catalog.comment cast (public.postal_address AS pg_catalog.text)"),
        ("cast: by itself now", "UPDATE pg_cast SET castcontext = 'i' WHERE castsource ="
         " 'public.postal_address'::regtype", "catalog.cast public.postal_address as text"),
        ("operator: its estimate", "ALTER OPERATOR ops.=~= (public.postal_address, public.postal_address)"
         " SET (RESTRICT = NONE)", "catalog.operator ops.=~=(public.postal_address,public.postal_address)"),
        ("operator class: what it stores", "UPDATE pg_opclass SET opckeytype = 20 WHERE opcname ="
         " 'absolute_value_ops'", "catalog.operator_class ops.absolute_value_ops using btree"),
        ("operator family: a function too many", "CREATE FUNCTION ops.left_over(bigint, bigint) RETURNS integer"
         " LANGUAGE sql IMMUTABLE RETURN 0; ALTER OPERATOR FAMILY ops.absolute_value USING btree ADD FUNCTION 1"
         " (bigint, bigint) ops.left_over(bigint, bigint)", "catalog.operator_family ops.absolute_value using btree",
         "catalog.function ops.left_over(bigint,bigint)", "catalog.grant function ops.left_over(bigint,bigint)"),
        ("collation: its locale", "UPDATE pg_collation SET collcollate = 'POSIX' WHERE collname = 'code_point'",
         "catalog.collation ops.code_point"),
        ("collation: nondeterministic", "UPDATE pg_collation SET collisdeterministic = false WHERE collname ="
         " 'code_point'", "catalog.collation ops.code_point"),
        ("text search configuration: a mapping lost",
         "ALTER TEXT SEARCH CONFIGURATION ops.model_names DROP MAPPING FOR numword",
         "catalog.text_search_configuration ops.model_names"),
        ("text search configuration: the order of dictionaries",
         "ALTER TEXT SEARCH CONFIGURATION ops.model_names ALTER MAPPING FOR word"
         " WITH pg_catalog.simple, ops.as_written",
         "catalog.text_search_configuration ops.model_names"),
        ("text search dictionary: an option", "ALTER TEXT SEARCH DICTIONARY ops.as_written (ACCEPT = false)",
         "catalog.text_search_dictionary ops.as_written"),
        ("schema: one too many", "CREATE SCHEMA left_over", "catalog.schema left_over",
         "catalog.grant schema left_over"),
    )
)  # fmt: skip

# Not here: comments on what an extension brought along, such as the language plpgsql. No dump carries them.
_ODD = """ops."Odd ""name"" with 'quotes', %s and ünïcode; --\""""
_ADDRESS = "public.postal_address"
_CHAIN = "bigint, timestamptz, text, text, uuid, jsonb"

COMMENTS = tuple(
    mutation(20, f"comment on a {on.split(' ON ')[0].lower().split(' ', 1)[0]}: {on}", f"COMMENT ON {on} IS NULL",
             f"catalog.comment {found}")
    for on, found in (
        ("SCHEMA public", "schema public"),
        ("SCHEMA ops", "schema ops"),
        ("TABLE public.tenants", "table public.tenants"),
        (f"TABLE {_ODD}", f"table {_ODD}"),
        ("COLUMN public.tenants.balance", "table column public.tenants.balance"),
        ("CONSTRAINT tenants_plan_known ON public.tenants", "table constraint tenants_plan_known on public.tenants"),
        ("CONSTRAINT slug_is_lower_case ON DOMAIN public.slug", "domain constraint slug_is_lower_case on public.slug"),
        ("INDEX public.futures_open", "index public.futures_open"),
        ("VIEW public.active_users", "view public.active_users"),
        ("COLUMN public.active_users.email", "view column public.active_users.email"),
        ("MATERIALIZED VIEW public.usage_by_month", "materialized view public.usage_by_month"),
        ("SEQUENCE ops.invoice_number", "sequence ops.invoice_number"),
        ("FUNCTION audit.record_hash", "function audit.record_hash(*"),
        (f"AGGREGATE audit.chain({_CHAIN})", "aggregate audit.chain(*"),
        ("PROCEDURE ops.close_client", "procedure ops.close_client(*"),
        ("TYPE public.client_status", "type public.client_status"),
        ("DOMAIN public.slug", "type public.slug"),
        (f"COLUMN {_ADDRESS}.city", f"composite type column {_ADDRESS}.city"),
        ("TRIGGER training_clients_touch ON public.training_clients",
         "trigger training_clients_touch on public.training_clients"),
        ("RULE settings_history_keep ON ops.settings_history", "rule settings_history_keep on ops.settings_history"),
        ("POLICY artifacts_of_tenant ON public.artifacts", "policy artifacts_of_tenant on public.artifacts"),
        ("STATISTICS public.training_clients_tenant_and_user",
         "statistics object public.training_clients_tenant_and_user"),
        ("COLLATION ops.code_point", "collation ops.code_point"),
        (f"OPERATOR ops.=~= ({_ADDRESS}, {_ADDRESS})", f"operator ops.=~=({_ADDRESS},{_ADDRESS})"),
        ("OPERATOR CLASS ops.absolute_value_ops USING btree", "operator class ops.absolute_value_ops USING btree"),
        ("OPERATOR FAMILY ops.absolute_value USING btree", "operator family ops.absolute_value USING btree"),
        (f"CAST ({_ADDRESS} AS text)", "cast (public.postal_address AS pg_catalog.text)"),
        ("TEXT SEARCH CONFIGURATION ops.model_names", "text search configuration ops.model_names"),
        ("TEXT SEARCH DICTIONARY ops.as_written", "text search dictionary ops.as_written"),
        ("FOREIGN TABLE ops.remote_invoices", "foreign table ops.remote_invoices"),
        ("EXTENSION pg_trgm", "extension pg_trgm"),
        ("SERVER billing", "server billing"),
        ("PUBLICATION tensafe_usage", "publication tensafe_usage"),
        ("EVENT TRIGGER tensafe_note_ddl", "event trigger tensafe_note_ddl"),
        ("LARGE OBJECT 900001", "large object 900001"),
    )
)  # fmt: skip

AROUND = (*DATABASE, *EXTENSIONS, *PUBLICATIONS, *OTHERS, *COMMENTS)
