-- Since 16 a membership says whether it inherits and whether it may be set.

GRANT tensafe_auditor TO tensafe_report WITH INHERIT FALSE, SET TRUE;
