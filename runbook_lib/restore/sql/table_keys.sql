-- What tells a table's rows apart: its primary key, and unique indexes of columns that are never NULL, over all rows,
-- checked at once; each column with the equality that its index uses, for there may be others.
SELECT i.indisprimary AS is_primary,
       pg_catalog.array_agg(a.attname::text ORDER BY k.n) AS columns,
       pg_catalog.array_agg(pg_catalog.quote_ident(opn.nspname) || '.' || op.oprname ORDER BY k.n) AS operators
  FROM pg_catalog.pg_index i
 CROSS JOIN LATERAL pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, n)
  LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum AND a.attnotnull
       -- From 18 on a NOT NULL can be NOT VALID, and NULLs be there all the same.
       AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint nn WHERE nn.conrelid = i.indrelid AND nn.contype = 'n'
                          AND NOT nn.convalidated AND nn.conkey[1] = a.attnum)
  LEFT JOIN pg_catalog.pg_opclass oc ON oc.oid = i.indclass[k.n - 1]
  LEFT JOIN pg_catalog.pg_amop ao ON ao.amopfamily = oc.opcfamily AND ao.amopstrategy = 3
       AND ao.amoplefttype = oc.opcintype AND ao.amoprighttype = oc.opcintype
  LEFT JOIN pg_catalog.pg_operator op ON op.oid = ao.amopopr
  LEFT JOIN pg_catalog.pg_namespace opn ON opn.oid = op.oprnamespace
 WHERE i.indrelid = %(oid)s AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL
   AND k.n <= i.indnkeyatts
 GROUP BY i.indexrelid, i.indisprimary, i.indnkeyatts
HAVING pg_catalog.bool_and(a.attname IS NOT NULL AND op.oid IS NOT NULL)
 ORDER BY i.indisprimary DESC, i.indnkeyatts, i.indexrelid
