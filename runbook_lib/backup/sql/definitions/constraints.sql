-- pg_get_constraintdef says NOT VALID, DEFERRABLE and, from 18 on, NOT ENFORCED by itself.
-- From 18 on NOT NULL is a constraint too; it is compared as such.
SELECT 'constraint' AS kind, con.conrelid::pg_catalog.regclass::text || ' ' || pg_catalog.quote_ident(con.conname) AS name,
       pg_catalog.pg_get_constraintdef(con.oid) AS definition
  FROM pg_catalog.pg_constraint con
  JOIN pg_catalog.pg_class c ON c.oid = con.conrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE con.conrelid <> 0 AND con.contype <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                    WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')
