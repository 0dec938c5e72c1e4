-- A text search configuration with a dictionary of its own.

CREATE TEXT SEARCH DICTIONARY ops.as_written (TEMPLATE = pg_catalog.simple, ACCEPT = true);
CREATE TEXT SEARCH CONFIGURATION ops.model_names (PARSER = pg_catalog.default);
ALTER TEXT SEARCH CONFIGURATION ops.model_names ADD MAPPING FOR asciiword, word, numword, hword WITH ops.as_written, pg_catalog.simple;
