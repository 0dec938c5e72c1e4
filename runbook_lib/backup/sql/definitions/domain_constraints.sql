SELECT 'domain constraint' AS kind, pg_catalog.format_type(c.contypid, NULL) || ' ' || pg_catalog.quote_ident(c.conname) AS name,
       pg_catalog.pg_get_constraintdef(c.oid) AS definition
  FROM pg_catalog.pg_constraint c JOIN pg_catalog.pg_namespace n ON n.oid = c.connamespace
 WHERE c.contypid <> 0 AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                    WHERE d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND d.objid = c.contypid AND d.deptype = 'e')
