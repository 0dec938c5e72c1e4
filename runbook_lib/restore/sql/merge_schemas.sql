-- The schemas of merges, with their marks.
SELECT n.nspname AS name, pg_catalog.obj_description(n.oid, 'pg_namespace') AS mark
  FROM pg_catalog.pg_namespace n
 WHERE n.nspname LIKE 'runbook\_%%' AND pg_catalog.obj_description(n.oid, 'pg_namespace') LIKE 'tensafe-runbook {%%'
   AND (%(name)s = '' OR n.nspname = %(name)s)
 ORDER BY 1
