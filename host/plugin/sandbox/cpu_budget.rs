//! The processor time and the deadline of a guest's call. Counts the processor time of each poll, so
//! that waiting costs a guest nothing.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::pin,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

thread_local! {
    /// This thread's processor time when a call was last charged for it. Reading that time is a
    /// system call, and one for each poll is enough.
    static CHARGED_NS: Cell<u64> = const { Cell::new(0) };
}

/// The processor budget of a call, shared with the epoch callback that interrupts it. Both run on the
/// thread that polls the call, one after the other, so relaxed loads and stores are enough.
pub struct CpuBudget {
    budget: Duration,
    /// `deadline_ns` and `entered_ns` count from here.
    made_at: Instant,
    deadline_ns: AtomicU64,
    /// When the current poll began.
    entered_ns: AtomicU64,
    spent_ns: AtomicU64,
    exhausted: AtomicBool,
    late: AtomicBool,
}

impl CpuBudget {
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

    /// Begins a call that has to end by `deadline`.
    pub fn begin(&self, deadline: Instant) {
        self.deadline_ns.store(self.ns_until(deadline), Relaxed);
        self.spent_ns.store(0, Relaxed);
        self.exhausted.store(false, Relaxed);
        self.late.store(false, Relaxed);
    }

    /// Runs `work` and charges it for the processor time that it uses.
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

    /// Whether the guest may continue; for the epoch callback, during a poll. Checks the deadline too,
    /// so that it holds even if busy guests keep every thread from its timers.
    pub fn may_continue(&self) -> bool {
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

    /// What the call has used, as of the latest poll.
    pub fn spent(&self) -> Duration {
        Duration::from_nanos(self.spent_ns.load(Relaxed))
    }

    pub fn is_exhausted(&self) -> bool {
        self.exhausted.load(Relaxed)
    }

    pub fn is_late(&self) -> bool {
        self.late.load(Relaxed)
    }

    /// What the call has used, during a poll. The thread may have worked for others since the last
    /// charge, so no call is charged for more than the time that the poll itself has taken.
    fn so_far(&self, thread_ns: u64) -> u64 {
        let uncharged = thread_ns.saturating_sub(CHARGED_NS.get());
        let entered = self.entered_ns.load(Relaxed);
        let polling = self.ns_until(Instant::now()).saturating_sub(entered);
        let spent = self.spent_ns.load(Relaxed);
        spent.saturating_add(uncharged.min(polling))
    }

    /// Nanoseconds from `made_at` until `at`.
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

    fn cpu_budget(budget_ms: u64) -> CpuBudget {
        let cpu_budget = CpuBudget::new(Duration::from_millis(budget_ms));
        cpu_budget.begin(Instant::now() + Duration::from_secs(60));
        cpu_budget
    }

    #[tokio::test]
    async fn waiting_costs_nothing_and_work_does() {
        let cpu_budget = cpu_budget(1000);
        cpu_budget
            .charge(tokio::time::sleep(Duration::from_millis(50)))
            .await;
        assert!(cpu_budget.spent() < Duration::from_millis(20));
        cpu_budget
            .charge(async {
                let begin = thread_ns();
                while thread_ns() - begin < 20_000_000 {}
            })
            .await;
        assert!(cpu_budget.spent() >= Duration::from_millis(20));
        assert!(cpu_budget.may_continue() && !cpu_budget.is_exhausted());
    }

    #[tokio::test]
    async fn other_work_of_the_thread_is_not_charged() {
        let busy = |ms: u64| {
            let begin = thread_ns();
            while thread_ns() - begin < ms * 1_000_000 {}
        };
        let cpu_budget = cpu_budget(1000);
        cpu_budget.charge(async { busy(1) }).await;
        busy(200);
        cpu_budget.charge(async { busy(1) }).await;
        assert!(cpu_budget.spent() < Duration::from_millis(100));
    }

    #[tokio::test]
    async fn an_exhausted_budget_stays_so_until_the_next_call() {
        let cpu_budget = cpu_budget(5);
        cpu_budget
            .charge(async {
                let begin = Instant::now();
                while cpu_budget.may_continue() && begin.elapsed().as_secs() < 10 {}
            })
            .await;
        assert!(cpu_budget.is_exhausted());
        cpu_budget.begin(Instant::now() + Duration::from_secs(60));
        assert_eq!(cpu_budget.spent(), Duration::ZERO);
        assert!(cpu_budget.charge(async { cpu_budget.may_continue() }).await);
        assert!(!cpu_budget.is_exhausted());
    }
}
