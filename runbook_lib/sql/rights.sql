-- What the role of this session may do, as far as this runbook needs it. Reads catalogs alone.
SELECT r.rolname AS role,
       r.rolsuper OR pg_catalog.pg_has_role(r.oid, 'pg_read_all_data', 'USAGE') AS reads_everything,
       r.rolsuper OR pg_catalog.pg_has_role(r.oid, 'pg_monitor', 'USAGE') AS monitors,
       pg_catalog.has_table_privilege('pg_catalog.pg_authid', 'SELECT') AS reads_passwords,
       r.rolsuper OR pg_catalog.pg_has_role(r.oid, 'pg_signal_backend', 'USAGE') AS ends_sessions,
       r.rolsuper OR r.rolcreatedb AS makes_databases,
       r.rolsuper OR pg_catalog.pg_has_role(r.oid, d.datdba, 'USAGE') AS owns_database
  FROM pg_catalog.pg_roles r, pg_catalog.pg_database d
 WHERE r.rolname = current_user AND d.datname = current_database()
