SELECT 'large object' AS kind, m.oid::text AS name, 'owner ' || pg_catalog.pg_get_userbyid(m.lomowner) AS definition
  FROM pg_catalog.pg_largeobject_metadata m
