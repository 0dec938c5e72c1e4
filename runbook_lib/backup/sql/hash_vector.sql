-- What this server's hash functions make of a fixed value of every type that is hashed natively. Two servers that
-- disagree here cannot be compared by hash: their contents are then unproven, not different.
SELECT pg_catalog.hashcharextended('x'::"char", pg_catalog.hashint2extended(1::int2, pg_catalog.hashint4extended(2,
       pg_catalog.hashint8extended(-4294967296, pg_catalog.hashfloat4extended(0.1::float4,
       pg_catalog.hashfloat8extended(0.1::float8, pg_catalog.hashbpcharextended('ab '::bpchar COLLATE "C",
       pg_catalog.hashoidextended(4::oid, pg_catalog.hashnameextended('name'::name,
       pg_catalog.hashtextextended('Grüße' COLLATE "C",
       pg_catalog.uuid_hash_extended('0f6e6f1e-0000-4000-8000-000000000001'::uuid,
       pg_catalog.hashinetextended(inet '10.0.0.1/8',
       pg_catalog.hash_array_extended(ARRAY[
           '\x00ff'::bytea, pg_catalog.date_send('2026-01-31'), pg_catalog.macaddr_send('08:00:2b:01:02:03'),
           pg_catalog.timestamptz_send('2026-01-31 01:02:03+00'), pg_catalog.interval_send('1 mon 2 days'),
           pg_catalog.numeric_send(-1234.5600), NULL::bytea
       ], 0)))))))))))))::text AS hash
