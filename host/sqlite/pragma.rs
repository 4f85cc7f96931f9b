//! Pragmas and times that more than one file needs.

use rusqlite::Connection;
use std::time::Duration;

/// How long to wait for a lock that another process holds.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a reader's transaction may last. Meanwhile the write-ahead log cannot shrink.
pub(super) const MAX_READ: Duration = Duration::from_secs(5);

/// Reads the number that a pragma returns.
pub(super) fn number(conn: &Connection, pragma: &str) -> rusqlite::Result<i64> {
    conn.prepare_cached(pragma)?.query_row([], |row| row.get(0))
}

/// Writes the write-ahead log into the database and truncates it, unless another process reads from
/// it.
pub(super) fn checkpoint(conn: &Connection) -> rusqlite::Result<()> {
    // Without waiting for readers.
    conn.busy_timeout(Duration::ZERO)?;
    let result = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    conn.busy_timeout(BUSY_TIMEOUT)?;
    result
}
