//! The schema of the database file.

use hostel_sqlite::Database;
use std::path::Path;

/// The tables that version 2 adds to version 1.
macro_rules! second {
    () => {
        "
-- All times are the queue's own: milliseconds that go on evenly, whatever happens to the wall clock.
-- From `since` on, the wall clock is `ahead` of it; before the first of these, not at all.
CREATE TABLE clock (
    since INTEGER PRIMARY KEY,
    ahead INTEGER NOT NULL
);
-- What a row of `task` held before it was marked as corrupt.
CREATE TABLE damaged (
    seq INTEGER PRIMARY KEY,
    held TEXT NOT NULL
);
"
    };
}

/// The tables and indexes that version 3 adds to version 2, and its view.
macro_rules! third {
    () => {
        "
CREATE INDEX task_ended ON task (state, type, at) WHERE state >= 2 AND keep IS NULL;
CREATE INDEX task_kept ON task (at + keep) WHERE state >= 2 AND keep IS NOT NULL;
-- Of the tasks that have options, or were given a priority.
CREATE TABLE task_options (
    seq INTEGER PRIMARY KEY,
    options TEXT,                   -- a JSON object of what was given, or NULL for nothing
    start_by INTEGER,               -- by when the first attempt has to begin, unless it was requeued
    priority INTEGER                -- 0 high, 1 normal, 2 low: set after the submission
);
-- What tasks are found by.
CREATE TABLE label (
    kind INTEGER NOT NULL,          -- 0 group, 1 tag
    name TEXT NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (kind, name, seq)
) WITHOUT ROWID;
-- The task of a type that has a key, while it is open and until a time.
CREATE TABLE unique_key (
    type TEXT NOT NULL,
    key TEXT NOT NULL,
    id TEXT NOT NULL,
    until INTEGER NOT NULL,
    open INTEGER NOT NULL,
    PRIMARY KEY (type, key)
) WITHOUT ROWID;
CREATE INDEX unique_ended ON unique_key (until) WHERE open = 0;
-- The types of which no task is leased.
CREATE TABLE paused_type (
    type TEXT PRIMARY KEY,
    since INTEGER NOT NULL,         -- by the wall clock
    reason TEXT
) WITHOUT ROWID;
-- What the rate of a type, or of one of its groups, has given out and not got back.
CREATE TABLE rate (
    type TEXT NOT NULL,
    in_group TEXT NOT NULL,         -- '' for the type itself
    units INTEGER NOT NULL,         -- how much was missing from the bucket: 86400000 for each task
    at INTEGER NOT NULL,            -- when
    PRIMARY KEY (type, in_group)
) WITHOUT ROWID;
-- Limits that were set at run time.
CREATE TABLE type_limit (
    scope TEXT PRIMARY KEY,         -- TYPE, TYPE/* for each of its groups, or TYPE/GROUP
    limits TEXT NOT NULL            -- a JSON object
) WITHOUT ROWID;
CREATE TABLE type_limit_version (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    version INTEGER NOT NULL        -- changes with each change
);
INSERT INTO type_limit_version VALUES (1, 0);
-- The latest attempts of tasks, but for one that has ended its task: that is in its row of `task`.
CREATE TABLE attempts (
    seq INTEGER NOT NULL,
    n INTEGER NOT NULL,             -- counts the attempts of a task, those included that are not kept
    number INTEGER NOT NULL,        -- as clients see it
    class INTEGER NOT NULL,         -- the place in AttemptClass::ALL
    error TEXT,
    started_at INTEGER,
    ended_at INTEGER NOT NULL,
    node INTEGER,                   -- words
    plugin INTEGER,
    version INTEGER,
    cpu_us INTEGER,
    peak_memory INTEGER,
    log_bytes INTEGER,
    PRIMARY KEY (seq, n)
) WITHOUT ROWID;
-- For people with a shell; hostel itself does not read it.
CREATE VIEW tasks AS
WITH shown AS (SELECT *, ifnull((SELECT ahead FROM clock WHERE since <= submitted_at
    ORDER BY since DESC LIMIT 1), 0) AS then_ahead, ifnull((SELECT ahead FROM clock WHERE since <= at
    ORDER BY since DESC LIMIT 1), 0) AS at_ahead FROM task)
SELECT
    seq, id, (SELECT text FROM word WHERE word = type) AS type,
    CASE state WHEN 0 THEN 'pending' WHEN 1 THEN 'running' WHEN 2 THEN 'completed'
        WHEN 3 THEN 'failed' ELSE 'cancelled' END AS state,
    datetime((submitted_at + then_ahead) / 1000, 'unixepoch') AS submitted,
    CASE state WHEN 0 THEN datetime((at + at_ahead) / 1000, 'unixepoch') END AS due,
    CASE WHEN state >= 2 THEN datetime((at + at_ahead) / 1000, 'unixepoch') END AS finished,
    attempt, (SELECT text FROM word WHERE word = node) AS node, error,
    (SELECT options FROM task_options WHERE task_options.seq = shown.seq) AS options
FROM shown;
"
    };
}

/// `task` is split from `body` and `result`, so that a change of state does not rewrite a payload.
/// Names that repeat (types, nodes, plugins, versions) are numbers that `word` explains. What waits
/// and what runs is indexed in memory (`index`), not here: one process owns the file, so leases and
/// due times need no index that every step of every task would have to rewrite.
const CREATE: &str = concat!(
    "
CREATE TABLE meta (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    next_seq INTEGER NOT NULL,      -- no seq below this is ever given out again
    last_at INTEGER NOT NULL        -- how far the queue's time has come, give or take a minute
);
INSERT INTO meta VALUES (1, 1, 0);
CREATE TABLE word (
    word INTEGER PRIMARY KEY,
    text TEXT NOT NULL UNIQUE
);
CREATE TABLE task (
    seq INTEGER PRIMARY KEY,        -- in the order of submission
    id TEXT NOT NULL UNIQUE,
    type INTEGER NOT NULL,          -- word
    state INTEGER NOT NULL,         -- 0 pending, 1 running, 2 completed, 3 failed, 4 cancelled
    at INTEGER NOT NULL,            -- pending: due; running: end of lease; else: when it ended
    fence INTEGER NOT NULL,         -- seq * 2^20, plus 1 for every lease
    attempt INTEGER NOT NULL,
    finishes INTEGER NOT NULL,
    cancel_asked INTEGER NOT NULL,
    submitted_at INTEGER NOT NULL,
    started_at INTEGER,             -- of the last attempt
    node INTEGER,                   -- word: who leased it last
    ran_node INTEGER,               -- words: who ran the last attempt that ended
    ran_plugin INTEGER,
    ran_version INTEGER,
    error TEXT,
    losses INTEGER NOT NULL DEFAULT 0, -- with its node, that were not charged as attempts
    error_class TEXT,               -- 'corrupt': the record was damaged, see the table `damaged`;
                                    -- 'expired': no attempt had begun in time
    keep INTEGER,                   -- how long it is kept after its end, if not as long as others
    cancel_reason TEXT,             -- why it is to be cancelled while it runs
    progress TEXT,                  -- of the latest attempt: a JSON object, or NULL for none
    ran_class INTEGER,              -- the place in AttemptClass::ALL of the attempt that has ended the
                                    -- task; NULL if none has. What it used:
    cpu_us INTEGER,
    peak_memory INTEGER,
    log_bytes INTEGER
);
CREATE INDEX task_state ON task (state, type);
CREATE TABLE body (
    seq INTEGER PRIMARY KEY,
    metadata TEXT,                  -- a JSON object, or NULL for none
    payload BLOB NOT NULL
);
CREATE TABLE result (
    seq INTEGER PRIMARY KEY,        -- absent when empty
    result BLOB NOT NULL
);
",
    second!(),
    third!()
);

/// From 1 to 2: a clock of the queue's own, losses, and marks on damaged records. Version 1 stored times
/// of the wall clock.
const SECOND: &str = concat!(
    "
ALTER TABLE meta RENAME COLUMN opened_at TO last_at;
UPDATE meta SET last_at = max(last_at, ifnull((SELECT max(submitted_at) FROM task
    WHERE typeof(submitted_at) = 'integer'), 0), ifnull((SELECT max(at) FROM task
    WHERE state BETWEEN 2 AND 4 AND typeof(at) = 'integer'), 0));
ALTER TABLE task ADD COLUMN losses INTEGER NOT NULL DEFAULT 0;
ALTER TABLE task ADD COLUMN error_class TEXT;
DROP VIEW tasks;
",
    second!()
);

/// From 2 to 3: options, progress and attempts of tasks, reasons of cancellations, paused types, limits.
const THIRD: &str = concat!(
    "
ALTER TABLE task ADD COLUMN keep INTEGER;
ALTER TABLE task ADD COLUMN cancel_reason TEXT;
ALTER TABLE task ADD COLUMN progress TEXT;
ALTER TABLE task ADD COLUMN ran_class INTEGER;
ALTER TABLE task ADD COLUMN cpu_us INTEGER;
ALTER TABLE task ADD COLUMN peak_memory INTEGER;
ALTER TABLE task ADD COLUMN log_bytes INTEGER;
DROP INDEX task_ended;
DROP VIEW IF EXISTS tasks;
",
    third!()
);

/// Free pages are returned to the disk when the writer chooses, at no measurable cost. Larger pages
/// gained nothing at the usual batch sizes. The cache holds the indexes of some hundred thousand tasks.
const TUNING: &str = "
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA foreign_keys = OFF;
PRAGMA temp_store = MEMORY;
PRAGMA cache_size = -32768;
PRAGMA journal_size_limit = 67108864;
";

pub(super) fn database(path: &Path) -> Database {
    Database {
        path: path.to_owned(),
        section: "[queue]",
        what: "task queue",
        application: 0x486F_7374, // "Host"
        version: 3,
        create: CREATE,
        migrations: &[SECOND, THIRD],
        tuning: TUNING,
    }
}
