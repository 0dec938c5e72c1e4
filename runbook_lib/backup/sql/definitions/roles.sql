-- Roles with their attributes and memberships. The bootstrap superuser (oid 10) is the server's own and left out.
SELECT 'role' AS kind, r.rolname::text AS name,
       pg_catalog.concat_ws(' ',
           CASE WHEN r.rolsuper THEN 'SUPERUSER' END, CASE WHEN r.rolcreaterole THEN 'CREATEROLE' END,
           CASE WHEN r.rolcreatedb THEN 'CREATEDB' END, CASE WHEN r.rolcanlogin THEN 'LOGIN' END,
           CASE WHEN r.rolreplication THEN 'REPLICATION' END, CASE WHEN r.rolbypassrls THEN 'BYPASSRLS' END,
           CASE WHEN NOT r.rolinherit THEN 'NOINHERIT' END,
           CASE WHEN r.rolconnlimit <> -1 THEN 'CONNECTION LIMIT ' || r.rolconnlimit END,
           'VALID UNTIL ' || r.rolvaliduntil,
           'IN ROLE ' || (SELECT pg_catalog.string_agg(g.membership, ', ' ORDER BY g.membership COLLATE "C")
                            FROM (SELECT pg_catalog.concat_ws(' ', g.rolname::text, CASE WHEN m.admin_option THEN 'WITH ADMIN OPTION' END,
                                         -- From 16 on; before, whether it inherits is the member's own affair, and everybody may SET ROLE.
                                         'INHERIT ' || (pg_catalog.to_json(m) ->> 'inherit_option'),
                                         'SET ' || (pg_catalog.to_json(m) ->> 'set_option')) AS membership
                                    FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid
                                   WHERE m.member = r.oid) g),
           'COMMENT ' || pg_catalog.shobj_description(r.oid, 'pg_authid')) AS definition
  FROM pg_catalog.pg_roles r
 WHERE r.rolname !~ '^pg_' AND r.oid <> 10
UNION ALL
SELECT 'bootstrap role', r.rolname::text, '' FROM pg_catalog.pg_roles r WHERE r.oid = 10
