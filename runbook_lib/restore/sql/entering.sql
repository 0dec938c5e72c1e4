-- The server processes that are about to enter a database: from before they read whether they may until they are listed
-- in pg_stat_activity, each holds this lock on it.
SELECT l.pid, 'about to enter' AS state
  FROM pg_catalog.pg_locks l
 WHERE l.locktype = 'object' AND l.granted AND l.mode = 'RowExclusiveLock'
   AND l.classid = 'pg_catalog.pg_database'::pg_catalog.regclass AND l.objid::bigint = %(oid)s AND l.objsubid = 0
