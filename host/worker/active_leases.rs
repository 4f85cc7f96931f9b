//! The leases of this worker, from the moment they are obtained until the results are written, and
//! the means to interrupt the attempts that run under them.

use super::attempt::{Attempt, InterruptReason};
use crate::{
    queue::{LeaseToken, Renew},
    task::TaskId,
};
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

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
pub struct ActiveLeases {
    leases: Mutex<HashMap<TaskId, ActiveLease>>,
    /// How long a guest that asks whether it is cancelled may go on when it is.
    cancel_grace: Duration,
    /// Signalled when an attempt reports progress.
    progressed: Arc<Notify>,
}

struct ActiveLease {
    token: LeaseToken,
    attempt: Arc<Attempt>,
    phase: Phase,
}

impl ActiveLeases {
    /// Makes the leases of a worker whose guests have this grace.
    pub fn new(cancel_grace: Duration) -> Self {
        Self {
            cancel_grace,
            ..Self::default()
        }
    }

    /// Adds a lease. An earlier one of the same task is lost, which this node may not have learned from a
    /// renewal: its attempt is interrupted as in `lose`, since no renewal concerns it any more.
    pub fn add(&self, token: LeaseToken) -> Arc<Attempt> {
        let attempt = Arc::new(Attempt::new(self.cancel_grace, self.progressed.clone()));
        let lease = ActiveLease {
            token: token.clone(),
            attempt: attempt.clone(),
            phase: Phase::Running,
        };
        let earlier = self.leases.lock().insert(token.id, lease);
        if let Some(earlier) = earlier.filter(|earlier| earlier.phase == Phase::Running) {
            earlier.attempt.interrupt(InterruptReason::LeaseLost);
        }
        attempt
    }

    /// Removes a lease, unless a later one of the same task has taken its place.
    pub fn remove(&self, token: &LeaseToken) {
        let mut leases = self.leases.lock();
        if find(&mut leases, token).is_some() {
            leases.remove(&token.id);
        }
    }

    /// Sets the phase of the attempt under this lease.
    pub fn set_phase(&self, token: &LeaseToken, phase: Phase) {
        if let Some(lease) = find(&mut self.leases.lock(), token) {
            lease.phase = phase;
        }
    }

    /// Whether the lease is active.
    pub fn holds(&self, token: &LeaseToken) -> bool {
        find(&mut self.leases.lock(), token).is_some()
    }

    /// Returns what to renew: `all` leases, or those alone whose attempts have progress to store. The
    /// progress is taken if `with_progress`, and otherwise stays for a later call.
    pub fn renewals(&self, all: bool, with_progress: bool) -> Vec<Renew> {
        let leases = self.leases.lock();
        let renewals = leases.values().filter_map(|lease| {
            let progress = with_progress.then(|| lease.attempt.take_progress());
            let progress = progress.flatten();
            (all || progress.is_some()).then(|| Renew {
                token: lease.token.clone(),
                progress,
            })
        });
        renewals.collect()
    }

    /// Has progress that could not be stored taken again.
    pub fn put_back_progress(&self, renew: &Renew) {
        if renew.progress.is_some()
            && let Some(lease) = find(&mut self.leases.lock(), &renew.token)
        {
            lease.attempt.put_back_progress();
        }
    }

    /// Waits until `from`, and then until there is progress to store. Cancel safe.
    pub async fn progressed(&self, from: Instant) {
        sleep_until(from).await;
        self.progressed.notified().await;
    }

    /// Interrupts the attempt under this lease, and none under a later lease of the task.
    pub fn interrupt(&self, token: &LeaseToken, reason: InterruptReason) {
        if let Some(lease) = find(&mut self.leases.lock(), token) {
            lease.attempt.interrupt(reason);
        }
    }

    /// Interrupts the attempt under a lease that a renewal found lost, and returns whether one was
    /// running that had not been interrupted before. An attempt that has ended meanwhile is left alone:
    /// its result may have reached the queue before the renewal did, and the queue answers for it
    /// separately.
    pub fn lose(&self, token: &LeaseToken) -> bool {
        let mut leases = self.leases.lock();
        let lost = find(&mut leases, token).filter(|lease| lease.phase == Phase::Running);
        lost.is_some_and(|lease| lease.attempt.interrupt(InterruptReason::LeaseLost))
    }

    /// Interrupts the attempt of a task, whatever its lease.
    pub fn interrupt_task(&self, id: &TaskId, reason: InterruptReason) {
        if let Some(lease) = self.leases.lock().get(id) {
            lease.attempt.interrupt(reason);
        }
    }

    /// Interrupts every attempt.
    pub fn interrupt_all(&self, reason: InterruptReason) {
        for lease in self.leases.lock().values() {
            lease.attempt.interrupt(reason);
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
    use crate::{plugin::AttemptObserver, task::Progress};

    fn token(fence: u64) -> LeaseToken {
        let id = TaskId::parse("id", "a").unwrap();
        LeaseToken { id, fence }
    }

    fn tokens(leases: &ActiveLeases) -> Vec<LeaseToken> {
        let renewals = leases.renewals(true, false);
        renewals.into_iter().map(|renew| renew.token).collect()
    }

    #[test]
    fn an_old_token_does_not_remove_a_newer_lease() {
        let leases = ActiveLeases::default();
        leases.add(token(1));
        let newer = leases.add(token(2));
        leases.remove(&token(1));
        assert_eq!(tokens(&leases), [token(2)]);
        leases.interrupt(&token(1), InterruptReason::LeaseLost);
        assert_eq!(newer.reason(), None);
        leases.interrupt_task(&token(2).id, InterruptReason::CancelRequested);
        leases.interrupt_all(InterruptReason::Drain);
        assert_eq!(newer.reason(), Some(InterruptReason::CancelRequested));
        assert!(newer.token().is_cancelled());
        leases.remove(&token(2));
        assert!(tokens(&leases).is_empty());
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
        assert_eq!(tokens(&leases), [token(2)]);
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
        assert_eq!(tokens(&leases), [token(3)]);
        leases.remove(&token(3));
        assert!(!leases.lose(&token(3)));
    }

    #[tokio::test]
    async fn progress_is_renewed_once_unless_it_is_put_back() {
        let leases = ActiveLeases::default();
        let quiet = LeaseToken {
            id: TaskId::parse("id", "b").unwrap(),
            fence: 1,
        };
        leases.add(quiet);
        let attempt = leases.add(token(1));
        assert!(leases.renewals(false, true).is_empty());
        attempt.progress(1, 2, "half");
        leases.progressed(Instant::now()).await;
        // It waits for its time.
        assert!(leases.renewals(false, false).is_empty());
        let whole = leases.renewals(true, false);
        assert!(whole.iter().all(|renew| renew.progress.is_none()));
        let renewals = leases.renewals(false, true);
        let [renew] = &renewals[..] else {
            panic!("{renewals:?}");
        };
        assert_eq!(renew.token, token(1));
        assert_eq!(renew.progress, Some(Progress::new(1, 2, "half")));
        assert!(leases.renewals(false, true).is_empty());
        leases.put_back_progress(renew);
        leases.progressed(Instant::now()).await;
        assert_eq!(leases.renewals(true, true).len(), 2);
        leases.remove(&token(1));
        // Nothing is left to report it for.
        leases.put_back_progress(renew);
        assert!(leases.renewals(false, true).is_empty());
    }
}
