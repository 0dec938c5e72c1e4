-- What this server's hash functions make of a fixed value of every type that is hashed natively. Two servers that
-- disagree here cannot be compared by hash: their contents are then unproven, not different.
SELECT pg_catalog.hashint8extended(pg_catalog.hash_record_extended(ROW (
           true, 'x'::"char", 1::int2, 2::int4, 3::int8, 4::oid, 'name'::name, 'Grüße'::text COLLATE "C",
           '\x00ff'::bytea, '0f6e6f1e-0000-4000-8000-000000000001'::uuid, date '2026-01-31', time '01:02:03.456789',
           timestamp '2026-01-31 01:02:03', timestamptz '2026-01-31 01:02:03+00', time with time zone '01:02:03+02',
           inet '10.0.0.1/8', cidr '10.0.0.0/8', macaddr '08:00:2b:01:02:03', pg_lsn '16/B374D848', NULL::text
       ), 0), 0)::text AS hash
