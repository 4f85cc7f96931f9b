//! Leases on their way to a caller. If the lease call is cancelled before its result is delivered, its
//! tasks are released without costing an attempt.

use super::{finish, offers::Receiver, shard_client::ShardClient};
use crate::{Finish, Leased};
use std::sync::{Arc, Weak};
use tokio::{runtime::Handle, sync::oneshot};
use tokio_util::task::TaskTracker;

/// Leased tasks, which are released when this is dropped before `take`.
pub(super) struct LeaseGuard {
    leased: Vec<Leased>,
    client: Arc<ShardClient>,
    tracker: TaskTracker,
}

impl LeaseGuard {
    pub fn new(client: Arc<ShardClient>, tracker: TaskTracker) -> Self {
        Self {
            leased: Vec::new(),
            client,
            tracker,
        }
    }

    pub fn len(&self) -> usize {
        self.leased.len()
    }

    pub fn add(&mut self, leased: Vec<Leased>) {
        self.leased.extend(leased);
    }

    /// Releases tasks at once.
    pub fn release(&self, leased: Vec<Leased>) {
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        if leased.is_empty() {
            return;
        }
        let released = leased
            .into_iter()
            .map(|leased| Finish::released(leased.token));
        let (released, client): (Vec<Finish>, _) = (released.collect(), self.client.clone());
        let release = async move {
            // If this fails, the leases expire.
            if let Err(error) = finish::finish(&client, &released).await {
                tracing::debug!("cannot release tasks: {error}");
            }
        };
        self.tracker.spawn_on(release, &runtime);
    }

    pub fn take(mut self) -> Vec<Leased> {
        std::mem::take(&mut self.leased)
    }
}

/// A call that waits for a hand-off.
pub(super) struct HandOffCall {
    pub reply: oneshot::Sender<LeaseGuard>,
    /// The client has the offer, which has this.
    pub client: Weak<ShardClient>,
    pub tracker: TaskTracker,
}

impl Receiver for HandOffCall {
    fn waits(&self) -> bool {
        !self.reply.is_closed()
    }

    fn deliver(self: Box<Self>, leased: Vec<Leased>) {
        // If the queue is gone, the leases expire.
        let Some(client) = self.client.upgrade() else {
            return;
        };
        let mut guard = LeaseGuard::new(client, self.tracker);
        guard.add(leased);
        // A guard that comes back releases the tasks.
        drop(self.reply.send(guard));
    }
}

impl Drop for LeaseGuard {
    fn drop(&mut self) {
        let leased = std::mem::take(&mut self.leased);
        self.release(leased);
    }
}
