SELECT 'publication' AS kind, p.pubname::text AS name,
       pg_catalog.concat_ws(' ', 'owner ' || pg_catalog.pg_get_userbyid(p.pubowner),
           CASE WHEN p.puballtables THEN 'FOR ALL TABLES' END,
           CASE WHEN p.pubinsert THEN 'insert' END, CASE WHEN p.pubupdate THEN 'update' END, CASE WHEN p.pubdelete THEN 'delete' END,
           CASE WHEN p.pubtruncate THEN 'truncate' END, CASE WHEN p.pubviaroot THEN 'via root' END,
           'generated columns ' || nullif(pg_catalog.to_json(p) ->> 'pubgencols', 'n')) AS definition
  FROM pg_catalog.pg_publication p
UNION ALL
SELECT 'published table', p.pubname || ' ' || r.prrelid::pg_catalog.regclass::text,
       pg_catalog.concat_ws(' ', 'published',
           'columns (' || (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY a.attname COLLATE "C")
                             FROM pg_catalog.pg_attribute a WHERE a.attrelid = r.prrelid AND a.attnum = ANY (r.prattrs)) || ')',
           'where ' || pg_catalog.pg_get_expr(r.prqual, r.prrelid))
  FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid
UNION ALL
SELECT 'published schema', p.pubname || ' ' || n.nspname, 'published'
  FROM pg_catalog.pg_publication_namespace s JOIN pg_catalog.pg_publication p ON p.oid = s.pnpubid
  JOIN pg_catalog.pg_namespace n ON n.oid = s.pnnspid
