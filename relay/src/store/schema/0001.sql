-- What a relay keeps of tasks and requests. Texts are the words of the wire, times are Unix seconds.

-- "WRIT": this file is a relay's, and no other program's.
PRAGMA application_id = 0x57524954;

CREATE TABLE task (
    id     TEXT    NOT NULL PRIMARY KEY,
    person TEXT    NOT NULL,
    brain  TEXT    NOT NULL,
    reason TEXT    NOT NULL,
    opened INTEGER NOT NULL,
    ends   INTEGER NOT NULL,
    -- When it was ended; NULL until then.
    ended  INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX task_open ON task (person, brain) WHERE ended IS NULL;
CREATE INDEX task_over ON task (ended) WHERE ended IS NOT NULL;

CREATE TABLE place (
    task   TEXT NOT NULL REFERENCES task (id) ON DELETE CASCADE,
    target TEXT NOT NULL,
    PRIMARY KEY (task, target)
) STRICT, WITHOUT ROWID;

-- Ids of requests are ordered by time, so one task's newest stand together and a warm call writes one page.
CREATE TABLE request (
    task    TEXT    NOT NULL REFERENCES task (id) ON DELETE CASCADE,
    id      TEXT    NOT NULL,
    target  TEXT    NOT NULL,
    action  TEXT    NOT NULL,
    risk    TEXT    NOT NULL,
    sha256  TEXT    NOT NULL,
    begun   INTEGER NOT NULL,
    phase   TEXT    NOT NULL CHECK (phase IN ('recorded', 'sent', 'settled')),
    status  TEXT,
    code    TEXT,
    -- The frozen bytes of a change or destroy, until it is known what became of it.
    payload TEXT,
    PRIMARY KEY (task, id),
    CHECK (phase <> 'settled' OR status IS NOT NULL)
) STRICT, WITHOUT ROWID;

-- Few at any time: those under way, and those that nobody knows the end of.
CREATE INDEX request_unsettled ON request (begun) WHERE phase <> 'settled';
