-- Since 15 a publication chooses rows and columns.

CREATE PUBLICATION tensafe_finished FOR TABLE
    public.futures (id, status, created_at) WHERE (status = 'completed' OR status = 'failed'),
    public.tenants WHERE (plan <> 'free')
    WITH (publish = 'insert');
