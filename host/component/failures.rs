//! How soon a component is started again after failures, and when it counts as down. Pure: no
//! clock, no guests.

use hostel_backoff::{exponential, with_jitter};
use std::time::Duration;

/// The wait before the second start in a row; it doubles with each further one.
const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(30);

/// After so many failures one after another, a component is down: it takes no messages, and is
/// still started again from time to time.
const DOWN_AFTER: u32 = 5;

/// Failures one after another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Failures(u32);

impl Failures {
    /// A message was handled: what was before counts no more.
    pub fn forget(&mut self) {
        self.0 = 0;
    }

    /// One that no further try can mend for now.
    pub fn give_up(&mut self) {
        self.0 = self.0.max(DOWN_AFTER - 1);
    }

    /// A message made the instance fail: how long to wait before a new one is made. `jitter` lies
    /// in `0.0..=1.0`.
    pub fn in_message(&mut self, jitter: f64) -> Duration {
        self.0 = self.0.saturating_add(1);
        match self.0 {
            1 => Duration::ZERO,
            more => wait(more - 1, jitter),
        }
    }

    /// A start failed: how long to wait before the next.
    pub fn in_start(&mut self, jitter: f64) -> Duration {
        self.0 = self.0.saturating_add(1);
        wait(self.0, jitter)
    }

    pub fn is_down(self) -> bool {
        self.0 >= DOWN_AFTER
    }
}

/// Between half of the full wait and all of it, so that a broken component never spins.
fn wait(nth: u32, jitter: f64) -> Duration {
    with_jitter(exponential(FIRST, LONGEST, nth), jitter)
}

/// Why there is no instance of some code.
#[derive(Debug, thiserror::Error)]
pub enum NoInstance {
    /// Other components hold the room that there is for them.
    #[error("{0}")]
    Room(String),
    #[error("{0}")]
    Other(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_failure_costs_no_time_and_a_row_of_them_more_and_more() {
        let mut failures = Failures::default();
        let waits: Vec<u128> = (0..10)
            .map(|_| failures.in_message(1.0).as_millis())
            .collect();
        assert_eq!(
            waits,
            [0, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000]
        );
        assert!(failures.is_down());
        failures.forget();
        assert_eq!(failures.in_message(1.0), Duration::ZERO);
        assert!(!failures.is_down());
    }

    #[test]
    fn failed_starts_wait_at_once_and_never_less_than_half() {
        let mut failures = Failures::default();
        assert_eq!(failures.in_start(0.0).as_millis(), 100);
        assert_eq!(failures.in_start(1.0).as_millis(), 400);
        for _ in 0..3 {
            assert!(!failures.is_down());
            failures.in_start(0.5);
        }
        assert!(failures.is_down());
        for _ in 0..100 {
            failures.in_start(0.5);
        }
        assert_eq!(failures.in_start(1.0), LONGEST);
    }
}
