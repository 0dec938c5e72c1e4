-- Whether there is a table public.audit_logs whose rows have a place and a hash: others have tables of that name, too.
SELECT pg_catalog.count(*) FILTER (WHERE a.attname = 'sequence' AND t.typname IN ('int2', 'int4', 'int8')) = 1
       AND pg_catalog.count(*) FILTER (WHERE a.attname = 'record_hash') = 1 AS is_there
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
 WHERE c.oid = pg_catalog.to_regclass('public.audit_logs') AND c.relkind IN ('r', 'p')
