-- Since 15 a unique constraint may count two nulls as equal, and a foreign key may set only some columns to null.

CREATE TABLE ops.api_keys (
    tenant_id uuid NOT NULL REFERENCES public.tenants,
    label text,
    issued_by bigint DEFAULT 1,
    issued_to bigint,
    CONSTRAINT api_keys_label_once UNIQUE NULLS NOT DISTINCT (tenant_id, label)
);
ALTER TABLE public.users ADD CONSTRAINT users_tenant_and_id_once UNIQUE (tenant_id, id);
ALTER TABLE ops.api_keys ADD CONSTRAINT api_keys_issued_to_fkey
    FOREIGN KEY (tenant_id, issued_to) REFERENCES public.users (tenant_id, id) ON DELETE SET NULL (issued_to);
INSERT INTO ops.api_keys (tenant_id, label) SELECT id, NULL FROM public.tenants ORDER BY id;
