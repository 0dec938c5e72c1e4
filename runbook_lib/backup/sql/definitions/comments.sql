-- Comments and security labels of everything in this database that an extension did not bring along.
SELECT 'comment' AS kind, o.type || ' ' || o.identity AS name, c.description AS definition
  FROM pg_catalog.pg_description c
 CROSS JOIN LATERAL pg_catalog.pg_identify_object(c.classoid, c.objoid, c.objsubid) o
 WHERE c.objoid >= 16384 AND o.identity IS NOT NULL AND o.schema IS DISTINCT FROM 'pg_toast'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                    WHERE d.classid = c.classoid AND d.objid = c.objoid AND d.deptype = 'e')
UNION ALL
SELECT 'comment', 'schema public', c.description
  FROM pg_catalog.pg_description c
 WHERE c.classoid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND c.objoid = 2200
UNION ALL
SELECT 'security label', s.objtype || ' ' || s.objname || ' ' || s.provider, s.label
  FROM pg_catalog.pg_seclabels s
