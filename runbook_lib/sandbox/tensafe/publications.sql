-- Publications. A subscriber whose publication came back without a table goes quiet, and nobody hears it.

CREATE PUBLICATION tensafe_usage FOR TABLE public.usage_events WITH (publish = 'insert', publish_via_partition_root = true);
CREATE PUBLICATION tensafe_people FOR TABLE public.users, ONLY ops.incidents WITH (publish = 'insert, truncate');
CREATE PUBLICATION tensafe_nothing;
