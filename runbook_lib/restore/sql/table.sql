-- A table by the name people type; without a schema, public is meant. Below it: the relations that hold its rows.
-- Takes the name as a parameter, so that every other percent sign is doubled.
SELECT c.oid, n.nspname AS schema, c.relname AS name, pg_catalog.format('%%I.%%I', n.nspname, c.relname) AS qualified,
       c.relkind::text AS kind,
       EXISTS (SELECT FROM pg_catalog.pg_rewrite r WHERE r.ev_class = c.oid AND r.ev_type <> '1') AS has_rules,
       ARRAY(SELECT pg_catalog.format('%%I.%%I', tn.nspname, t.relname)
               FROM pg_catalog.pg_class t JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
              WHERE t.oid = c.oid OR t.oid IN (SELECT p.relid FROM pg_catalog.pg_partition_tree(c.oid) p)
              ORDER BY 1) AS tree
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.oid = (SELECT CASE WHEN v.given LIKE '%%.%%' THEN pg_catalog.to_regclass(v.given)
                              ELSE pg_catalog.to_regclass('public.' || v.given) END
                  FROM (VALUES (%s::text)) AS v (given))
