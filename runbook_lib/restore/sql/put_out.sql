-- Ask every session of a database to leave, wait for each, and list those that are still there, and the prepared
-- transactions, which no termination ends. Workers of autovacuum leave by themselves when they are asked.
WITH asked AS (
    SELECT a.pid, pg_catalog.pg_terminate_backend(a.pid, %(timeout_milliseconds)s) AS gone,
           a.usename AS "user", a.application_name AS application, a.state
      FROM pg_catalog.pg_stat_activity a
     WHERE a.datname = %(database)s
)
SELECT pid, "user", application, state FROM asked WHERE NOT gone
UNION ALL
SELECT NULL, p.owner, 'prepared transaction ' || p.gid, 'prepared' FROM pg_catalog.pg_prepared_xacts p
 WHERE p.database = %(database)s
