-- Changes to what PostgreSQL or an extension came with: a dump holds only the difference to how it came.

REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC;
GRANT USAGE ON LANGUAGE plpgsql TO tensafe_owner, tensafe_migrator;
REVOKE EXECUTE ON FUNCTION extensions.show_trgm(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_switch_wal() TO tensafe_auditor;
