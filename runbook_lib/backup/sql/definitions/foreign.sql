-- Foreign data wrappers, servers and user mappings. Options of user mappings are there to hold passwords: their names
-- only. Of all other options the value is left out where the name speaks of a secret, and out of a URL who logs in.
SELECT 'foreign data wrapper' AS kind, w.fdwname::text AS name,
       pg_catalog.concat_ws(' ', 'owner ' || pg_catalog.pg_get_userbyid(w.fdwowner), 'handler ' || nullif(w.fdwhandler, 0)::pg_catalog.regproc::text,
                            'validator ' || nullif(w.fdwvalidator, 0)::pg_catalog.regproc::text, 'options ' || (SELECT pg_catalog.string_agg(CASE WHEN pg_catalog.split_part(o, '=', 1) ~* '(pass|pwd|secret|token|credential|signature|(access|api|private|client)[_-]?key)'
                                THEN pg_catalog.split_part(o, '=', 1) || ' (not shown)'
                                ELSE pg_catalog.regexp_replace(o, '://[^/@ ]*@', '://(not shown)@', 'g') END, ', ' ORDER BY o COLLATE "C")
                             FROM pg_catalog.unnest(w.fdwoptions) o)) AS definition
  FROM pg_catalog.pg_foreign_data_wrapper w
 WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_foreign_data_wrapper'::pg_catalog.regclass AND d.objid = w.oid AND d.deptype = 'e')
UNION ALL
SELECT 'foreign server', s.srvname::text,
       pg_catalog.concat_ws(' ', 'owner ' || pg_catalog.pg_get_userbyid(s.srvowner), 'wrapper ' || w.fdwname, 'type ' || s.srvtype, 'version ' || s.srvversion,
                            'options ' || (SELECT pg_catalog.string_agg(CASE WHEN pg_catalog.split_part(o, '=', 1) ~* '(pass|pwd|secret|token|credential|signature|(access|api|private|client)[_-]?key)'
                                THEN pg_catalog.split_part(o, '=', 1) || ' (not shown)'
                                ELSE pg_catalog.regexp_replace(o, '://[^/@ ]*@', '://(not shown)@', 'g') END, ', ' ORDER BY o COLLATE "C")
                             FROM pg_catalog.unnest(s.srvoptions) o))
  FROM pg_catalog.pg_foreign_server s JOIN pg_catalog.pg_foreign_data_wrapper w ON w.oid = s.srvfdw
UNION ALL
SELECT 'user mapping', CASE WHEN u.umuser = 0 THEN 'PUBLIC' ELSE pg_catalog.pg_get_userbyid(u.umuser)::text END || ' on ' || u.srvname,
       'options ' || coalesce((SELECT pg_catalog.string_agg(pg_catalog.split_part(o, '=', 1), ', ' ORDER BY o COLLATE "C") FROM pg_catalog.unnest(u.umoptions) o), 'none')
  FROM pg_catalog.pg_user_mappings u
