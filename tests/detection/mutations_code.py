"""What acts on rows, or decides who sees them: triggers, views, functions, rules, policies, types (row 15)."""

from __future__ import annotations

from tests.detection.mutation import Mutation, mutation


def _trigger(table: str, name: str, definition: str) -> str:
    return f"DROP TRIGGER {name} ON {table}; CREATE TRIGGER {name} {definition}"


_TOUCH = "catalog.trigger public.training_clients training_clients_touch"
_TOUCH_COMMENT = "catalog.comment trigger training_clients_touch on public.training_clients"
_ORDER = "catalog.trigger public.futures futures_status_order"
_REPLICA = "; ALTER TABLE public.futures ENABLE REPLICA TRIGGER futures_status_order"
_NOTE = "catalog.event_trigger tensafe_note_ddl"

TRIGGERS = tuple(
    mutation(15, f"trigger: {name}", sql, *finds)
    for name, sql, *finds in (
        ("switched off", "ALTER TABLE public.training_clients DISABLE TRIGGER training_clients_touch", _TOUCH),
        ("switched on that was off", "ALTER TABLE public.futures ENABLE TRIGGER futures_note_status",
         "catalog.trigger public.futures futures_note_status"),
        ("fires on the origin alone, no longer always",
         "ALTER TABLE public.audit_logs ENABLE TRIGGER audit_logs_refuse_change",
         "catalog.trigger public.audit_logs audit_logs_refuse_change"),
        ("fires on the origin, no longer on replicas", "ALTER TABLE public.futures ENABLE TRIGGER futures_status_order",
         _ORDER),
        ("of one partition switched on", "ALTER TABLE public.usage_events_2025_10 ENABLE TRIGGER"
         " usage_events_not_negative", "catalog.trigger public.usage_events_2025_10 usage_events_not_negative"),
        ("lost", "DROP TRIGGER artifacts_same_tenant ON public.artifacts",
         "catalog.trigger public.artifacts artifacts_same_tenant"),
        ("one too many", "CREATE TRIGGER left_over BEFORE INSERT ON public.users FOR EACH ROW EXECUTE FUNCTION"
         " public.touch()", "catalog.trigger public.users left_over"),
        ("its condition", _trigger("public.training_clients", "training_clients_touch",
         "BEFORE UPDATE OF name, status, config ON public.training_clients FOR EACH ROW WHEN"
         " (OLD.config IS DISTINCT FROM NEW.config) EXECUTE FUNCTION public.touch()"), _TOUCH, _TOUCH_COMMENT),
        ("its columns", _trigger("public.training_clients", "training_clients_touch",
         "BEFORE UPDATE OF name, config ON public.training_clients FOR EACH ROW WHEN (OLD.config IS DISTINCT FROM"
         " NEW.config OR OLD.name <> NEW.name) EXECUTE FUNCTION public.touch()"), _TOUCH, _TOUCH_COMMENT),
        ("a value less in the lists of its condition", _trigger("public.futures", "futures_status_order",
         "BEFORE UPDATE ON public.futures FOR EACH ROW WHEN (OLD.status IN ('completed') AND NEW.status NOT IN"
         " ('completed', 'failed')) EXECUTE FUNCTION audit.refuse()") + _REPLICA, _ORDER),
        ("its events", _trigger("public.futures", "futures_status_order",
         "BEFORE INSERT OR UPDATE ON public.futures FOR EACH ROW EXECUTE FUNCTION audit.refuse()") + _REPLICA, _ORDER),
        ("its function", _trigger("public.futures", "futures_status_order",
         "BEFORE UPDATE ON public.futures FOR EACH ROW WHEN (OLD.status IN ('completed', 'failed') AND NEW.status"
         " NOT IN ('completed', 'failed')) EXECUTE FUNCTION public.touch()") + _REPLICA, _ORDER),
        ("its argument", _trigger("public.futures", "futures_note_status",
         "AFTER UPDATE ON public.futures REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION"
         " public.note_status('other')") + "; ALTER TABLE public.futures DISABLE TRIGGER futures_note_status",
         "catalog.trigger public.futures futures_note_status"),
        ("no longer deferred", "DROP TRIGGER artifacts_same_tenant ON public.artifacts; CREATE CONSTRAINT TRIGGER"
         " artifacts_same_tenant AFTER INSERT OR UPDATE ON public.artifacts FOR EACH ROW WHEN"
         " (NEW.training_client_id IS NOT NULL) EXECUTE FUNCTION public.same_tenant()",
         "catalog.trigger public.artifacts artifacts_same_tenant"),
        ("those behind a foreign key switched off", "ALTER TABLE ops.api_keys DISABLE TRIGGER ALL",
         "catalog.foreign_key_enforcement ops.api_keys api_keys_tenant_id_fkey *",
         "catalog.foreign_key_enforcement ops.api_keys api_keys_issued_to_fkey *"),
        ("on events, switched off", "ALTER EVENT TRIGGER tensafe_note_ddl DISABLE", _NOTE),
        ("on events, switched on that was off", "ALTER EVENT TRIGGER tensafe_note_drop ENABLE",
         "catalog.event_trigger tensafe_note_drop"),
        ("on events, its tags", "UPDATE pg_event_trigger SET evttags = '{CREATE TABLE}'"
         " WHERE evtname = 'tensafe_note_ddl'", _NOTE),
        ("on events, lost", "DROP EVENT TRIGGER tensafe_note_ddl", _NOTE,
         "catalog.comment event trigger tensafe_note_ddl"),
    )
)  # fmt: skip

