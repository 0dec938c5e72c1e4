-- A comment on one of every kind of object.

COMMENT ON SCHEMA public IS 'The application''s tables';
COMMENT ON SCHEMA ops IS 'What operations needs; two lines
and a \backslash';
COMMENT ON TABLE public.tenants IS 'A customer';
COMMENT ON COLUMN public.tenants.balance IS 'In US dollars';
COMMENT ON TABLE ops."Odd ""name"" with 'quotes', %s and ünïcode; --" IS 'It''s "odd"';
COMMENT ON CONSTRAINT tenants_plan_known ON public.tenants IS 'See the price list';
COMMENT ON CONSTRAINT slug_is_lower_case ON DOMAIN public.slug IS 'Used in host names';
COMMENT ON INDEX public.futures_open IS 'What the workers poll';
COMMENT ON VIEW public.active_users IS 'Without those who left';
COMMENT ON COLUMN public.active_users.email IS 'Not case-sensitive';
COMMENT ON MATERIALIZED VIEW public.usage_by_month IS 'Refreshed at night';
COMMENT ON SEQUENCE ops.invoice_number IS 'Must never go back';
COMMENT ON FUNCTION audit.record_hash(text, bigint, timestamptz, text, text, uuid, jsonb) IS 'The one definition of the chain';
COMMENT ON AGGREGATE audit.chain(bigint, timestamptz, text, text, uuid, jsonb) IS 'The hash of the last row';
COMMENT ON PROCEDURE ops.close_client(uuid, integer) IS 'Idempotent';
COMMENT ON TYPE public.client_status IS 'In the order of a client''s life';
COMMENT ON DOMAIN public.slug IS 'A part of a host name';
COMMENT ON COLUMN public.postal_address.city IS 'As the post writes it';
COMMENT ON TRIGGER training_clients_touch ON public.training_clients IS 'Keeps updated_at';
COMMENT ON RULE settings_history_keep ON ops.settings_history IS 'History stays';
COMMENT ON POLICY artifacts_of_tenant ON public.artifacts IS 'Tenants are strangers to each other';
COMMENT ON STATISTICS public.training_clients_tenant_and_user IS 'A user has one tenant';
COMMENT ON COLLATION ops.code_point IS 'By code point';
COMMENT ON OPERATOR ops.=~= (public.postal_address, public.postal_address) IS 'In the same town';
COMMENT ON OPERATOR CLASS ops.absolute_value_ops USING btree IS 'Regardless of the sign';
COMMENT ON OPERATOR FAMILY ops.absolute_value USING btree IS 'Regardless of the sign, too';
COMMENT ON CAST (public.postal_address AS text) IS 'One line';
COMMENT ON TEXT SEARCH CONFIGURATION ops.model_names IS 'Models are names, not words';
COMMENT ON TEXT SEARCH DICTIONARY ops.as_written IS 'Without stemming';
COMMENT ON FOREIGN TABLE ops.remote_invoices IS 'Kept by billing';
