//! The queue's own time, which due times, leases and ages are measured by. While a node runs it
//! advances evenly, whatever happens to the wall clock, and never goes back. Across runs it follows
//! the wall clock within bounds. Times for people are those of the wall clock at the moment in
//! question.

use super::encoding::ms;
use crate::task_queue::now;
use hostel_task::UnixMs;
use parking_lot::RwLock;
use rusqlite::{Connection, params};
use rustix::time::{ClockId, clock_gettime};
use std::sync::Arc;

/// The wall clock, in milliseconds since 1970.
pub(super) type WallClock = Arc<dyn Fn() -> i64 + Send + Sync>;

const HOUR: i64 = 3_600_000;

/// How much of the time between two runs counts for the age of ended tasks. A wrong wall clock that
/// was corrected looks like a long time without a node, and must not make the queue purge its results.
/// For due times and unique keys all of it counts: an early attempt does no harm, and a key that is held too
/// long keeps work from being done.
const MAX_COUNTED_PAUSE: i64 = HOUR;

const CENTURY: i64 = 100 * 365 * 24 * HOUR;

/// How far the wall clock may deviate before it counts as set.
const TOLERANCE: i64 = 2000;

/// How many offsets are kept.
const MAX_OFFSETS: i64 = 1000;

/// From `since` on, in the queue's time, the wall clock was `ahead` of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ClockOffset {
    since: i64,
    ahead: i64,
}

pub(super) struct Clock {
    wall: WallClock,
    /// The queue's time when this run began, and the monotonic clock at that moment.
    started_at: i64,
    started_monotonic: i64,
    offsets: RwLock<Vec<ClockOffset>>,
}

/// Where the queue's time continues after a pause between two runs.
#[derive(Debug, PartialEq, Eq)]
struct Resumed {
    now: i64,
    ahead: i64,
    /// By how much due times move forward, because more of the pause counts for them.
    due_earlier_by: i64,
}

fn resume(last: i64, ahead: i64, wall: i64) -> Resumed {
    let pause = (wall - ahead).saturating_sub(last);
    if (-TOLERANCE..=MAX_COUNTED_PAUSE).contains(&pause) {
        return Resumed {
            now: last + pause.max(0),
            ahead,
            due_earlier_by: 0,
        };
    }
    let counted = pause.clamp(0, MAX_COUNTED_PAUSE);
    let now = last + counted;
    Resumed {
        now,
        ahead: wall - now,
        due_earlier_by: pause.max(0) - counted,
    }
}

pub(super) fn system_clock() -> WallClock {
    Arc::new(|| ms(now()))
}

/// A clock that cannot be set. On Linux it advances while the machine sleeps.
#[cfg(target_os = "linux")]
const MONOTONIC: ClockId = ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const MONOTONIC: ClockId = ClockId::Monotonic;

fn monotonic_ms() -> i64 {
    let time = clock_gettime(MONOTONIC);
    time.tv_sec * 1000 + time.tv_nsec / 1_000_000
}

impl Clock {
    /// Continues where the last run ended, and makes due what became due since.
    pub fn resume(conn: &Connection, wall: WallClock) -> rusqlite::Result<Self> {
        let last: i64 = conn.query_row("SELECT last_at FROM meta", [], |row| row.get(0))?;
        let mut offsets = conn.prepare("SELECT since, ahead FROM clock ORDER BY since")?;
        let offsets = offsets.query_map([], |row| {
            Ok(ClockOffset {
                since: row.get(0)?,
                ahead: row.get(1)?,
            })
        })?;
        let offsets: Vec<ClockOffset> = offsets.collect::<Result<_, _>>()?;
        let ahead_before = offsets.last().map_or(0, |offset| offset.ahead);
        let now = wall();
        // A new file has no time yet; a time this far ahead cannot be right.
        let resumed = if last == 0 || last > now.saturating_add(CENTURY) {
            Resumed {
                now,
                ahead: 0,
                due_earlier_by: 0,
            }
        } else {
            resume(last, ahead_before, now)
        };
        let clock = Self {
            wall,
            started_at: resumed.now,
            started_monotonic: monotonic_ms(),
            offsets: RwLock::new(offsets),
        };
        if resumed.due_earlier_by > 0 {
            for sql in [
                "UPDATE task SET at = at - ?1 WHERE state = 0 AND typeof(at) = 'integer'",
                "UPDATE task_options SET start_by = start_by - ?1 WHERE typeof(start_by) = 'integer'",
                "UPDATE unique_key SET until = until - ?1 WHERE typeof(until) = 'integer'",
                "UPDATE rate SET at = at - ?1 WHERE typeof(at) = 'integer'",
            ] {
                conn.execute(sql, [resumed.due_earlier_by])?;
            }
        }
        if resumed.ahead != ahead_before {
            let offset = ClockOffset {
                since: resumed.now,
                ahead: resumed.ahead,
            };
            clock.add_offset(conn, offset)?;
        }
        clock.store(conn)?;
        Ok(clock)
    }

