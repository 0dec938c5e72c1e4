-- Which database this is, for the manifest. Collation versions of the database and of every collation that a column
-- or an index uses: an index sorted by one version of a library and read by another answers wrongly.
SELECT (SELECT system_identifier::text FROM pg_catalog.pg_control_system()) AS system_identifier,
       d.datname::text AS name,
       d.oid::bigint AS oid,
       pg_catalog.current_setting('server_version_num')::int AS server_version_num,
       pg_catalog.current_setting('server_version') AS server_version,
       pg_catalog.pg_encoding_to_char(d.encoding)::text AS encoding,
       pg_catalog.pg_database_size(d.oid) AS bytes,
       (SELECT coalesce(pg_catalog.json_object_agg(v.name, v.version), '{}')
          FROM (SELECT '(database)' AS name, pg_catalog.to_json(d) ->> 'datcollversion' AS version
                UNION ALL
                SELECT DISTINCT co.collname::text, co.collversion
                  FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_collation co ON co.oid = a.attcollation
                 WHERE a.attrelid >= 16384) v
         WHERE v.version IS NOT NULL) AS collation_versions
  FROM pg_catalog.pg_database d
 WHERE d.datname = pg_catalog.current_database()
