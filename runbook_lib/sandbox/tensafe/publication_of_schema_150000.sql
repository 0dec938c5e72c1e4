-- Only a superuser may publish a whole schema.

CREATE PUBLICATION tensafe_audit FOR TABLES IN SCHEMA audit WITH (publish = 'insert');
