-- Since 15 a view may look at its tables with its reader's rights.

CREATE VIEW public.my_artifacts WITH (security_invoker) AS
    SELECT id, object_key, size_mib FROM public.artifacts;
