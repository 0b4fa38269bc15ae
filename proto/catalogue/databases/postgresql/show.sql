-- Shows what apply.sql would do with the migration that begin.sql took in, and what was applied before. Nothing is kept.

\if :known
    SELECT format('applied %s at %s sha256 %s', id, at, sha256) FROM writ.migration ORDER BY id;
\endif
\if :refused
    SELECT 'would not run: ' || :'refusal';
\else
    SELECT format('would run %s sha256 %s', :'id', :'sha256');
    SELECT text FROM writ_this;
\endif
ROLLBACK;
