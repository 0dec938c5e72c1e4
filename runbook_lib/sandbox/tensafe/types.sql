-- One of each kind of type.

CREATE TYPE public.client_status AS ENUM ('created', 'running', 'failed', 'closed');
-- Added in the middle: the sort order becomes a fraction here, and a whole number after a restore.
ALTER TYPE public.client_status ADD VALUE 'paused' AFTER 'running';

CREATE TYPE public.event_kind AS ENUM ('forward_backward', 'optim_step', 'sample', 'save_state', 'load_state');
CREATE TYPE public.region AS ENUM ('us-east-1', 'us-west-2', 'eu-central-1');

CREATE DOMAIN public.slug AS varchar(63)
    CONSTRAINT slug_is_lower_case CHECK (VALUE ~ '^[a-z0-9-]+$')
    CONSTRAINT slug_is_not_reserved CHECK (VALUE NOT IN ('admin', 'root', 'system'));
CREATE DOMAIN public.positive_amount AS numeric(14, 4) DEFAULT 0 NOT NULL CHECK (VALUE >= 0);

CREATE TYPE public.postal_address AS (street text, city text, postcode varchar(10));

CREATE TYPE ops.price_range AS RANGE (SUBTYPE = numeric, MULTIRANGE_TYPE_NAME = ops.price_ranges);

CREATE COLLATION ops.code_point (PROVIDER = libc, LOCALE = 'C');

