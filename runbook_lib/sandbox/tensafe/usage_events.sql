-- Usage, partitioned by month, with a default partition; one month is divided further by region, one was a table of its
-- own before it was attached, so that its columns stand in another order and one of them is gone.

CREATE TABLE public.usage_events (
    id bigint NOT NULL,
    tenant_id uuid NOT NULL,
    occurred_at timestamptz NOT NULL,
    region public.region NOT NULL,
    kind varchar(24) NOT NULL CONSTRAINT usage_events_kind_known CHECK (kind IN ('tokens', 'gpu_seconds', 'storage', 'egress')),
    quantity numeric(16, 3) NOT NULL,
    unit_price numeric,
    detail jsonb,
    PRIMARY KEY (occurred_at, id, region)
) PARTITION BY RANGE (occurred_at);

CREATE TABLE public.usage_events_2025_10 PARTITION OF public.usage_events
    FOR VALUES FROM ('2025-10-01 00:00:00+00') TO ('2025-11-01 00:00:00+00') WITH (fillfactor = 100);
CREATE TABLE public.usage_events_2025_11 PARTITION OF public.usage_events
    FOR VALUES FROM ('2025-11-01 00:00:00+00') TO ('2025-12-01 00:00:00+00');
CREATE TABLE public.usage_events_2025_12 PARTITION OF public.usage_events
    FOR VALUES FROM ('2025-12-01 00:00:00+00') TO ('2026-01-01 00:00:00+00');

CREATE TABLE public.usage_events_2026_01 PARTITION OF public.usage_events
    FOR VALUES FROM ('2026-01-01 00:00:00+00') TO ('2026-02-01 00:00:00+00') PARTITION BY LIST (region);
CREATE TABLE public.usage_events_2026_01_us PARTITION OF public.usage_events_2026_01
    FOR VALUES IN ('us-east-1', 'us-west-2');
CREATE TABLE public.usage_events_2026_01_elsewhere PARTITION OF public.usage_events_2026_01 DEFAULT;

CREATE TABLE public.usage_events_2026_02 (
    detail jsonb,
    imported_from text,
    quantity numeric(16, 3) NOT NULL,
    unit_price numeric,
    kind varchar(24) NOT NULL CONSTRAINT usage_events_kind_known CHECK (kind IN ('tokens', 'gpu_seconds', 'storage', 'egress')),
    region public.region NOT NULL,
    occurred_at timestamptz NOT NULL,
    tenant_id uuid NOT NULL,
    id bigint NOT NULL
);
ALTER TABLE public.usage_events_2026_02 DROP COLUMN imported_from;
ALTER TABLE public.usage_events ATTACH PARTITION public.usage_events_2026_02
    FOR VALUES FROM ('2026-02-01 00:00:00+00') TO ('2026-03-01 00:00:00+00');

CREATE TABLE public.usage_events_other PARTITION OF public.usage_events DEFAULT;
