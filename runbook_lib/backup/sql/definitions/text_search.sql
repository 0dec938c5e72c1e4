SELECT 'text search configuration' AS kind, pg_catalog.format('%I.%I', n.nspname, c.cfgname) AS name,
       pg_catalog.concat_ws(' ', 'owner ' || pg_catalog.pg_get_userbyid(c.cfgowner), 'parser ' || p.prsname,
           (SELECT pg_catalog.string_agg(m.maptokentype || '.' || m.mapseqno || '=' || m.mapdict::pg_catalog.regdictionary::text, ', ' ORDER BY m.maptokentype, m.mapseqno)
              FROM pg_catalog.pg_ts_config_map m WHERE m.mapcfg = c.oid)) AS definition
  FROM pg_catalog.pg_ts_config c JOIN pg_catalog.pg_namespace n ON n.oid = c.cfgnamespace JOIN pg_catalog.pg_ts_parser p ON p.oid = c.cfgparser
 WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_ts_config'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')
UNION ALL
SELECT 'text search dictionary', pg_catalog.format('%I.%I', n.nspname, t.dictname),
       pg_catalog.concat_ws(' ', 'owner ' || pg_catalog.pg_get_userbyid(t.dictowner), 'template ' || p.tmplname, t.dictinitoption)
  FROM pg_catalog.pg_ts_dict t JOIN pg_catalog.pg_namespace n ON n.oid = t.dictnamespace JOIN pg_catalog.pg_ts_template p ON p.oid = t.dicttemplate
 WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_ts_dict'::pg_catalog.regclass AND d.objid = t.oid AND d.deptype = 'e')
