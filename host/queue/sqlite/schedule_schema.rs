//! The tables of schedules in the queue's file.

/// Made on each open, without a format of its own: a version that does not know these tables leaves them
/// alone.
pub(super) const CREATE: &str = "
CREATE TABLE IF NOT EXISTS schedule (
    name TEXT PRIMARY KEY,
    version INTEGER NOT NULL,       -- changes with each change, and is never used twice
    next INTEGER,                   -- when a node has to look at it, by the wall clock
    spec TEXT NOT NULL,             -- JSON: what it is, and where it came from
    record TEXT NOT NULL            -- JSON: what has become of it
);
CREATE INDEX IF NOT EXISTS schedule_next ON schedule (next) WHERE next IS NOT NULL;
CREATE TABLE IF NOT EXISTS schedule_version (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    version INTEGER NOT NULL        -- the last one that was used
);
INSERT OR IGNORE INTO schedule_version VALUES (1, 0);
";
