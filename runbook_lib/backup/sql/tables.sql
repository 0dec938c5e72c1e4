-- Every relation whose rows a dump carries, with the type of each column as the content hash needs to know it.
-- Leaf partitions instead of partitioned tables, so that a row in the wrong partition shows; but a hash-partitioned
-- table as one: an enum is hashed by its OID, which a restore changes, so that its rows come back in other partitions
-- and pg_dump loads them by way of the root.
-- "rows" of an extension's configuration tables are in a dump only in part: left out, and named in the definitions.
-- Locks: AccessShareLock on catalogs.
WITH RECURSIVE base_type(oid, base) AS (
    SELECT t.oid, t.oid FROM pg_catalog.pg_type t WHERE t.typtype <> 'd'
    UNION ALL
    SELECT t.oid, b.base FROM pg_catalog.pg_type t JOIN base_type b ON b.oid = t.typbasetype WHERE t.typtype = 'd'
)
, read_as_one(oid) AS (
    SELECT p.partrelid FROM pg_catalog.pg_partitioned_table p
     WHERE p.partstrat = 'h'
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_partition_ancestors(p.partrelid) a (oid)
                         JOIN pg_catalog.pg_partitioned_table u ON u.partrelid = a.oid
                        WHERE u.partstrat = 'h' AND a.oid <> p.partrelid)
)
SELECT c.oid,
       n.nspname AS schema,
       c.relname AS name,
       pg_catalog.format('%I.%I', n.nspname, c.relname) AS qualified,
       c.relkind::text AS kind,
       c.relispopulated AS is_populated,
       CASE c.relkind WHEN 'p' THEN (SELECT pg_catalog.sum(pg_catalog.pg_table_size(t.relid))::bigint FROM pg_catalog.pg_partition_tree(c.oid) t)
            ELSE pg_catalog.pg_table_size(c.oid) END AS bytes,
       coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
           'name', a.attname,
           'type', CASE WHEN b.typtype = 'e' THEN 'enum' WHEN bn.nspname = 'pg_catalog' THEN b.typname::text ELSE '' END,
           'is_array', b.typcategory = 'A',
           -- A type that is text to the byte, such as citext, is as good as one that came with PostgreSQL.
           'has_text', coalesce(en.nspname, bn.nspname) = 'pg_catalog' AND b.typname NOT IN ('xml', '_xml', 'bpchar')
                       OR EXISTS (SELECT FROM pg_catalog.pg_cast ca
                                   WHERE ca.castsource = b.oid AND ca.castmethod = 'b'
                                     AND ca.casttarget = 'pg_catalog.text'::pg_catalog.regtype
                                     AND bn.nspname <> 'pg_catalog'),
           -- From 18 on a NOT NULL can be NOT VALID, and NULLs be there all the same.
           'not_null', a.attnotnull AND c.relkind <> 'm'
                       AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint nn
                                        WHERE nn.conrelid = c.oid AND nn.contype = 'n' AND NOT nn.convalidated),
           'deterministic', coalesce(co.collisdeterministic, true)
       ) ORDER BY a.attnum) FILTER (WHERE a.attnum IS NOT NULL), '[]') AS columns
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN base_type bt ON bt.oid = a.atttypid
  LEFT JOIN pg_catalog.pg_type b ON b.oid = bt.base
  LEFT JOIN pg_catalog.pg_namespace bn ON bn.oid = b.typnamespace
  LEFT JOIN pg_catalog.pg_type e ON e.oid = b.typelem AND b.typcategory = 'A'
  LEFT JOIN pg_catalog.pg_namespace en ON en.oid = e.typnamespace
  LEFT JOIN pg_catalog.pg_collation co ON co.oid = a.attcollation
 WHERE (c.relkind IN ('r', 'm') OR c.oid IN (SELECT r.oid FROM read_as_one r))
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_partition_ancestors(c.oid) a (oid)
                     JOIN read_as_one r ON r.oid = a.oid WHERE a.oid <> c.oid)
   AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                    WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')
 GROUP BY c.oid, n.nspname, c.relname, c.relkind, c.relispopulated
 ORDER BY bytes DESC, n.nspname, c.relname
