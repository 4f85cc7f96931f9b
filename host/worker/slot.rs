//! The slot of one leased task: taken with the lease, and freed when the result is written or the
//! lease is lost.

use super::{active_leases::Phase, attempt::Attempt, shared::Shared};
use crate::{
    budget::Reservation,
    queue::{Finish, LeaseToken, Leased},
    task::Name,
};
use std::sync::Arc;

/// One of the `max_tasks` slots. Dropping it frees it, and wakes the dispatcher if that waits for a
/// slot.
pub struct Slot {
    shared: Arc<Shared>,
    token: LeaseToken,
    task_type: Name,
    suspect: bool,
}

/// The result of an attempt that is not written yet. It keeps its slot.
pub struct UnwrittenResult {
    pub finish: Finish,
    /// Dropped before the slot: that wakes the dispatcher, which checks the budget that this is of.
    _reservation: Option<Reservation>,
    _slot: Slot,
}

impl UnwrittenResult {
    /// Waits for room in the budget of unwritten results. If the attempt is interrupted, the drain time is
    /// over, and the result goes ahead without a reservation.
    pub async fn new(finish: Finish, slot: Slot, attempt: &Attempt) -> Self {
        let reservation = slot.shared.unwritten.reserve(finish.bytes());
        let interrupted = attempt.token();
        let reservation = interrupted.run_until_cancelled(reservation).await;
        Self {
            finish,
            _reservation: reservation,
            _slot: slot,
        }
    }

    /// The size of what is sent to the queue.
    pub fn bytes(&self) -> usize {
        self.finish.bytes()
    }
}

impl Slot {
    /// Takes a slot for a leased task.
    pub fn take(shared: &Arc<Shared>, leased: &Leased) -> (Self, Arc<Attempt>) {
        shared.slots.take(leased);
        let attempt = shared.active_leases.add(leased.token.clone());
        let slot = Self {
            shared: shared.clone(),
            token: leased.token.clone(),
            task_type: leased.task_type.clone(),
            suspect: leased.suspect,
        };
        (slot, attempt)
    }

    pub fn token(&self) -> &LeaseToken {
        &self.token
    }

    /// Marks the attempt as ended. From here on the queue's answer to its finish says whether the lease
    /// was still valid, and a renewal that fails does not.
    pub fn set_finishing(&self) {
        self.shared
            .active_leases
            .set_phase(&self.token, Phase::Finishing);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.shared.active_leases.remove(&self.token);
        if self.shared.slots.free(&self.task_type, self.suspect) {
            self.shared.wake.notify_one();
        }
    }
}
