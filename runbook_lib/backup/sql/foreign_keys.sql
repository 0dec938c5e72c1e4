-- Every foreign key with its two tables, named as the definitions name it.
SELECT con.conrelid::pg_catalog.regclass::text || ' ' || pg_catalog.quote_ident(con.conname) AS name,
       pg_catalog.format('%I.%I', fn.nspname, f.relname) AS from_table,
       pg_catalog.format('%I.%I', tn.nspname, t.relname) AS to_table
  FROM pg_catalog.pg_constraint con
  JOIN pg_catalog.pg_class f ON f.oid = con.conrelid JOIN pg_catalog.pg_namespace fn ON fn.oid = f.relnamespace
  JOIN pg_catalog.pg_class t ON t.oid = con.confrelid JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
 WHERE con.contype = 'f'
 ORDER BY 1