_ACTIVE = "SELECT id, tenant_id, email, full_name FROM public.users"
_FINISHED = "SELECT id, training_client_id, status, created_at FROM public.futures"

VIEWS = tuple(
    mutation(15, f"view: {name}", sql, *finds)
    for name, sql, *finds in (
        ("a condition lost", f"CREATE OR REPLACE VIEW public.active_users WITH (security_barrier) AS {_ACTIVE}"
         " WHERE role IN ('owner', 'admin', 'member')", "catalog.view_query public.active_users"),
        ("a value more in the list of its condition",
         f"CREATE OR REPLACE VIEW public.active_users WITH (security_barrier) AS {_ACTIVE} WHERE is_active AND role IN"
         " ('owner', 'admin', 'member', 'service')", "catalog.view_query public.active_users"),
        ("another value in the list of its condition",
         f"CREATE OR REPLACE VIEW public.finished_futures AS {_FINISHED} WHERE status IN"
         " ('completed', 'failed', 'canceled')", "catalog.view_query public.finished_futures"),
        ("its list negated", f"CREATE OR REPLACE VIEW public.finished_futures AS {_FINISHED} WHERE status NOT IN"
         " ('completed', 'failed', 'cancelled')", "catalog.view_query public.finished_futures"),
        ("an interval in it", """CREATE OR REPLACE VIEW ops.queue AS SELECT id, CASE status WHEN 'running' THEN 0
         WHEN 'pending' THEN 1 ELSE 2 END AS place, coalesce(error, status) AS says,
         created_at + interval '37 hours' AS expires_at FROM public.futures WHERE created_at
         >= timestamptz '2026-01-01 00:00:00+00' AND status LIKE ANY (ARRAY['run%', 'pend%']) AND (id, kind)
         <> (0, 'sample')""", "catalog.view_query ops.queue"),
        ("no longer a barrier", "ALTER VIEW public.active_users RESET (security_barrier)",
         "catalog.view public.active_users"),
        ("looks with its owner's rights", "ALTER VIEW public.my_artifacts RESET (security_invoker)",
         "catalog.view public.my_artifacts"),
        ("its check option", "ALTER VIEW public.my_clients SET (check_option = cascaded)",
         "catalog.view public.my_clients"),
        ("lost", "DROP VIEW public.my_artifacts", "catalog.view public.my_artifacts",
         "catalog.view_query public.my_artifacts", "catalog.grant view public.my_artifacts",
         "catalog.column public.my_artifacts.*"),
        ("one too many", "CREATE VIEW public.left_over AS SELECT 1 AS one", "catalog.view public.left_over",
         "catalog.view_query public.left_over", "catalog.grant view public.left_over",
         "catalog.column public.left_over.one"),
    )
)  # fmt: skip

_USAGE_OF = "public.usage_of(uuid,timestamp with time zone,text[])"
_CHECKSUM = "ops.is_checksum(text)"
_TENANT = "public.tenant_of_session()"

