//! A bound in bytes on what may be held at once: requests, answers, results that wait to be written,
//! guests. Waiting for a budget is how a part pushes back to where its load comes from. Knows nothing
//! of what is counted.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What bytes are counted in. Amounts are rounded up to it.
const UNIT_BYTES: usize = 1 << 10;

/// A number of bytes that reservations share. Clones are the same budget.
#[derive(Clone)]
pub struct Budget {
    free: Arc<Semaphore>,
    units: u32,
    /// The budget that this one is a share of.
    whole: Option<Box<Budget>>,
}

/// Bytes taken from a budget; dropping it gives them back.
#[derive(Debug)]
pub struct Reservation {
    permit: OwnedSemaphorePermit,
    /// What the budget's own share of a larger one holds for this.
    whole: Option<Box<Reservation>>,
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
            whole: None,
        }
    }

    /// A share of this budget, for one of its users: what is reserved from the share counts in both,
    /// so that one user can hold no more than `bytes`, and all together no more than the whole.
    pub fn share(&self, bytes: usize) -> Self {
        Self {
            whole: Some(Box::new(self.clone())),
            ..Self::new(bytes.min(self.total_bytes()))
        }
    }

    /// Reserves `bytes`, or `None` when that much is not free. An amount larger than the whole budget
    /// takes all of it, so that a single large item is delayed and not stuck.
    pub fn try_reserve(&self, bytes: usize) -> Option<Reservation> {
        let units = self.units_of(bytes);
        let permit = self.free.clone().try_acquire_many_owned(units).ok()?;
        let whole = match &self.whole {
            Some(whole) => Some(Box::new(whole.try_reserve(bytes.min(self.total_bytes()))?)),
            None => None,
        };
        Some(Reservation { permit, whole })
    }

    /// Waits, first come first served, until `bytes` can be reserved. Cancel-safe.
    pub async fn reserve(&self, bytes: usize) -> Reservation {
        let units = self.units_of(bytes);
        // The share first: a user who holds all of theirs does not queue for the whole.
        let Ok(permit) = self.free.clone().acquire_many_owned(units).await else {
            // The semaphore is never closed.
            return std::future::pending().await;
        };
        let whole = match &self.whole {
            Some(whole) => {
                let bytes = bytes.min(self.total_bytes());
                Some(Box::new(Box::pin(whole.reserve(bytes)).await))
            }
            None => None,
        };
        Reservation { permit, whole }
    }

    /// Reserves what is free, up to `bytes`; that may be nothing. Nothing is while others wait.
    pub fn reserve_up_to(&self, bytes: usize) -> Reservation {
        loop {
            let whole = self.whole.as_ref().map_or(usize::MAX, |it| it.free_bytes());
            let free = self.free_bytes().min(whole);
            // Another may have been quicker.
            if let Some(reservation) = self.try_reserve(bytes.min(free)) {
                return reservation;
            }
        }
    }

    /// The bytes that nothing holds now; of a share, without regard to the whole.
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

    /// Takes a part out of it; `None` when it is smaller than that.
    pub fn split(&mut self, bytes: usize) -> Option<Self> {
        let permit = self.permit.split(bytes.div_ceil(UNIT_BYTES))?;
        let whole = self.whole.as_mut().and_then(|whole| whole.split(bytes));
        let whole = whole.map(Box::new);
        Some(Self { permit, whole })
    }

    /// Adds another reservation of the same budget.
    pub fn merge(&mut self, other: Self) {
        self.permit.merge(other.permit);
        if let (Some(whole), Some(other)) = (&mut self.whole, other.whole) {
            whole.merge(*other);
        }
    }

    /// Gives back what exceeds `bytes`, once the real size of something is known.
    pub fn shrink_to(&mut self, bytes: usize) {
        let keep = bytes.div_ceil(UNIT_BYTES);
        let excess = self.permit.num_permits().saturating_sub(keep);
        drop(self.permit.split(excess));
        if let Some(whole) = &mut self.whole {
            whole.shrink_to(bytes);
        }
    }
}

/// A place for one reservation, for those who give it back before the last of them is done. Clones are
/// the same place.
#[derive(Debug, Clone, Default)]
pub struct Slot(Arc<Mutex<Option<Reservation>>>);

impl Slot {
    pub fn put(&self, reservation: Reservation) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(reservation);
    }

    /// Gives back what is there.
    pub fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
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
    fn what_is_free_is_reserved_and_split() {
        let budget = Budget::new(10 * KIB);
        let first = budget.try_reserve(4 * KIB).unwrap();
        let mut rest = budget.reserve_up_to(100 * KIB);
        assert_eq!((rest.bytes(), budget.free_bytes()), (6 * KIB, 0));
        assert_eq!(budget.reserve_up_to(KIB).bytes(), 0);
        let mut part = rest.split(2 * KIB).unwrap();
        assert!(rest.split(5 * KIB).is_none());
        part.merge(first);
        drop(rest);
        assert_eq!((part.bytes(), budget.free_bytes()), (6 * KIB, 4 * KIB));
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

    #[test]
    fn a_share_counts_in_the_whole() {
        let whole = Budget::new(10 * KIB);
        let [one, other] = [6 * KIB; 2].map(|bytes| whole.share(bytes));
        let mut held = one.try_reserve(usize::MAX).unwrap();
        assert_eq!((held.bytes(), whole.free_bytes()), (6 * KIB, 4 * KIB));
        assert!(one.try_reserve(1).is_none());
        assert!(other.try_reserve(5 * KIB).is_none());
        assert_eq!(other.free_bytes(), 6 * KIB);
        let mut waiting = Box::pin(other.reserve(5 * KIB));
        assert!(waiting.as_mut().now_or_never().is_none());
        held.shrink_to(5 * KIB);
        drop(waiting.as_mut().now_or_never().unwrap());
        drop(held);
        assert_eq!((one.free_bytes(), whole.free_bytes()), (6 * KIB, 10 * KIB));
    }
}
