//! The leases that this worker holds, from the moment it got them until their end is written down,
//! and the means to interrupt what runs under them.

use crate::{queue::LeaseToken, task::TaskId};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};
use tokio_util::sync::CancellationToken;

/// Why an attempt was interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Somebody asked for the task's end.
    Asked,
    /// The task is not ours any more.
    Lost,
    /// The node stops.
    Drain,
}

/// All leases held.
#[derive(Default)]
pub struct Held(Mutex<HashMap<TaskId, (LeaseToken, Interrupt)>>);

/// The way to one running attempt. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    token: CancellationToken,
    why: Arc<OnceLock<Why>>,
}

impl Interrupt {
    /// What the guest's call is ended by.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// The first reason given, if any was.
    pub fn why(&self) -> Option<Why> {
        self.why.get().copied()
    }

    fn fire(&self, why: Why) {
        // The first reason stands.
        let _ = self.why.set(why);
        self.token.cancel();
    }
}

impl Held {
    pub fn add(&self, token: LeaseToken) -> Interrupt {
        let interrupt = Interrupt::default();
        let entry = (token.clone(), interrupt.clone());
        self.lock().insert(token.id, entry);
        interrupt
    }

    /// Forgets a lease, unless a later one of the same task has taken its place.
    pub fn remove(&self, token: &LeaseToken) {
        let mut held = self.lock();
        if held.get(&token.id).is_some_and(|(ours, _)| ours == token) {
            held.remove(&token.id);
        }
    }

    pub fn holds(&self, token: &LeaseToken) -> bool {
        self.lock()
            .get(&token.id)
            .is_some_and(|(ours, _)| ours == token)
    }

    pub fn tokens(&self) -> Vec<LeaseToken> {
        self.lock()
            .values()
            .map(|(token, _)| token.clone())
            .collect()
    }

    /// Interrupts what runs under this lease, and not what may run under a later one.
    pub fn interrupt(&self, token: &LeaseToken, why: Why) {
        if let Some((ours, interrupt)) = self.lock().get(&token.id)
            && ours == token
        {
            interrupt.fire(why);
        }
    }

    /// Interrupts the task, whatever lease it runs under.
    pub fn interrupt_task(&self, id: &TaskId, why: Why) {
        if let Some((_, interrupt)) = self.lock().get(id) {
            interrupt.fire(why);
        }
    }

    pub fn interrupt_all(&self, why: Why) {
        for (_, interrupt) in self.lock().values() {
            interrupt.fire(why);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TaskId, (LeaseToken, Interrupt)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(fence: u64) -> LeaseToken {
        let id = TaskId::parse("id", "a").unwrap();
        LeaseToken { id, fence }
    }

    #[test]
    fn an_old_token_does_not_remove_a_newer_lease() {
        let held = Held::default();
        held.add(token(1));
        let newer = held.add(token(2));
        held.remove(&token(1));
        assert_eq!(held.tokens(), [token(2)]);
        held.interrupt(&token(1), Why::Lost);
        assert_eq!(newer.why(), None);
        held.interrupt_task(&token(2).id, Why::Asked);
        held.interrupt_all(Why::Drain);
        assert_eq!(newer.why(), Some(Why::Asked));
        assert!(newer.token().is_cancelled());
        held.remove(&token(2));
        assert!(held.tokens().is_empty());
    }
}
