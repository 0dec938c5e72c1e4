-- Sequences that no column owns. Tools that look only at owned ones, or only at last_value, miss what matters here.

-- Set aside and never used: the next value is 1000, not 1001, because is_called is false.
CREATE SEQUENCE ops.invoice_number START WITH 1000 CACHE 10;
SELECT setval('ops.invoice_number', 1000, false);

-- Runs downwards in steps of two, and starts again.
CREATE SEQUENCE ops.shard_turn AS smallint INCREMENT BY -2 MINVALUE -10 MAXVALUE 10 START WITH 10 CYCLE;
SELECT nextval('ops.shard_turn') FROM generate_series(1, 14);

-- Far beyond what 32 bits hold.
CREATE SEQUENCE ops.ledger_entry AS bigint START WITH 5000000000;
SELECT setval('ops.ledger_entry', 5000123456, true);
