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

/// How far an attempt has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Its guest runs.
    Running,
    /// It has ended, and its outcome is being written.
    Finishing,
}

/// All leases held.
#[derive(Default)]
pub struct Held(Mutex<HashMap<TaskId, Entry>>);

struct Entry {
    token: LeaseToken,
    interrupt: Interrupt,
    phase: Phase,
}

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
        let entry = Entry {
            token: token.clone(),
            interrupt: interrupt.clone(),
            phase: Phase::Running,
        };
        self.lock().insert(token.id, entry);
        interrupt
    }

    /// Forgets a lease, unless a later one of the same task has taken its place.
    pub fn remove(&self, token: &LeaseToken) {
        let mut held = self.lock();
        if held.get(&token.id).is_some_and(|ours| ours.token == *token) {
            held.remove(&token.id);
        }
    }

    pub fn set_phase(&self, token: &LeaseToken, phase: Phase) {
        if let Some(ours) = self.lock().get_mut(&token.id)
            && ours.token == *token
        {
            ours.phase = phase;
        }
    }

    pub fn holds(&self, token: &LeaseToken) -> bool {
        let held = self.lock();
        held.get(&token.id).is_some_and(|ours| ours.token == *token)
    }

    pub fn tokens(&self) -> Vec<LeaseToken> {
        let held = self.lock();
        held.values().map(|ours| ours.token.clone()).collect()
    }

    /// Interrupts what runs under this lease, and not what may run under a later one.
    pub fn interrupt(&self, token: &LeaseToken, why: Why) {
        if let Some(ours) = self.lock().get(&token.id)
            && ours.token == *token
        {
            ours.interrupt.fire(why);
        }
    }

    /// The queue answered a renewal with "lost". Interrupts what runs under the lease, and says
    /// whether anything does. An attempt that has ended meanwhile is none of it: its finish may have
    /// reached the queue before the renewal did, and is answered for itself.
    pub fn lose(&self, token: &LeaseToken) -> bool {
        let held = self.lock();
        let running = |ours: &&Entry| ours.token == *token && ours.phase == Phase::Running;
        let lost = held.get(&token.id).filter(running);
        if let Some(ours) = lost {
            ours.interrupt.fire(Why::Lost);
        }
        lost.is_some()
    }

    /// Interrupts the task, whatever lease it runs under.
    pub fn interrupt_task(&self, id: &TaskId, why: Why) {
        if let Some(ours) = self.lock().get(id) {
            ours.interrupt.fire(why);
        }
    }

    pub fn interrupt_all(&self, why: Why) {
        for ours in self.lock().values() {
            ours.interrupt.fire(why);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TaskId, Entry>> {
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

    #[test]
    fn a_lease_is_lost_only_while_its_guest_runs() {
        let held = Held::default();
        let running = held.add(token(1));
        assert!(!held.lose(&token(2)));
        assert!(held.lose(&token(1)));
        assert_eq!(running.why(), Some(Why::Lost));
        let finishing = held.add(token(3));
        held.set_phase(&token(3), Phase::Finishing);
        assert!(!held.lose(&token(3)));
        assert_eq!(finishing.why(), None);
        // It is renewed until the outcome is written.
        assert_eq!(held.tokens(), [token(3)]);
        held.remove(&token(3));
        assert!(!held.lose(&token(3)));
    }
}
