"""Rows and values that are not what they were (rows 8 and 9 of the catalogue, and large objects of row 20).

Every one of them but the lost and doubled rows leaves all counts as they were: whoever counts rows finds none of them.
"""

from __future__ import annotations

from tests.detection.mutation import Mutation, mutation


def _rows(name: str, sql: str, table: str, *others: str) -> Mutation:
    return mutation(8, name, sql, f"content.rows {table}", f"content.hash {table}", *others)


def _value(name: str, sql: str, table: str) -> Mutation:
    return mutation(9, name, sql, f"content.hash {table}")


def _typed(name: str, assignment: str, row_id: int = 1) -> Mutation:
    """One value of the table that has a column of every type."""
    return _value(
        f"value of type {name}", f"UPDATE ops.every_type SET {assignment} WHERE id = {row_id}", "ops.every_type"
    )


ROWS = (
    _rows("all rows of a table lost", "TRUNCATE public.training_windows", "public.training_windows"),
    _rows("one row lost", "DELETE FROM public.futures WHERE id = 7", "public.futures"),
    _rows(
        "the last tenth of a table lost",
        "DELETE FROM public.artifacts WHERE ctid IN (SELECT ctid FROM public.artifacts ORDER BY id DESC LIMIT 24)",
        "public.artifacts",
    ),
    _rows(
        "one row doubled where no key forbids it",
        "INSERT INTO ops.heartbeats SELECT * FROM ops.heartbeats LIMIT 1",
        "ops.heartbeats",
    ),
    _rows(
        "a table restored twice where no key forbids it",
        "INSERT INTO ops.heartbeats SELECT * FROM ops.heartbeats",
        "ops.heartbeats",
    ),
    _rows(
        "one of several equal rows lost",
        "DELETE FROM ops.heartbeats WHERE ctid = (SELECT ctid FROM ops.heartbeats ORDER BY host, beat_at LIMIT 1)",
        "ops.heartbeats",
    ),
    _rows(
        "a row of a table without columns lost", "DELETE FROM ops.no_columns WHERE ctid = '(0,1)'", "ops.no_columns"
    ),
    _rows(
        "a row in an empty table", "INSERT INTO ops.nothing_yet (note) OVERRIDING SYSTEM VALUE VALUES ('x')",
        "ops.nothing_yet", "sequence.position ops.nothing_yet_id_seq",
    ),
    _rows(
        "an unlogged table came back empty", "TRUNCATE ops.session_cache", "ops.session_cache"
    ),
    _rows("rows of a parent table lost", "DELETE FROM ONLY ops.incidents WHERE id = 3", "ops.incidents"),
    _rows(
        "a partition came back empty", "TRUNCATE public.usage_events_2025_11", "public.usage_events_2025_11",
        "content.materialized_view public.usage_by_month",
    ),
    _rows(
        "a row of a hash-partitioned table lost", "DELETE FROM ops.notifications WHERE id = 12", "ops.notifications"
    ),
    mutation(
        8, "a row in the wrong partition",
        """UPDATE pg_class SET relispartition = false WHERE oid = 'public.usage_events_other'::regclass;
        WITH moved AS (DELETE FROM public.usage_events_2025_10 WHERE ctid = '(0,1)' RETURNING *)
        INSERT INTO public.usage_events_other (id, tenant_id, occurred_at, region, kind, quantity, unit_price, detail)
        SELECT id, tenant_id, occurred_at, region, kind, quantity, unit_price, detail FROM moved;
        UPDATE pg_class SET relispartition = true WHERE oid = 'public.usage_events_other'::regclass""",
        *(f"content.{what} public.usage_events_{part}" for what in ("rows", "hash") for part in ("2025_10", "other")),
    ),
    mutation(
        7, "a table lost", "DROP TABLE ops.settings_history CASCADE",
        "content.table ops.settings_history", "catalog.table ops.settings_history",
        also=("catalog.* *ops.settings_history*",),
    ),
    mutation(
        7, "a table too many", "CREATE TABLE public.left_over (id integer)",
        "content.table public.left_over", "catalog.table public.left_over", also=("catalog.* *public.left_over*",),
    ),
)  # fmt: skip

