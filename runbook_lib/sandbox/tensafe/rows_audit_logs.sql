-- The first rows of the audit trail, hashed as a set instead of one by one: audit.chain as a window function walks the
-- chain once. Materialized, so that no value is drawn twice.

WITH unhashed AS MATERIALIZED (
    SELECT i AS sequence,
           pg_temp.moment(i, pg_temp.rows(50000, 300)) AS occurred_at,
           'user:' || 1 + pg_temp.below('audit.actor', i, pg_temp.rows(5000, 20)::integer) AS actor,
           pg_temp.one_of('audit.action', i, '{client.created,client.closed,artifact.read,artifact.written,key.rotated,login}') AS action,
           CASE WHEN i % 10 > 0 THEN pg_temp.id('tenant', 1 + pg_temp.below('audit.tenant', i, pg_temp.rows(200, 3)::integer)) END AS tenant_id,
           jsonb_build_object('ip', '10.0.' || i % 256 || '.1', 'request', md5(pg_temp.dice('audit.request', i)::text),
                              'ok', i % 13 > 0, 'cost', CASE i % 2 WHEN 0 THEN 1.0 ELSE 1.00 END) AS payload
    FROM generate_series(1, pg_temp.rows(50000, 300)) AS i
), hashed AS (
    SELECT *, audit.chain(sequence, occurred_at, actor, action, tenant_id, payload) OVER (ORDER BY sequence) AS record_hash
    FROM unhashed
)
INSERT INTO public.audit_logs (sequence, occurred_at, actor, action, tenant_id, payload, prev_hash, record_hash)
SELECT sequence, occurred_at, actor, action, tenant_id, payload,
       lag(record_hash, 1, repeat('0', 64)) OVER (ORDER BY sequence), record_hash
FROM hashed ORDER BY sequence;
