-- Enums with their labels in order, domains with their constraints, composite types, ranges and base types.
SELECT CASE t.typtype WHEN 'e' THEN 'enum' WHEN 'd' THEN 'domain' WHEN 'c' THEN 'composite type' WHEN 'r' THEN 'range type'
            ELSE 'base type' END AS kind,
       pg_catalog.format_type(t.oid, NULL) AS name,
       pg_catalog.concat_ws(' ',
           'owner ' || pg_catalog.pg_get_userbyid(t.typowner),
           CASE t.typtype
           WHEN 'e' THEN (SELECT 'labels ' || pg_catalog.string_agg(pg_catalog.quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder)
                            FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid)
           WHEN 'd' THEN pg_catalog.concat_ws(' ',
               'over ' || pg_catalog.format_type(t.typbasetype, t.typtypmod),
               CASE WHEN t.typnotnull THEN 'NOT NULL' END, 'DEFAULT ' || t.typdefault,
               'COLLATE ' || (SELECT co.collname FROM pg_catalog.pg_collation co
                               WHERE co.oid = t.typcollation AND t.typcollation <> (SELECT bt.typcollation FROM pg_catalog.pg_type bt WHERE bt.oid = t.typbasetype)))
           WHEN 'c' THEN (SELECT '(' || pg_catalog.string_agg(pg_catalog.quote_ident(a.attname) || ' ' || pg_catalog.format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum) || ')'
                            FROM pg_catalog.pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped)
           WHEN 'r' THEN (SELECT pg_catalog.concat_ws(' ', 'of ' || pg_catalog.format_type(r.rngsubtype, NULL), 'operator class ' || o.opcname,
                                 'canonical ' || nullif(r.rngcanonical::text, '-'), 'difference ' || nullif(r.rngsubdiff::text, '-'))
                            FROM pg_catalog.pg_range r JOIN pg_catalog.pg_opclass o ON o.oid = r.rngsubopc WHERE r.rngtypid = t.oid)
           ELSE pg_catalog.concat_ws(' ', 'input ' || t.typinput::text, 'output ' || t.typoutput::text, 'length ' || t.typlen,
                                     'align ' || t.typalign::text, 'storage ' || t.typstorage::text, 'defined ' || t.typisdefined)
           END) AS definition
  FROM pg_catalog.pg_type t
  JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
  LEFT JOIN pg_catalog.pg_class c ON c.oid = t.typrelid
 WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND t.typtype IN ('e', 'd', 'c', 'r', 'b') AND (t.typtype <> 'c' OR c.relkind = 'c')
   AND NOT (t.typcategory = 'A' AND t.typelem <> 0 AND t.typsubscript = 'pg_catalog.array_subscript_handler'::pg_catalog.regproc)
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                    WHERE d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND d.objid = t.oid AND d.deptype = 'e')