VALUES = (
    _value("an integer one higher", "UPDATE public.training_clients SET step = step + 1 WHERE ctid = '(0,1)'",
           "public.training_clients"),
    _value("one letter of a text",
           "UPDATE public.tenants SET name = overlay(name placing '~' from 1) WHERE number = 110",
           "public.tenants"),
    _value("a blank at the end of a text", "UPDATE public.tenants SET name = name || ' ' WHERE number = 110",
           "public.tenants"),
    _value("a flag", "UPDATE ops.feature_flags SET enabled = NOT enabled WHERE id = 220", "ops.feature_flags"),
    _value("a default that was never written into old rows",
           "UPDATE ops.feature_flags SET rollout = 10.0 WHERE id = 1", "ops.feature_flags"),
    _value("the values of one column swapped between two rows",
           "UPDATE ops.feature_flags SET name = CASE id WHEN 1 THEN 'flag-2' ELSE 'flag-1' END WHERE id IN (1, 2)",
           "ops.feature_flags"),
    _value("the values of one column turned round three rows",
           "UPDATE ops.feature_flags SET name = 'flag-' || (ARRAY[2, 3, 1])[id] WHERE id <= 3", "ops.feature_flags"),
    _value("the values of two columns swapped in one row",
           "UPDATE ops.settings_history SET name = value, value = name WHERE value = md5('1')", "ops.settings_history"),
    _value("a value moved to a column that was NULL",
           "UPDATE ops.every_type SET a_text = NULL, a_varchar = '%s' WHERE id = 4; UPDATE ops.every_type SET"
           " a_name = '%s', a_varchar = NULL WHERE id = 4", "ops.every_type"),
    _value("a duplicate instead of a missing row",
           """UPDATE ops.heartbeats SET (host, beat_at, load) = (SELECT host, beat_at, load FROM ops.heartbeats
           ORDER BY host LIMIT 1) WHERE ctid = (SELECT ctid FROM ops.heartbeats ORDER BY host DESC LIMIT 1)""",
           "ops.heartbeats"),
    _value("the order of a sum kept: one up, one down",
           "UPDATE public.artifacts SET size_bytes = size_bytes + CASE id WHEN (SELECT min(id::text) FROM"
           " public.artifacts)::uuid THEN 1 ELSE -1 END WHERE id::text IN (SELECT id::text FROM public.artifacts"
           " ORDER BY 1 LIMIT 2)", "public.artifacts"),
    _value("an empty bytea instead of NULL",
           "UPDATE public.artifacts SET key_envelope = '' WHERE ctid = (SELECT ctid FROM public.artifacts"
           " WHERE key_envelope IS NULL LIMIT 1)", "public.artifacts"),
    _value("NULL instead of an empty text", "UPDATE ops.every_type SET a_text = NULL WHERE id = 2", "ops.every_type"),
    _value("the text NULL instead of NULL", "UPDATE ops.every_type SET a_varchar = 'NULL' WHERE id = 5",
           "ops.every_type"),
    _value("a moment one microsecond later",
           "UPDATE ops.incidents SET opened_at = opened_at + interval '1 us' WHERE id = 9", "ops.incidents"),
    _value("a byte deep in a value kept out of line",
           "UPDATE ops.documents SET raw = set_byte(raw, 20000, get_byte(raw, 20000) # 1) WHERE id = 20",
           "ops.documents"),
    _value("case of a citext", "UPDATE public.users SET email = upper(email::text) WHERE id = 5", "public.users"),
    _value("a value of an hstore",
           "UPDATE public.tenants SET settings = 'tier=>9'::extensions.hstore WHERE number = 120", "public.tenants"),
    _value("a field of a composite", "UPDATE public.tenants SET address.postcode = '99999' WHERE address IS NOT NULL"
           " AND number = 110", "public.tenants"),
    _value("a text in a hash-partitioned table", "UPDATE ops.notifications SET says = 'x' WHERE id = 5",
           "ops.notifications"),
    _value("white space in a json",
           "UPDATE public.futures SET request = (request::text || ' ')::json WHERE id = 9", "public.futures"),
    _value("a foreign key that points to another row",
           "UPDATE public.users SET invited_by = 2 WHERE id = 20", "public.users"),
    _value("names that need quoting",
           """UPDATE ops."Odd ""name"" with 'quotes', %s and ünïcode; --" SET "back\\slash" = '\\.'
           WHERE "select" = 1""",
           """ops."Odd ""name"" with 'quotes', %s and ünïcode; --\""""),
)  # fmt: skip

