//! The hand-off: a worker with free slots leaves a lease request here, and the transaction that stores tasks
//! leases them to it. Such a task costs one transaction less, and waits for no signal.

use super::{lease_guard::LeaseGuard, transaction::Transaction, writer::QueueStore};
use crate::{
    lease_request::LeaseRequest,
    task_queue::{LeaseToken, Leased},
};
use hostel_sqlite::{StatementError, WeakWriter};
use hostel_task::StateKind;
use parking_lot::Mutex;
use std::collections::HashSet;
use tokio::sync::oneshot;

/// The request that waits for tasks, if any.
#[derive(Default)]
pub(super) struct HandOff(Mutex<Option<Offer>>);

/// A lease request that waits for tasks. A dropped receiver withdraws it.
pub(super) struct Offer {
    request: LeaseRequest,
    reply: oneshot::Sender<LeaseGuard>,
    /// Releases the tasks that no receiver takes.
    writer: WeakWriter<QueueStore>,
}

/// Tasks that the running transaction leases to an offer.
pub(super) struct HandedOff {
    leased: Vec<Leased>,
    offer: Offer,
}

impl HandOff {
    /// Leaves a request in the place of an earlier one, whose receiver gets an error.
    pub fn offer(
        &self,
        request: LeaseRequest,
        writer: WeakWriter<QueueStore>,
    ) -> oneshot::Receiver<LeaseGuard> {
        let (reply, receiver) = oneshot::channel();
        let offer = Offer {
            request,
            reply,
            writer,
        };
        *self.0.lock() = Some(offer);
        receiver
    }

    fn take(&self) -> Option<Offer> {
        self.0
            .lock()
            .take()
            .filter(|offer| !offer.reply.is_closed())
    }

    /// Puts back an offer that found no task, unless a later one has taken its place.
    fn put_back(&self, offer: Offer) {
        self.0.lock().get_or_insert(offer);
    }
}

impl HandedOff {
    /// Delivers the tasks after the commit. If the receiver is gone, they are released.
    pub fn deliver(self) {
        let Offer { reply, writer, .. } = self.offer;
        // The guard that comes back releases the tasks.
        drop(reply.send(LeaseGuard::new(self.leased, writer)));
    }
}

impl Transaction<'_> {
    /// Leases tasks to the request that waits for them, if any does, and drops the changes that say that
    /// they are pending. If leasing fails, the tasks stay pending, and the index has to be loaded again.
    pub fn hand_off(&mut self) -> Result<(), StatementError> {
        let Some(offer) = self.offers.take() else {
            return Ok(());
        };
        let before = (self.changes.len(), self.snapshots.len());
        self.execute("SAVEPOINT hand_off")?;
        let leased = match self.lease(&offer.request) {
            Ok(leased) => leased,
            Err(error) if error.is_environmental() => return Err(error),
            Err(error) => {
                tracing::warn!(%error, "tasks could not be leased with their submission");
                self.execute("ROLLBACK TO hand_off")?;
                self.changes.truncate(before.0);
                self.snapshots.truncate(before.1);
                self.must_reload = true;
                return Ok(());
            }
        };
        self.execute("RELEASE hand_off")?;
        if leased.is_empty() {
            self.offers.put_back(offer);
            return Ok(());
        }
        let tokens = leased.iter().map(|leased| &leased.token);
        let ids: HashSet<_> = tokens.map(|LeaseToken { id, .. }| id).collect();
        self.changes
            .retain(|change| change.state != StateKind::Pending || !ids.contains(&change.id));
        self.handed_off = Some(HandedOff { leased, offer });
        Ok(())
    }

    fn execute(&self, sql: &str) -> rusqlite::Result<usize> {
        self.conn.prepare_cached(sql)?.execute([])
    }
}
