-- pg_dump writes subscriptions without a slot and switched off, and the connection string can hold a password:
-- only name, owner, publications and the options that a restore keeps are compared.
SELECT 'subscription' AS kind, s.subname::text AS name,
       pg_catalog.concat_ws(' ', 'owner ' || pg_catalog.pg_get_userbyid(s.subowner), 'publications ' || s.subpublications::text,
                            'binary ' || s.subbinary, 'synchronous commit ' || s.subsynccommit) AS definition
  FROM pg_catalog.pg_subscription s
 WHERE s.subdbid = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
