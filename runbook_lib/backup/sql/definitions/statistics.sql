SELECT 'extended statistics' AS kind, pg_catalog.format('%I.%I', n.nspname, s.stxname) AS name,
       pg_catalog.concat_ws(' ', 'owner ' || pg_catalog.pg_get_userbyid(s.stxowner), pg_catalog.pg_get_statisticsobjdef(s.oid),
                            'TARGET ' || CASE WHEN s.stxstattarget >= 0 THEN s.stxstattarget END) AS definition
  FROM pg_catalog.pg_statistic_ext s JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace
 WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                    WHERE d.classid = 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass AND d.objid = s.oid AND d.deptype = 'e')
