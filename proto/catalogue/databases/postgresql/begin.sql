-- What comes before a migration is run or shown: a transaction, what the migration is, and what was applied before it.
-- psql reads this file and then apply.sql or show.sql. The migration is on standard input, a file that nobody can change.
--
-- psql never interprets the migration. It goes into the database as it is, and the server executes it within a DO statement:
-- no backslash command and no variable means anything there, and what would end the transaction is refused.

\set QUIET on
\set ON_ERROR_STOP on
\set VERBOSITY terse
\pset format unaligned
\pset tuples_only on

-- What has a bare name below is PostgreSQL's own, whatever others put into their schemas (CVE-2018-1058).
SELECT current_setting('search_path') AS path \gset
SET search_path = pg_catalog, pg_temp;

BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
-- Also for what the migration waits for: a change that waits for a table makes everybody else wait behind it.
SET LOCAL lock_timeout = '10s';
-- One migration at a time in each database; the number is "writ" in ASCII.
SELECT pg_advisory_xact_lock(2003986804) \gset

-- A large object of this transaction, because psql sends no other file without a look at its lines.
\lo_import /proc/self/fd/0
\set source :LASTOID
CREATE TEMP TABLE writ_this ON COMMIT DROP AS
    SELECT convert_from(bytes, 'UTF8') AS text, encode(sha256(bytes), 'hex') AS sha256 FROM lo_get(:source) AS bytes;
SELECT lo_unlink(:source) \gset

SELECT coalesce(line[1], '') AS id, coalesce(line[3], '') AS after, sha256 FROM (SELECT sha256, regexp_match(text,
    '^-- migration ([0-9a-z][0-9a-z_-]{0,62})( after ([0-9a-z][0-9a-z_-]{0,62}))?\n') FROM writ_this) AS first (sha256, line) \gset
SELECT to_regclass('writ.migration') IS NOT NULL AS known, '' AS newest, '' AS applied, '' AS applied_sha256, true AS ours \gset
\if :known
    SELECT coalesce(max(id), '') AS newest FROM writ.migration \gset
    SELECT at::text AS applied, sha256 AS applied_sha256 FROM writ.migration WHERE id = :'id'
        UNION ALL SELECT '', '' WHERE NOT EXISTS (SELECT FROM writ.migration WHERE id = :'id') \gset
    -- Whoever owns the table could let a trigger of theirs run with this role's rights.
    SELECT count(*) = 2 AS ours FROM (
        SELECT relowner FROM pg_class WHERE oid = 'writ.migration'::regclass AND relkind = 'r'
        UNION ALL SELECT nspowner FROM pg_namespace WHERE nspname = 'writ') AS owners (owner)
        WHERE owner = current_user::regrole \gset
\endif

SELECT CASE
    WHEN pg_has_role('pg_execute_server_program', 'MEMBER') OR pg_has_role('pg_write_server_files', 'MEMBER')
        OR pg_has_role('pg_read_server_files', 'MEMBER')
        THEN format('the role %s may start programs or use files of the server', current_user)
    WHEN NOT :'ours' THEN format('the schema writ or the table writ.migration is not %s''s own', current_user)
    WHEN :'id' = '' THEN 'its first line is not "-- migration ID" or "-- migration ID after ID"'
    WHEN :'applied' <> '' AND :'applied_sha256' <> :'sha256'
        THEN format('%s was applied at %s with another content, sha256 %s', :'id', :'applied', :'applied_sha256')
    WHEN :'applied' <> '' THEN format('%s was applied already, at %s', :'id', :'applied')
    WHEN :'id' < :'newest' COLLATE "C" THEN format('%s is out of order: %s was applied already', :'id', :'newest')
    WHEN :'after' NOT IN ('', :'newest')
        THEN format('%s comes after %s, and the newest that was applied is %s', :'id', :'after',
            coalesce(nullif(:'newest', ''), 'none'))
    ELSE '' END AS refusal \gset
SELECT :'refusal' <> '' AS refused \gset
