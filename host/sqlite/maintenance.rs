//! Keeps the files of a database small between transactions: returns free pages to the disk in small
//! steps, checkpoints the write-ahead log when nothing changes, and reports which process prevents that.
//! Knows no table.

use super::{
    database::Database,
    file, lock_holders,
    pragma::{self, number},
};
use hostel_runtime::health::{Health, Part};
use rusqlite::Connection;
use std::{
    fs,
    time::{Duration, Instant},
};

/// How long one step of shrinking may delay transactions.
const STEP: Duration = Duration::from_millis(20);

/// Free pages that are kept for the next changes.
const KEPT_PAGES: i64 = 256;

/// The most pages that are moved at once; more are moved one by one.
const MOVED_AT_ONCE: i64 = 4096;

/// The same while space is short.
const MOVED_WHEN_SHORT: i64 = 64;

/// How long nothing must have changed before a checkpoint.
const QUIET: Duration = Duration::from_secs(1);

/// A log up to this length is left as it is: the next changes reuse it.
const KEPT_LOG_BYTES: u64 = 1 << 20;

/// The kind of the reported fault.
const FAULT: &str = "log";

/// From this length on, a log that cannot be checkpointed is reported.
const LONG_LOG_BYTES: u64 = 16 << 20;

/// The same while the database changes. SQLite then checkpoints the log at 4 MiB (`disk_space`) unless somebody
/// reads, and keeps up to 64 MiB of it (`journal_size_limit`).
const LONG_BUSY_LOG_BYTES: u64 = 128 << 20;
const KEPT_BUSY_LOG_BYTES: u64 = 64 << 20;

/// The maintenance of one writer's database.
pub struct Maintenance {
    database: Database,
    /// The number of changes at the last step, and when it last differed.
    changes: u64,
    changed: Instant,
    next_step: Instant,
    part: Part,
    health: Health,
    /// A log was reported that could not shrink. Once it is this short, it can.
    reported: Option<u64>,
}

impl Maintenance {
    /// Faults are reported as those of `part`.
    pub fn new(database: &Database, part: Part, health: &Health) -> Self {
        Self {
            database: database.clone(),
            changes: 0,
            changed: Instant::now(),
            next_step: Instant::now(),
            part,
            health: health.clone(),
            reported: None,
        }
    }

    /// Returns how long until the next step.
    pub fn pause(&self) -> Duration {
        self.next_step.saturating_duration_since(Instant::now())
    }

    /// Does a step of work, unless the last one was too recent. While space is short, every free page is
    /// returned, a few at a time. Must be called outside of a transaction.
    pub fn step(&mut self, conn: &Connection, is_short: bool) -> rusqlite::Result<()> {
        let begun = Instant::now();
        if begun < self.next_step {
            return Ok(());
        }
        // A step that fails is not repeated at once.
        self.next_step = begun + QUIET;
        let changes = conn.total_changes();
        if changes != self.changes {
            (self.changes, self.changed) = (changes, begun);
        }
        let more = self.shrink(conn, is_short)?;
        if is_short || (!more && self.changed.elapsed() >= QUIET) {
            self.checkpoint(conn)?;
            self.report_log(LONG_LOG_BYTES, KEPT_LOG_BYTES);
        } else {
            self.report_log(LONG_BUSY_LOG_BYTES, KEPT_BUSY_LOG_BYTES);
        }
        // Maintenance takes a fifth of the time at most.
        let pause = if more { begun.elapsed() * 4 } else { QUIET / 2 };
        self.next_step = Instant::now() + pause;
        Ok(())
    }

    /// Returns free pages to the disk, for as long as a step may take, once they are a good part of the
    /// file: some are soon used again, and moving pages is work. Returns whether there are more.
    fn shrink(&self, conn: &Connection, is_short: bool) -> rusqlite::Result<bool> {
        let free = number(conn, "PRAGMA freelist_count")?;
        let all = number(conn, "PRAGMA page_count")?;
        // How many stay, and up to how many nothing is done.
        let (kept, ignored) = if is_short {
            (0, 0)
        } else {
            (KEPT_PAGES.max(all / 8), KEPT_PAGES.max(all / 4))
        };
        if free <= ignored || number(conn, "PRAGMA auto_vacuum")? == 0 {
            return Ok(false);
        }
        let at_once = if is_short {
            MOVED_WHEN_SHORT
        } else {
            MOVED_AT_ONCE
        };
        if free.min(all - free) <= at_once {
            // One by one, SQLite would search the free list for each page.
            conn.execute_batch("PRAGMA auto_vacuum = FULL")?;
            // Any change: its commit moves the pages.
            let version = self.database.version;
            let cut = conn.execute_batch(&format!("PRAGMA user_version = {version}"));
            conn.execute_batch("PRAGMA auto_vacuum = INCREMENTAL")?;
            cut?;
            return Ok(false);
        }
        let begun = Instant::now();
        // Moved pages go through the log, for which the disk needs room.
        let goal = if is_short {
            MOVED_WHEN_SHORT
        } else {
            free - kept
        };
        let mut vacuum = conn.prepare(&format!("PRAGMA incremental_vacuum({goal})"))?;
        let mut steps = vacuum.query([])?;
        while steps.next()?.is_some() {
            // The pages moved so far are committed.
            if begun.elapsed() >= STEP {
                return Ok(true);
            }
        }
        Ok(is_short)
    }

    fn checkpoint(&self, conn: &Connection) -> rusqlite::Result<()> {
        let length = fs::metadata(&self.database.path).map_or(0, |file| file.len());
        let pages = number(conn, "PRAGMA page_count")?.unsigned_abs();
        let is_cut = pages * number(conn, "PRAGMA page_size")?.unsigned_abs() < length;
        if is_cut || self.log_bytes() > KEPT_LOG_BYTES {
            pragma::checkpoint(conn)?;
        }
        Ok(())
    }

    fn log_bytes(&self) -> u64 {
        let log = file::with_suffix(&self.database.path, "-wal");
        fs::metadata(log).map_or(0, |file| file.len())
    }

    /// Reports a log of more than `long` bytes, which is expected to shrink to `kept`.
    fn report_log(&mut self, long: u64, kept: u64) {
        let left = self.log_bytes();
        let path = self.database.path.display();
        if left > long && self.reported.is_none() {
            self.reported = Some(kept);
            let reader = lock_holders::readers(&self.database.path);
            let reason = format!(
                "{path}-wal grows and cannot shrink, because {reader} has been reading {path}; it \
                 shrinks by itself once that ends"
            );
            self.health.warn(self.part, FAULT, reason);
        } else if self.reported.is_some_and(|kept| left <= kept) {
            self.reported = None;
            self.health.clear(self.part, FAULT);
        }
    }
}
