//! Hand-off: a worker with free slots leaves a lease request here, and the script that stores tasks leases
//! some of them to it (`scripts/submit.lua`). Such a task is in no backlog, is not read again, and waits for
//! no signal.

use super::entry::Entry;
use crate::{LeaseRequest, LeaseToken, Leased};
use parking_lot::Mutex;

/// The request that waits for tasks, if any.
#[derive(Default)]
pub(super) struct Offers(Mutex<Option<Offer>>);

/// A lease request that waits for tasks.
pub(super) struct Offer {
    pub request: LeaseRequest,
    pub receiver: Box<dyn Receiver>,
}

/// The caller who left an offer.
pub(super) trait Receiver: Send + Sync {
    /// Whether the caller still waits.
    fn waits(&self) -> bool;
    /// Takes the tasks, which are leased, and releases them if the caller no longer waits.
    fn deliver(self: Box<Self>, leased: Vec<Leased>);
}

impl Offers {
    /// Leaves an offer in the place of an earlier one, whose caller gets no task.
    pub fn put(&self, offer: Offer) {
        *self.0.lock() = Some(offer);
    }

    /// Takes the offer, unless its caller no longer waits.
    pub fn take(&self) -> Option<Offer> {
        let offer = self.0.lock().take();
        offer.filter(|offer| offer.receiver.waits())
    }

    /// Puts back an offer that found no task, unless a later one has taken its place.
    pub fn put_back(&self, offer: Offer) {
        self.0.lock().get_or_insert(offer);
    }

    /// Drops the offer.
    pub fn clear(&self) {
        drop(self.0.lock().take());
    }
}

impl Offer {
    /// Returns which of these tasks may be handed off: the first that fit into the request. A task with options
    /// and one whose type has a limit on all nodes together are left to the lease, which knows their rules.
    pub fn fitting(&self, entries: &[&Entry]) -> Vec<bool> {
        let mut request = self.request.clone();
        let fits = |entry: &&Entry| {
            let task = &entry.task;
            let limits = request.for_route(task.route());
            let is_simple = limits.is_some_and(|limits| {
                limits.max_cluster_concurrency.is_none() && limits.max_rate.is_none()
            });
            task.options().is_none() && is_simple && request.take(task.task_type())
        };
        entries.iter().map(fits).collect()
    }
}

/// Returns a task as it is handed off.
pub(super) fn leased(entry: &Entry, fence: u64) -> Leased {
    let task = &entry.task;
    Leased {
        token: LeaseToken {
            id: task.id().clone(),
            fence,
        },
        task_type: task.task_type().clone(),
        payload: task.payload().clone(),
        metadata: task.metadata().clone(),
        options: None,
        attempt: 1,
        suspect: false,
    }
}
