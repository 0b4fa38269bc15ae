-- What people are asked to approve: the bytes that they would approve, frozen when they are asked, and their signatures.

CREATE TABLE approval (
    id      TEXT    NOT NULL PRIMARY KEY,
    task    TEXT    NOT NULL REFERENCES task (id) ON DELETE CASCADE,
    action  TEXT    NOT NULL,
    mode    TEXT    NOT NULL CHECK (mode IN ('run', 'dry_run')),
    -- SHA-256 of what makes two calls the same one.
    same    TEXT    NOT NULL,
    needed  INTEGER NOT NULL CHECK (needed BETWEEN 1 AND 8),
    asked   INTEGER NOT NULL,
    -- When the frozen bytes expire.
    ends    INTEGER NOT NULL,
    state   TEXT    NOT NULL CHECK (state IN ('waiting', 'approved', 'denied', 'expired')),
    -- When it came into that state.
    since   INTEGER NOT NULL,
    -- Whether something can still become of it: not denied, not expired, not carried out everywhere.
    open    INTEGER NOT NULL CHECK (open IN (0, 1)),
    -- Whether whoever asked was told of its end.
    told    INTEGER NOT NULL DEFAULT 0 CHECK (told IN (0, 1)),
    CHECK (open = 0 OR state IN ('waiting', 'approved'))
) STRICT, WITHOUT ROWID;

-- The same call never asks twice at a time.
CREATE UNIQUE INDEX approval_open ON approval (same) WHERE open = 1;
CREATE INDEX approval_same ON approval (same, asked);
CREATE INDEX approval_task ON approval (task);

-- One request for each target.
CREATE TABLE frozen (
    approval TEXT NOT NULL REFERENCES approval (id) ON DELETE CASCADE,
    request  TEXT NOT NULL,
    target   TEXT NOT NULL,
    sha256   TEXT NOT NULL,
    -- The bytes; gone once nothing can become of it.
    payload  TEXT,
    step     TEXT NOT NULL CHECK (step IN ('kept', 'running', 'done')),
    PRIMARY KEY (approval, request)
) STRICT, WITHOUT ROWID;

CREATE INDEX frozen_request ON frozen (request);

CREATE TABLE signature (
    approval    TEXT    NOT NULL REFERENCES approval (id) ON DELETE CASCADE,
    fingerprint TEXT    NOT NULL,
    sig         TEXT    NOT NULL,
    at          INTEGER NOT NULL,
    PRIMARY KEY (approval, fingerprint)
) STRICT, WITHOUT ROWID;
