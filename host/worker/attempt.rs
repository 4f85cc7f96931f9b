//! One attempt while its node runs it: what interrupts it, and what its guest reports. Knows nothing of leases;
//! `active_leases` has the attempt of each.

use crate::{plugin::AttemptObserver, task::Progress};
use parking_lot::Mutex;
use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::sync::Notify;
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

/// An attempt, shared by its run, its lease and its guest.
#[derive(Debug)]
pub struct Attempt {
    /// Ends the guest's call.
    token: CancellationToken,
    reason: OnceLock<InterruptReason>,
    /// Whether the guest has asked if it is cancelled.
    has_asked: AtomicBool,
    /// Whether the answer was that it is.
    was_told: AtomicBool,
    reported: Mutex<Reported>,
    /// How long the guest may go on when it is told to stop.
    cancel_grace: Duration,
    /// Wakes the heartbeat, which stores progress.
    progressed: Arc<Notify>,
}

/// The latest report of the guest.
#[derive(Debug, Default)]
struct Reported {
    progress: Option<Progress>,
    /// The heartbeat has not taken it yet, and knows that there is something to take.
    is_unsent: bool,
}

impl Attempt {
    /// Makes the state of an attempt that begins.
    pub fn new(cancel_grace: Duration, progressed: Arc<Notify>) -> Self {
        Self {
            token: CancellationToken::new(),
            reason: OnceLock::new(),
            has_asked: AtomicBool::new(false),
            was_told: AtomicBool::new(false),
            reported: Mutex::default(),
            cancel_grace,
            progressed,
        }
    }

    /// The token that ends the guest's call.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// The first reason given, if any.
    pub fn reason(&self) -> Option<InterruptReason> {
        self.reason.get().copied()
    }

    /// Interrupts the attempt. Returns whether this is the first reason, which stands.
    pub fn interrupt(&self, reason: InterruptReason) -> bool {
        let is_first = self.reason.set(reason).is_ok();
        self.token.cancel();
        is_first
    }

    /// Whether the guest was told to stop. An error that it returns after that is no failure.
    pub fn was_told(&self) -> bool {
        self.was_told.load(Relaxed)
    }

    /// Takes the progress to store, if there is any that was not taken before.
    pub fn take_progress(&self) -> Option<Progress> {
        let mut reported = self.reported.lock();
        let is_unsent = std::mem::take(&mut reported.is_unsent);
        is_unsent.then(|| reported.progress.clone()).flatten()
    }

    /// Has the progress that was taken last taken again, because it could not be stored.
    pub fn put_back_progress(&self) {
        self.reported.lock().is_unsent = true;
        self.progressed.notify_one();
    }
}

impl AttemptObserver for Attempt {
    fn progress(&self, done: u64, total: u64, note: &str) {
        let mut reported = self.reported.lock();
        let is_new = match &mut reported.progress {
            Some(progress) => progress.update(done, total, note),
            first => {
                *first = Some(Progress::new(done, total, note));
                true
            }
        };
        // Until the heartbeat has taken a report, it needs no further signal.
        if is_new && !std::mem::replace(&mut reported.is_unsent, true) {
            self.progressed.notify_one();
        }
    }

    fn is_cancelled(&self) -> bool {
        self.has_asked.store(true, Relaxed);
        let is_cancelled = match self.reason() {
            Some(InterruptReason::CancelRequested | InterruptReason::LeaseLost) => true,
            // A drain gives no grace: the guest had the time of the drain.
            Some(InterruptReason::Drain) | None => false,
        };
        if is_cancelled {
            self.was_told.store(true, Relaxed);
        }
        is_cancelled
    }

    fn cancel_grace(&self) -> Duration {
        match self.reason() {
            Some(InterruptReason::CancelRequested | InterruptReason::LeaseLost)
                if self.has_asked.load(Relaxed) =>
            {
                self.cancel_grace
            }
            _ => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    const GRACE: Duration = Duration::from_secs(1);

    fn attempt() -> Attempt {
        Attempt::new(GRACE, Arc::default())
    }

    #[test]
    fn a_report_is_taken_once_and_again_if_it_is_put_back() {
        let attempt = attempt();
        let is_signalled = || attempt.progressed.notified().now_or_never().is_some();
        assert_eq!(attempt.take_progress(), None);
        attempt.progress(0, 0, "");
        attempt.progress(1, 2, "a");
        attempt.progress(2, 2, "b");
        assert!(is_signalled() && !is_signalled());
        let latest = Some(Progress::new(2, 2, "b"));
        assert_eq!(attempt.take_progress(), latest);
        assert_eq!(attempt.take_progress(), None);
        // The same again is no news.
        attempt.progress(2, 2, "b");
        assert!(!is_signalled());
        attempt.put_back_progress();
        assert!(is_signalled());
        assert_eq!(attempt.take_progress(), latest);
    }

    #[test]
    fn a_guest_that_has_asked_gets_a_grace_for_a_cancellation_and_a_lost_lease() {
        for (reason, is_cancelled) in [
            (InterruptReason::CancelRequested, true),
            (InterruptReason::LeaseLost, true),
            (InterruptReason::Drain, false),
        ] {
            let (deaf, asking) = (attempt(), attempt());
            assert!(!asking.is_cancelled());
            for attempt in [&deaf, &asking] {
                assert!(attempt.interrupt(reason));
                assert!(!attempt.interrupt(InterruptReason::Drain));
                assert!(attempt.token().is_cancelled());
            }
            assert_eq!(deaf.cancel_grace(), Duration::ZERO);
            let grace = if is_cancelled { GRACE } else { Duration::ZERO };
            assert_eq!(asking.cancel_grace(), grace);
            assert!(!asking.was_told());
            assert_eq!(asking.is_cancelled(), is_cancelled);
            assert_eq!(asking.was_told(), is_cancelled);
        }
    }
}
