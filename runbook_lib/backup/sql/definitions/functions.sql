-- Functions and procedures in full; aggregates by their parts, because pg_get_functiondef refuses them.
SELECT CASE p.prokind WHEN 'f' THEN 'function' WHEN 'p' THEN 'procedure' WHEN 'a' THEN 'aggregate' ELSE 'window function' END AS kind,
       p.oid::pg_catalog.regprocedure::text AS name,
       'owner ' || pg_catalog.pg_get_userbyid(p.proowner) || ' ' ||
       CASE WHEN p.prokind <> 'a' THEN pg_catalog.pg_get_functiondef(p.oid)
            ELSE (SELECT pg_catalog.concat_ws(' ', 'kind ' || a.aggkind::text, 'result ' || pg_catalog.format_type(p.prorettype, NULL), 'step ' || a.aggtransfn::text,
                         'final ' || a.aggfinalfn::text, 'combine ' || a.aggcombinefn::text, 'serialize ' || a.aggserialfn::text, 'deserialize ' || a.aggdeserialfn::text,
                         'moving ' || a.aggmtransfn::text || a.aggminvtransfn::text || a.aggmfinalfn::text, 'state ' || pg_catalog.format_type(a.aggtranstype, NULL),
                         'initial ' || a.agginitval, 'moving initial ' || a.aggminitval, 'sort ' || nullif(a.aggsortop, 0)::pg_catalog.regoperator::text,
                         'parallel ' || p.proparallel::text, 'extra ' || a.aggfinalextra || a.aggmfinalextra || a.aggfinalmodify::text || a.aggmfinalmodify::text)
                    FROM pg_catalog.pg_aggregate a WHERE a.aggfnoid = p.oid) END AS definition
  FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
 WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                    WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid AND d.deptype IN ('e', 'i'))
