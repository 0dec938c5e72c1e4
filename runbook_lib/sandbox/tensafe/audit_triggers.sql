-- From here on rows are appended through the trigger alone. What refuses changes fires on a replica's apply as well.

CREATE TRIGGER audit_logs_append BEFORE INSERT ON public.audit_logs
    FOR EACH ROW EXECUTE FUNCTION audit.append();
CREATE TRIGGER audit_logs_refuse_change BEFORE UPDATE OR DELETE ON public.audit_logs
    FOR EACH ROW EXECUTE FUNCTION audit.refuse();
CREATE TRIGGER audit_logs_refuse_truncate BEFORE TRUNCATE ON public.audit_logs
    FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse();
ALTER TABLE public.audit_logs ENABLE ALWAYS TRIGGER audit_logs_refuse_change;
ALTER TABLE public.audit_logs ENABLE ALWAYS TRIGGER audit_logs_refuse_truncate;

-- Two rows that took the trigger's way, so that both ways are known to make one chain.
INSERT INTO public.audit_logs (occurred_at, actor, action, tenant_id, payload) VALUES
    ('2026-04-01 00:00:00+00', 'system', 'database.built', NULL, '{"by": "sandbox"}'),
    ('2026-04-01 00:00:00.000001+00', 'Zoë ☃', 'audit.checked', NULL, '{"größe": 1.50, "empty": ""}');
