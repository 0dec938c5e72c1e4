-- Extensions that the application's owner created itself, as is usual since they are "trusted". No dump holds the owner
-- of an extension: after a restore they belong to whoever restored.

CREATE EXTENSION pg_trgm WITH SCHEMA extensions;
CREATE EXTENSION btree_gist WITH SCHEMA extensions;
CREATE EXTENSION citext WITH SCHEMA extensions;
CREATE EXTENSION hstore WITH SCHEMA extensions;
