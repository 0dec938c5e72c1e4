SELECT 'publication' AS kind, p.pubname::text AS name,
       pg_catalog.concat_ws(' ', 'owner ' || pg_catalog.pg_get_userbyid(p.pubowner),
           CASE WHEN p.puballtables THEN 'FOR ALL TABLES' END,
           CASE WHEN p.pubinsert THEN 'insert' END, CASE WHEN p.pubupdate THEN 'update' END, CASE WHEN p.pubdelete THEN 'delete' END,
           CASE WHEN p.pubtruncate THEN 'truncate' END, CASE WHEN p.pubviaroot THEN 'via root' END) AS definition
  FROM pg_catalog.pg_publication p
UNION ALL
SELECT 'published table', p.pubname || ' ' || r.prrelid::pg_catalog.regclass::text, 'published'
  FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid
