-- Triggers in every state of being switched on; a trigger that came back switched off is a fault that no row shows.

CREATE FUNCTION public.touch() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END
$$;
CREATE TRIGGER training_clients_touch BEFORE UPDATE OF name, status, config ON public.training_clients
    FOR EACH ROW WHEN (OLD.config IS DISTINCT FROM NEW.config OR OLD.name <> NEW.name) EXECUTE FUNCTION public.touch();

CREATE FUNCTION public.note_status() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO public.audit_logs (occurred_at, actor, action, payload)
    SELECT now(), current_user, TG_ARGV[0], jsonb_build_object('futures', count(*)) FROM changed;
    RETURN NULL;
END
$$;
CREATE TRIGGER futures_note_status AFTER UPDATE ON public.futures
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION public.note_status('futures.changed');
ALTER TABLE public.futures DISABLE TRIGGER futures_note_status;
CREATE TRIGGER futures_status_order BEFORE UPDATE ON public.futures
    FOR EACH ROW WHEN (OLD.status IN ('completed', 'failed') AND NEW.status NOT IN ('completed', 'failed')) EXECUTE FUNCTION audit.refuse();
ALTER TABLE public.futures ENABLE REPLICA TRIGGER futures_status_order;

CREATE FUNCTION public.same_tenant() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF NEW.tenant_id IS DISTINCT FROM (SELECT c.tenant_id FROM public.training_clients AS c WHERE c.id = NEW.training_client_id) THEN
        RAISE EXCEPTION 'artifact % belongs to another tenant than its client', NEW.id USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER artifacts_same_tenant AFTER INSERT OR UPDATE ON public.artifacts
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.training_client_id IS NOT NULL) EXECUTE FUNCTION public.same_tenant();

-- On a partitioned table: every partition has a copy of it.
CREATE FUNCTION public.no_negative_usage() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF NEW.quantity < 0 THEN
        RAISE EXCEPTION 'negative usage of %', NEW.kind;
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER usage_events_not_negative BEFORE INSERT OR UPDATE ON public.usage_events
    FOR EACH ROW EXECUTE FUNCTION public.no_negative_usage();
ALTER TABLE public.usage_events_2025_10 DISABLE TRIGGER usage_events_not_negative;

