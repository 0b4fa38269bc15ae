-- Runs the migration that begin.sql took in and records it, all in the one transaction that begin.sql began.

\if :refused
    SELECT set_config('writ.refusal', :'refusal', true) \gset
    DO $$ BEGIN RAISE EXCEPTION 'nothing was done: %', current_setting('writ.refusal'); END $$;
\endif
\if :known
\else
    CREATE SCHEMA writ;
    CREATE TABLE writ.migration (
        id text COLLATE "C" PRIMARY KEY,
        sha256 text NOT NULL,
        at timestamptz NOT NULL DEFAULT now()
    );
\endif
-- Kept in psql, out of reach of what is executed.
SELECT md5(coalesce(string_agg(m::text, chr(10) ORDER BY id), '')) AS before, pg_current_xact_id() AS transaction
    FROM writ.migration AS m \gset

SELECT set_config('search_path', :'path', false) \gset
DO $writ$ BEGIN EXECUTE (SELECT text FROM pg_temp.writ_this); END $writ$;
RESET SESSION AUTHORIZATION;
RESET ROLE;
SET search_path = pg_catalog, pg_temp;

SELECT md5(coalesce(string_agg(m::text, chr(10) ORDER BY id), '')) = :'before' AND pg_current_xact_id() = :'transaction' AS fair
    FROM writ.migration AS m \gset
\if :fair
\else
    DO $$ BEGIN RAISE EXCEPTION 'nothing is kept: it changed the list of applied migrations, or ended the transaction'; END $$;
\endif
INSERT INTO writ.migration (id, sha256) VALUES (:'id', :'sha256');
COMMIT;
\echo applied :id sha256 :sha256
