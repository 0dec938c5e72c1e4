-- What has to be noted outside the audit chain to see that its end is still there: how many rows, the first and the last
-- sequence, and the last hash. Of an empty chain only the count is given, 0; the rest is null.

SELECT
    (SELECT pg_catalog.count(*) FROM public.audit_logs) AS records,
    (SELECT pg_catalog.min(sequence) FROM public.audit_logs) AS first_sequence,
    head.sequence AS last_sequence,
    head.record_hash AS last_record_hash
FROM (SELECT) AS always
LEFT JOIN LATERAL (
    SELECT sequence, record_hash FROM public.audit_logs ORDER BY sequence DESC LIMIT 1
) AS head ON true
