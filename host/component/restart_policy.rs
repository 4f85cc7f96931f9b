//! How soon a component is restarted after failures, when it counts as down, and how soon new code is
//! tried again. Pure: no clock, no guests.

use hostel_backoff::{exponential, with_jitter};
use std::time::Duration;

/// The delay before the second start in a row; it doubles with each further one.
const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(30);

/// After this many failures in a row a component is down: it takes no messages, and is still
/// restarted from time to time.
const DOWN_AFTER: u32 = 5;

/// The delay before new code that failed to start is tried again, while older code runs; it doubles with
/// each further failure.
const FIRST_UPGRADE: Duration = Duration::from_secs(10);
const LONGEST_UPGRADE: Duration = Duration::from_secs(600);

/// The number of failures in a row, and what follows from it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RestartPolicy {
    failures: u32,
}

impl RestartPolicy {
    /// Forgets earlier failures, after a message was handled or new code arrived.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Makes the next failure count as the last one before the component is down, because no early
    /// restart can help.
    pub fn give_up(&mut self) {
        self.failures = self.failures.max(DOWN_AFTER - 1);
    }

    /// Counts an instance that failed in a message. Returns the delay before the next start; `jitter`
    /// lies in `0.0..=1.0`.
    pub fn message_failed(&mut self, jitter: f64) -> Duration {
        self.failures = self.failures.saturating_add(1);
        match self.failures {
            1 => Duration::ZERO,
            more => delay(more - 1, jitter),
        }
    }

    /// Counts a start that failed. Returns the delay before the next one.
    pub fn start_failed(&mut self, jitter: f64) -> Duration {
        self.failures = self.failures.saturating_add(1);
        delay(self.failures, jitter)
    }

    pub fn is_down(self) -> bool {
        self.failures >= DOWN_AFTER
    }
}

/// The number of failed starts in a row of new code, while older code runs. They are no failures of the
/// older code, and a message that this handles makes the new code no better.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UpgradePolicy {
    failures: u32,
}

impl UpgradePolicy {
    /// Counts a start that failed. Returns the delay before the next one.
    pub fn start_failed(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        exponential(FIRST_UPGRADE, LONGEST_UPGRADE, self.failures)
    }
}

/// Between half of the full delay and all of it.
fn delay(nth: u32, jitter: f64) -> Duration {
    with_jitter(exponential(FIRST, LONGEST, nth), jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_restarts_at_once_and_further_ones_back_off() {
        let mut policy = RestartPolicy::default();
        let delays: Vec<u128> = (0..10)
            .map(|_| policy.message_failed(1.0).as_millis())
            .collect();
        assert_eq!(
            delays,
            [0, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000]
        );
        assert!(policy.is_down());
        policy.reset();
        assert_eq!(policy.message_failed(1.0), Duration::ZERO);
        assert!(!policy.is_down());
    }

    #[test]
    fn failed_starts_back_off_from_the_first_one_and_by_at_least_half() {
        let mut policy = RestartPolicy::default();
        assert_eq!(policy.start_failed(0.0).as_millis(), 100);
        assert_eq!(policy.start_failed(1.0).as_millis(), 400);
        for _ in 0..3 {
            assert!(!policy.is_down());
            policy.start_failed(0.5);
        }
        assert!(policy.is_down());
        for _ in 0..100 {
            policy.start_failed(0.5);
        }
        assert_eq!(policy.start_failed(1.0), LONGEST);
    }

    #[test]
    fn new_code_is_tried_again_after_ten_seconds_to_ten_minutes() {
        let mut policy = UpgradePolicy::default();
        let delays: Vec<u64> = (0..8).map(|_| policy.start_failed().as_secs()).collect();
        assert_eq!(delays, [10, 20, 40, 80, 160, 320, 600, 600]);
    }
}