FUNCTIONS = tuple(
    mutation(15, f"function: {name}", sql, *finds)
    for name, sql, *finds in (
        ("its body", f"CREATE OR REPLACE FUNCTION {_TENANT} RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE COST 1"
         " AS $$ SELECT NULL::pg_catalog.uuid $$", f"catalog.function {_TENANT}"),
        ("its body in plpgsql", "CREATE OR REPLACE FUNCTION audit.refuse() RETURNS trigger LANGUAGE plpgsql"
         " AS $$ BEGIN RETURN OLD; END $$", "catalog.function audit.refuse()"),
        ("a value less in the list of a parsed body",
         """CREATE OR REPLACE FUNCTION public.open_futures(tenant uuid) RETURNS bigint LANGUAGE sql STABLE BEGIN ATOMIC
         SELECT count(*) FROM public.futures AS f JOIN public.training_clients AS c ON c.id = f.training_client_id
         WHERE c.tenant_id = tenant AND f.status IN ('pending'); END""", "catalog.function public.open_futures(uuid)"),
        ("its volatility", f"ALTER FUNCTION {_CHECKSUM} STABLE", f"catalog.function {_CHECKSUM}"),
        ("called for NULL", f"ALTER FUNCTION {_CHECKSUM} CALLED ON NULL INPUT", f"catalog.function {_CHECKSUM}"),
        ("its safety in parallel", f"ALTER FUNCTION {_CHECKSUM} PARALLEL UNSAFE", f"catalog.function {_CHECKSUM}"),
        ("leakproof", f"ALTER FUNCTION {_CHECKSUM} LEAKPROOF", f"catalog.function {_CHECKSUM}"),
        ("with the caller's rights", f"ALTER FUNCTION {_USAGE_OF} SECURITY INVOKER", f"catalog.function {_USAGE_OF}"),
        ("with its owner's rights", f"ALTER FUNCTION {_TENANT} SECURITY DEFINER", f"catalog.function {_TENANT}"),
        ("its search_path lost", f"ALTER FUNCTION {_USAGE_OF} RESET search_path", f"catalog.function {_USAGE_OF}"),
        ("another setting", f"ALTER FUNCTION {_USAGE_OF} SET work_mem = '1GB'", f"catalog.function {_USAGE_OF}"),
        ("its cost", f"ALTER FUNCTION {_TENANT} COST 100", f"catalog.function {_TENANT}"),
        ("its number of rows", f"ALTER FUNCTION {_USAGE_OF} ROWS 1000", f"catalog.function {_USAGE_OF}"),
        ("an argument's default",
         "UPDATE pg_proc SET proargdefaults = NULL, pronargdefaults = 0 WHERE proname = 'usage_of'",
         f"catalog.function {_USAGE_OF}"),
        ("lost", "DROP FUNCTION audit.append() CASCADE", "catalog.function audit.append()",
         "catalog.grant function audit.append()", "catalog.trigger public.audit_logs audit_logs_append"),
        ("one too many", "CREATE FUNCTION public.left_over() RETURNS int LANGUAGE sql RETURN 1",
         "catalog.function public.left_over()", "catalog.grant function public.left_over()"),
        ("a procedure's body", "CREATE OR REPLACE PROCEDURE ops.close_client(IN client uuid, INOUT closed integer"
         " DEFAULT 0) LANGUAGE plpgsql AS $$ BEGIN closed := 0; END $$",
         "catalog.procedure ops.close_client(uuid,integer)"),
        ("an aggregate's beginning", "UPDATE pg_aggregate SET agginitval = repeat('1', 64) WHERE aggfnoid ="
         " 'audit.chain'::regproc", "catalog.aggregate audit.chain(*"),
        ("an aggregate that no longer combines", "CREATE OR REPLACE AGGREGATE ops.first_known(anyelement)"
         " (SFUNC = ops.either, STYPE = anyelement, PARALLEL = SAFE)",
         "catalog.aggregate ops.first_known(anyelement)"),
    )
)  # fmt: skip

_DEACTIVATE = "catalog.rule public.active_users active_users_deactivate"

RULES = tuple(
    mutation(15, f"rule: {name}", sql, *finds)
    for name, sql, *finds in (
        ("a value less in its list",
         "CREATE OR REPLACE RULE active_users_deactivate AS ON DELETE TO public.active_users DO INSTEAD"
         " UPDATE public.users SET is_active = false WHERE id = OLD.id AND users.role NOT IN ('owner')",
         _DEACTIVATE),
        ("instead of nothing, something as well", "CREATE OR REPLACE RULE settings_history_keep AS ON DELETE TO"
         " ops.settings_history DO ALSO NOTHING", "catalog.rule ops.settings_history settings_history_keep"),
        ("switched on", "ALTER TABLE ops.heartbeats ENABLE RULE heartbeats_tell",
         "catalog.rule ops.heartbeats heartbeats_tell"),
        ("lost", "DROP RULE active_users_deactivate ON public.active_users", _DEACTIVATE),
    )
)  # fmt: skip

_OWNERS = "catalog.policy public.users users_see_owners"
_IN_TENANT = "tenant_id = public.tenant_of_session()"

