-- Every privilege on every class of object. A missing list and the same list written out mean the same, so the
-- default list stands in for a missing one. Objects that came with the server or with an extension are listed only
-- where their privileges were changed afterwards (pg_init_privs), because only then does a dump carry them.
WITH objects (class, oid, sub, what, name, acl) AS (
    SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, c.oid, 0,
           CASE c.relkind WHEN 'S' THEN 'sequence' WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table' ELSE 'table' END,
           c.oid::pg_catalog.regclass::text, coalesce(c.relacl, pg_catalog.acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner))
      FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname !~ '^pg_(toast|temp)' AND n.nspname <> 'information_schema'
    UNION ALL
    SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, a.attrelid, a.attnum, 'column', a.attrelid::pg_catalog.regclass::text || '.' || pg_catalog.quote_ident(a.attname), a.attacl
      FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE a.attacl IS NOT NULL AND NOT a.attisdropped AND n.nspname !~ '^pg_(toast|temp)' AND n.nspname <> 'information_schema'
    UNION ALL
    SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, p.oid, 0, 'function', p.oid::pg_catalog.regprocedure::text, coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))
      FROM pg_catalog.pg_proc p
     WHERE p.oid >= 16384 OR p.proacl IS NOT NULL
    UNION ALL
    SELECT 'pg_catalog.pg_namespace'::pg_catalog.regclass, n.oid, 0, 'schema', pg_catalog.quote_ident(n.nspname), coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner))
      FROM pg_catalog.pg_namespace n WHERE n.nspname !~ '^pg_(toast|temp)' AND n.nspname <> 'information_schema'
    UNION ALL
    SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, t.oid, 0, 'type', pg_catalog.format_type(t.oid, NULL), coalesce(t.typacl, pg_catalog.acldefault('T', t.typowner))
      FROM pg_catalog.pg_type t LEFT JOIN pg_catalog.pg_class c ON c.oid = t.typrelid
     WHERE (t.oid >= 16384 OR t.typacl IS NOT NULL) AND t.typtype IN ('e', 'd', 'c', 'r', 'b') AND (t.typtype <> 'c' OR c.relkind = 'c')
       AND NOT (t.typcategory = 'A' AND t.typelem <> 0)
    UNION ALL
    SELECT 'pg_catalog.pg_language'::pg_catalog.regclass, l.oid, 0, 'language', l.lanname::text, coalesce(l.lanacl, pg_catalog.acldefault('l', l.lanowner))
      FROM pg_catalog.pg_language l WHERE l.lanpltrusted
    UNION ALL
    SELECT 'pg_catalog.pg_foreign_data_wrapper'::pg_catalog.regclass, w.oid, 0, 'foreign data wrapper', w.fdwname::text, coalesce(w.fdwacl, pg_catalog.acldefault('F', w.fdwowner))
      FROM pg_catalog.pg_foreign_data_wrapper w
    UNION ALL
    SELECT 'pg_catalog.pg_foreign_server'::pg_catalog.regclass, s.oid, 0, 'foreign server', s.srvname::text, coalesce(s.srvacl, pg_catalog.acldefault('S', s.srvowner))
      FROM pg_catalog.pg_foreign_server s
    UNION ALL
    SELECT 'pg_catalog.pg_largeobject'::pg_catalog.regclass, m.oid, 0, 'large object', m.oid::text, coalesce(m.lomacl, pg_catalog.acldefault('L', m.lomowner))
      FROM pg_catalog.pg_largeobject_metadata m
    UNION ALL
    SELECT 'pg_catalog.pg_database'::pg_catalog.regclass, d.oid, 0, 'database', '', coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))
      FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()
), changed AS (
    SELECT o.*, i.initprivs,
           o.oid < 16384 AND NOT (o.class = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND o.name = 'public')
           OR EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = o.class AND d.objid = o.oid AND d.deptype = 'e') AS is_given
      FROM objects o
      LEFT JOIN pg_catalog.pg_init_privs i ON i.classoid = o.class AND i.objoid = o.oid AND i.objsubid = o.sub
)
SELECT 'grant' AS kind, o.what || ' ' || o.name AS name,
       coalesce((SELECT pg_catalog.string_agg(g.line, ', ' ORDER BY g.line COLLATE "C")
          FROM (SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.pg_get_userbyid(a.grantee)::text END || '='
                       || pg_catalog.string_agg(a.privilege_type || CASE WHEN a.is_grantable THEN '*' ELSE '' END, '+' ORDER BY a.privilege_type)
                       || ' by ' || pg_catalog.pg_get_userbyid(a.grantor) AS line
                  FROM pg_catalog.aclexplode(o.acl) a GROUP BY a.grantee, a.grantor) g), 'nobody') AS definition
  FROM changed o
 WHERE NOT o.is_given
    -- Something given and not in pg_init_privs had no list of its own at the beginning, so that any list is a change.
    OR o.what <> 'database' AND o.acl IS DISTINCT FROM coalesce(o.initprivs, CASE o.what
           WHEN 'function' THEN (SELECT pg_catalog.acldefault('f', p.proowner) FROM pg_catalog.pg_proc p WHERE p.oid = o.oid)
           WHEN 'type' THEN (SELECT pg_catalog.acldefault('T', t.typowner) FROM pg_catalog.pg_type t WHERE t.oid = o.oid)
           WHEN 'schema' THEN (SELECT pg_catalog.acldefault('n', n.nspowner) FROM pg_catalog.pg_namespace n WHERE n.oid = o.oid)
           WHEN 'language' THEN (SELECT pg_catalog.acldefault('l', l.lanowner) FROM pg_catalog.pg_language l WHERE l.oid = o.oid)
           WHEN 'foreign data wrapper' THEN (SELECT pg_catalog.acldefault('F', w.fdwowner) FROM pg_catalog.pg_foreign_data_wrapper w WHERE w.oid = o.oid)
           WHEN 'column' THEN NULL
           ELSE (SELECT pg_catalog.acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner) FROM pg_catalog.pg_class c WHERE c.oid = o.oid) END)
