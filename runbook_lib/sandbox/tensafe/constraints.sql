-- Constraints between tables, and those that not every row satisfies.

-- A circle of foreign keys: neither table can be filled first unless one of them waits.
ALTER TABLE public.users ADD CONSTRAINT users_tenant_fkey
    FOREIGN KEY (tenant_id) REFERENCES public.tenants ON DELETE CASCADE;
ALTER TABLE public.tenants ADD CONSTRAINT tenants_owner_fkey
    FOREIGN KEY (owner_user_id) REFERENCES public.users ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE public.users ADD CONSTRAINT users_invited_by_fkey
    FOREIGN KEY (invited_by) REFERENCES public.users ON DELETE SET NULL ON UPDATE CASCADE;
ALTER TABLE public.users ADD CONSTRAINT users_email_once UNIQUE (tenant_id, email);

ALTER TABLE public.training_clients ADD CONSTRAINT training_clients_tenant_fkey
    FOREIGN KEY (tenant_id) REFERENCES public.tenants ON DELETE CASCADE;
ALTER TABLE public.training_clients ADD CONSTRAINT training_clients_created_by_fkey
    FOREIGN KEY (created_by) REFERENCES public.users ON DELETE SET NULL;
ALTER TABLE public.training_clients ADD CONSTRAINT training_clients_order_of_times CHECK (updated_at >= created_at);

ALTER TABLE public.futures ADD CONSTRAINT futures_training_client_fkey
    FOREIGN KEY (training_client_id) REFERENCES public.training_clients ON DELETE CASCADE DEFERRABLE INITIALLY IMMEDIATE;

ALTER TABLE public.artifacts ADD CONSTRAINT artifacts_training_client_fkey
    FOREIGN KEY (training_client_id) REFERENCES public.training_clients ON DELETE SET NULL;
ALTER TABLE public.artifacts ADD CONSTRAINT artifacts_future_fkey
    FOREIGN KEY (future_id) REFERENCES public.futures ON DELETE SET NULL;
ALTER TABLE public.artifacts ADD CONSTRAINT artifacts_object_key_once UNIQUE (object_key) DEFERRABLE INITIALLY DEFERRED;

ALTER TABLE public.training_windows ADD CONSTRAINT training_windows_tenant_fkey
    FOREIGN KEY (tenant_id) REFERENCES public.tenants ON DELETE RESTRICT;
ALTER TABLE public.training_windows ADD CONSTRAINT training_windows_do_not_overlap
    EXCLUDE USING gist (tenant_id WITH =, during WITH &&) WHERE (NOT isempty(during));

ALTER TABLE public.usage_events ADD CONSTRAINT usage_events_tenant_fkey
    FOREIGN KEY (tenant_id) REFERENCES public.tenants;

-- Old rows break these; only new ones are held to them.
ALTER TABLE ops.legacy_invoices ADD CONSTRAINT legacy_invoices_number_form CHECK (number LIKE 'INV-%') NOT VALID;
ALTER TABLE ops.legacy_invoices ADD CONSTRAINT legacy_invoices_tenant_fkey
    FOREIGN KEY (tenant_id) REFERENCES public.tenants NOT VALID;
