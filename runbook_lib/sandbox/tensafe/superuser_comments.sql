-- Comments that only a superuser may make, because of who owns what they speak of.

COMMENT ON EXTENSION pg_trgm IS 'For the search box';
COMMENT ON SERVER billing IS 'Another team''s';
COMMENT ON PUBLICATION tensafe_usage IS 'For the warehouse';
COMMENT ON EVENT TRIGGER tensafe_note_ddl IS 'Who changed what';
COMMENT ON LANGUAGE plpgsql IS 'Not for everybody here';
