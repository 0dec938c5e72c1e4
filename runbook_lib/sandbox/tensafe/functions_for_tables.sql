-- Functions that tables need: in defaults, checks, generated columns and index expressions. pg_restore runs with an
-- empty search_path, so that whatever they name has to be qualified.

CREATE FUNCTION ops.initials(full_name text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN upper(left(full_name, 1) || coalesce(substring(full_name FROM ' (.)'), ''));

CREATE FUNCTION ops.is_checksum(given text) RETURNS boolean
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
AS $$ SELECT given ~ '^[0-9a-f]{64}$' $$;

CREATE FUNCTION ops.next_invoice() RETURNS text
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    RETURN 'INV-' || to_char(nextval('ops.invoice_number'), 'FM000000');
END
$$;
