//! How much one write to a queue carries, by what the line to it was seen to carry: more while writes
//! are quick, less when they are slow. So that a result takes neither a round trip of its own on a fast
//! line, nor more time than a write may take on a thin one. Writes nothing itself.

use std::time::Duration;

const FIRST_BYTES: usize = 1 << 20;
const LEAST_BYTES: usize = 64 << 10;
const MOST_BYTES: usize = 8 << 20;

/// A write that took less time is quick, and one that took more is slow.
const QUICK: Duration = Duration::from_millis(250);
const SLOW: Duration = Duration::from_secs(1);

/// The least rate that a line is expected to carry, in bytes a second.
const LEAST_RATE: usize = 256 << 10;

/// How many bytes the next write may carry.
#[derive(Debug)]
pub struct PieceSize(usize);

impl Default for PieceSize {
    fn default() -> Self {
        Self(FIRST_BYTES)
    }
}

impl PieceSize {
    /// How many of these items, in their order, go into the next write: as many as fit, and one at least.
    pub fn take(&self, sizes: impl IntoIterator<Item = usize>) -> usize {
        let mut bytes = 0;
        let fitting = sizes.into_iter().take_while(|size| {
            bytes += size;
            bytes <= self.0
        });
        fitting.count().max(1)
    }

    /// How many bytes that is at most, unless a single item has more.
    pub fn bytes(&self) -> usize {
        self.0
    }

    /// A write of so many bytes was confirmed within this time.
    pub fn confirmed(&mut self, bytes: usize, took: Duration) {
        if took > SLOW {
            self.shrink();
        } else if took < QUICK && bytes > self.0 / 2 {
            self.0 = (self.0 * 2).min(MOST_BYTES);
        }
    }

    /// A write failed. It may have been too much for the line.
    pub fn failed(&mut self) {
        self.shrink();
    }

    fn shrink(&mut self) {
        self.0 = (self.0 / 2).max(LEAST_BYTES);
    }
}

/// How much longer than an empty one a write of so many bytes may take.
pub fn transfer_time(bytes: usize) -> Duration {
    Duration::from_secs_f64(bytes as f64 / LEAST_RATE as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_grow_while_writes_are_quick_and_shrink_when_they_are_slow() {
        let mut size = PieceSize::default();
        assert_eq!(size.take([FIRST_BYTES / 2, FIRST_BYTES / 2, 1]), 2);
        assert_eq!(size.take([MOST_BYTES * 2, 1]), 1);
        // A small write says nothing of what the line carries.
        size.confirmed(1, QUICK / 2);
        assert_eq!(size.bytes(), FIRST_BYTES);
        for _ in 0..10 {
            size.confirmed(size.bytes(), QUICK / 2);
        }
        assert_eq!(size.bytes(), MOST_BYTES);
        size.confirmed(size.bytes(), SLOW * 2);
        size.failed();
        assert_eq!(size.bytes(), MOST_BYTES / 4);
        for _ in 0..10 {
            size.failed();
        }
        assert_eq!(size.bytes(), LEAST_BYTES);
    }
}
