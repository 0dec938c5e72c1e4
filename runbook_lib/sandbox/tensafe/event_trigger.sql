-- An event trigger keeps a history of tables made and dropped. Only a superuser can own it. Whoever makes a table in a
-- restored database before comparing it leaves a row here.

CREATE FUNCTION ops.note_ddl() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO ops.ddl_history (command, object)
    SELECT command_tag, object_identity FROM pg_event_trigger_ddl_commands() WHERE schema_name <> 'pg_temp';
END
$$;
ALTER FUNCTION ops.note_ddl() OWNER TO tensafe_owner;
CREATE EVENT TRIGGER tensafe_note_ddl ON ddl_command_end WHEN TAG IN ('CREATE TABLE', 'ALTER TABLE', 'CREATE TABLE AS')
    EXECUTE FUNCTION ops.note_ddl();

CREATE FUNCTION ops.note_drop() RETURNS event_trigger
LANGUAGE plpgsql
AS $$ BEGIN RAISE LOG 'objects were dropped by %', current_user; END $$;
ALTER FUNCTION ops.note_drop() OWNER TO tensafe_owner;
CREATE EVENT TRIGGER tensafe_note_drop ON sql_drop EXECUTE FUNCTION ops.note_drop();
ALTER EVENT TRIGGER tensafe_note_drop DISABLE;
