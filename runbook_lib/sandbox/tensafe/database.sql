-- What belongs to the database itself: its owner, and the settings that a dump without --create leaves behind.
-- Several of them change how values look as text, or end a session that sleeps; both are traps for whoever compares
-- this database with a restored one that has not got them.

DO $$
DECLARE
    here text := current_database();
BEGIN
    EXECUTE format('ALTER DATABASE %I OWNER TO tensafe_owner', here);
    EXECUTE format('ALTER DATABASE %I SET timezone = %L', here, 'America/New_York');
    EXECUTE format('ALTER DATABASE %I SET extra_float_digits = 0', here);
    EXECUTE format('ALTER DATABASE %I SET intervalstyle = %L', here, 'postgres_verbose');
    EXECUTE format('ALTER DATABASE %I SET bytea_output = %L', here, 'escape');
    EXECUTE format('ALTER DATABASE %I SET search_path = "$user", public, audit', here);
    EXECUTE format('ALTER DATABASE %I SET idle_in_transaction_session_timeout = %L', here, '10min');
    EXECUTE format('ALTER DATABASE %I SET statement_timeout = %L', here, '15min');
    EXECUTE format('ALTER ROLE tensafe IN DATABASE %I SET work_mem = %L', here, '8MB');
    EXECUTE format('ALTER ROLE tensafe_report IN DATABASE %I SET statement_timeout = %L', here, '5min');
    EXECUTE format('COMMENT ON DATABASE %I IS %L', here, 'TenSafe, as the sandbox builds it');
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', here);
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO tensafe, tensafe_readonly, tensafe_auditor', here);
    EXECUTE format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO tensafe_migrator WITH GRANT OPTION', here);
END
$$;
