//! Leases on their way to a caller. If the lease call is cancelled before its result is delivered, its
//! tasks are released without costing an attempt.

use super::{transaction::Transaction, writer::QueueStore};
use crate::task_queue::{Finish, Leased};
use hostel_sqlite::{SyncLevel, WeakWriter};

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
