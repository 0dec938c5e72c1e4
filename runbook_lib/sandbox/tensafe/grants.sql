-- Grants on every kind of object that knows them.

GRANT USAGE ON SCHEMA public TO tensafe, tensafe_readonly, tensafe_auditor;
GRANT USAGE ON SCHEMA extensions TO PUBLIC;
GRANT USAGE, CREATE ON SCHEMA ops TO tensafe_migrator WITH GRANT OPTION;
GRANT USAGE ON SCHEMA audit TO tensafe_auditor;

GRANT SELECT, INSERT, UPDATE, DELETE ON public.tenants, public.users, public.training_clients, public.futures, public.artifacts, public.training_windows TO tensafe;
GRANT SELECT, INSERT ON public.audit_logs, public.usage_events TO tensafe;
GRANT SELECT ON public.tenants, public.training_clients, public.usage_events, public.usage_by_month, public.finished_futures TO tensafe_readonly;
GRANT SELECT ON public.audit_logs TO tensafe_auditor WITH GRANT OPTION;
GRANT SELECT ON public.usage_events_2025_10 TO tensafe_auditor;
GRANT TRUNCATE, REFERENCES, TRIGGER ON ops.heartbeats TO tensafe_migrator;

-- Columns: no table privilege shows these.
GRANT SELECT (id, tenant_id, full_name, initials), UPDATE (nickname) ON public.users TO tensafe_readonly;
GRANT REFERENCES (id) ON public.tenants TO tensafe_migrator;

GRANT USAGE, SELECT ON SEQUENCE public.users_id_seq, public.futures_id_seq, public.training_windows_id_seq TO tensafe;
GRANT ALL ON SEQUENCE ops.invoice_number TO tensafe WITH GRANT OPTION;

REVOKE EXECUTE ON FUNCTION public.usage_of(uuid, timestamptz, text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.usage_of(uuid, timestamptz, text[]) TO tensafe_readonly;
REVOKE EXECUTE ON PROCEDURE ops.close_client(uuid, integer) FROM PUBLIC;
GRANT EXECUTE ON PROCEDURE ops.close_client(uuid, integer) TO tensafe;
GRANT EXECUTE ON FUNCTION ops.first_known(anyelement) TO tensafe_readonly;

REVOKE USAGE ON TYPE public.postal_address FROM PUBLIC;
GRANT USAGE ON TYPE public.client_status TO tensafe WITH GRANT OPTION;
GRANT USAGE ON DOMAIN public.slug TO tensafe;
GRANT USAGE ON FOREIGN SERVER billing TO tensafe_readonly;
GRANT SELECT ON ops.remote_invoices TO tensafe_readonly;

-- Given and taken away again: what is left is the default, spelled out. A restore leaves it unspoken; both mean the same.
GRANT SELECT ON ops.nothing_yet TO tensafe;
REVOKE SELECT ON ops.nothing_yet FROM tensafe;

-- Not even the owner may.
REVOKE ALL ON ops.legacy_invoices FROM tensafe_owner;
GRANT SELECT ON ops.legacy_invoices TO tensafe_owner;

-- Passed on by somebody who is not the owner.
SET ROLE tensafe_auditor;
GRANT SELECT ON public.audit_logs TO tensafe_report;
SET ROLE tensafe_owner;
