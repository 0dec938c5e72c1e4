-- The broken links of the audit chain, one row each: sequence, problem, expected, found. An unbroken chain gives none.
--
-- TenSafe's audit_logs is append-only. Every row carries its place in the sequence, the hash of the row before it, and
-- its own: the sha256, in hexadecimal, of seven fields as text, each preceded by its length in characters and a colon,
-- a missing one written as a lone '-'. In order: sequence; occurred_at in UTC as 2026-01-01T00:00:00.000000Z; actor;
-- action; tenant_id; payload; prev_hash. The first row has sequence 1 and a prev_hash of 64 zeros.
--
-- Only PostgreSQL's own functions are called: a restored database is not asked to prove itself by functions that were
-- restored with it. The session's search_path has to be empty or pg_catalog, for the sake of the operators.
--
-- Found are a row gone from the middle or from the beginning, a row put in, changed contents, rows that changed places.
-- NOT found, because what is left is a perfect chain, are rows gone from the END, or a chain that was replaced as a
-- whole: those show only against what was noted elsewhere, the count and the last hash that audit_chain_head.sql gives
-- and the backup's manifest keeps.

WITH link AS (
    SELECT
        sequence,
        prev_hash,
        record_hash,
        pg_catalog.row_number() OVER chain AS place,
        pg_catalog.lag(sequence) OVER chain AS sequence_before,
        pg_catalog.lag(record_hash) OVER chain AS hash_before,
        pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(
               coalesce(pg_catalog.length(sequence::text) || ':' || sequence::text, '-')
            || coalesce(pg_catalog.length(at.utc) || ':' || at.utc, '-')
            || coalesce(pg_catalog.length(actor::text) || ':' || actor::text, '-')
            || coalesce(pg_catalog.length(action::text) || ':' || action::text, '-')
            || coalesce(pg_catalog.length(tenant_id::text) || ':' || tenant_id::text, '-')
            || coalesce(pg_catalog.length(payload::text) || ':' || payload::text, '-')
            || coalesce(pg_catalog.length(prev_hash::text) || ':' || prev_hash::text, '-'),
            'UTF8')), 'hex') AS computed_hash
    FROM public.audit_logs
    CROSS JOIN LATERAL (
        SELECT pg_catalog.to_char(occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS utc
    ) AS at
    WINDOW chain AS (ORDER BY sequence)
)
SELECT sequence, problem, expected, found
FROM link
CROSS JOIN LATERAL (
    SELECT
        CASE
            WHEN place = 1 AND sequence IS DISTINCT FROM 1 THEN 'the beginning is missing'
            WHEN place = 1 AND prev_hash IS DISTINCT FROM pg_catalog.repeat('0', 64) THEN 'the first row follows on something'
            WHEN place > 1 AND sequence IS DISTINCT FROM sequence_before + 1 THEN 'a gap in the sequence'
            WHEN place > 1 AND prev_hash IS DISTINCT FROM hash_before THEN 'it does not follow on the row before'
            WHEN record_hash IS DISTINCT FROM computed_hash THEN 'its contents are not what was hashed'
        END AS problem
) AS judged
CROSS JOIN LATERAL (
    SELECT
        CASE problem
            WHEN 'the beginning is missing' THEN '1'
            WHEN 'the first row follows on something' THEN pg_catalog.repeat('0', 64)
            WHEN 'a gap in the sequence' THEN (sequence_before + 1)::text
            WHEN 'it does not follow on the row before' THEN hash_before
            ELSE computed_hash
        END AS expected,
        CASE problem
            WHEN 'the beginning is missing' THEN sequence::text
            WHEN 'the first row follows on something' THEN prev_hash
            WHEN 'a gap in the sequence' THEN sequence::text
            WHEN 'it does not follow on the row before' THEN prev_hash
            ELSE record_hash
        END AS found
) AS evidence
WHERE problem IS NOT NULL
ORDER BY sequence
