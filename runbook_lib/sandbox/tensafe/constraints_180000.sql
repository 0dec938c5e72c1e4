-- Since 18 there are virtual generated columns, constraints that nothing enforces, NOT NULL that is not yet valid, and
-- keys over periods of time.

CREATE TABLE ops.leases (
    worker integer NOT NULL,
    during tstzrange NOT NULL,
    note text,
    minutes numeric GENERATED ALWAYS AS (extract(epoch FROM upper(during) - lower(during)) / 60) VIRTUAL,
    CONSTRAINT leases_once_at_a_time PRIMARY KEY (worker, during WITHOUT OVERLAPS),
    CONSTRAINT leases_worker_known CHECK (worker < 50) NOT ENFORCED
);
INSERT INTO ops.leases (worker, during)
SELECT i, tstzrange(timestamptz '2026-01-01 00:00:00+00' + interval '1 hour' * i, timestamptz '2026-01-01 00:00:00+00' + interval '2 hours' * i + interval '1 hour')
FROM generate_series(1, 60) AS i;
ALTER TABLE ops.leases ADD CONSTRAINT leases_note_given NOT NULL note NOT VALID;
