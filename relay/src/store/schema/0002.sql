-- Whether a request was to be done or tried out. Until now none was tried out.

ALTER TABLE request ADD COLUMN mode TEXT NOT NULL DEFAULT 'run' CHECK (mode IN ('run', 'dry_run'));
