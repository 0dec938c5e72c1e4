SELECT 'trigger' AS kind, t.tgrelid::pg_catalog.regclass::text || ' ' || pg_catalog.quote_ident(t.tgname) AS name,
       pg_catalog.pg_get_triggerdef(t.oid)
       || CASE t.tgenabled WHEN 'D' THEN ' DISABLED' WHEN 'A' THEN ' ENABLED ALWAYS' WHEN 'R' THEN ' ENABLED ON REPLICA ONLY' ELSE '' END AS definition
  FROM pg_catalog.pg_trigger t
  JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE NOT t.tgisinternal AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                    WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')
UNION ALL
-- The triggers behind foreign keys are nameless, but somebody can have switched them off.
SELECT 'foreign key enforcement', t.tgrelid::pg_catalog.regclass::text || ' ' || pg_catalog.quote_ident(con.conname)
       || ' ' || t.tgfoid::pg_catalog.regproc::text, 'state ' || t.tgenabled::text
  FROM pg_catalog.pg_trigger t
  JOIN pg_catalog.pg_constraint con ON con.oid = t.tgconstraint
  JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE t.tgisinternal AND t.tgenabled <> 'O' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                    WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')
UNION ALL
SELECT 'event trigger', e.evtname::text,
       pg_catalog.concat_ws(' ', 'owner ' || pg_catalog.pg_get_userbyid(e.evtowner), 'on ' || e.evtevent, 'state ' || e.evtenabled::text,
           'when tag in ' || e.evttags::text, 'execute ' || e.evtfoid::pg_catalog.regprocedure::text)
  FROM pg_catalog.pg_event_trigger e
 WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                    WHERE d.classid = 'pg_catalog.pg_event_trigger'::pg_catalog.regclass AND d.objid = e.oid AND d.deptype = 'e')
