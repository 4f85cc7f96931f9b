//! Where a worker with free slots leaves a lease request, for the transaction that stores tasks.

use crate::{lease_request::LeaseRequest, task_queue::Leased};
use parking_lot::Mutex;

/// The request that waits for tasks, if any.
#[derive(Default)]
pub(super) struct Offers(Mutex<Option<Offer>>);

/// A lease request that waits for tasks.
pub(super) struct Offer {
    pub request: LeaseRequest,
    pub receiver: Box<dyn Receiver>,
}

/// Who left an offer.
pub(super) trait Receiver: Send {
    /// Whether somebody still waits.
    fn waits(&self) -> bool;
    /// Takes the tasks, which are leased, and releases them if nobody waits any more.
    fn deliver(self: Box<Self>, leased: Vec<Leased>);
}

/// Tasks that the running transaction leases to an offer.
pub(super) struct HandedOff {
    pub leased: Vec<Leased>,
    pub receiver: Box<dyn Receiver>,
}

impl Offers {
    /// Leaves an offer in the place of an earlier one, whose receiver is dropped.
    pub fn put(&self, offer: Offer) {
        *self.0.lock() = Some(offer);
    }

    /// Takes the offer, unless nobody waits any more.
    pub fn take(&self) -> Option<Offer> {
        self.0.lock().take().filter(|offer| offer.receiver.waits())
    }

    /// Puts back an offer that found no task, unless a later one has taken its place.
    pub fn put_back(&self, offer: Offer) {
        self.0.lock().get_or_insert(offer);
    }
}
