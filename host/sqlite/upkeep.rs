//! What keeps a database's files small between transactions: gives free pages back to the disk in
//! small steps, folds the log of changes into the database when nothing changes, and notices who
//! keeps it from doing so. Knows no table.

use super::{Database, file, foreign};
use hostel_runtime::health::{Health, Part};
use rusqlite::Connection;
use std::{
    fs,
    time::{Duration, Instant},
};

/// How long one step of shrinking may hold up others.
const STEP: Duration = Duration::from_millis(20);

/// Free pages that are worth keeping for what comes next.
const KEPT_PAGES: i64 = 256;

/// So few pages are moved in one go; of a larger database, one by one.
const MOVED_AT_ONCE: i64 = 4096;

/// The same where space is short.
const MOVED_IN_NEED: i64 = 64;

/// How long nothing must have changed before the log is folded.
const QUIET: Duration = Duration::from_secs(1);

/// So long a log is left as it is: the next changes use it again.
const KEPT_LOG_BYTES: u64 = 1 << 20;

/// The kind of fault that is reported.
const FAULT: &str = "log";

/// A log of this length that cannot be folded is worth a warning.
const LONG_LOG_BYTES: u64 = 16 << 20;

/// Between transactions of one writer.
pub struct Upkeep {
    database: Database,
    /// As of the last step, and when that was seen to differ.
    changes: u64,
    changed: Instant,
    next_step: Instant,
    part: Part,
    health: Health,
    has_warned: bool,
}

impl Upkeep {
    /// Faults are reported as those of `part`.
    pub fn new(database: &Database, part: Part, health: &Health) -> Self {
        Self {
            database: database.clone(),
            changes: 0,
            changed: Instant::now(),
            next_step: Instant::now(),
            part,
            health: health.clone(),
            has_warned: false,
        }
    }

    /// How long until there is something to do again.
    pub fn pause(&self) -> Duration {
        self.next_step.saturating_duration_since(Instant::now())
    }

    /// Does a little of what is to be done, unless the last step was only just. Where space is
    /// short, every free page is given back, a few at a time. Outside of a transaction.
    pub fn step(&mut self, conn: &Connection, is_short: bool) -> rusqlite::Result<()> {
        let begun = Instant::now();
        if begun < self.next_step {
            return Ok(());
        }
        // Whatever fails is not tried at once.
        self.next_step = begun + QUIET;
        let changes = conn.total_changes();
        if changes != self.changes {
            (self.changes, self.changed) = (changes, begun);
        }
        let more = self.shrink(conn, is_short)?;
        if is_short || (!more && self.changed.elapsed() >= QUIET) {
            self.fold(conn)?;
        }
        // A step in five at the most is the upkeep's.
        let pause = if more { begun.elapsed() * 4 } else { QUIET / 2 };
        self.next_step = Instant::now() + pause;
        Ok(())
    }

    /// Gives free pages back, for as long as a step may take, once they are a good part of the file:
    /// some are soon used again, and moving pages is work. True when there are more.
    fn shrink(&self, conn: &Connection, is_short: bool) -> rusqlite::Result<bool> {
        let free = number(conn, "PRAGMA freelist_count")?;
        let all = number(conn, "PRAGMA page_count")?;
        // How many may stay, and how many are not worth the work.
        let (kept, ignored) = match is_short {
            true => (0, 0),
            false => (KEPT_PAGES.max(all / 8), KEPT_PAGES.max(all / 4)),
        };
        if free <= ignored || number(conn, "PRAGMA auto_vacuum")? == 0 {
            return Ok(false);
        }
        let at_once = match is_short {
            true => MOVED_IN_NEED,
            false => MOVED_AT_ONCE,
        };
        if free.min(all - free) <= at_once {
            // One by one, each page would be looked for in the list of the free ones.
            conn.execute_batch("PRAGMA auto_vacuum = FULL")?;
            // Any change will do: its commit moves the pages.
            let version = self.database.version;
            let cut = conn.execute_batch(&format!("PRAGMA user_version = {version}"));
            conn.execute_batch("PRAGMA auto_vacuum = INCREMENTAL")?;
            cut?;
            return Ok(false);
        }
        let begun = Instant::now();
        // What is moved goes through the log, for which there has to be room.
        let goal = match is_short {
            true => MOVED_IN_NEED,
            false => free - kept,
        };
        let mut vacuum = conn.prepare(&format!("PRAGMA incremental_vacuum({goal})"))?;
        let mut steps = vacuum.query([])?;
        while steps.next()?.is_some() {
            // What has been moved by then is committed.
            if begun.elapsed() >= STEP {
                return Ok(true);
            }
        }
        Ok(is_short)
    }

    fn fold(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        let log = file::with_suffix(&self.database.path, "-wal");
        let bytes = || fs::metadata(&log).map_or(0, |file| file.len());
        let length = fs::metadata(&self.database.path).map_or(0, |file| file.len());
        let pages = number(conn, "PRAGMA page_count")?.unsigned_abs();
        let is_cut = pages * number(conn, "PRAGMA page_size")?.unsigned_abs() < length;
        if is_cut || bytes() > KEPT_LOG_BYTES {
            fold(conn)?;
        }
        let left = bytes();
        let path = self.database.path.display();
        if left > LONG_LOG_BYTES && !self.has_warned {
            self.has_warned = true;
            let reader = foreign::readers(&self.database.path);
            let reason = format!(
                "{path}-wal grows and cannot shrink: {reader} has been reading {path} all the \
                 while; once that ends, it shrinks by itself"
            );
            self.health.warn(self.part, FAULT, reason);
        } else if left <= KEPT_LOG_BYTES && self.has_warned {
            self.has_warned = false;
            self.health.clear(self.part, FAULT);
        }
        Ok(())
    }
}

/// Writes the log into the database and empties it, unless somebody still reads from it.
pub fn fold(conn: &Connection) -> rusqlite::Result<()> {
    // Without waiting for readers.
    conn.busy_timeout(Duration::ZERO)?;
    let folded = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    conn.busy_timeout(super::connection::BUSY)?;
    folded
}

/// What a pragma answers.
pub(super) fn number(conn: &Connection, pragma: &str) -> rusqlite::Result<i64> {
    conn.prepare_cached(pragma)?.query_row([], |row| row.get(0))
}
