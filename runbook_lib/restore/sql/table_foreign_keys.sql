-- The foreign keys of a table and to it, each once: those of partitions that came with their parent's are left out.
-- to_jsonb: what older servers do not know of a constraint is NULL.
WITH tree (oid) AS (
    SELECT %(oid)s::pg_catalog.oid UNION SELECT t.relid FROM pg_catalog.pg_partition_tree(%(oid)s) t
)
SELECT con.conname AS name,
       pg_catalog.format('%%I.%%I', cn.nspname, c.relname) AS child, c.relkind = 'p' AS child_is_partitioned,
       pg_catalog.format('%%I.%%I', pn.nspname, p.relname) AS parent, p.relkind = 'p' AS parent_is_partitioned,
       ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(con.conkey) WITH ORDINALITY k (attnum, n)
               JOIN pg_catalog.pg_attribute a ON a.attrelid = con.conrelid AND a.attnum = k.attnum ORDER BY k.n) AS child_columns,
       ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(con.confkey) WITH ORDINALITY k (attnum, n)
               JOIN pg_catalog.pg_attribute a ON a.attrelid = con.confrelid AND a.attnum = k.attnum ORDER BY k.n) AS parent_columns,
       ARRAY(SELECT pg_catalog.quote_ident(n.nspname) || '.' || op.oprname
               FROM pg_catalog.unnest(con.conpfeqop) WITH ORDINALITY o (oid, n)
               JOIN pg_catalog.pg_operator op ON op.oid = o.oid JOIN pg_catalog.pg_namespace n ON n.oid = op.oprnamespace
              ORDER BY o.n) AS operators,
       con.convalidated AS is_validated,
       coalesce((pg_catalog.to_jsonb(con) ->> 'conperiod')::bool, false) AS is_temporal,
       con.conrelid IN (SELECT t.oid FROM tree t) AS is_of_it,
       con.confrelid IN (SELECT t.oid FROM tree t) AS is_to_it
  FROM pg_catalog.pg_constraint con
  JOIN pg_catalog.pg_class c ON c.oid = con.conrelid JOIN pg_catalog.pg_namespace cn ON cn.oid = c.relnamespace
  JOIN pg_catalog.pg_class p ON p.oid = con.confrelid JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
 WHERE con.contype = 'f' AND con.conparentid = 0
   AND coalesce((pg_catalog.to_jsonb(con) ->> 'conenforced')::bool, true)
   AND (con.conrelid IN (SELECT t.oid FROM tree t) OR con.confrelid IN (SELECT t.oid FROM tree t))
 ORDER BY c.relname, con.conname
