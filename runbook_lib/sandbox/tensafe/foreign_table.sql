-- A table that is kept elsewhere: a restore brings its definition, and nobody may try to read it.

CREATE SERVER billing TYPE 'postgresql' VERSION '17' FOREIGN DATA WRAPPER elsewhere
    OPTIONS (host 'billing.tensafe.invalid', dbname 'billing', fetch_size '1000');
CREATE USER MAPPING FOR tensafe_readonly SERVER billing OPTIONS (user 'tensafe_readonly');
CREATE USER MAPPING FOR PUBLIC SERVER billing;
CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
CREATE FOREIGN TABLE ops.remote_invoices (
    id bigint OPTIONS (column_name 'invoice_id') NOT NULL,
    state varchar(10) CHECK (state IN ('open', 'paid')),
    total numeric DEFAULT 0
) SERVER billing OPTIONS (schema_name 'public', table_name 'invoices');
