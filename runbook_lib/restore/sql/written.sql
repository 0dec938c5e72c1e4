-- How many rows were written in this database since its statistics began, as the sessions have told so far.
SELECT tup_inserted + tup_updated + tup_deleted FROM pg_catalog.pg_stat_database WHERE datname = current_database()
