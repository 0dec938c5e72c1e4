-- One of each kind of routine, and an operator and a cast made of them.

CREATE FUNCTION public.tenant_of_session() RETURNS uuid
LANGUAGE sql STABLE PARALLEL SAFE COST 1
AS $$ SELECT nullif(pg_catalog.current_setting('app.tenant_id', true), '')::pg_catalog.uuid $$;

-- Its body is kept parsed, not as text: it is written anew by whoever dumps it, and depends on what it names.
CREATE FUNCTION public.open_futures(tenant uuid) RETURNS bigint
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT count(*)
    FROM public.futures AS f
    JOIN public.training_clients AS c ON c.id = f.training_client_id
    WHERE c.tenant_id = tenant AND f.status IN ('pending', 'running');
END;

CREATE FUNCTION public.usage_of(tenant uuid, since timestamptz DEFAULT '2026-01-01 00:00:00+00', VARIADIC kinds text[] DEFAULT '{}')
RETURNS TABLE (kind text, quantity numeric)
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 4 SET search_path = pg_catalog SET work_mem = '16MB'
AS $$
BEGIN
    RETURN QUERY
        SELECT u.kind::text, sum(u.quantity) FROM public.usage_events AS u
        WHERE u.tenant_id = tenant AND u.occurred_at >= since AND (kinds = '{}' OR u.kind = ANY (kinds))
        GROUP BY u.kind;
END
$$;

CREATE PROCEDURE ops.close_client(IN client uuid, INOUT closed integer DEFAULT 0)
LANGUAGE plpgsql
AS $$
BEGIN
    UPDATE public.training_clients SET status = 'closed' WHERE id = client;
    GET DIAGNOSTICS closed = ROW_COUNT;
END
$$;

CREATE FUNCTION ops.either(anyelement, anyelement) RETURNS anyelement
LANGUAGE sql IMMUTABLE
AS $$ SELECT coalesce($1, $2) $$;
CREATE AGGREGATE ops.first_known(anyelement) (SFUNC = ops.either, STYPE = anyelement, COMBINEFUNC = ops.either, PARALLEL = SAFE);

CREATE FUNCTION ops.same_place(public.postal_address, public.postal_address) RETURNS boolean
LANGUAGE sql IMMUTABLE STRICT
RETURN ($1).city = ($2).city AND ($1).postcode = ($2).postcode;
CREATE OPERATOR ops.=~= (LEFTARG = public.postal_address, RIGHTARG = public.postal_address, FUNCTION = ops.same_place, COMMUTATOR = OPERATOR(ops.=~=), RESTRICT = eqsel);

CREATE FUNCTION ops.as_one_line(public.postal_address) RETURNS text
LANGUAGE sql IMMUTABLE STRICT
RETURN concat_ws(', ', ($1).street, ($1).postcode, ($1).city);
CREATE CAST (public.postal_address AS text) WITH FUNCTION ops.as_one_line(public.postal_address) AS ASSIGNMENT;

CREATE FUNCTION ops.by_absolute_value(integer, integer) RETURNS integer
LANGUAGE sql IMMUTABLE STRICT
RETURN abs($1) - abs($2);
