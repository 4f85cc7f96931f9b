//! How much time a guest's call has used, and whether that was too much. Counts the processor time of
//! each poll, so that waiting costs a guest nothing of its processor budget.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::pin,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

thread_local! {
    /// This thread's processor time when somebody was last charged for it. Kept, because to ask for
    /// that time is a system call, and one for each poll is enough.
    static CHARGED_NS: Cell<u64> = const { Cell::new(0) };
}

/// Shared between a call and the epoch callback that interrupts it. Both run on whichever thread
/// polls the call, one after the other, so that the order of these loads and stores needs no care.
pub struct Meter {
    budget: Duration,
    /// What `deadline_ns` and `entered_ns` count from.
    made_at: Instant,
    deadline_ns: AtomicU64,
    /// When the current poll began.
    entered_ns: AtomicU64,
    spent_ns: AtomicU64,
    exhausted: AtomicBool,
    late: AtomicBool,
}

impl Meter {
    /// `budget` is processor time, for each call.
    pub fn new(budget: Duration) -> Self {
        Self {
            budget,
            made_at: Instant::now(),
            deadline_ns: AtomicU64::new(0),
            entered_ns: AtomicU64::new(0),
            spent_ns: AtomicU64::new(0),
            exhausted: AtomicBool::new(false),
            late: AtomicBool::new(false),
        }
    }

    /// Begins a call that has to be over at `deadline`.
    pub fn begin(&self, deadline: Instant) {
        self.deadline_ns.store(self.ns_until(deadline), Relaxed);
        self.spent_ns.store(0, Relaxed);
        self.exhausted.store(false, Relaxed);
        self.late.store(false, Relaxed);
    }

    /// Runs `work` and charges what it uses.
    pub async fn charge<F: Future>(&self, work: F) -> F::Output {
        let mut work = pin!(work);
        poll_fn(|context| {
            let now = self.ns_until(Instant::now());
            self.entered_ns.store(now, Relaxed);
            let polled = work.as_mut().poll(context);
            let thread_ns = thread_ns();
            self.spent_ns.store(self.so_far(thread_ns), Relaxed);
            CHARGED_NS.set(thread_ns);
            polled
        })
        .await
    }

    /// For the epoch callback, within a poll: whether the guest may go on. Looks at the deadline
    /// too, so that it holds even when busy guests keep every thread from its timers.
    pub fn may_go_on(&self) -> bool {
        if Duration::from_nanos(self.so_far(thread_ns())) >= self.budget {
            self.exhausted.store(true, Relaxed);
            return false;
        }
        if self.ns_until(Instant::now()) >= self.deadline_ns.load(Relaxed) {
            self.late.store(true, Relaxed);
            return false;
        }
        true
    }

    /// Between polls.
    pub fn spent(&self) -> Duration {
        Duration::from_nanos(self.spent_ns.load(Relaxed))
    }

    pub fn is_exhausted(&self) -> bool {
        self.exhausted.load(Relaxed)
    }

    pub fn is_late(&self) -> bool {
        self.late.load(Relaxed)
    }

    /// What is spent, in the middle of a poll. What the thread did since the last charge may have
    /// been for others: nobody pays for more than the time that the poll itself has taken.
    fn so_far(&self, thread_ns: u64) -> u64 {
        let uncharged = thread_ns.saturating_sub(CHARGED_NS.get());
        let entered = self.entered_ns.load(Relaxed);
        let polling = self.ns_until(Instant::now()).saturating_sub(entered);
        let spent = self.spent_ns.load(Relaxed);
        spent.saturating_add(uncharged.min(polling))
    }

    /// Nanoseconds since this meter was made.
    fn ns_until(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.made_at);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// This thread's processor time.
fn thread_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meter(budget_ms: u64) -> Meter {
        let meter = Meter::new(Duration::from_millis(budget_ms));
        meter.begin(Instant::now() + Duration::from_secs(60));
        meter
    }

    #[tokio::test]
    async fn waiting_is_free_and_work_is_not() {
        let meter = meter(1000);
        meter
            .charge(tokio::time::sleep(Duration::from_millis(50)))
            .await;
        assert!(meter.spent() < Duration::from_millis(20));
        meter
            .charge(async {
                let begin = thread_ns();
                while thread_ns() - begin < 20_000_000 {}
            })
            .await;
        assert!(meter.spent() >= Duration::from_millis(20));
        assert!(meter.may_go_on() && !meter.is_exhausted());
    }

    #[tokio::test]
    async fn the_work_of_others_is_not_charged() {
        let busy = |ms: u64| {
            let begin = thread_ns();
            while thread_ns() - begin < ms * 1_000_000 {}
        };
        let meter = meter(1000);
        meter.charge(async { busy(1) }).await;
        busy(200);
        meter.charge(async { busy(1) }).await;
        assert!(meter.spent() < Duration::from_millis(100));
    }

    #[tokio::test]
    async fn a_spent_budget_is_remembered() {
        let meter = meter(5);
        meter
            .charge(async {
                let begin = Instant::now();
                while meter.may_go_on() && begin.elapsed().as_secs() < 10 {}
            })
            .await;
        assert!(meter.is_exhausted());
        meter.begin(Instant::now() + Duration::from_secs(60));
        assert_eq!(meter.spent(), Duration::ZERO);
        assert!(meter.charge(async { meter.may_go_on() }).await);
        assert!(!meter.is_exhausted());
    }
}
