-- Operators, operator classes and families, casts, collations, conversions, access methods, transforms.
SELECT 'operator' AS kind, o.oid::pg_catalog.regoperator::text AS name,
       pg_catalog.concat_ws(' ', 'owner ' || pg_catalog.pg_get_userbyid(o.oprowner), 'function ' || o.oprcode::text, 'commutator ' || nullif(o.oprcom, 0)::pg_catalog.regoperator::text,
           'negator ' || nullif(o.oprnegate, 0)::pg_catalog.regoperator::text, 'restrict ' || nullif(o.oprrest, 0)::pg_catalog.regproc::text,
           'join ' || nullif(o.oprjoin, 0)::pg_catalog.regproc::text, CASE WHEN o.oprcanmerge THEN 'MERGES' END, CASE WHEN o.oprcanhash THEN 'HASHES' END) AS definition
  FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
 WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_operator'::pg_catalog.regclass AND d.objid = o.oid AND d.deptype = 'e')
UNION ALL
SELECT 'operator class', pg_catalog.format('%I.%I using %s', n.nspname, c.opcname, am.amname),
       pg_catalog.concat_ws(' ', 'owner ' || pg_catalog.pg_get_userbyid(c.opcowner), 'for ' || pg_catalog.format_type(c.opcintype, NULL), CASE WHEN c.opcdefault THEN 'DEFAULT' END,
           'storage ' || nullif(c.opckeytype, 0)::pg_catalog.regtype::text, 'family ' || f.opfname)
  FROM pg_catalog.pg_opclass c JOIN pg_catalog.pg_namespace n ON n.oid = c.opcnamespace JOIN pg_catalog.pg_am am ON am.oid = c.opcmethod
  JOIN pg_catalog.pg_opfamily f ON f.oid = c.opcfamily
 WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_opclass'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')
UNION ALL
SELECT 'operator family', pg_catalog.format('%I.%I using %s', n.nspname, f.opfname, am.amname),
       pg_catalog.concat_ws(' ', 'owner ' || pg_catalog.pg_get_userbyid(f.opfowner),
           'operators ' || (SELECT pg_catalog.string_agg(ao.amopstrategy || ' ' || ao.amopopr::pg_catalog.regoperator::text, ', ' ORDER BY ao.amopstrategy, ao.amopopr::pg_catalog.regoperator::text COLLATE "C")
                              FROM pg_catalog.pg_amop ao WHERE ao.amopfamily = f.oid),
           'functions ' || (SELECT pg_catalog.string_agg(ap.amprocnum || ' ' || ap.amproc::pg_catalog.regprocedure::text, ', ' ORDER BY ap.amprocnum, ap.amproc::pg_catalog.regprocedure::text COLLATE "C")
                              FROM pg_catalog.pg_amproc ap WHERE ap.amprocfamily = f.oid))
  FROM pg_catalog.pg_opfamily f JOIN pg_catalog.pg_namespace n ON n.oid = f.opfnamespace JOIN pg_catalog.pg_am am ON am.oid = f.opfmethod
 WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_opfamily'::pg_catalog.regclass AND d.objid = f.oid AND d.deptype = 'e')
UNION ALL
SELECT 'cast', pg_catalog.format_type(c.castsource, NULL) || ' as ' || pg_catalog.format_type(c.casttarget, NULL),
       pg_catalog.concat_ws(' ', 'method ' || c.castmethod::text, 'context ' || c.castcontext::text, 'function ' || nullif(c.castfunc, 0)::pg_catalog.regprocedure::text)
  FROM pg_catalog.pg_cast c
 WHERE c.oid >= 16384
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_cast'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')
UNION ALL
SELECT 'collation', pg_catalog.format('%I.%I', n.nspname, c.collname),
       pg_catalog.concat_ws(' ', 'owner ' || pg_catalog.pg_get_userbyid(c.collowner), 'provider ' || c.collprovider::text, 'collate ' || c.collcollate, 'ctype ' || c.collctype,
           'locale ' || coalesce(pg_catalog.to_json(c) ->> 'colllocale', pg_catalog.to_json(c) ->> 'colliculocale'), 'rules ' || (pg_catalog.to_json(c) ->> 'collicurules'),
           CASE WHEN NOT c.collisdeterministic THEN 'nondeterministic' END)
  FROM pg_catalog.pg_collation c JOIN pg_catalog.pg_namespace n ON n.oid = c.collnamespace
 WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_collation'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')
UNION ALL
SELECT 'conversion', pg_catalog.format('%I.%I', n.nspname, c.conname),
       pg_catalog.concat_ws(' ', 'owner ' || pg_catalog.pg_get_userbyid(c.conowner), 'from ' || pg_catalog.pg_encoding_to_char(c.conforencoding),
           'to ' || pg_catalog.pg_encoding_to_char(c.contoencoding), 'function ' || c.conproc::text, CASE WHEN c.condefault THEN 'DEFAULT' END)
  FROM pg_catalog.pg_conversion c JOIN pg_catalog.pg_namespace n ON n.oid = c.connamespace
 WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_conversion'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')
UNION ALL
SELECT 'access method', am.amname::text, 'type ' || am.amtype::text || ' handler ' || am.amhandler::text
  FROM pg_catalog.pg_am am
 WHERE am.oid >= 16384
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_am'::pg_catalog.regclass AND d.objid = am.oid AND d.deptype = 'e')
UNION ALL
SELECT 'transform', pg_catalog.format_type(t.trftype, NULL) || ' for ' || l.lanname, 'from ' || t.trffromsql::text || ' to ' || t.trftosql::text
  FROM pg_catalog.pg_transform t JOIN pg_catalog.pg_language l ON l.oid = t.trflang
 WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_transform'::pg_catalog.regclass AND d.objid = t.oid AND d.deptype = 'e')
