-- lz4 is a choice of the build.

ALTER TABLE ops.documents ALTER COLUMN body SET COMPRESSION lz4;
