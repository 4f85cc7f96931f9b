//! The slot of one leased task: taken with the lease, and given back when the outcome is written or
//! the task turns out not to be ours any more. What runs in it is elsewhere.

use super::{
    Shared,
    held::{Interrupt, Phase},
};
use crate::{
    budget::Reservation,
    queue::{Finish, LeaseToken, Leased},
    task::{Name, Outcome},
};
use std::sync::Arc;

/// What the end of an attempt takes beside its result.
const ENVELOPE_BYTES: usize = 512;

/// One of the `max_tasks` slots. Dropping it frees it, and wakes the dispatcher if that waits for
/// one.
pub struct Slot {
    shared: Arc<Shared>,
    token: LeaseToken,
    task_type: Name,
    suspect: bool,
}

/// An attempt that has ended and is not written down yet. It keeps its slot.
pub struct Unwritten {
    pub finish: Finish,
    /// Dropped before the slot, whose end wakes the dispatcher: that asks for this room.
    _room: Option<Reservation>,
    _slot: Slot,
}

impl Unwritten {
    /// Waits for room in the budget of what is not written, unless `interrupt` fires: then its time is
    /// over, and it is given up without.
    pub async fn new(finish: Finish, slot: Slot, interrupt: &Interrupt) -> Self {
        let room = slot.shared.unwritten.reserve(bytes(&finish));
        let interrupted = interrupt.token();
        let room = interrupted.run_until_cancelled(room).await;
        Self {
            finish,
            _room: room,
            _slot: slot,
        }
    }

    /// What it has to carry to the queue.
    pub fn bytes(&self) -> usize {
        bytes(&self.finish)
    }
}

fn bytes(finish: &Finish) -> usize {
    ENVELOPE_BYTES
        + match &finish.outcome {
            Outcome::Completed { result } => result.len(),
            Outcome::Retry { error, .. } | Outcome::Failed { error } => error.len(),
            Outcome::Cancelled | Outcome::Released | Outcome::Lost { .. } => 0,
        }
}

impl Slot {
    pub fn take(shared: &Arc<Shared>, leased: &Leased) -> (Self, Interrupt) {
        shared.busy.take(leased);
        let interrupt = shared.held.add(leased.token.clone());
        let slot = Self {
            shared: shared.clone(),
            token: leased.token.clone(),
            task_type: leased.task_type.clone(),
            suspect: leased.suspect,
        };
        (slot, interrupt)
    }

    pub fn token(&self) -> &LeaseToken {
        &self.token
    }

    /// The attempt has ended: from here on its finish says whether the lease still held.
    pub fn finishing(&self) {
        self.shared.held.set_phase(&self.token, Phase::Finishing);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.shared.held.remove(&self.token);
        if self.shared.busy.free(&self.task_type, self.suspect) {
            self.shared.wake.notify_one();
        }
    }
}
