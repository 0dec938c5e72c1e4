-- The application's rows, each value drawn by pg_temp.dice.

INSERT INTO public.tenants (id, slug, name, plan, balance, address, settings, created_at)
SELECT pg_temp.id('tenant', i),
       'tenant-' || i,
       initcap(pg_temp.one_of('tenant.name', i, '{acme,globex,initech,umbrella,hooli,stark,wayne,tyrell}')) || ' ' || i,
       pg_temp.one_of('tenant.plan', i, '{free,team,enterprise}'),
       pg_temp.below('tenant.balance', i, 10000000) / 100.0,
       CASE WHEN i % 5 > 0 THEN
           ROW(i || ' Main Street', pg_temp.one_of('tenant.city', i, '{Zürich,Łódź,"São Paulo",東京,Boston}'), lpad(i::text, 5, '0'))::public.postal_address
       END,
       extensions.hstore(ARRAY['tier', (i % 3)::text, 'quota', CASE WHEN i % 4 > 0 THEN (i * 1000)::text END]),
       timestamptz '2025-01-01 00:00:00+00' + interval '1 hour' * i
FROM generate_series(1, pg_temp.rows(200, 3)) AS i;

INSERT INTO public.users (tenant_id, email, full_name, role, country, nickname, invited_by, last_seen_from,
                          password_hash, is_active, created_at)
SELECT pg_temp.id('tenant', 1 + pg_temp.below('user.tenant', i, pg_temp.rows(200, 3)::integer)),
       given || '.' || family || i || '@Example.COM',
       given || ' ' || family,
       pg_temp.one_of('user.role', i, '{owner,admin,member,member,member,member,service}'),
       CASE WHEN i % 3 > 0 THEN pg_temp.one_of('user.country', i, '{CH,DE,US,BR,JP}') END,
       CASE WHEN i % 2 > 0 THEN left(given, 3 + pg_temp.below('user.nickname', i, 5)) END,
       CASE WHEN i > 10 THEN 1 + pg_temp.below('user.invited_by', i, (i / 2)::integer) END,
       ('10.' || pg_temp.below('user.ip', i, 256) || '.' || i % 256 || '.7')::inet,
       sha256(int8send(pg_temp.dice('user.password', i))),
       i % 17 > 0,
       timestamptz '2025-02-01 00:00:00+00' + interval '1 minute' * i
FROM generate_series(1, pg_temp.rows(5000, 20)) AS i,
     LATERAL (SELECT pg_temp.one_of('user.given', i, '{Ada,Grace,Edsger,Barbara,Donald,Zoë,Łucja,José}') AS given,
                     pg_temp.one_of('user.family', i, '{Lovelace,Hopper,Dijkstra,Liskov,Knuth,Müller,"O''Neill"}') AS family) AS who;

UPDATE public.tenants AS t SET owner_user_id = u.id
FROM (SELECT tenant_id, min(id) AS id FROM public.users GROUP BY tenant_id) AS u WHERE u.tenant_id = t.id;

INSERT INTO public.training_clients (id, tenant_id, created_by, name, model_ref, status, config, labels, budget, epsilon,
                                     step, created_at, updated_at)
SELECT pg_temp.id('client', i),
       u.tenant_id,
       u.id,
       pg_temp.one_of('client.name', i, '{tuning,Evaluation,ablation,Distillation,zero-shot,Ångström}') || '-' || i,
       pg_temp.one_of('client.model', i, '{llama-3-8b,llama-3-70b,mistral-7b,qwen-2-72b}'),
       (enum_range(NULL::public.client_status))[1 + pg_temp.below('client.status', i, 5)],
       jsonb_build_object('rank', 8 << (i % 4)::integer, 'dp_enabled', i % 2 = 0, 'learning_rate', 0.0001 * (i % 9),
                          'clip', CASE i % 3 WHEN 0 THEN 1.0 WHEN 1 THEN 1.00 END, 'seed', pg_temp.dice('client.seed', i)),
       CASE i % 4 WHEN 0 THEN '{}' WHEN 1 THEN '{gold}' WHEN 2 THEN '[0:1]={gold,eu}'::text[] ELSE ARRAY['a b', NULL, '"q"'] END,
       CASE i % 3 WHEN 0 THEN 1.0 WHEN 1 THEN 1.00 ELSE pg_temp.below('client.budget', i, 100000) / 1000.0 END,
       CASE i % 6 WHEN 0 THEN '-0' WHEN 1 THEN 'NaN' WHEN 2 THEN 0 WHEN 3 THEN NULL ELSE pg_temp.below('client.epsilon', i, 1000000) / 7e5 END,
       pg_temp.below('client.step', i, 100000),
       pg_temp.moment(i, pg_temp.rows(8000, 40)),
       pg_temp.moment(i, pg_temp.rows(8000, 40)) + interval '1 hour'
