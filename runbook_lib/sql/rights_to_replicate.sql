-- Whether the role of this session may have no trigger fire on what it does, as merges need it: superusers alone.
SELECT r.rolsuper AS may FROM pg_catalog.pg_roles r WHERE r.rolname = current_user
