-- A table with a column of every type that somebody's comparison treats wrongly: without a hash function (json, point,
-- bit, tsvector, money), equal though different as text (numeric scale, -0, interval, citext, bpchar, array bounds), or
-- different inside though equal as text after a restore (enum, regclass).

CREATE TABLE ops.every_type (
    id integer PRIMARY KEY,
    a_bool boolean, an_int2 int2, an_int8 int8, a_float4 float4, a_float8 float8, a_numeric numeric, a_scaled_numeric numeric(10, 2), a_money money,
    a_text text, a_varchar varchar(30), a_bpchar char(8), a_char "char", a_name name, a_citext extensions.citext,
    a_bytea bytea, a_bit bit(8), a_varbit varbit, a_uuid uuid,
    a_date date, a_time time, a_timetz timetz, a_timestamp timestamp, a_timestamptz timestamptz, an_interval interval,
    a_json json, a_jsonb jsonb, a_jsonpath jsonpath, an_hstore extensions.hstore,
    an_inet inet, a_cidr cidr, a_macaddr macaddr, a_pg_lsn pg_lsn, an_oid oid, a_regclass regclass,
    a_point point, a_box box, a_lseg lseg, a_path path, a_polygon polygon, a_circle circle, a_line line,
    a_tsvector tsvector, a_tsquery tsquery,
    an_enum public.client_status, an_enum_array public.client_status[], a_domain public.slug, a_composite public.postal_address,
    a_range ops.price_range, a_multirange ops.price_ranges, an_int4range int4range, a_daterange daterange,
    an_int_array int[], a_text_matrix text[][], a_bounded_array int[], a_numeric_array numeric[], a_composite_array public.postal_address[], a_point_array point[]
);

INSERT INTO ops.every_type VALUES
(1, true, 1, 1, 1.1, -0.0, 1.0, 1, 1.5, 'text', 'varchar', 'pad', 'c', 'name', 'CiTeXt', '\x00ff5c27', B'10101010', B'101', '00000000-0000-0000-0000-000000000001',
 '2026-01-01', '12:00', '12:00+02', '2026-01-01 12:00', '2026-01-01 12:00+00', '1 mon',
 '{"b": 1,  "a": 1.0}', '{"b": 1, "a": 1.0}', '$.a[*] ? (@ > 1.0)', 'a=>1, b=>NULL', '10.0.0.1/8', '10.0.0.0/8', '08:00:2b:01:02:03', '16/B374D848', 900001, 'public.tenants',
 '(1,-0)', '(1,1),(0,0)', '[(0,0),(1,1)]', '((0,0),(1,1))', '((0,0),(1,1),(1,0))', '<(0,0),1>', '{1,-1,0}',
 'a:1 fat:2B', 'fat & (rat | cat)', 'paused', '{paused,created}', 'a-slug', '(street,city,1)', '[1.0,2.0)', '{[1.0,2.0),[3.00,4.00)}', '[1,5)', '[2026-01-01,)',
 '{1,2,3,4}', '{{a,b},{c,d}}', '[0:3]={1,2,3,4}', '{1.0,1.00}', ARRAY['(s,c,1)'::public.postal_address], ARRAY[point '(0,-0)']),
(2, false, -1, -1, 'NaN', 'NaN', 1.00, 1.00, -1.5, '', '', '', '', '', 'citext', '', B'00000000', B'', '00000000-0000-0000-0000-000000000002',
 'infinity', '24:00', '12:00-15:59', 'infinity', '-infinity', '30 days',
 '{"a": 1.00, "b": 1}', '{"a": 1.00, "b": 1}', 'strict $', '', '::1/128', '::/0', 'ff:ff:ff:ff:ff:ff', '0/0', 0, 'pg_catalog.pg_class',
 '(1,0)', '(0,0),(0,0)', '[(1,1),(0,0)]', '[(0,0),(1,1)]', '((0,0))', '<(1,1),0>', '{0,1,0}',
 '', '', 'created', '{}', NULL, '(,,)', 'empty', '{}', 'empty', '(,2026-01-01)',
 '{{1,2},{3,4}}', '{}', '{1,2,3,4}', '{NaN,NULL}', ARRAY[]::public.postal_address[], NULL),
(3, NULL, 32767, 9223372036854775807, 'Infinity', 'Infinity', 'NaN', 'NaN', 0, E'tab\tnewline\nquote''"\\ 東京 ☃', 'ä', 'ä', 'z', 'n', 'ÄÖÜ', '\x5c5c', B'11111111', B'111', NULL,
 '0044-03-15 BC', '23:59:59.999999', '00:00+00', '0044-03-15 00:00:00 BC', '294276-12-31 23:59:59.999999+00', '-1 years +2 days -00:00:00.000001',
 'null', 'null', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
 '(NaN,Infinity)', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, ROW(NULL, '"', '\'), '(,)', '{(,)}', '(,)', '(,)',
 '{NULL}', '{{NULL}}', '[-1:-1]={7}', '{}', NULL, '{}'),
(4, NULL, -32768, -9223372036854775808, 1e-45, 0.1::float8 + 0.2::float8, 1e100, 99999999.99, 92233720368547758.07, '\N', '\.', '\', E'\\', '%s', NULL, NULL, NULL, NULL, NULL,
 '4713-01-01 BC', '00:00', NULL, '1970-01-01 00:00:00.000001', '1900-01-01 00:00+00', '1 day 24:00',
 '[1, 2, {"a": "\u00e9\n"}, "1.0"]', '[1, 2, {"a": "\u00e9\n"}, "1.0"]', NULL, '"quote\""=>"=>"', NULL, NULL, NULL, NULL, 4294967295, NULL,
 NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO ops.every_type (id, a_numeric, a_float8, an_interval)
SELECT i, pg_temp.dice('every.numeric', i)::numeric / 10 ^ (i % 20), pg_temp.dice('every.float8', i)::float8 / 3, interval '1 us' * (pg_temp.dice('every.interval', i) % 1000000000000000)
FROM generate_series(5, 200) AS i;
