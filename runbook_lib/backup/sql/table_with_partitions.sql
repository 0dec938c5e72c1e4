-- A table by the name people type, with every partition below it. Without a schema, public is meant first.
-- Takes the name as a parameter, so that every other percent sign is doubled.
SELECT pg_catalog.format('%%I.%%I', n.nspname, c.relname) AS name
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p')
   AND c.oid IN (SELECT coalesce(t.relid, r.oid)
                   FROM (SELECT coalesce(pg_catalog.to_regclass(v.given), pg_catalog.to_regclass('public.' || v.given)) AS oid
                           FROM (VALUES (%s::text)) AS v (given)) r
                   LEFT JOIN LATERAL pg_catalog.pg_partition_tree(r.oid) t ON true)
