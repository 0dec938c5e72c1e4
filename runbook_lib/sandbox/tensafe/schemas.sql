-- Extensions live in a schema of their own, the audit trail's code in another, and what operations needs in a third.

ALTER SCHEMA public OWNER TO tensafe_owner;
CREATE SCHEMA extensions AUTHORIZATION tensafe_owner;
CREATE SCHEMA audit AUTHORIZATION tensafe_owner;
CREATE SCHEMA ops AUTHORIZATION tensafe_owner;
