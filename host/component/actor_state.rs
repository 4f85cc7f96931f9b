//! What a component's actor, its loop and those who look at it share: its id and limits, and the
//! status that operators see.

use super::{
    router::Router,
    status::{State, Status},
};
use crate::{broker::Inbox, config, health::Health, task::Name};
use parking_lot::{Mutex, MutexGuard};
use std::{sync::Arc, time::SystemTime};
use tokio::sync::{Semaphore, watch};

/// What all components of a node share.
#[derive(Clone)]
pub struct ActorContext {
    pub router: Arc<Router>,
    pub health: Health,
    /// One permit for each component that may run.
    pub slots: Arc<Semaphore>,
    /// Changes with the state, error or version of any component.
    pub changed: watch::Sender<u64>,
}

/// One component, apart from its running instance.
pub struct ActorState {
    pub id: Name,
    pub limits: config::Component,
    pub context: ActorContext,
    status: Mutex<Status>,
    inbox: Mutex<Option<Inbox>>,
}

impl ActorState {
    pub fn new(status: Status, limits: config::Component, context: ActorContext) -> Self {
        Self {
            id: status.id.clone(),
            limits,
            context,
            status: Mutex::new(status),
            inbox: Mutex::default(),
        }
    }

    /// Reports the numbers of this mailbox from now on.
    pub fn open(&self, inbox: Inbox) {
        *self.inbox.lock() = Some(inbox);
    }

    /// Marks the component as one that cannot run at all.
    pub fn refuse(&self, why: String) {
        self.change(|status| {
            status.state = State::Down;
            status.error = Some(why);
        });
    }

    pub fn status(&self) -> Status {
        let mut status = self.status.lock().clone();
        if let Some(inbox) = &*self.inbox.lock() {
            status.refused = inbox.refused();
            status.waiting = inbox.waiting();
        }
        status
    }

    /// The status, for changes without a notification.
    pub fn counters(&self) -> MutexGuard<'_, Status> {
        self.status.lock()
    }

    /// Changes the status, and notifies watchers if state, error or version differ afterwards.
    pub fn change(&self, change: impl FnOnce(&mut Status)) {
        let mut status = self.status.lock();
        let before = (status.state, status.error.clone(), status.version.clone());
        change(&mut status);
        if before.0 == State::Stopping {
            // Stopping is final, whatever its last messages do.
            status.state = State::Stopping;
        }
        let new_state = before.0 != status.state;
        if new_state {
            status.since = SystemTime::now();
        }
        let changed = new_state || before.1 != status.error || before.2 != status.version;
        drop(status);
        if changed {
            self.context.changed.send_modify(|count| *count += 1);
        }
    }
}
