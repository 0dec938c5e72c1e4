-- Tables, partitions, views, sequences, foreign tables: what is not a column, a constraint or an index.
SELECT CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table' WHEN 'v' THEN 'view'
            WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table' ELSE 'sequence' END AS kind,
       c.oid::pg_catalog.regclass::text AS name,
       pg_catalog.concat_ws(' ',
           'owner ' || pg_catalog.pg_get_userbyid(c.relowner),
           CASE c.relpersistence WHEN 'u' THEN 'UNLOGGED' END,
           'PARTITION BY ' || CASE c.relkind WHEN 'p' THEN pg_catalog.pg_get_partkeydef(c.oid) END,
           CASE WHEN c.relispartition THEN 'PARTITION ' || pg_catalog.pg_get_expr(c.relpartbound, c.oid) END,
           'INHERITS ' || (SELECT pg_catalog.string_agg(i.inhparent::pg_catalog.regclass::text, ', ' ORDER BY i.inhseqno)
                             FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid),
           'OF ' || nullif(c.reloftype, 0)::pg_catalog.regtype::text,
           'USING ' || (SELECT am.amname FROM pg_catalog.pg_am am WHERE am.oid = c.relam AND c.relkind IN ('r', 'm')),
           'TABLESPACE ' || (SELECT ts.spcname FROM pg_catalog.pg_tablespace ts WHERE ts.oid = c.reltablespace),
           'WITH (' || (SELECT pg_catalog.string_agg(o, ', ' ORDER BY o COLLATE "C") FROM pg_catalog.unnest(c.reloptions) o) || ')',
           'TOAST (' || (SELECT pg_catalog.string_agg(o, ', ' ORDER BY o COLLATE "C")
                           FROM pg_catalog.pg_class tc, pg_catalog.unnest(tc.reloptions) o WHERE tc.oid = c.reltoastrelid) || ')',
           CASE WHEN c.relrowsecurity THEN 'ROW LEVEL SECURITY' END,
           CASE WHEN c.relforcerowsecurity THEN 'FORCE ROW LEVEL SECURITY' END,
           CASE WHEN c.relreplident <> 'd' AND c.relkind IN ('r', 'p', 'm') THEN 'REPLICA IDENTITY ' || c.relreplident::text END,
           CASE WHEN c.relkind = 'm' AND NOT c.relispopulated THEN 'WITH NO DATA' END,
           (SELECT 'SERVER ' || s.srvname || coalesce(' OPTIONS (' || (SELECT pg_catalog.string_agg(CASE WHEN pg_catalog.split_part(o, '=', 1) ~* '(pass|pwd|secret|token|credential|signature|(access|api|private|client)[_-]?key)'
                                THEN pg_catalog.split_part(o, '=', 1) || ' (not shown)'
                                ELSE pg_catalog.regexp_replace(o, '://[^/@ ]*@', '://(not shown)@', 'g') END, ', ' ORDER BY o COLLATE "C")
                             FROM pg_catalog.unnest(ft.ftoptions) o) || ')', '')
              FROM pg_catalog.pg_foreign_table ft JOIN pg_catalog.pg_foreign_server s ON s.oid = ft.ftserver WHERE ft.ftrelid = c.oid),
           (SELECT pg_catalog.format('AS %s START %s INCREMENT %s MINVALUE %s MAXVALUE %s CACHE %s%s',
                       pg_catalog.format_type(q.seqtypid, NULL), q.seqstart, q.seqincrement, q.seqmin, q.seqmax, q.seqcache,
                       CASE WHEN q.seqcycle THEN ' CYCLE' ELSE '' END)
              FROM pg_catalog.pg_sequence q WHERE q.seqrelid = c.oid),
           (SELECT 'OWNED BY ' || d.refobjid::pg_catalog.regclass::text || '.' || pg_catalog.quote_ident(a.attname)
              FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
             WHERE c.relkind = 'S' AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
               AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0)
       ) AS definition
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                    WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')
