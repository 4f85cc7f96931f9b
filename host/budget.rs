//! A bound in bytes on what may be held at once: requests, answers, results that wait to be written,
//! guests. Waiting for a budget is how a part pushes back to where its load comes from. Knows nothing
//! of what is counted.

use std::{fmt, sync::Arc};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What bytes are counted in. Amounts are rounded up to it.
const UNIT_BYTES: usize = 1 << 10;

/// A number of bytes that reservations share. Clones are the same budget.
#[derive(Clone)]
pub struct Budget {
    free: Arc<Semaphore>,
    units: u32,
}

/// Bytes taken from a budget; dropping it gives them back.
#[derive(Debug)]
pub struct Reservation {
    permit: OwnedSemaphorePermit,
}

impl Budget {
    /// A budget of `bytes`, one KiB at least and 4 TiB at most.
    pub fn new(bytes: usize) -> Self {
        let most = u32::MAX.min(u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX));
        let units = u32::try_from(bytes / UNIT_BYTES).unwrap_or(most);
        let units = units.clamp(1, most);
        Self {
            free: Arc::new(Semaphore::new(units as usize)),
            units,
        }
    }

    /// Reserves `bytes`, or `None` when that much is not free. An amount larger than the whole budget
    /// takes all of it, so that a single large item is delayed and not stuck.
    pub fn try_reserve(&self, bytes: usize) -> Option<Reservation> {
        let units = self.units_of(bytes);
        let permit = self.free.clone().try_acquire_many_owned(units).ok()?;
        Some(Reservation { permit })
    }

    /// Waits, first come first served, until `bytes` can be reserved. Cancel-safe.
    pub async fn reserve(&self, bytes: usize) -> Reservation {
        let units = self.units_of(bytes);
        match self.free.clone().acquire_many_owned(units).await {
            Ok(permit) => Reservation { permit },
            // The semaphore is never closed.
            Err(_) => std::future::pending().await,
        }
    }

    /// The bytes that nothing holds now.
    pub fn free_bytes(&self) -> usize {
        self.free.available_permits() * UNIT_BYTES
    }

    /// The size of the budget in bytes.
    pub fn total_bytes(&self) -> usize {
        self.units as usize * UNIT_BYTES
    }

    fn units_of(&self, bytes: usize) -> u32 {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
        units.min(self.units)
    }
}

impl Reservation {
    /// The bytes reserved, rounded up to what the budget counts in.
    pub fn bytes(&self) -> usize {
        self.permit.num_permits() * UNIT_BYTES
    }

    /// Gives back what exceeds `bytes`, once the real size of something is known.
    pub fn shrink_to(&mut self, bytes: usize) {
        let keep = bytes.div_ceil(UNIT_BYTES);
        let excess = self.permit.num_permits().saturating_sub(keep);
        drop(self.permit.split(excess));
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} bytes free",
            self.free_bytes(),
            self.total_bytes()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    const KIB: usize = 1 << 10;

    #[test]
    fn reservations_share_the_budget_and_give_back_when_dropped() {
        let budget = Budget::new(10 * KIB);
        let first = budget.try_reserve(6 * KIB).unwrap();
        assert!(budget.try_reserve(5 * KIB).is_none());
        let second = budget.clone().try_reserve(4 * KIB - 1).unwrap();
        assert_eq!((second.bytes(), budget.free_bytes()), (4 * KIB, 0));
        drop(first);
        assert_eq!(budget.free_bytes(), 6 * KIB);
    }

    #[test]
    fn an_amount_larger_than_the_budget_takes_all_of_it() {
        let budget = Budget::new(10 * KIB);
        let all = budget.try_reserve(usize::MAX).unwrap();
        assert_eq!((all.bytes(), budget.free_bytes()), (10 * KIB, 0));
    }

    #[test]
    fn shrinking_wakes_what_waits() {
        let budget = Budget::new(10 * KIB);
        let mut first = budget.try_reserve(10 * KIB).unwrap();
        let mut waiting = Box::pin(budget.reserve(3 * KIB));
        assert!(waiting.as_mut().now_or_never().is_none());
        first.shrink_to(7 * KIB);
        assert_eq!(waiting.as_mut().now_or_never().unwrap().bytes(), 3 * KIB);
        first.shrink_to(100 * KIB);
        assert_eq!(first.bytes(), 7 * KIB);
    }
}
