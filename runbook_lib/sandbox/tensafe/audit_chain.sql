-- The audit trail: append-only, and each row bound to the one before it by a hash.
--
-- audit.record_hash is the chain's one definition: the trigger that appends uses it, and so does the aggregate
-- audit.chain, which walks the whole chain (and makes the first rows of this database). What is hashed is the text of
-- seven fields, each preceded by its length, so that no two rows can flow together; a missing field is a lone '-'.
-- runbook_lib/backup/sql/audit_chain.sql says the same once more, because a restored database must not be asked to
-- prove itself by its own functions.

CREATE FUNCTION audit.record_hash(
    prev_hash text, sequence bigint, occurred_at timestamptz, actor text, action text, tenant_id uuid, payload jsonb
) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN encode(sha256(convert_to(
       coalesce(length(sequence::text) || ':' || sequence::text, '-')
    || coalesce(length(to_char(occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))
        || ':' || to_char(occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), '-')
    || coalesce(length(actor) || ':' || actor, '-')
    || coalesce(length(action) || ':' || action, '-')
    || coalesce(length(tenant_id::text) || ':' || tenant_id::text, '-')
    || coalesce(length(payload::text) || ':' || payload::text, '-')
    || coalesce(length(prev_hash) || ':' || prev_hash, '-'), 'UTF8')), 'hex');

-- The hash of the last of the rows it is given, in order, starting from the beginning of all chains.
CREATE AGGREGATE audit.chain(
    sequence bigint, occurred_at timestamptz, actor text, action text, tenant_id uuid, payload jsonb
) (
    SFUNC = audit.record_hash,
    STYPE = text,
    INITCOND = '0000000000000000000000000000000000000000000000000000000000000000'
);

CREATE TABLE public.audit_logs (
    sequence bigint PRIMARY KEY,
    occurred_at timestamptz NOT NULL,
    actor varchar(200) NOT NULL,
    action varchar(64) NOT NULL,
    tenant_id uuid,
    payload jsonb NOT NULL DEFAULT '{}',
    prev_hash text NOT NULL CONSTRAINT audit_logs_prev_hash_is_sha256 CHECK (length(prev_hash) = 64),
    record_hash text NOT NULL CONSTRAINT audit_logs_record_hash_is_sha256 CHECK (length(record_hash) = 64)
);

CREATE FUNCTION audit.append() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    head public.audit_logs%ROWTYPE;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('public.audit_logs'));
    SELECT * INTO head FROM public.audit_logs ORDER BY sequence DESC LIMIT 1;
    NEW.sequence := coalesce(head.sequence, 0) + 1;
    NEW.prev_hash := coalesce(head.record_hash, repeat('0', 64));
    NEW.record_hash := audit.record_hash(
        NEW.prev_hash, NEW.sequence, NEW.occurred_at, NEW.actor, NEW.action, NEW.tenant_id, NEW.payload);
    RETURN NEW;
END
$$;

CREATE FUNCTION audit.refuse() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is append-only: % refused', TG_OP USING ERRCODE = 'insufficient_privilege';
END
$$;
