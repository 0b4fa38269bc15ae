-- Shows what apply.sql would do with the migration on standard input, and what was applied before. With -readonly.

.timeout 10000
.mode list
.output /dev/null
.dbconfig load_extension off
.dbconfig trusted_schema off
.output

-- Names are looked for here last: an empty list where the database has none yet.
ATTACH 'file:none?mode=memory' AS none;
CREATE TABLE none.writ_migration (id TEXT, content TEXT, at TEXT);
.read /usr/share/writ/databases/sqlite/judge.sql
SELECT 'applied ' || id || ' at ' || at FROM writ_migration ORDER BY id;
SELECT 'would not run: ' || refusal FROM writ_verdict WHERE refusal IS NOT NULL;
SELECT 'would run ' || id || char(10) || content FROM writ_this WHERE (SELECT refusal IS NULL FROM writ_verdict);
