-- What the archiver says of itself. The ages are taken by the server's own clock.
SELECT pg_catalog.current_setting('archive_mode') AS archive_mode,
       pg_catalog.current_setting('wal_level') AS wal_level,
       pg_catalog.pg_is_in_recovery() AS in_recovery,
       a.archived_count, a.last_archived_wal, a.last_archived_time, a.failed_count, a.last_failed_wal, a.last_failed_time,
       pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - a.last_archived_time) AS last_archived_seconds_ago,
       coalesce(a.last_failed_time > a.last_archived_time, a.last_failed_time IS NOT NULL) AS is_failing
  FROM pg_catalog.pg_stat_archiver a
