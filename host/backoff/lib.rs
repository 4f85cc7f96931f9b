//! Exponential backoff: how long to wait between attempts at something that keeps failing.

use std::time::Duration;

/// Returns the delay before the `nth` attempt in a row, counted from 1 and without jitter: `initial`,
/// doubled with each further attempt, and at most `max`.
pub fn exponential(initial: Duration, max: Duration, nth: u32) -> Duration {
    let doublings = nth.saturating_sub(1).min(31);
    initial.saturating_mul(1 << doublings).min(max)
}

/// Returns between half of `delay` and all of it. `random` lies in `0.0..=1.0`.
pub fn with_jitter(delay: Duration, random: f64) -> Duration {
    delay.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
}

/// The delays between attempts, which double up to a maximum and carry jitter, so that nodes which
/// failed together do not return together.
#[derive(Debug, Clone)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// Creates a backoff whose first delay is at most `initial`, and no delay more than `max`.
    pub const fn new(initial: Duration, max: Duration) -> Self {
        Self {
            initial,
            max,
            failures: 0,
        }
    }

    /// Returns the delay before the next attempt; the one after it is longer.
    pub fn next_delay(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let delay = exponential(self.initial, self.max, self.failures);
        with_jitter(delay, fastrand::f64())
    }

    /// Begins again with the first delay.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INITIAL: Duration = Duration::from_millis(100);
    const MAX: Duration = Duration::from_secs(1);

    #[test]
    fn delays_double_up_to_the_maximum() {
        let delays = [0, 1, 2, 3, 4, 5, 6, u32::MAX].map(|nth| exponential(INITIAL, MAX, nth));
        let expected = [100, 100, 200, 400, 800, 1000, 1000, 1000];
        assert_eq!(delays, expected.map(Duration::from_millis));
        assert_eq!(exponential(Duration::MAX, Duration::MAX, 9), Duration::MAX);
    }

    #[test]
    fn jitter_takes_away_half_at_most() {
        assert_eq!(with_jitter(MAX, 0.0), MAX / 2);
        assert_eq!(with_jitter(MAX, 1.0), MAX);
        assert_eq!(with_jitter(MAX, 7.0), MAX);
    }

    #[test]
    fn a_reset_begins_with_the_first_delay() {
        let mut backoff = Backoff::new(INITIAL, MAX);
        for _ in 0..100 {
            assert!(backoff.next_delay() <= MAX);
        }
        assert!(backoff.next_delay() >= MAX / 2);
        backoff.reset();
        assert!(backoff.next_delay() <= INITIAL);
    }
}
