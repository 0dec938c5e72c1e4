-- What a base backup of this cluster needs to know of it, and what would keep it from being taken.
SELECT current_setting('server_version_num')::int AS version_num,
       pg_catalog.pg_size_bytes(current_setting('wal_segment_size')) AS segment_bytes,
       (SELECT system_identifier::text FROM pg_catalog.pg_control_system()) AS system_identifier,
       pg_catalog.pg_is_in_recovery() AS in_recovery,
       current_setting('archive_mode') AS archive_mode,
       (SELECT r.rolsuper OR r.rolreplication
          FROM pg_catalog.pg_roles AS r
         WHERE r.rolname = session_user) AS may_replicate,
       session_user::text AS role,
       ARRAY(SELECT t.spcname::text
               FROM pg_catalog.pg_tablespace AS t
              WHERE t.spcname NOT IN ('pg_default', 'pg_global')
              ORDER BY 1) AS tablespaces,
       pg_catalog.clock_timestamp() AS now
