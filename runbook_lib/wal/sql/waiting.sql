-- What stands in line to be archived. A file's age is taken by the server's own clock.
SELECT count(*)::int AS files,
       (pg_catalog.array_agg(pg_catalog.regexp_replace(name, '\.ready$', '') ORDER BY modification, name))[1] AS oldest,
       pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - min(modification)) AS oldest_seconds
  FROM pg_catalog.pg_ls_archive_statusdir()
 WHERE name LIKE '%.ready'