    pub fn now(&self) -> i64 {
        self.started_at + (monotonic_ms() - self.started_monotonic)
    }

    /// Returns what the wall clock showed, or will show unless it is set, at a moment of the queue's
    /// time.
    pub fn to_wall(&self, at: i64) -> UnixMs {
        let offsets = self.offsets.read();
        let index = offsets.partition_point(|offset| offset.since <= at);
        let ahead = index.checked_sub(1).map_or(0, |index| offsets[index].ahead);
        UnixMs(u64::try_from(at.saturating_add(ahead)).unwrap_or(0))
    }

    /// Returns the earliest and the latest moment of the queue's time at which the wall clock may have shown
    /// `time`.
    pub fn moments_of(&self, time: UnixMs) -> (i64, i64) {
        let offsets = self.offsets.read();
        let ahead = offsets.iter().map(|offset| offset.ahead);
        let (least, most) = ahead.fold((0, 0), |(least, most), ahead| {
            (ahead.min(least), ahead.max(most))
        });
        let at = ms(time);
        (at.saturating_sub(most), at.saturating_sub(least))
    }

    /// Returns the moment of the queue's time at which the wall clock will show `time` unless it is set.
    pub fn to_queue(&self, time: UnixMs) -> i64 {
        let ahead = self.offsets.read().last().map_or(0, |offset| offset.ahead);
        ms(time).saturating_sub(ahead)
    }

    /// Adds an offset if the wall clock was set, and returns whether it was.
    pub fn follow_wall(&self, conn: &Connection) -> rusqlite::Result<bool> {
        let (since, wall) = (self.now(), (self.wall)());
        let expected = self.to_wall(since).0;
        let set_by = wall - i64::try_from(expected).unwrap_or(i64::MAX);
        if set_by.abs() <= TOLERANCE {
            return Ok(false);
        }
        let seconds = set_by.unsigned_abs() / 1000;
        let direction = if set_by < 0 { "back" } else { "forward" };
        tracing::warn!(
            "the clock of this machine was set {direction} by {seconds} s; the task queue keeps its \
             own time, so that no task waits longer or is purged earlier"
        );
        let ahead = wall - since;
        self.add_offset(conn, ClockOffset { since, ahead })?;
        Ok(true)
    }

    fn add_offset(&self, conn: &Connection, offset: ClockOffset) -> rusqlite::Result<()> {
        conn.execute("DELETE FROM clock WHERE since >= ?1", [offset.since])?;
        conn.execute(
            "INSERT INTO clock (since, ahead) VALUES (?1, ?2)",
            [offset.since, offset.ahead],
        )?;
        conn.execute(
            "DELETE FROM clock WHERE since <
                (SELECT since FROM clock ORDER BY since DESC LIMIT 1 OFFSET ?1)",
            [MAX_OFFSETS - 1],
        )?;
        let mut offsets = self.offsets.write();
        offsets.retain(|before| before.since < offset.since);
        offsets.push(offset);
        Ok(())
    }

    /// Stores the queue's time, for the next run.
    pub fn store(&self, conn: &Connection) -> rusqlite::Result<()> {
        conn.execute("UPDATE meta SET last_at = ?1", params![self.now()])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * HOUR;
    const LAST: i64 = 1_700_000_000_000;

    fn resumed(pause: i64) -> (i64, i64, i64) {
        let Resumed {
            now,
            ahead,
            due_earlier_by,
        } = resume(LAST, 5, LAST + 5 + pause);
        (now - LAST, ahead - 5, due_earlier_by)
    }

    #[test]
    fn a_pause_counts_within_bounds() {
        // By how much the queue's time and the wall clock's lead advance, and due times move.
        assert_eq!(resumed(1000), (1000, 0, 0));
        assert_eq!(resumed(HOUR), (HOUR, 0, 0));
        assert_eq!(resumed(DAY), (HOUR, DAY - HOUR, DAY - HOUR));
        let years = 3650 * DAY;
        assert_eq!(resumed(years), (HOUR, years - HOUR, years - HOUR));
        assert_eq!(resumed(-1000), (0, 0, 0));
        assert_eq!(resumed(-2 * DAY), (0, -2 * DAY, 0));
    }
}
