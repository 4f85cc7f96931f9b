//! The leases of this worker, from the moment they are obtained until the results are written, and
//! the means to interrupt the attempts that run under them.

use crate::{queue::LeaseToken, task::TaskId};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};
use tokio_util::sync::CancellationToken;

/// Why an attempt was interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InterruptReason {
    /// A client cancelled the task.
    CancelRequested,
    /// Another node may run the task now.
    LeaseLost,
    /// The node stops.
    Drain,
}

/// How far an attempt has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Its guest runs.
    Running,
    /// It has ended, and its result is being written.
    Finishing,
}

/// All active leases, by task.
#[derive(Default)]
pub struct ActiveLeases(Mutex<HashMap<TaskId, ActiveLease>>);

struct ActiveLease {
    token: LeaseToken,
    interrupt: Interrupt,
    phase: Phase,
}

/// Interrupts one attempt. Clones interrupt the same attempt.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    token: CancellationToken,
    reason: Arc<OnceLock<InterruptReason>>,
}

impl Interrupt {
    /// The token that ends the guest's call.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// The first reason given, if any.
    pub fn reason(&self) -> Option<InterruptReason> {
        self.reason.get().copied()
    }

    fn fire(&self, reason: InterruptReason) {
        // The first reason stands.
        let _ = self.reason.set(reason);
        self.token.cancel();
    }
}

impl ActiveLeases {
    /// Adds a lease. An earlier one of the same task is lost, which this node may not have learned from a
    /// renewal: its attempt is interrupted as in `lose`, since no renewal concerns it any more.
    pub fn add(&self, token: LeaseToken) -> Interrupt {
        let interrupt = Interrupt::default();
        let lease = ActiveLease {
            token: token.clone(),
            interrupt: interrupt.clone(),
            phase: Phase::Running,
        };
        let earlier = self.0.lock().insert(token.id, lease);
        if let Some(earlier) = earlier.filter(|earlier| earlier.phase == Phase::Running) {
            earlier.interrupt.fire(InterruptReason::LeaseLost);
        }
        interrupt
    }

    /// Removes a lease, unless a later one of the same task has taken its place.
    pub fn remove(&self, token: &LeaseToken) {
        let mut leases = self.0.lock();
        if find(&mut leases, token).is_some() {
            leases.remove(&token.id);
        }
    }

    /// Sets the phase of the attempt under this lease.
    pub fn set_phase(&self, token: &LeaseToken, phase: Phase) {
        if let Some(lease) = find(&mut self.0.lock(), token) {
            lease.phase = phase;
        }
    }

    /// Whether the lease is active.
    pub fn holds(&self, token: &LeaseToken) -> bool {
        find(&mut self.0.lock(), token).is_some()
    }

    /// The tokens of all active leases.
    pub fn tokens(&self) -> Vec<LeaseToken> {
        let leases = self.0.lock();
        leases.values().map(|lease| lease.token.clone()).collect()
    }

    /// Interrupts the attempt under this lease, and none under a later lease of the task.
    pub fn interrupt(&self, token: &LeaseToken, reason: InterruptReason) {
        if let Some(lease) = find(&mut self.0.lock(), token) {
            lease.interrupt.fire(reason);
        }
    }

    /// Interrupts the attempt under a lease that a renewal found lost, and returns whether one was
    /// running. An attempt that has ended meanwhile is left alone: its result may have reached the
    /// queue before the renewal did, and the queue answers for it separately.
    pub fn lose(&self, token: &LeaseToken) -> bool {
        let mut leases = self.0.lock();
        let lost = find(&mut leases, token).filter(|lease| lease.phase == Phase::Running);
        lost.map(|lease| lease.interrupt.fire(InterruptReason::LeaseLost))
            .is_some()
    }

    /// Interrupts the attempt of a task, whatever its lease.
    pub fn interrupt_task(&self, id: &TaskId, reason: InterruptReason) {
        if let Some(lease) = self.0.lock().get(id) {
            lease.interrupt.fire(reason);
        }
    }

    /// Interrupts every attempt.
    pub fn interrupt_all(&self, reason: InterruptReason) {
        for lease in self.0.lock().values() {
            lease.interrupt.fire(reason);
        }
    }
}

/// The lease with exactly this token.
fn find<'l>(
    leases: &'l mut HashMap<TaskId, ActiveLease>,
    token: &LeaseToken,
) -> Option<&'l mut ActiveLease> {
    leases
        .get_mut(&token.id)
        .filter(|lease| lease.token == *token)
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
        let leases = ActiveLeases::default();
        leases.add(token(1));
        let newer = leases.add(token(2));
        leases.remove(&token(1));
        assert_eq!(leases.tokens(), [token(2)]);
        leases.interrupt(&token(1), InterruptReason::LeaseLost);
        assert_eq!(newer.reason(), None);
        leases.interrupt_task(&token(2).id, InterruptReason::CancelRequested);
        leases.interrupt_all(InterruptReason::Drain);
        assert_eq!(newer.reason(), Some(InterruptReason::CancelRequested));
        assert!(newer.token().is_cancelled());
        leases.remove(&token(2));
        assert!(leases.tokens().is_empty());
    }

    #[test]
    fn a_newer_lease_interrupts_the_attempt_under_an_older_one() {
        let leases = ActiveLeases::default();
        let older = leases.add(token(1));
        let newer = leases.add(token(2));
        assert_eq!(older.reason(), Some(InterruptReason::LeaseLost));
        assert!(older.token().is_cancelled());
        // What the older attempt does at its end concerns the older lease only.
        leases.set_phase(&token(1), Phase::Finishing);
        leases.remove(&token(1));
        assert_eq!(leases.tokens(), [token(2)]);
        assert!(leases.lose(&token(2)));
        assert_eq!(newer.reason(), Some(InterruptReason::LeaseLost));
        // The queue answers for a result that is being written.
        let finishing = leases.add(token(3));
        leases.set_phase(&token(3), Phase::Finishing);
        leases.add(token(4));
        assert_eq!(finishing.reason(), None);
    }

    #[test]
    fn a_lease_is_lost_only_while_its_guest_runs() {
        let leases = ActiveLeases::default();
        let running = leases.add(token(1));
        assert!(!leases.lose(&token(2)));
        assert!(leases.lose(&token(1)));
        assert_eq!(running.reason(), Some(InterruptReason::LeaseLost));
        let finishing = leases.add(token(3));
        leases.set_phase(&token(3), Phase::Finishing);
        assert!(!leases.lose(&token(3)));
        assert_eq!(finishing.reason(), None);
        // It is renewed until the result is written.
        assert_eq!(leases.tokens(), [token(3)]);
        leases.remove(&token(3));
        assert!(!leases.lose(&token(3)));
    }
}
