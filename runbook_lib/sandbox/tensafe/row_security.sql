-- Row-level security. A dump by somebody who is subject to it holds only the rows that it lets through.

ALTER TABLE public.training_clients ENABLE ROW LEVEL SECURITY;
CREATE POLICY training_clients_of_tenant ON public.training_clients TO tensafe
    USING (tenant_id = public.tenant_of_session()) WITH CHECK (tenant_id = public.tenant_of_session());
CREATE POLICY training_clients_for_audit ON public.training_clients FOR SELECT TO tensafe_auditor USING (true);

-- FORCE: its owner, too, sees only what the policies let through.
ALTER TABLE public.artifacts ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.artifacts FORCE ROW LEVEL SECURITY;
CREATE POLICY artifacts_of_tenant ON public.artifacts USING (tenant_id = public.tenant_of_session());
CREATE POLICY artifacts_not_too_large ON public.artifacts AS RESTRICTIVE FOR INSERT TO tensafe, tensafe_migrator
    WITH CHECK (size_bytes < 1099511627776);

-- Policies without row-level security switched on, waiting.
CREATE POLICY users_see_owners ON public.users FOR SELECT TO PUBLIC
    USING (role IN ('owner', 'admin') OR EXISTS (SELECT FROM public.tenants AS t WHERE t.id = users.tenant_id AND t.plan IN ('team', 'free')));

-- Switched on, with no policy at all: nobody but the owner sees anything.
ALTER TABLE ops.legacy_invoices ENABLE ROW LEVEL SECURITY;
