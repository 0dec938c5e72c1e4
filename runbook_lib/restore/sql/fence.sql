-- Who may connect to a database, and how many are. A session of its own is not counted: it is in another database.
SELECT d.oid::bigint AS oid,
       d.datallowconn AS allows,
       (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity a WHERE a.datid = d.oid) AS connected
  FROM pg_catalog.pg_database d
 WHERE d.datname = %(database)s
