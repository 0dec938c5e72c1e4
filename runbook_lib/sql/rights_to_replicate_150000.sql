-- Whether the role of this session may have no trigger fire on what it does, as merges need it: it can be granted.
SELECT pg_catalog.has_parameter_privilege(current_user, 'session_replication_role', 'SET') AS may
