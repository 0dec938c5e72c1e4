SELECT (SELECT system_identifier::text FROM pg_catalog.pg_control_system()) AS system_identifier,
       -- Which server and which database this is, for the copies of a cluster that keep its identifier.
       current_setting('cluster_name') AS cluster_name,
       current_database() AS database
