//! The slot of one leased task: taken with the lease, and given back when the outcome is written or
//! the task turns out not to be ours any more. What runs in it is elsewhere.

use super::{
    Shared,
    held::{Interrupt, Phase},
};
use crate::{
    queue::{Finish, LeaseToken, Leased},
    task::Name,
};
use std::sync::Arc;

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
    pub slot: Slot,
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
