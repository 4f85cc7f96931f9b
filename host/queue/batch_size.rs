//! The size of batches, adapted to the connection: larger while batches are quick, smaller when they are
//! slow. Results share round trips on a fast connection, and no batch takes too long on a slow one. Pure.

use std::time::Duration;

const INITIAL_BYTES: usize = 1 << 20;
const MIN_BYTES: usize = 64 << 10;
const MAX_BYTES: usize = 8 << 20;

/// A write that takes less than `QUICK` is quick, and one that takes more than `SLOW` is slow.
const QUICK: Duration = Duration::from_millis(250);
const SLOW: Duration = Duration::from_secs(1);

/// The lowest rate that a connection is expected to have, in bytes per second.
pub(crate) const MIN_RATE: usize = 256 << 10;

/// The size of the next batch in bytes.
#[derive(Debug)]
pub struct BatchSize(usize);

impl Default for BatchSize {
    fn default() -> Self {
        Self(INITIAL_BYTES)
    }
}

impl BatchSize {
    /// Returns how many of these items, in their order, go into the next batch: as many as fit, but at
    /// least one.
    pub fn take(&self, sizes: impl IntoIterator<Item = usize>) -> usize {
        let mut bytes = 0;
        let fitting = sizes.into_iter().take_while(|size| {
            bytes += size;
            bytes <= self.0
        });
        fitting.count().max(1)
    }

    /// Returns the most bytes of a batch, unless a single item has more.
    pub fn bytes(&self) -> usize {
        self.0
    }

    /// Returns the most bytes of a batch that has to arrive within `time`, even if the connection has become
    /// slower since the last one.
    pub fn bytes_within(&self, time: Duration) -> usize {
        let most = (MIN_RATE as f64 * time.as_secs_f64()) as usize;
        self.0.min(most.max(MIN_BYTES))
    }

    /// Records that a write of `bytes` was confirmed after `took`.
    pub fn confirmed(&mut self, bytes: usize, took: Duration) {
        if took > SLOW {
            self.shrink();
        } else if took < QUICK && bytes > self.0 / 2 {
            self.0 = (self.0 * 2).min(MAX_BYTES);
        }
    }

    /// Records that a write failed, perhaps because it was too large for the connection.
    pub fn failed(&mut self) {
        self.shrink();
    }

    fn shrink(&mut self) {
        self.0 = (self.0 / 2).max(MIN_BYTES);
    }
}

/// Returns how much longer a write of `bytes` may take than an empty one.
pub fn transfer_time(bytes: usize) -> Duration {
    Duration::from_secs_f64(bytes as f64 / MIN_RATE as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_grow_while_writes_are_quick_and_shrink_when_they_are_slow() {
        let mut size = BatchSize::default();
        assert_eq!(size.take([INITIAL_BYTES / 2, INITIAL_BYTES / 2, 1]), 2);
        assert_eq!(size.take([MAX_BYTES * 2, 1]), 1);
        // A small write shows nothing about the connection.
        size.confirmed(1, QUICK / 2);
        assert_eq!(size.bytes(), INITIAL_BYTES);
        for _ in 0..10 {
            size.confirmed(size.bytes(), QUICK / 2);
        }
        assert_eq!(size.bytes(), MAX_BYTES);
        assert_eq!(size.bytes_within(Duration::MAX), MAX_BYTES);
        assert_eq!(size.bytes_within(Duration::from_secs(2)), 2 * MIN_RATE);
        assert_eq!(size.bytes_within(Duration::ZERO), MIN_BYTES);
        size.confirmed(size.bytes(), SLOW * 2);
        size.failed();
        assert_eq!(size.bytes(), MAX_BYTES / 4);
        for _ in 0..10 {
            size.failed();
        }
        assert_eq!(size.bytes(), MIN_BYTES);
    }
}
