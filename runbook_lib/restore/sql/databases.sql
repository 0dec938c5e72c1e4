-- The databases of some names, or all of them where none is given, with the marks that we put on databases.
SELECT d.datname AS name, d.oid::bigint AS oid, d.datallowconn AS allows, d.datconnlimit = -2 AS is_half_dropped,
       (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity a
         WHERE a.datid = d.oid AND a.backend_type IS DISTINCT FROM 'autovacuum worker')
         + (SELECT pg_catalog.count(*) FROM pg_catalog.pg_prepared_xacts p WHERE p.database = d.datname) AS inside,
       coalesce(pg_catalog.max(pg_catalog.split_part(c.setting, '=', 2)) FILTER (WHERE c.setting LIKE 'tensafe.owned\_by=%%'), '') AS owner,
       coalesce(pg_catalog.max(pg_catalog.split_part(c.setting, '=', 2)) FILTER (WHERE c.setting LIKE 'tensafe.kept\_until=%%'), '') AS kept_until
  FROM pg_catalog.pg_database d
  LEFT JOIN pg_catalog.pg_db_role_setting s ON s.setdatabase = d.oid AND s.setrole = 0
  LEFT JOIN LATERAL pg_catalog.unnest(s.setconfig) AS c (setting) ON true
 WHERE pg_catalog.cardinality(%(names)s::text[]) = 0 OR d.datname = ANY (%(names)s::text[])
 GROUP BY d.datname, d.oid, d.datallowconn, d.datconnlimit
 ORDER BY d.datname
