-- Unique and exclusion constraints of a table that are checked when a transaction ends, and so by a trigger.
WITH tree (oid) AS (
    SELECT %(oid)s::pg_catalog.oid UNION SELECT t.relid FROM pg_catalog.pg_partition_tree(%(oid)s) t
)
SELECT con.conname AS name,
       ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(con.conkey) WITH ORDINALITY k (attnum, n)
               JOIN pg_catalog.pg_attribute a ON a.attrelid = con.conrelid AND a.attnum = k.attnum ORDER BY k.n) AS columns,
       CASE WHEN con.conexclop IS NOT NULL THEN
           ARRAY(SELECT pg_catalog.quote_ident(n.nspname) || '.' || op.oprname
                   FROM pg_catalog.unnest(con.conexclop) WITH ORDINALITY o (oid, n)
                   JOIN pg_catalog.pg_operator op ON op.oid = o.oid
                   JOIN pg_catalog.pg_namespace n ON n.oid = op.oprnamespace ORDER BY o.n)
       ELSE
           ARRAY(SELECT pg_catalog.quote_ident(n.nspname) || '.' || op.oprname
                   FROM pg_catalog.generate_series(1, i.indnkeyatts) AS k (n)
                   JOIN pg_catalog.pg_opclass oc ON oc.oid = i.indclass[k.n - 1]
                   JOIN pg_catalog.pg_amop ao ON ao.amopfamily = oc.opcfamily AND ao.amopstrategy = 3
                        AND ao.amoplefttype = oc.opcintype AND ao.amoprighttype = oc.opcintype
                   JOIN pg_catalog.pg_operator op ON op.oid = ao.amopopr
                   JOIN pg_catalog.pg_namespace n ON n.oid = op.oprnamespace ORDER BY k.n)
       END AS operators
  FROM pg_catalog.pg_constraint con JOIN pg_catalog.pg_index i ON i.indexrelid = con.conindid
 WHERE con.contype IN ('p', 'u', 'x') AND con.condeferrable AND con.conparentid = 0
   AND con.conrelid IN (SELECT t.oid FROM tree t)
 ORDER BY 1
