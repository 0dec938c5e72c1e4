-- Not a trusted extension: a superuser creates it. The grant on its wrapper is a change to what the extension made.

CREATE EXTENSION file_fdw WITH SCHEMA extensions;
GRANT USAGE ON FOREIGN DATA WRAPPER file_fdw TO tensafe_owner;

-- A wrapper without a library behind it: enough for definitions, and nothing can be read through it.
CREATE FOREIGN DATA WRAPPER elsewhere OPTIONS (note 'definitions only');
GRANT USAGE ON FOREIGN DATA WRAPPER elsewhere TO tensafe_owner WITH GRANT OPTION;
