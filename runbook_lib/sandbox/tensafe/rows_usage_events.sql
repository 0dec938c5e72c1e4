-- Usage from October 2025 to the end of March 2026; March has no partition of its own.

INSERT INTO public.usage_events (id, tenant_id, occurred_at, region, kind, quantity, unit_price, detail)
SELECT i,
       pg_temp.id('tenant', 1 + pg_temp.below('usage.tenant', i, pg_temp.rows(200, 3)::integer)),
       pg_temp.moment(i, pg_temp.rows(90000, 600)),
       (enum_range(NULL::public.region))[1 + pg_temp.below('usage.region', i, 3)],
       pg_temp.one_of('usage.kind', i, '{tokens,gpu_seconds,storage,egress}'),
       pg_temp.below('usage.quantity', i, 100000000) / 1000.0,
       CASE i % 4 WHEN 0 THEN 0.10 WHEN 1 THEN 0.1 WHEN 2 THEN 0.100 END,
       CASE WHEN i % 8 = 0 THEN jsonb_build_object('node', 'gpu-' || i % 64, 'batch', i / 8) END
FROM generate_series(1, pg_temp.rows(90000, 600)) AS i;
