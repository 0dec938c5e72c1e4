-- Indexes that answer no query: a CREATE INDEX CONCURRENTLY that failed, a unique constraint never attached.
-- pg_dump leaves them out in silence; with a unique one, the uniqueness that people count on is gone as well.
SELECT i.indexrelid::pg_catalog.regclass::text AS name, i.indrelid::pg_catalog.regclass::text AS on_table,
       i.indisunique AS is_unique, pg_catalog.pg_get_indexdef(i.indexrelid) AS definition
  FROM pg_catalog.pg_index i
  JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE NOT i.indisvalid AND n.nspname !~ '^pg_'
   -- A partitioned index is invalid until every partition has one: pg_dump restores that as it is.
   AND c.relkind = 'i'
 ORDER BY 1
