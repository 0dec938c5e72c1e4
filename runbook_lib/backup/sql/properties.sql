-- What belongs to the database itself and is in no dump made without --create: how it was created, whose it is,
-- who may do what with it, and its settings. tensafe.owned_by is our own ownership mark.
SELECT pg_catalog.pg_encoding_to_char(d.encoding)::text AS encoding,
       d.datcollate::text AS collate, d.datctype::text AS ctype,
       coalesce(pg_catalog.to_json(d) ->> 'datlocprovider', 'c') AS locale_provider,
       coalesce(pg_catalog.to_json(d) ->> 'datlocale', pg_catalog.to_json(d) ->> 'daticulocale', '') AS locale,
       coalesce(pg_catalog.to_json(d) ->> 'daticurules', '') AS icu_rules,
       pg_catalog.pg_get_userbyid(d.datdba)::text AS owner,
       d.datconnlimit AS connection_limit,
       coalesce(pg_catalog.shobj_description(d.oid, 'pg_database'), '') AS comment,
       coalesce((SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
                            'role', CASE WHEN s.setrole = 0 THEN '' ELSE pg_catalog.pg_get_userbyid(s.setrole)::text END,
                            'name', pg_catalog.split_part(c.setting, '=', 1),
                            'value', pg_catalog.substr(c.setting, pg_catalog.strpos(c.setting, '=') + 1))
                        ORDER BY s.setrole, c.setting)
                   FROM pg_catalog.pg_db_role_setting s CROSS JOIN LATERAL pg_catalog.unnest(s.setconfig) AS c (setting)
                  WHERE s.setdatabase = d.oid AND c.setting NOT LIKE 'tensafe.owned\_by=%'), '[]') AS settings,
       coalesce((SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
                            'grantee', CASE WHEN a.grantee = 0 THEN '' ELSE pg_catalog.pg_get_userbyid(a.grantee)::text END,
                            'privilege', a.privilege_type, 'grantable', a.is_grantable,
                            'grantor', pg_catalog.pg_get_userbyid(a.grantor)::text))
                   FROM pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) a), '[]') AS grants,
       (SELECT pg_catalog.json_build_object('owner', pg_catalog.pg_get_userbyid(n.nspowner)::text,
                                            'comment', coalesce(pg_catalog.obj_description(n.oid, 'pg_namespace'), ''),
                                            'grants', coalesce((SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
                            'grantee', CASE WHEN a.grantee = 0 THEN '' ELSE pg_catalog.pg_get_userbyid(a.grantee)::text END,
                            'privilege', a.privilege_type, 'grantable', a.is_grantable,
                            'grantor', pg_catalog.pg_get_userbyid(a.grantor)::text))
                   FROM pg_catalog.aclexplode(coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner))) a), '[]'))
          FROM pg_catalog.pg_namespace n WHERE n.nspname = 'public') AS public,
       EXISTS (SELECT FROM pg_catalog.pg_extension e WHERE e.extname = 'plpgsql') AS plpgsql
  FROM pg_catalog.pg_database d
 WHERE d.datname = pg_catalog.current_database()
