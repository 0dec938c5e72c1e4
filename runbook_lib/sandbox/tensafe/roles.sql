-- Roles belong to the cluster, not to the database, and no dump of a database holds them: the first thing that a
-- restore on another server misses. Nobody has a password. Idempotent, because several databases may share a cluster.

DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['tensafe_owner', 'tensafe', 'tensafe_readonly', 'tensafe_auditor', 'tensafe_migrator',
                                  'tensafe_report'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
            EXECUTE format('CREATE ROLE %I', wanted);
        END IF;
    END LOOP;
END
$$;

ALTER ROLE tensafe_owner NOLOGIN;
ALTER ROLE tensafe LOGIN;
ALTER ROLE tensafe_readonly NOLOGIN;
ALTER ROLE tensafe_auditor NOLOGIN BYPASSRLS;
ALTER ROLE tensafe_migrator LOGIN NOINHERIT CREATEROLE;
ALTER ROLE tensafe_report LOGIN CONNECTION LIMIT 5 VALID UNTIL '2027-01-01 00:00:00+00';

GRANT tensafe_owner TO tensafe_migrator;
GRANT tensafe_readonly TO tensafe_report WITH ADMIN OPTION;
GRANT tensafe_readonly TO tensafe_auditor;
GRANT pg_monitor TO tensafe_auditor;

ALTER ROLE tensafe SET statement_timeout = '30s';
ALTER ROLE tensafe SET application_name = 'tensafe-api';
ALTER ROLE tensafe_migrator SET lock_timeout = '200ms';
ALTER ROLE tensafe_report SET default_transaction_read_only = on;

COMMENT ON ROLE tensafe_owner IS 'Owns every object; nobody logs in as it';
COMMENT ON ROLE tensafe IS 'The application';
