-- All large objects as one number: rows are pages of 2 kB. A hole and a page of zeros read the same but are stored
-- differently before and after a restore, so pages count without their trailing zeros and empty ones not at all;
-- the length of each object is hashed beside them. Needs SELECT on pg_largeobject: a superuser.
SELECT (SELECT pg_catalog.count(*) FROM pg_catalog.pg_largeobject_metadata) AS objects,
       coalesce(pg_catalog.sum(pages.bytes), 0)::bigint AS bytes,
       (coalesce(pg_catalog.sum(pages.hash), 0)
        + coalesce(pg_catalog.sum(pg_catalog.hashint8extended(pages.length, pages.loid::bigint)), 0))::text AS hash
  FROM (SELECT p.loid,
               pg_catalog.sum(pg_catalog.length(p.data)) AS bytes,
               pg_catalog.max(p.pageno::bigint * 2048 + pg_catalog.length(p.data)) AS length,
               pg_catalog.sum(pg_catalog.hashint8extended(pg_catalog.hash_record_extended(
                   ROW (p.loid, p.pageno, pg_catalog.rtrim(p.data, '\x00'::bytea)), 0), 0))
                   FILTER (WHERE pg_catalog.rtrim(p.data, '\x00'::bytea) <> ''::bytea) AS hash
          FROM pg_catalog.pg_largeobject p
         GROUP BY p.loid) pages
