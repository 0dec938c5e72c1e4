-- The files of every relation of this database that holds rows, and which of them are the named table's.
-- Without a schema public is meant. Takes the name as a parameter, so that every other percent sign is doubled.
WITH named AS (
    SELECT CASE WHEN v.given LIKE '%%.%%' THEN pg_catalog.to_regclass(v.given)
                ELSE pg_catalog.to_regclass('public.' || v.given) END AS oid
      FROM (VALUES (%s::text)) AS v (given)
)
SELECT c.oid::bigint AS oid, pg_catalog.format('%%I.%%I', n.nspname, c.relname) AS name, c.relkind::text AS kind,
       coalesce(nullif(c.reltablespace, 0), d.dattablespace)::bigint AS tablespace, d.oid::bigint AS database,
       coalesce(pg_catalog.pg_relation_filenode(c.oid), 0)::bigint AS node,
       c.oid = (SELECT named.oid FROM named) OR EXISTS (
           SELECT FROM named, pg_catalog.pg_partition_tree(named.oid) p WHERE p.relid = c.oid) AS is_named
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_database d ON d.datname = pg_catalog.current_database()
 WHERE c.relkind IN ('r', 'p', 'm', 't')
