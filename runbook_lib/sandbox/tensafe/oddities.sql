-- Tables that look odd and are legal: what a backup tool meets sooner or later, and mostly in production.

-- No primary key, and exact duplicates: restored twice it simply has twice the rows, and nothing says so.
CREATE TABLE ops.heartbeats (
    host text NOT NULL,
    beat_at timestamptz NOT NULL,
    load float4 NOT NULL
);
INSERT INTO ops.heartbeats
SELECT 'gpu-' || i % 7, timestamptz '2026-01-01 00:00:00+00' + interval '1 minute' * (i / 70), (i / 70 % 4) / 4.0
FROM generate_series(0, pg_temp.rows(3000, 300) - 1) AS i;

CREATE TABLE ops.nothing_yet (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text);

-- Three rows, and not one column.
CREATE TABLE ops.no_columns ();
INSERT INTO ops.no_columns SELECT FROM generate_series(1, 3);

-- Has lost columns at its beginning, in its middle and at its end: attribute numbers differ after a restore.
CREATE TABLE ops.settings_history (gone_first integer, name text NOT NULL, gone_second text, value text, at timestamptz NOT NULL, gone_third jsonb);
INSERT INTO ops.settings_history
SELECT i, 'setting-' || i % 10, 'x', md5(i::text), timestamptz '2026-01-01 00:00:00+00' + interval '1 hour' * i, '{}' FROM generate_series(1, 500) AS i;
ALTER TABLE ops.settings_history DROP COLUMN gone_first, DROP COLUMN gone_second, DROP COLUMN gone_third;

-- A column added with a default that was never written into the old rows.
CREATE TABLE ops.feature_flags (id integer PRIMARY KEY, name text NOT NULL);
INSERT INTO ops.feature_flags SELECT i, 'flag-' || i FROM generate_series(1, 200) AS i;
ALTER TABLE ops.feature_flags ADD COLUMN enabled boolean NOT NULL DEFAULT true, ADD COLUMN rollout numeric DEFAULT 10.00;
INSERT INTO ops.feature_flags SELECT i, 'flag-' || i, false, 10.0 FROM generate_series(201, 220) AS i;

-- Values of several megabytes, kept out of line in ways of their own, and a statistics target.
CREATE TABLE ops.documents (
    id integer PRIMARY KEY,
    body text,
    raw bytea
);
ALTER TABLE ops.documents ALTER COLUMN body SET STATISTICS 500;
ALTER TABLE ops.documents ALTER COLUMN raw SET STORAGE EXTERNAL;
ALTER TABLE ops.documents ALTER COLUMN id SET (n_distinct = -1);
INSERT INTO ops.documents
SELECT i, repeat(md5(pg_temp.dice('document', i)::text), i * 100),
       (SELECT string_agg(sha256(int8send(pg_temp.dice('document.raw', i * 10000 + n))), '' ORDER BY n) FROM generate_series(1, i * 50) AS n)
FROM generate_series(1, 20) AS i;

CREATE UNLOGGED TABLE ops.session_cache (token uuid PRIMARY KEY, user_id bigint, data jsonb);
INSERT INTO ops.session_cache SELECT pg_temp.id('session', i), i, '{"cart": []}' FROM generate_series(1, 100) AS i;

-- Inheritance of the old kind; the child's columns stand in another order because one came later.
CREATE TABLE ops.incidents (id integer, title text NOT NULL, CONSTRAINT incidents_id_positive CHECK (id > 0), CONSTRAINT parents_only CHECK (id < 1000) NO INHERIT);
CREATE TABLE ops.security_incidents (severity smallint NOT NULL DEFAULT 3) INHERITS (ops.incidents);
ALTER TABLE ops.incidents ADD COLUMN opened_at timestamptz;
INSERT INTO ops.incidents SELECT i, 'incident ' || i, '2026-01-02 03:04:05.678901+00' FROM generate_series(1, 50) AS i;
INSERT INTO ops.security_incidents (id, title, severity) SELECT 1000 + i, 'breach ' || i, i % 4 FROM generate_series(1, 25) AS i;

-- Names that need quoting, in every way that careless quoting gets wrong.
CREATE TABLE ops."Odd ""name"" with 'quotes', %s and ünïcode; --" (
    "select" integer PRIMARY KEY,
    "Mixed Case" text,
    "percent %s {0} $1" text,
    "back\slash" text
);
INSERT INTO ops."Odd ""name"" with 'quotes', %s and ünïcode; --"
SELECT i, 'tab' || chr(9) || 'newline' || chr(10) || 'return' || chr(13), '\N', '\\.' FROM generate_series(1, 10) AS i;

-- What the event trigger writes to.
CREATE TABLE ops.ddl_history (id bigserial PRIMARY KEY, command text NOT NULL, object text, at timestamptz NOT NULL DEFAULT now());
INSERT INTO ops.ddl_history (command, object, at) VALUES ('CREATE TABLE', 'public.tenants', '2025-01-01 00:00:00+00');

-- Rows that a constraint added later does not accept; see constraints.sql.
CREATE TABLE ops.legacy_invoices (id integer PRIMARY KEY, number text NOT NULL DEFAULT ops.next_invoice(), amount money, tenant_id uuid);
INSERT INTO ops.legacy_invoices SELECT i, 'OLD-' || i, (i * 1.25)::numeric::money, pg_temp.id('nobody', i) FROM generate_series(1, 40) AS i;
