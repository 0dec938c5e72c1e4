-- Partitioned by the hash of an enum. The hash of an enum's value is the hash of its internal number, which is another
-- after every restore: pg_dump loads such a table through its root, and the rows come to lie in other partitions than
-- before. Nothing is wrong then; only the whole can be compared, not the partitions one by one.

CREATE TABLE ops.notifications (
    id integer NOT NULL,
    kind public.event_kind NOT NULL,
    says text NOT NULL
) PARTITION BY HASH (kind);

CREATE TABLE ops.notifications_0 PARTITION OF ops.notifications FOR VALUES WITH (MODULUS 3, REMAINDER 0);
CREATE TABLE ops.notifications_1 PARTITION OF ops.notifications FOR VALUES WITH (MODULUS 3, REMAINDER 1);
CREATE TABLE ops.notifications_2 PARTITION OF ops.notifications FOR VALUES WITH (MODULUS 3, REMAINDER 2);

INSERT INTO ops.notifications
SELECT i, (enum_range(NULL::public.event_kind))[1 + i % 5], 'notification ' || i FROM generate_series(1, 100) AS i;
