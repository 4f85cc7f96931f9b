//! Leases on their way to a caller. If the lease call is cancelled before its result is delivered, its
//! tasks are released without costing an attempt.

use super::{offers::Receiver, transaction::Transaction, writer::QueueStore};
use crate::task_queue::{Finish, Leased};
use hostel_sqlite::{SyncLevel, WeakWriter};
use tokio::sync::oneshot;

/// Leased tasks, which are released when this is dropped before `take`.
pub(super) struct LeaseGuard {
    leased: Vec<Leased>,
    writer: WeakWriter<QueueStore>,
}

impl LeaseGuard {
    pub fn new(leased: Vec<Leased>, writer: WeakWriter<QueueStore>) -> Self {
        Self { leased, writer }
    }

    pub fn take(mut self) -> Vec<Leased> {
        std::mem::take(&mut self.leased)
    }
}

/// A call that waits for a hand-off.
pub(super) struct HandOffCall {
    pub reply: oneshot::Sender<LeaseGuard>,
    pub writer: WeakWriter<QueueStore>,
}

impl Receiver for HandOffCall {
    fn waits(&self) -> bool {
        !self.reply.is_closed()
    }

    fn deliver(self: Box<Self>, leased: Vec<Leased>) {
        // A guard that comes back releases the tasks.
        drop(self.reply.send(LeaseGuard::new(leased, self.writer)));
    }
}

impl Drop for LeaseGuard {
    fn drop(&mut self) {
        if self.leased.is_empty() {
            return;
        }
        let released = self
            .leased
            .drain(..)
            .map(|leased| Finish::released(leased.token));
        let released: Vec<_> = released.collect();
        let run = move |tx: &mut Transaction<'_>| tx.finish(&released).map(drop);
        // If the writer has no room for this, the leases expire.
        self.writer.try_execute(SyncLevel::Normal, run);
    }
}
