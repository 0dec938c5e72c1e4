-- Triggers of a table that fire even where a session's writes are those of a replica.
SELECT c.oid::pg_catalog.regclass::text AS relation, t.tgname AS name, t.tgenabled::text AS enabled
  FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
 WHERE (c.oid = %(oid)s OR c.oid IN (SELECT p.relid FROM pg_catalog.pg_partition_tree(%(oid)s) p))
   AND NOT t.tgisinternal AND t.tgenabled IN ('A', 'R')
   AND (c.relkind = 'r' OR t.tgtype & 1 = 0)
 ORDER BY 1, 2
