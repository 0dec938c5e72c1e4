-- A table's columns in their order, dropped ones left out.
SELECT a.attname AS name,
       pg_catalog.format_type(a.atttypid, a.atttypmod)
           || coalesce(' COLLATE ' || (SELECT co.oid::pg_catalog.regcollation::text FROM pg_catalog.pg_collation co
                                        WHERE co.oid = nullif(a.attcollation, t.typcollation)), '') AS type,
       a.attgenerated <> '' AS is_generated,
       a.attidentity = 'a' AS is_always_identity
  FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
 WHERE a.attrelid = %(oid)s AND a.attnum > 0 AND NOT a.attisdropped
 ORDER BY a.attnum
