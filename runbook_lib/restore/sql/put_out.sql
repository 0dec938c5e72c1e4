-- Ask every session of a database to leave, and list those that were still there to be asked, and the prepared
-- transactions, which no termination ends. Workers of autovacuum leave by themselves when they are asked.
SELECT a.pid, pg_catalog.pg_terminate_backend(a.pid) AS asked,
       a.usename AS "user", a.application_name AS application, a.state
  FROM pg_catalog.pg_stat_activity a
 WHERE a.datname = %(database)s
UNION ALL
SELECT NULL, false, p.owner, 'prepared transaction ' || p.gid, 'prepared' FROM pg_catalog.pg_prepared_xacts p
 WHERE p.database = %(database)s
