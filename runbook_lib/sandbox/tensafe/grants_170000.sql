-- Since 17 maintenance is a privilege.

GRANT MAINTAIN ON public.futures, public.usage_by_month TO tensafe_migrator;
