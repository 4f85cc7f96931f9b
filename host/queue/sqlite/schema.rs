//! The shape of the database file, and connections to it. What the tables mean is said here; what
//! happens to them is in `book`.

use super::fault::Fault;
use crate::queue::Error;
use rusqlite::{Connection, OpenFlags, config::DbConfig};
use std::{path::Path, time::Duration};

/// Marks a file as ours: "Host".
const APPLICATION: i64 = 0x486F_7374;
/// What this build writes, in `PRAGMA user_version`.
const VERSION: i64 = 1;

/// `task` is split from `body` and `result`, so that a change of state does not rewrite a payload.
/// Names that repeat (types, nodes, plugins, versions) are numbers that `word` explains. What waits
/// and what runs is indexed in memory (`board`), not here: one process owns the file, so leases and
/// due times need no index that every step of every task would have to rewrite.
const CREATE: &str = "
CREATE TABLE meta (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    next_seq INTEGER NOT NULL,      -- no seq below this is ever given out again
    opened_at INTEGER NOT NULL      -- milliseconds since 1970, as are all times
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
    error TEXT
);
CREATE INDEX task_state ON task (state, type);
CREATE INDEX task_ended ON task (at) WHERE state >= 2;
CREATE TABLE body (
    seq INTEGER PRIMARY KEY,
    metadata TEXT,                  -- a JSON object, or NULL for none
    payload BLOB NOT NULL
);
CREATE TABLE result (
    seq INTEGER PRIMARY KEY,        -- absent when empty
    result BLOB NOT NULL
);
-- For people with a shell; hostel itself does not read it.
CREATE VIEW tasks AS SELECT
    seq, id, (SELECT text FROM word WHERE word = type) AS type,
    CASE state WHEN 0 THEN 'pending' WHEN 1 THEN 'running' WHEN 2 THEN 'completed'
        WHEN 3 THEN 'failed' ELSE 'cancelled' END AS state,
    datetime(submitted_at / 1000, 'unixepoch') AS submitted,
    CASE state WHEN 0 THEN datetime(at / 1000, 'unixepoch') END AS due,
    CASE WHEN state >= 2 THEN datetime(at / 1000, 'unixepoch') END AS finished,
    attempt, (SELECT text FROM word WHERE word = node) AS node, error
FROM task;
";

/// Opens the file for writing and gives it its tables when it is new.
pub(super) fn open_writer(path: &Path) -> Result<Connection, Error> {
    let opening = |error: rusqlite::Error| Fault::from(error).into_opening_error(path);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).map_err(opening)?;
    prepare_connection(&conn).map_err(opening)?;
    let version = check_identity(&conn, path)?;
    // Space freed by `purge` goes back in steps of our choosing (this takes effect only before the
    // first table is made, and costs nothing that could be measured). A checkpoint every 4 MB holds
    // up a commit by some milliseconds; bigger pages or rarer checkpoints gained nothing at the
    // batches that matter. The cache holds the indexes of some hundred thousand tasks.
    conn.execute_batch(
        "PRAGMA auto_vacuum = INCREMENTAL;
         PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA foreign_keys = OFF;
         PRAGMA temp_store = MEMORY;
         PRAGMA cache_size = -32768;
         PRAGMA wal_autocheckpoint = 1000;
         PRAGMA journal_size_limit = 67108864;",
    )
    .map_err(opening)?;
    if version == 0 {
        create(&conn).map_err(opening)?;
    }
    Ok(conn)
}

/// Opens the file for reading beside the writer. No memory map: under one, a read that fails kills
/// the process instead of failing.
pub(super) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    prepare_connection(&conn)?;
    conn.execute_batch("PRAGMA cache_size = -16384; PRAGMA temp_store = MEMORY;")?;
    Ok(conn)
}

fn prepare_connection(conn: &Connection) -> rusqlite::Result<()> {
    conn.busy_timeout(Duration::from_secs(5))?;
    // Without this a statement is compiled anew for every value bound to it, in case another index
    // served that value better; measured as a third of the writer's work, and most of a reader's.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

fn create(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute_batch(&format!(
        "BEGIN IMMEDIATE; {CREATE}
         PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION}; COMMIT;"
    ))
}

/// The schema's version, 0 for an empty file.
fn check_identity(conn: &Connection, path: &Path) -> Result<i64, Error> {
    let number = |pragma: &str| {
        conn.query_row(pragma, [], |row| row.get::<_, i64>(0))
            .map_err(|error| Fault::from(error).into_opening_error(path))
    };
    let path = path.display();
    let tables = number("SELECT count(*) FROM sqlite_schema")?;
    if tables == 0 {
        return Ok(0);
    }
    if number("PRAGMA application_id")? != APPLICATION {
        return Err(Error::Misconfigured(format!(
            "{path} is a database of another program; point [queue] path elsewhere"
        )));
    }
    match number("PRAGMA user_version")? {
        VERSION => Ok(VERSION),
        newer if newer > VERSION => Err(Error::Misconfigured(format!(
            "{path} was written by a newer hostel (schema {newer}; this one knows {VERSION})"
        ))),
        other => Err(Error::Corrupt(format!(
            "{path} says that its schema is {other}"
        ))),
    }
}
