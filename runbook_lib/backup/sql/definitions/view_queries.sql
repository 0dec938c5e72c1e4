-- What a view selects. Kept apart from the view's other properties, so that a changed query is one line.
SELECT CASE c.relkind WHEN 'v' THEN 'view query' ELSE 'materialized view query' END AS kind,
       c.oid::pg_catalog.regclass::text AS name, pg_catalog.pg_get_viewdef(c.oid) AS definition
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('v', 'm') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                    WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')
