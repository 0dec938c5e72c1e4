-- Views. Several of them are written differently after a restore, though nothing has changed: PostgreSQL keeps a view
-- parsed, writes it out for the dump, and parses that text once more.

CREATE VIEW public.active_users WITH (security_barrier) AS
    SELECT id, tenant_id, email, full_name FROM public.users WHERE is_active AND role IN ('owner', 'admin', 'member');

-- A varchar compared with a list: the casts move from the whole array to each of its elements.
CREATE VIEW public.finished_futures AS
    SELECT id, training_client_id, status, created_at FROM public.futures WHERE status IN ('completed', 'failed', 'cancelled');

CREATE VIEW public.my_clients AS
    SELECT * FROM public.training_clients WHERE tenant_id = public.tenant_of_session()
    WITH LOCAL CHECK OPTION;

-- Grouped by a primary key alone, it depends on that key, and can only be made after it.
CREATE VIEW public.tenant_overview AS
    SELECT t.*, count(c.id) AS clients, max(c.created_at) AS latest
    FROM public.tenants AS t LEFT JOIN public.training_clients AS c ON c.tenant_id = t.id
    GROUP BY t.id;

CREATE RECURSIVE VIEW ops.invitations (id, depth) AS
    SELECT id, 0 FROM public.users WHERE invited_by IS NULL
    UNION ALL
    SELECT u.id, i.depth + 1 FROM public.users AS u JOIN invitations AS i ON u.invited_by = i.id;

CREATE VIEW ops.places AS
    SELECT (address).city AS city, address::text AS line, array_agg(slug ORDER BY slug) FILTER (WHERE plan <> 'free') AS paying,
           address OPERATOR(ops.=~=) ROW('', 'Boston', '00005')::public.postal_address AS in_boston
    FROM public.tenants GROUP BY address;

CREATE VIEW ops.queue AS
    SELECT id, CASE status WHEN 'running' THEN 0 WHEN 'pending' THEN 1 ELSE 2 END AS place,
           coalesce(error, status) AS says, created_at + interval '36 hours' AS expires_at
    FROM public.futures
    WHERE created_at >= timestamptz '2026-01-01 00:00:00+00' AND status LIKE ANY (ARRAY['run%', 'pend%']) AND (id, kind) <> (0, 'sample');

CREATE MATERIALIZED VIEW public.usage_by_month AS
    SELECT tenant_id, date_trunc('month', occurred_at AT TIME ZONE 'UTC') AS month, kind, sum(quantity) AS quantity,
           sum(quantity * unit_price) AS price
    FROM public.usage_events WHERE kind IN ('tokens', 'gpu_seconds', 'storage')
    GROUP BY 1, 2, 3 ORDER BY 1, 2, 3;
CREATE UNIQUE INDEX usage_by_month_once ON public.usage_by_month (tenant_id, month, kind);

CREATE MATERIALIZED VIEW ops.largest_tenants AS
    SELECT id, slug, clients FROM public.tenant_overview WHERE clients > 0
    WITH NO DATA;
