-- An operator class of one's own may only be made by a superuser, and then belong to anybody.

CREATE OPERATOR FAMILY ops.absolute_value USING btree;
CREATE OPERATOR CLASS ops.absolute_value_ops FOR TYPE integer USING btree FAMILY ops.absolute_value AS
    OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 ops.by_absolute_value(integer, integer);
ALTER OPERATOR FAMILY ops.absolute_value USING btree OWNER TO tensafe_owner;
ALTER OPERATOR CLASS ops.absolute_value_ops USING btree OWNER TO tensafe_owner;
