-- ALTER DATABASE ... SET and ALTER ROLE ... [IN DATABASE ...] SET. tensafe.owned_by is our own ownership mark.
SELECT CASE WHEN s.setdatabase = 0 THEN 'role setting' WHEN s.setrole = 0 THEN 'database setting'
            ELSE 'role setting in the database' END AS kind,
       CASE WHEN s.setrole = 0 THEN '' ELSE pg_catalog.pg_get_userbyid(s.setrole) || ' ' END
           || pg_catalog.split_part(c.setting, '=', 1) AS name,
       c.setting AS definition
  FROM pg_catalog.pg_db_role_setting s
 CROSS JOIN LATERAL pg_catalog.unnest(s.setconfig) AS c (setting)
 WHERE s.setdatabase IN (0, (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()))
   AND c.setting NOT LIKE 'tensafe.owned\_by=%'
