-- The database's own properties; none of them is restored by pg_restore without --create.
SELECT 'database' AS kind, v.name, v.definition
  FROM pg_catalog.pg_database d
 CROSS JOIN LATERAL (VALUES
       ('encoding', pg_catalog.pg_encoding_to_char(d.encoding)),
       ('collate', d.datcollate::text),
       ('ctype', d.datctype::text),
       ('locale provider', d.datlocprovider::text),
       ('locale', coalesce(pg_catalog.to_json(d) ->> 'datlocale', pg_catalog.to_json(d) ->> 'daticulocale')),
       ('icu rules', pg_catalog.to_json(d) ->> 'daticurules'),
       ('owner', pg_catalog.pg_get_userbyid(d.datdba)::text),
       ('connection limit', d.datconnlimit::text),
       ('comment', pg_catalog.shobj_description(d.oid, 'pg_database'))
  ) AS v (name, definition)
 WHERE d.datname = pg_catalog.current_database() AND v.definition IS NOT NULL
