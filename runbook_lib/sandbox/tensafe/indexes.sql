-- One of each kind of index.

CREATE INDEX users_by_tenant ON public.users (tenant_id) INCLUDE (full_name, role);
CREATE INDEX users_by_lower_name ON public.users (lower(full_name) text_pattern_ops);
CREATE UNIQUE INDEX users_one_owner_by_country ON public.users (tenant_id, country, id DESC NULLS LAST) WHERE role IN ('owner', 'admin') AND is_active;
CREATE INDEX users_by_standing ON public.users ((role IN ('owner', 'admin')), tenant_id);
CREATE INDEX users_by_network ON public.users USING gist (last_seen_from inet_ops);

CREATE INDEX training_clients_by_tenant ON public.training_clients (tenant_id, created_at DESC);
CREATE INDEX training_clients_by_name ON public.training_clients USING gin (name extensions.gin_trgm_ops);
CREATE INDEX training_clients_by_config ON public.training_clients USING gin (config jsonb_path_ops) WITH (fastupdate = off);
CREATE INDEX training_clients_by_search ON public.training_clients USING gist (search);
CREATE INDEX training_clients_by_code_point ON public.training_clients (name COLLATE "C", status) WITH (fillfactor = 70);
ALTER TABLE public.training_clients CLUSTER ON training_clients_by_tenant;

CREATE INDEX futures_by_client ON public.futures (training_client_id);
CREATE INDEX futures_open ON public.futures (created_at) WHERE status IN ('pending', 'running');
CREATE INDEX futures_by_loss ON public.futures ((request ->> 'tokens'), (took > interval '1 hour'));
ALTER INDEX public.futures_by_loss ALTER COLUMN 1 SET STATISTICS 200;

CREATE INDEX artifacts_by_tenant ON public.artifacts USING hash (tenant_id);
CREATE INDEX artifacts_by_client ON public.artifacts (training_client_id);

CREATE INDEX audit_logs_by_time ON public.audit_logs USING brin (occurred_at) WITH (pages_per_range = 32);
CREATE UNIQUE INDEX audit_logs_hash_once ON public.audit_logs (record_hash);

CREATE INDEX usage_events_by_tenant ON public.usage_events (tenant_id, occurred_at);
CREATE INDEX usage_events_by_time ON public.usage_events USING brin (occurred_at timestamptz_minmax_multi_ops);

-- How a logical subscriber recognises rows.
ALTER TABLE public.users REPLICA IDENTITY USING INDEX users_email_once;
ALTER TABLE ops.heartbeats REPLICA IDENTITY FULL;
ALTER TABLE ops.session_cache REPLICA IDENTITY NOTHING;

-- What one column tells about another.
CREATE STATISTICS public.training_clients_tenant_and_user (ndistinct, dependencies) ON tenant_id, created_by FROM public.training_clients;
CREATE STATISTICS ops.futures_status_and_kind (mcv) ON status, kind FROM public.futures;
ALTER STATISTICS ops.futures_status_and_kind SET STATISTICS 300;
CREATE STATISTICS ops.futures_done ON (status IN ('completed', 'failed')), kind FROM public.futures;
CREATE STATISTICS ops.futures_day ON (date_trunc('day', created_at AT TIME ZONE 'UTC')), status FROM public.futures;
