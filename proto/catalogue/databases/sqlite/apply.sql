-- Runs the migration on standard input, a file that nobody can change, and records it, in one transaction.
-- sqlite3 reads this file with -init and -bail: what fails here ends it, and closing the database takes everything back.

.timeout 10000
.mode list
-- What is in the database already may not load extensions, nor use functions that reach other files.
.output /dev/null
.dbconfig load_extension off
.dbconfig trusted_schema off
.output

BEGIN IMMEDIATE;
-- With its content, because sqlite3 has no function for a SHA-256.
CREATE TABLE IF NOT EXISTS main.writ_migration (
    id TEXT PRIMARY KEY NOT NULL,
    content TEXT NOT NULL,
    at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))
);
.read /usr/share/writ/databases/sqlite/judge.sql
SELECT 'nothing was done: ' || refusal FROM temp.writ_verdict WHERE refusal IS NOT NULL;
CREATE TEMP TABLE writ_fit (refusal CONSTRAINT "nothing was done" CHECK (refusal IS NULL));
INSERT INTO temp.writ_fit SELECT refusal FROM temp.writ_verdict;
CREATE TEMP TABLE writ_before AS SELECT id, content, at FROM main.writ_migration;

-- Ending the transaction ends the savepoint, and RELEASE finds none of this name.
SAVEPOINT "what it did may be kept: it ended the transaction";
.read /proc/self/fd/0
RELEASE "what it did may be kept: it ended the transaction";
CREATE TEMP TABLE writ_fair (
    fair CONSTRAINT "nothing is kept: it changed the list of applied migrations" CHECK (fair)
);
INSERT INTO temp.writ_fair SELECT (SELECT count(*) FROM main.writ_migration) = (SELECT count(*) FROM temp.writ_before)
    AND NOT EXISTS (SELECT id, content, at FROM temp.writ_before EXCEPT SELECT id, content, at FROM main.writ_migration);
INSERT INTO main.writ_migration (id, content) SELECT id, content FROM temp.writ_this;
COMMIT;
SELECT 'applied ' || id FROM temp.writ_this;
