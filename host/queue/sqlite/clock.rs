//! The queue's own time, which due times, leases and ages are measured by. It goes on evenly while
//! a node runs, whatever happens to the wall clock, and never back; across runs it believes the wall
//! clock within bounds. What people are shown is the wall clock's time of the moment in question.

use hostel_task::UnixMs;
use rusqlite::{Connection, params};
use rustix::time::{ClockId, clock_gettime};
use std::sync::{Arc, PoisonError, RwLock};

/// The wall clock, in milliseconds since 1970.
pub(super) type Wall = Arc<dyn Fn() -> i64 + Send + Sync>;

const HOUR: i64 = 3_600_000;

/// How much of the time between two runs counts for how old what has ended is. A clock that was
/// wrong and has been put right looks like a long time without a node, and must not make a queue
/// forget its results. All of it counts for what is due: an attempt that comes early does no harm.
const COUNTED: i64 = HOUR;

const CENTURY: i64 = 100 * 365 * 24 * HOUR;

/// By so much the wall clock may differ before it counts as set.
const TOLERANCE: i64 = 2000;

/// How many times the clock may be set before the first is forgotten.
const MAX_ERAS: i64 = 1000;

/// From `since` on, in the queue's time, the wall clock was `ahead` of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Era {
    since: i64,
    ahead: i64,
}

pub(super) struct Clock {
    wall: Wall,
    /// The queue's time when this run began, and the machine's then.
    begun: i64,
    machine: i64,
    eras: RwLock<Vec<Era>>,
}

/// What the wall clock says of the time since the last run.
#[derive(Debug, PartialEq, Eq)]
struct Resumed {
    now: i64,
    ahead: i64,
    /// How much sooner tasks are due than by this time, since more of the pause counts for them.
    sooner: i64,
}

fn resume(last: i64, ahead: i64, wall: i64) -> Resumed {
    let pause = (wall - ahead).saturating_sub(last);
    if (-TOLERANCE..=COUNTED).contains(&pause) {
        let now = last + pause.max(0);
        return Resumed {
            now,
            ahead,
            sooner: 0,
        };
    }
    let now = last + pause.clamp(0, COUNTED);
    Resumed {
        now,
        ahead: wall - now,
        sooner: pause.max(0) - pause.clamp(0, COUNTED),
    }
}

pub(super) fn system_wall() -> Wall {
    Arc::new(|| super::row::ms(crate::now()))
}

/// Cannot be set, and on Linux goes on while the machine sleeps.
#[cfg(target_os = "linux")]
const MACHINE: ClockId = ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const MACHINE: ClockId = ClockId::Monotonic;

fn machine_ms() -> i64 {
    let time = clock_gettime(MACHINE);
    time.tv_sec * 1000 + time.tv_nsec / 1_000_000
}

impl Clock {
    /// Goes on where the last run ended, and makes due what became due meanwhile.
    pub fn resume(conn: &Connection, wall: Wall) -> rusqlite::Result<Self> {
        let last: i64 = conn.query_row("SELECT last_at FROM meta", [], |row| row.get(0))?;
        let mut eras = conn.prepare("SELECT since, ahead FROM clock ORDER BY since")?;
        let eras = eras.query_map([], |row| {
            Ok(Era {
                since: row.get(0)?,
                ahead: row.get(1)?,
            })
        })?;
        let eras: Vec<Era> = eras.collect::<Result<_, _>>()?;
        let (before, now) = (eras.last().map_or(0, |era| era.ahead), wall());
        let resumed = match last {
            // A new file, or one whose time makes no sense.
            last if last == 0 || last > now.saturating_add(CENTURY) => Resumed {
                now,
                ahead: 0,
                sooner: 0,
            },
            last => resume(last, before, now),
        };
        let clock = Self {
            wall,
            begun: resumed.now,
            machine: machine_ms(),
            eras: RwLock::new(eras),
        };
        if resumed.sooner > 0 {
            let sql = "UPDATE task SET at = at - ?1 WHERE state = 0 AND typeof(at) = 'integer'";
            conn.execute(sql, [resumed.sooner])?;
        }
        if resumed.ahead != before {
            let era = Era {
                since: resumed.now,
                ahead: resumed.ahead,
            };
            clock.enter(conn, era)?;
        }
        clock.keep(conn)?;
        Ok(clock)
    }

    pub fn now(&self) -> i64 {
        self.begun + (machine_ms() - self.machine)
    }

    /// What the wall clock said, or will say unless it is set, at a moment of the queue's time.
    pub fn shown(&self, at: i64) -> UnixMs {
        let eras = self.eras.read().unwrap_or_else(PoisonError::into_inner);
        let era = eras.partition_point(|era| era.since <= at).checked_sub(1);
        let ahead = era.and_then(|era| eras.get(era)).map_or(0, |era| era.ahead);
        UnixMs(u64::try_from(at.saturating_add(ahead)).unwrap_or(0))
    }

    /// Looks whether the wall clock has been set since; true if it has.
    pub fn compare(&self, conn: &Connection) -> rusqlite::Result<bool> {
        let (since, wall) = (self.now(), (self.wall)());
        let ahead = wall - since;
        let known = self.shown(since).0;
        let by = wall - i64::try_from(known).unwrap_or(i64::MAX);
        if by.abs() <= TOLERANCE {
            return Ok(false);
        }
        let (seconds, to) = (
            by.unsigned_abs() / 1000,
            if by < 0 { "back" } else { "forward" },
        );
        tracing::warn!(
            "the clock of this machine was set {to} by {seconds} s; the task queue goes on by its \
             own, so that nothing waits or is forgotten for that"
        );
        self.enter(conn, Era { since, ahead })?;
        Ok(true)
    }

    fn enter(&self, conn: &Connection, era: Era) -> rusqlite::Result<()> {
        conn.execute("DELETE FROM clock WHERE since >= ?1", [era.since])?;
        conn.execute(
            "INSERT INTO clock (since, ahead) VALUES (?1, ?2)",
            [era.since, era.ahead],
        )?;
        conn.execute(
            "DELETE FROM clock WHERE since <
                (SELECT since FROM clock ORDER BY since DESC LIMIT 1 OFFSET ?1)",
            [MAX_ERAS - 1],
        )?;
        let mut eras = self.eras.write().unwrap_or_else(PoisonError::into_inner);
        eras.retain(|before| before.since < era.since);
        eras.push(era);
        Ok(())
    }

    /// Keeps how far the time is, for the next run.
    pub fn keep(&self, conn: &Connection) -> rusqlite::Result<()> {
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
        let Resumed { now, ahead, sooner } = resume(LAST, 5, LAST + 5 + pause);
        (now - LAST, ahead - 5, sooner)
    }

    #[test]
    fn a_pause_counts_within_bounds() {
        // Advanced, by how much the wall clock is further ahead, and how much more counts for due.
        assert_eq!(resumed(1000), (1000, 0, 0));
        assert_eq!(resumed(HOUR), (HOUR, 0, 0));
        assert_eq!(resumed(DAY), (HOUR, DAY - HOUR, DAY - HOUR));
        let years = 3650 * DAY;
        assert_eq!(resumed(years), (HOUR, years - HOUR, years - HOUR));
        assert_eq!(resumed(-1000), (0, 0, 0));
        assert_eq!(resumed(-2 * DAY), (0, -2 * DAY, 0));
    }
}
