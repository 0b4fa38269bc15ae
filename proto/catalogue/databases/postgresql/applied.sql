-- Lists what was applied, in order.

\set QUIET on
\set ON_ERROR_STOP on
\pset format unaligned
\pset tuples_only on
SET search_path = pg_catalog, pg_temp;
BEGIN READ ONLY;
SELECT to_regclass('writ.migration') IS NOT NULL AS known \gset
\if :known
    SELECT format('%s sha256 %s at %s', id, sha256, at) FROM writ.migration ORDER BY id;
\endif
ROLLBACK;
