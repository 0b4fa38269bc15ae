-- What the migration on standard input is, and why it would not run: read by apply.sql and by show.sql.
--
-- sqlite3 itself reads a migration, so what it must not hold is looked for: a line that begins with a dot could be a command
-- of sqlite3, a transaction begins and ends in apply.sql and nowhere else, and some functions reach other files.

CREATE TEMP TABLE writ_this AS
    SELECT content, is_text, first, substr(first, 14, instr(first || ' after ', ' after ') - 14) AS id,
        CASE instr(first, ' after ') WHEN 0 THEN '' ELSE substr(first, instr(first, ' after ') + 7) END AS after
    FROM (SELECT CAST(bytes AS TEXT) AS content, coalesce(instr(bytes, x'00') = 0, 0) AS is_text,
        substr(CAST(bytes AS TEXT), 1, instr(CAST(bytes AS TEXT), char(10)) - 1) AS first
        FROM (SELECT readfile('/proc/self/fd/0') AS bytes));

CREATE TEMP TABLE writ_verdict AS SELECT CASE
    WHEN NOT is_text THEN 'it cannot be read as text'
    WHEN first NOT REGEXP '^-- migration [0-9a-z][-0-9a-z_]*( after [0-9a-z][-0-9a-z_]*)?$' OR length(this.id) > 63
        THEN 'its first line is not "-- migration ID" or "-- migration ID after ID"'
    WHEN instr(this.content, char(10) || '.') THEN 'a line of it begins with a dot'
    WHEN lower(this.content) REGEXP '[;\n]\s*(commit|end\s+transaction|rollback|savepoint|release|vacuum)\b|\battach\b'
        THEN 'it begins or ends a transaction, or attaches a file'
    WHEN lower(this.content) REGEXP '\b(edit|readfile|writefile|fsdir|zipfile|load_extension|sqlite_dbpage)\W*\('
        THEN 'it uses a function that reaches outside of the database'
    WHEN applied.id IS NOT NULL AND applied.content <> this.content
        THEN this.id || ' was applied at ' || applied.at || ' with another content'
    WHEN applied.id IS NOT NULL THEN this.id || ' was applied already, at ' || applied.at
    WHEN this.id < newest THEN this.id || ' is out of order: ' || newest || ' was applied already'
    WHEN after NOT IN ('', newest)
        THEN this.id || ' comes after ' || after || ', and the newest that was applied is ' || coalesce(nullif(newest, ''), 'none')
    END AS refusal
    FROM temp.writ_this AS this LEFT JOIN writ_migration AS applied ON applied.id = this.id,
        (SELECT coalesce(max(id), '') AS newest FROM writ_migration);
