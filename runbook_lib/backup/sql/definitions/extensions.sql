-- A dump names an extension without its version: CREATE EXTENSION takes the target's default.
SELECT 'extension' AS kind, e.extname::text AS name,
       'version ' || e.extversion || ' in schema ' || n.nspname
       || coalesce(' with configuration ' || (SELECT pg_catalog.string_agg(c::pg_catalog.regclass::text, ', ' ORDER BY c::pg_catalog.regclass::text COLLATE "C")
                                              FROM pg_catalog.unnest(e.extconfig) c), '') AS definition
  FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
