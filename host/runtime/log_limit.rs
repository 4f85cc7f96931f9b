//! Bounds how often one event is logged, so that clients and guests cannot fill the log, and counts the lines
//! that are left out.

use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// Permits `burst` lines in each interval.
#[derive(Debug)]
pub struct LogLimit {
    burst: u32,
    interval: Duration,
    window: Mutex<Option<Window>>,
}

#[derive(Debug)]
struct Window {
    since: Instant,
    logged: u32,
    left_out: u64,
}

impl LogLimit {
    /// Creates a limit of `burst` lines in each `interval`.
    pub const fn new(burst: u32, interval: Duration) -> Self {
        Self {
            burst,
            interval,
            window: Mutex::new(None),
        }
    }

    /// Creates the limit for the failures of a loop that retries: the first one, and one every 10 s after it.
    pub const fn of_retries() -> Self {
        Self::new(1, Duration::from_secs(10))
    }

    /// Returns `None` if the line has to be left out, or else how many lines were left out since the last one,
    /// to be logged with it.
    pub fn permit(&self) -> Option<u64> {
        self.permit_at(Instant::now())
    }

    fn permit_at(&self, now: Instant) -> Option<u64> {
        let mut window = self.window.lock();
        let window = window.get_or_insert(Window {
            since: now,
            logged: 0,
            left_out: 0,
        });
        if now.duration_since(window.since) >= self.interval {
            window.since = now;
            window.logged = 0;
        }
        if window.logged == self.burst {
            window.left_out += 1;
            return None;
        }
        window.logged += 1;
        Some(std::mem::take(&mut window.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_interval_has_its_burst_and_the_next_line_counts_the_rest() {
        let limit = LogLimit::new(2, Duration::from_secs(10));
        let start = Instant::now();
        let at = |seconds| limit.permit_at(start + Duration::from_secs(seconds));
        assert_eq!([at(0), at(1), at(2), at(9)], [Some(0), Some(0), None, None]);
        assert_eq!([at(10), at(11), at(12)], [Some(2), Some(0), None]);
        assert_eq!(at(30), Some(1));
    }
}