TYPES = (
    _typed("boolean, NULL for false", "a_bool = NULL", 2),
    _typed("smallint", "an_int2 = 2"),
    _typed("bigint", "an_int8 = an_int8 - 1", 3),
    _typed("real, the last bit", "a_float4 = 1.1000001"),
    _typed("double precision, -0 for 0", "a_float8 = '-0'"),
    _typed("double precision, the last bit", "a_float8 = 0.3", 4),
    _typed("double precision, NaN for NULL", "a_float8 = NULL", 2),
    _typed("numeric, 1.00 for 1.0", "a_numeric = 1.00"),
    _typed("numeric, 1.0 for 1.00", "a_numeric = 1.0", 2),
    _typed("numeric, NaN for a number", "a_numeric = 'NaN'", 9),
    _typed("money, one cent", "a_money = '1.51'"),
    _typed("text, a backslash", r"a_text = 'N'", 4),
    _typed("varchar", "a_varchar = 'Varchar'"),
    _typed("char(n)", "a_bpchar = 'pat'"),
    _typed('"char"', "a_char = 'd'"),
    _typed("name", "a_name = 'nane'"),
    _typed("citext, case", "a_citext = 'citext'"),
    _typed("bytea, one bit", r"a_bytea = '\x01ff5c27'"),
    _typed("bit", "a_bit = B'10101011'"),
    _typed("bit varying, a zero at its end", "a_varbit = B'1010'"),
    _typed("uuid", "a_uuid = '00000000-0000-0000-0000-000000000009'"),
    _typed("date", "a_date = '2026-01-02'"),
    _typed("date, BC", "a_date = '0044-03-15'", 3),
    _typed("time, 24:00 for 00:00", "a_time = '00:00'", 2),
    _typed("time with time zone, the same moment elsewhere", "a_timetz = '11:00+01'"),
    _typed("timestamp", "a_timestamp = '2026-01-01 12:00:00.000001'"),
    _typed("timestamp with time zone, infinity", "a_timestamptz = 'infinity'", 2),
    _typed("interval, 24 hours for 1 day", "an_interval = '48 hours'", 4),
    _typed("interval, 30 days for 1 month", "an_interval = '30 days'"),
    _typed("json, the order of keys", """a_json = '{"a": 1.0, "b": 1}'"""),
    _typed("json, a key twice", """a_json = '{"b": 1,  "a": 1.0, "a": 1.0}'"""),
    _typed("jsonb, 1.00 for 1.0", """a_jsonb = '{"b": 1, "a": 1.00}'"""),
    _typed("jsonb, null for NULL", "a_jsonb = NULL", 3),
    _typed("jsonpath", "a_jsonpath = '$.a[*] ? (@ > 1.1)'"),
    _typed("hstore, a NULL for a missing key", "an_hstore = 'a=>1'::extensions.hstore"),
    _typed("inet, the netmask", "an_inet = '10.0.0.1/16'"),
    _typed("cidr", "a_cidr = '10.0.0.0/9'"),
    _typed("macaddr", "a_macaddr = '08:00:2b:01:02:04'"),
    _typed("pg_lsn", "a_pg_lsn = '16/B374D849'"),
    _typed("oid", "an_oid = 900002"),
    _typed("regclass", "a_regclass = 'public.users'"),
    _typed("point, -0 for 0", "a_point = '(1,0)'"),
    _typed("box", "a_box = '(1,1),(0,0.5)'"),
    _typed("lseg, the other way round", "a_lseg = '[(1,1),(0,0)]'"),
    _typed("path, open for closed", "a_path = '[(0,0),(1,1)]'"),
    _typed("polygon", "a_polygon = '((0,0),(1,1),(1,0.1))'"),
    _typed("circle", "a_circle = '<(0,0),2>'"),
    _typed("line", "a_line = '{1,-1,1}'"),
    _typed("tsvector, a weight", "a_tsvector = 'a:1 fat:2A'"),
    _typed("tsquery", "a_tsquery = 'fat & (rat & cat)'"),
    _typed("enum", "an_enum = 'running'"),
    _typed("array of enums", "an_enum_array = '{created,paused}'"),
    _typed("domain", "a_domain = 'a-slug2'"),
    _typed("composite, '' for NULL", "a_composite = ROW('', '', '')", 2),
    _typed("range, a bound", "a_range = '(1.0,2.0)'"),
    _typed("range, the scale of a bound", "a_range = '[1.00,2.0)'"),
    _typed("multirange", "a_multirange = '{[1.0,2.0)}'"),
    _typed("integer range", "an_int4range = '[1,6)'"),
    _typed("date range, infinite", "a_daterange = '[2026-01-01,infinity)'"),
    _typed("array, its shape", "an_int_array = '{{1,2},{3,4}}'"),
    _typed("array, its lower bound", "a_bounded_array = '{1,2,3,4}'"),
    _typed("array of text, the text NULL", """a_text_matrix = '{{"NULL"}}'""", 3),
    _typed("array of numeric, a scale", "a_numeric_array = '{1.00,1.00}'"),
    _typed("array of composites", "a_composite_array = ARRAY['(s,c,2)'::public.postal_address]"),
    _typed("array of points, -0 for 0", "a_point_array = ARRAY[point '(0,0)']"),
    _typed("xml, white space", "an_xml = xml '<tenant id=\"1\"> <name>A &amp; B</name></tenant>'"),
)

LARGE_OBJECTS = tuple(
    mutation(20, f"large object: {name}", sql, "content.large_objects pg_largeobject", *more)
    for name, sql, *more in (
        ("one byte", "SELECT lo_put(900002, 3, 'x')"),
        ("cut short", "SELECT lo_truncate(lo_open(900002, 131072), 5)"),
        ("a zero byte more", r"SELECT lo_put(900004, 0, '\x00')"),
        ("a byte in its hole", "SELECT lo_put(900003, 50000, 'x')"),
        ("the contents of two swapped",
         "UPDATE pg_largeobject SET loid = 1 WHERE loid = 900002;"
         " UPDATE pg_largeobject SET loid = 900002 WHERE loid = 900003;"
         " UPDATE pg_largeobject SET loid = 900003 WHERE loid = 1"),
        ("lost", "SELECT lo_unlink(900004)", "catalog.large_object 900004", "catalog.grant large object 900004"),
        ("one too many", "SELECT lo_create(900005)", "catalog.large_object 900005",
         "catalog.grant large object 900005"),
    )
)  # fmt: skip

CONTENT = (*ROWS, *VALUES, *TYPES, *LARGE_OBJECTS)
