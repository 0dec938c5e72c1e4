SELECT 'default privileges' AS kind,
       pg_catalog.concat_ws(' ', 'of ' || pg_catalog.pg_get_userbyid(d.defaclrole), 'in schema ' || n.nspname,
           'on ' || CASE d.defaclobjtype WHEN 'r' THEN 'tables' WHEN 'S' THEN 'sequences' WHEN 'f' THEN 'functions' WHEN 'T' THEN 'types'
                    WHEN 'n' THEN 'schemas' WHEN 'L' THEN 'large objects' ELSE d.defaclobjtype::text END) AS name,
       (SELECT pg_catalog.string_agg(g.line, ', ' ORDER BY g.line COLLATE "C")
          FROM (SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.pg_get_userbyid(a.grantee)::text END || '='
                       || pg_catalog.string_agg(a.privilege_type || CASE WHEN a.is_grantable THEN '*' ELSE '' END, '+' ORDER BY a.privilege_type) AS line
                  FROM pg_catalog.aclexplode(d.defaclacl) a GROUP BY a.grantee) g) AS definition
  FROM pg_catalog.pg_default_acl d LEFT JOIN pg_catalog.pg_namespace n ON n.oid = d.defaclnamespace
