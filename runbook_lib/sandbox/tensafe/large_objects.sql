-- Large objects are no table's rows; their numbers, unlike all others, are the same after a restore.

-- Several megabytes at scale 1.
SELECT lo_from_bytea(900001, string_agg(sha512(int8send(pg_temp.dice('large object', i))), '' ORDER BY i))
FROM generate_series(1, pg_temp.rows(65536, 100)) AS i;
SELECT lo_from_bytea(900002, convert_to('A model card for all clients.', 'UTF8'));
-- With a hole: no page of it exists, until a restore writes zeros there.
SELECT lo_from_bytea(900003, 'begin');
SELECT lo_put(900003, 100000, 'end');
-- Nothing in it at all.
SELECT lo_create(900004);

GRANT SELECT ON LARGE OBJECT 900001 TO tensafe_readonly;
GRANT SELECT, UPDATE ON LARGE OBJECT 900002 TO tensafe WITH GRANT OPTION;
COMMENT ON LARGE OBJECT 900001 IS 'Weights that somebody once put into the database';
UPDATE public.artifacts SET model_card = 900002 WHERE id IN (SELECT id FROM public.artifacts ORDER BY id LIMIT 5);
