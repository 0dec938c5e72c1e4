-- Pseudo-random values that depend on the seed, a name and a number, and on nothing else: not on the clock, the order
-- of evaluation, or the build's random generator. They live in pg_temp, so that nothing of them is left behind.
-- The seed and the scale arrive as the settings building.seed and building.scale.

CREATE FUNCTION pg_temp.dice(what text, i bigint) RETURNS bigint LANGUAGE sql STABLE
RETURN hashtextextended(current_setting('building.seed') || what, i) & 9223372036854775807;

CREATE FUNCTION pg_temp.below(what text, i bigint, bound integer) RETURNS integer LANGUAGE sql STABLE
RETURN (pg_temp.dice(what, i) % bound)::integer;

CREATE FUNCTION pg_temp.one_of(what text, i bigint, choices text[]) RETURNS text LANGUAGE sql STABLE
RETURN choices[1 + pg_temp.below(what, i, cardinality(choices))];

CREATE FUNCTION pg_temp.id(what text, i bigint) RETURNS uuid LANGUAGE sql STABLE
RETURN md5(current_setting('building.seed') || what || i)::uuid;

-- A moment of the half year around the epoch of this database, 2026-01-01: it grows with i out of n, with some jitter.
CREATE FUNCTION pg_temp.moment(i bigint, n bigint) RETURNS timestamptz LANGUAGE sql STABLE
RETURN timestamptz '2025-10-01 00:00:00+00'
    + interval '1 microsecond' * ((i::float8 / n) * 15638400e6 + pg_temp.below('moment', i, 1000000))::bigint;

-- So many rows at this scale; small scales keep at least some of everything.
CREATE FUNCTION pg_temp.rows(at_scale_one integer, at_least integer) RETURNS bigint LANGUAGE sql STABLE
RETURN greatest(at_least, round(at_scale_one * current_setting('building.scale')::numeric))::bigint;
