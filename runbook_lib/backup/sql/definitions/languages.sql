SELECT 'language' AS kind, l.lanname::text AS name,
       pg_catalog.concat_ws(' ', 'owner ' || pg_catalog.pg_get_userbyid(l.lanowner), CASE WHEN l.lanpltrusted THEN 'trusted' END,
                            'handler ' || nullif(l.lanplcallfoid, 0)::pg_catalog.regproc::text) AS definition
  FROM pg_catalog.pg_language l
 WHERE l.lanispl
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_language'::pg_catalog.regclass AND d.objid = l.oid AND d.deptype = 'e')
