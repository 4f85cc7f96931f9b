//! What tasks take of a node while they run, and what a node has available. Pure.

/// An amount of each resource that guests share.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resources {
    /// Memory in bytes.
    pub memory_bytes: usize,
    /// Slots of the instance pool. Most guests take one.
    pub pool_slots: usize,
}

impl Resources {
    /// More than any task takes.
    pub const UNLIMITED: Self = Self {
        memory_bytes: usize::MAX,
        pool_slots: usize::MAX,
    };

    /// Whether all of this is available.
    pub fn fits_in(self, available: Self) -> bool {
        self.memory_bytes <= available.memory_bytes && self.pool_slots <= available.pool_slots
    }

    /// Subtracts `taken`; `None` if there is less than that of any resource.
    pub fn checked_sub(self, taken: Self) -> Option<Self> {
        Some(Self {
            memory_bytes: self.memory_bytes.checked_sub(taken.memory_bytes)?,
            pool_slots: self.pool_slots.checked_sub(taken.pool_slots)?,
        })
    }

    /// Returns how many times `each` fits.
    pub fn count_of(self, each: Self) -> usize {
        let count = |has: usize, needs: usize| has.checked_div(needs).unwrap_or(usize::MAX);
        count(self.memory_bytes, each.memory_bytes).min(count(self.pool_slots, each.pool_slots))
    }

    /// Returns the larger amount of each resource.
    pub fn max(self, other: Self) -> Self {
        Self {
            memory_bytes: self.memory_bytes.max(other.memory_bytes),
            pool_slots: self.pool_slots.max(other.pool_slots),
        }
    }

    /// Multiplies each amount by `count`.
    pub fn saturating_mul(self, count: usize) -> Self {
        Self {
            memory_bytes: self.memory_bytes.saturating_mul(count),
            pool_slots: self.pool_slots.saturating_mul(count),
        }
    }

    /// Returns the smaller amount of each resource.
    pub fn min(self, other: Self) -> Self {
        Self {
            memory_bytes: self.memory_bytes.min(other.memory_bytes),
            pool_slots: self.pool_slots.min(other.pool_slots),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_amounts_have_to_fit() {
        let of = |memory_bytes, pool_slots| Resources {
            memory_bytes,
            pool_slots,
        };
        assert!(of(3, 1).fits_in(of(3, 1)));
        assert!(!of(4, 1).fits_in(of(3, 9)));
        assert!(!of(1, 2).fits_in(of(3, 1)));
        assert_eq!(of(3, 2).checked_sub(of(1, 2)), Some(of(2, 0)));
        assert_eq!(of(3, 1).checked_sub(of(1, 2)), None);
        assert_eq!(of(7, 9).count_of(of(2, 2)), 3);
        assert_eq!(of(9, 3).count_of(of(0, 2)), 1);
        assert_eq!(of(0, 0).count_of(of(1, 1)), 0);
        assert_eq!(of(3, 1).max(of(1, 2)).min(of(2, 9)), of(2, 2));
        assert!(
            of(1 << 40, 2)
                .saturating_mul(usize::MAX)
                .fits_in(Resources::UNLIMITED)
        );
    }
}
