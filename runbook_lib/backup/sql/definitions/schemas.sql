SELECT 'schema' AS kind, pg_catalog.quote_ident(n.nspname) AS name,
       'owner ' || pg_catalog.pg_get_userbyid(n.nspowner) AS definition
  FROM pg_catalog.pg_namespace n
 WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                    WHERE d.classid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.objid = n.oid AND d.deptype = 'e')
