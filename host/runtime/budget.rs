//! Bounds the bytes that may be in memory at once: requests, responses, unwritten results, guests. A part
//! that waits for a budget pushes back on the source of its load.

use parking_lot::Mutex;
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The unit in which bytes are counted. Amounts are rounded up to it.
const UNIT_BYTES: usize = 1 << 10;

/// A number of bytes that reservations are taken from. Clones are the same budget.
#[derive(Clone)]
pub struct Budget {
    free: Arc<Semaphore>,
    units: u32,
    /// How many calls wait for a reservation.
    waiting: Arc<AtomicUsize>,
    /// The budget that this one is a share of.
    whole: Option<Box<Budget>>,
}

/// A call that waits for a reservation, until it is dropped.
struct Waiting<'b>(&'b AtomicUsize);

impl<'b> Waiting<'b> {
    fn new(count: &'b AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes taken from a budget. Dropping it gives them back.
#[derive(Debug)]
pub struct Reservation {
    permit: OwnedSemaphorePermit,
    /// The same bytes in the budget that this one is a share of.
    whole: Option<Box<Reservation>>,
}

impl Budget {
    /// Creates a budget of `bytes`, at least 1 KiB and at most 4 TiB.
    pub fn new(bytes: usize) -> Self {
        let most = u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX);
        let units = u32::try_from(bytes / UNIT_BYTES).unwrap_or(most);
        let units = units.clamp(1, most);
        Self {
            free: Arc::new(Semaphore::new(units as usize)),
            units,
            waiting: Arc::default(),
            whole: None,
        }
    }

    /// Creates a share of this budget for one of its users. What is reserved from the share counts in both, so
    /// that one user holds at most `bytes`, and all of them together at most the whole.
    pub fn share(&self, bytes: usize) -> Self {
        Self {
            whole: Some(Box::new(self.clone())),
            ..Self::new(bytes.min(self.total_bytes()))
        }
    }

    /// Reserves `bytes` if that much is free. An amount larger than the budget takes all of it, so that a
    /// single large item is delayed and not stuck.
    pub fn try_reserve(&self, bytes: usize) -> Option<Reservation> {
        let units = self.units_of(bytes);
        let permit = self.free.clone().try_acquire_many_owned(units).ok()?;
        let whole = match &self.whole {
            Some(whole) => Some(Box::new(whole.try_reserve(bytes.min(self.total_bytes()))?)),
            None => None,
        };
        Some(Reservation { permit, whole })
    }

    /// Waits until `bytes` can be reserved, in the order of the calls. Cancel-safe.
    pub async fn reserve(&self, bytes: usize) -> Reservation {
        let units = self.units_of(bytes);
        // The share first: a user who has used up its share does not queue for the whole.
        let permit = match self.free.clone().try_acquire_many_owned(units) {
            Ok(permit) => permit,
            Err(_) => {
                let _waiting = Waiting::new(&self.waiting);
                let Ok(permit) = self.free.clone().acquire_many_owned(units).await else {
                    // The semaphore is never closed.
                    return std::future::pending().await;
                };
                permit
            }
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

    /// Reserves what is free, up to `bytes`, which may be nothing. Nothing is free while others wait.
    pub fn reserve_up_to(&self, bytes: usize) -> Reservation {
        loop {
            let whole = self.whole.as_ref().map_or(usize::MAX, |it| it.free_bytes());
            let free = self.free_bytes().min(whole);
            // Another call may have been faster.
            if let Some(reservation) = self.try_reserve(bytes.min(free)) {
                return reservation;
            }
        }
    }

    /// The bytes that are free now; of a share, without regard to the whole.
    pub fn free_bytes(&self) -> usize {
        self.free.available_permits() * UNIT_BYTES
    }

    /// Whether calls wait for a reservation of this budget; of a share, without regard to the whole.
    pub fn has_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
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
    /// The bytes reserved, in whole units of the budget.
    pub fn bytes(&self) -> usize {
        self.permit.num_permits() * UNIT_BYTES
    }

    /// Splits a part off; `None` if the reservation is smaller than that.
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

    /// Gives back all but `bytes`, once the actual size is known.
    pub fn shrink_to(&mut self, bytes: usize) {
        let keep = bytes.div_ceil(UNIT_BYTES);
        let excess = self.permit.num_permits().saturating_sub(keep);
        drop(self.permit.split(excess));
        if let Some(whole) = &mut self.whole {
            whole.shrink_to(bytes);
        }
    }
}

/// The reservations of one thing, which any clone can release before the others are dropped.
#[derive(Debug, Clone, Default)]
pub struct SharedReservation(Arc<Mutex<Vec<Reservation>>>);

impl SharedReservation {
    /// Adds a reservation.
    pub fn add(&self, reservation: Reservation) {
        self.0.lock().push(reservation);
    }

    /// Takes all reservations, for what outlives this thing.
    pub fn take(&self) -> Vec<Reservation> {
        std::mem::take(&mut *self.0.lock())
    }

    /// Releases all reservations.
    pub fn clear(&self) {
        self.0.lock().clear();
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
    fn dropped_reservations_are_given_back() {
        let budget = Budget::new(10 * KIB);
        let first = budget.try_reserve(6 * KIB).unwrap();
        assert!(budget.try_reserve(5 * KIB).is_none());
        let second = budget.clone().try_reserve(4 * KIB - 1).unwrap();
        assert_eq!((second.bytes(), budget.free_bytes()), (4 * KIB, 0));
        drop(first);
        assert_eq!(budget.free_bytes(), 6 * KIB);
    }

    #[test]
    fn free_bytes_are_reserved_and_split() {
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
    fn shrinking_wakes_a_waiting_reservation() {
        let budget = Budget::new(10 * KIB);
        let mut first = budget.try_reserve(10 * KIB).unwrap();
        let mut waiting = Box::pin(budget.reserve(3 * KIB));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(budget.has_waiting());
        first.shrink_to(7 * KIB);
        assert_eq!(waiting.as_mut().now_or_never().unwrap().bytes(), 3 * KIB);
        assert!(!budget.has_waiting());
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
