-- Since 17 PostgreSQL brings collations of its own, free of the operating system's.

CREATE COLLATION ops.builtin_utf8 (PROVIDER = builtin, LOCALE = 'C.UTF-8');