POLICIES = tuple(
    mutation(15, f"policy: {name}", sql, *finds)
    for name, sql, *finds in (
        ("lets everybody read", "ALTER POLICY training_clients_of_tenant ON public.training_clients USING (true)",
         "catalog.policy public.training_clients training_clients_of_tenant"),
        ("lets everybody write", "ALTER POLICY training_clients_of_tenant ON public.training_clients WITH CHECK (true)",
         "catalog.policy public.training_clients training_clients_of_tenant"),
        ("a value more in the list of its condition",
         "ALTER POLICY users_see_owners ON public.users USING (role IN ('owner', 'admin', 'member') OR EXISTS (SELECT"
         " FROM public.tenants AS t WHERE t.id = users.tenant_id AND t.plan IN ('team', 'free')))", _OWNERS),
        ("another value in the list of its subquery",
         "ALTER POLICY users_see_owners ON public.users USING (role IN ('owner', 'admin') OR EXISTS (SELECT"
         " FROM public.tenants AS t WHERE t.id = users.tenant_id AND t.plan IN ('team', 'enterprise')))", _OWNERS),
        ("for everybody", "ALTER POLICY training_clients_for_audit ON public.training_clients TO PUBLIC",
         "catalog.policy public.training_clients training_clients_for_audit"),
        ("for one role less", "ALTER POLICY artifacts_not_too_large ON public.artifacts TO tensafe",
         "catalog.policy public.artifacts artifacts_not_too_large"),
        ("permissive instead of restrictive", "UPDATE pg_policy SET polpermissive = true WHERE polname ="
         " 'artifacts_not_too_large'", "catalog.policy public.artifacts artifacts_not_too_large"),
        ("for every command", "UPDATE pg_policy SET polcmd = '*' WHERE polname = 'users_see_owners'", _OWNERS),
        ("lost", "DROP POLICY artifacts_not_too_large ON public.artifacts",
         "catalog.policy public.artifacts artifacts_not_too_large"),
        ("one too many", "CREATE POLICY left_over ON public.artifacts USING (true)",
         "catalog.policy public.artifacts left_over"),
    )
)  # fmt: skip


def _type(name: str, sql: str, *finds: str, also: tuple[str, ...] = ()) -> Mutation:
    return mutation(15, f"type: {name}", sql, *finds, also=also)


_SLUG, _STATUS = "public.slug", "catalog.enum public.client_status"

TYPES = (
    _type("an enum's label too many", "ALTER TYPE public.client_status ADD VALUE 'lost'", _STATUS),
    _type("an enum's label renamed", "ALTER TYPE public.client_status RENAME VALUE 'closed' TO 'ended'", _STATUS,
          also=("content.hash public.training_clients", "content.hash ops.every_type")),
    _type("an enum's labels in another order",
          "UPDATE pg_enum SET enumsortorder = enumsortorder + 100 WHERE enumlabel = 'created'", _STATUS),
    _type("a domain's constraint lost", "ALTER DOMAIN public.slug DROP CONSTRAINT slug_is_not_reserved",
          f"catalog.domain_constraint {_SLUG} slug_is_not_reserved"),
    _type("a value less in the list of a domain's constraint",
          "ALTER DOMAIN public.slug DROP CONSTRAINT slug_is_not_reserved; ALTER DOMAIN public.slug ADD CONSTRAINT"
          " slug_is_not_reserved CHECK (VALUE NOT IN ('admin', 'root'))",
          f"catalog.domain_constraint {_SLUG} slug_is_not_reserved"),
    _type("a domain's constraint not valid",
          "UPDATE pg_constraint SET convalidated = false WHERE conname = 'slug_is_not_reserved'",
          f"catalog.domain_constraint {_SLUG} slug_is_not_reserved"),
    _type("a domain's default", "ALTER DOMAIN public.positive_amount SET DEFAULT 1",
          "catalog.domain public.positive_amount"),
    _type("a domain that may be null", "ALTER DOMAIN public.positive_amount DROP NOT NULL",
          "catalog.domain public.positive_amount",
          also=("catalog.domain_constraint public.positive_amount positive_amount_not_null",)),
    _type("a composite's attribute too many", "ALTER TYPE public.postal_address ADD ATTRIBUTE country text CASCADE",
          "catalog.composite_type public.postal_address",
          also=("content.hash public.tenants", "content.hash ops.every_type", "catalog.view_query ops.places")),
    _type("a composite's attribute renamed", "ALTER TYPE public.postal_address RENAME ATTRIBUTE street TO road CASCADE",
          "catalog.composite_type public.postal_address", also=("catalog.function *",)),
    _type("a range's function", "UPDATE pg_range SET rngsubdiff = 'pg_catalog.float8mi'::regproc WHERE rngtypid ="
          " 'ops.price_range'::regtype", "catalog.range_type ops.price_range"),
    _type("one too many", "CREATE TYPE public.left_over AS ENUM ('x')", "catalog.enum public.left_over",
          "catalog.grant type public.left_over"),
)  # fmt: skip

CODE = (*TRIGGERS, *VIEWS, *FUNCTIONS, *RULES, *POLICIES, *TYPES)