FROM generate_series(1, pg_temp.rows(8000, 40)) AS i
JOIN public.users AS u ON u.id = 1 + pg_temp.below('client.user', i, pg_temp.rows(5000, 20)::integer);

INSERT INTO public.futures (training_client_id, kind, status, request, result, error, took, created_at)
SELECT pg_temp.id('client', 1 + pg_temp.below('future.client', i, pg_temp.rows(8000, 40)::integer)),
       (enum_range(NULL::public.event_kind))[1 + pg_temp.below('future.kind', i, 5)],
       status,
       json_build_object('batch', md5(i::text), 'tokens', pg_temp.below('future.tokens', i, 8192), 'loss_fn', 'cross_entropy',
                         'inputs', repeat(md5((pg_temp.dice('future.inputs', i))::text), 3)),
       CASE WHEN status = 'completed' THEN
           format(CASE i % 2 WHEN 0 THEN '{"loss": %s, "grad_norm": 1.50}' ELSE '{ "loss":%s , "grad_norm":1.5 }' END,
                  pg_temp.below('future.loss', i, 100000) / 10000.0)::json
       END,
       CASE WHEN status = 'failed' THEN 'worker ' || i % 16 || ' lost' END,
       CASE i % 3 WHEN 0 THEN interval '30 days' WHEN 1 THEN interval '1 mon' ELSE interval '1 ms' * pg_temp.below('future.took', i, 9000000) END,
       pg_temp.moment(i, pg_temp.rows(40000, 100))
FROM generate_series(1, pg_temp.rows(40000, 100)) AS i,
     LATERAL (SELECT pg_temp.one_of('future.status', i, '{pending,running,completed,completed,completed,completed,failed,cancelled}') AS status) AS s;

INSERT INTO public.artifacts (id, tenant_id, training_client_id, future_id, object_key, checksum, size_bytes, key_envelope, created_at)
SELECT pg_temp.id('artifact', i),
       c.tenant_id,
       c.id,
       CASE WHEN i % 2 = 0 THEN 1 + pg_temp.below('artifact.future', i, pg_temp.rows(40000, 100)::integer) END,
       format('tenants/%s/checkpoints/%s/%s.safetensors', c.tenant_id, c.name, i),
       encode(sha256(int8send(pg_temp.dice('artifact.checksum', i))), 'hex'),
       pg_temp.dice('artifact.size', i) % 50000000000,
       CASE WHEN i % 3 = 0 THEN sha512(int8send(pg_temp.dice('artifact.key', i))) WHEN i % 3 = 1 THEN '' END,
       c.created_at + interval '5 minutes'
FROM generate_series(1, pg_temp.rows(12000, 60)) AS i
JOIN public.training_clients AS c ON c.id = pg_temp.id('client', 1 + pg_temp.below('artifact.client', i, pg_temp.rows(8000, 40)::integer));

INSERT INTO public.training_windows (tenant_id, during, price, blackout)
SELECT pg_temp.id('tenant', i),
       tstzrange(timestamptz '2026-01-01 00:00:00+00' + interval '1 day' * d, timestamptz '2026-01-01 00:00:00+00' + interval '1 day' * (d + 1)),
       CASE d % 3 WHEN 0 THEN '[1.0,2.50)' WHEN 1 THEN 'empty' END::ops.price_range,
       CASE d % 2 WHEN 0 THEN '{}' ELSE '{[2026-02-01 00:00+00,2026-02-02 00:00+00),[2026-03-01 00:00+00,)}' END::tstzmultirange
FROM generate_series(1, pg_temp.rows(200, 3)) AS i, generate_series(0, 4) AS d;
