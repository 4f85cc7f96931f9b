//! Supervises the background tasks and threads of a node. An unexpected end is reported at once as a fault
//! of the task's part, with its panic; then the task is restarted, or the node fails. A task that another
//! module spawns has an owner there, which waits for it or aborts it.

use super::{part::Part, registry::Running, report::Health};
use futures_util::FutureExt;
use hostel_backoff::Backoff;
use parking_lot::MutexGuard;
use std::{
    any::Any,
    collections::BTreeMap,
    future::Future,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};
use tokio::{runtime::Handle, sync::Notify, time::timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// The delay before a restart: the first one, and the longest. It doubles in between.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// A task that has run this long is healthy: its fault is cleared, and its next delay is the first one.
const STEADY: Duration = Duration::from_secs(1);

/// A background task. Dropping it aborts the task at its next await.
pub struct Background {
    /// Cancelled once its end is expected.
    ending: CancellationToken,
    task: AbortOnDropHandle<()>,
}

/// A background thread. Dropping this leaves it running.
pub struct BackgroundThread(thread::JoinHandle<()>);

impl Health {
    /// Runs the task that `start` returns, and restarts it after a delay whenever it ends unexpectedly.
    pub fn restarting<F>(
        &self,
        part: Part,
        name: &'static str,
        start: impl FnMut() -> F + Send + 'static,
    ) -> Background
    where
        F: Future<Output = ()> + Send,
    {
        self.restarting_on(&Handle::current(), part, name, start)
    }

    /// Runs a restarting task on another runtime than the caller's.
    pub fn restarting_on<F>(
        &self,
        runtime: &Handle,
        part: Part,
        name: &'static str,
        mut start: impl FnMut() -> F + Send + 'static,
    ) -> Background
    where
        F: Future<Output = ()> + Send,
    {
        let (entry, ending) = (self.enter(part, name), CancellationToken::new());
        let requested = ending.clone();
        let task = runtime.spawn(async move {
            let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
            loop {
                let mut run = pin!(entry.run(async { start().await }));
                let ended = match timeout(STEADY, &mut run).await {
                    Ok(ended) => ended,
                    Err(_) => {
                        backoff.reset();
                        entry.set_healthy();
                        run.await
                    }
                };
                if requested.is_cancelled() {
                    return;
                }
                let delay = backoff.next_delay();
                entry.report_end(&format!("{ended}; it is restarted in {delay:.1?}"));
                requested
                    .run_until_cancelled(tokio::time::sleep(delay))
                    .await;
                if requested.is_cancelled() {
                    return;
                }
            }
        });
        Background {
            ending,
            task: AbortOnDropHandle::new(task),
        }
    }

    /// Runs a task that the node cannot work without: its unexpected end fails the node.
    pub fn vital(
        &self,
        part: Part,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> Background {
        let (entry, ending) = (self.enter(part, name), CancellationToken::new());
        let requested = ending.clone();
        let task = tokio::spawn(async move {
            let ended = entry.run(task).await;
            if !requested.is_cancelled() {
                entry.fail_node(&ended);
            }
        });
        Background {
            ending,
            task: AbortOnDropHandle::new(task),
        }
    }

    /// Runs a thread that the node cannot work without: its panic fails the node. Its owner makes it return.
    pub fn vital_thread(
        &self,
        part: Part,
        name: &'static str,
        run: impl FnOnce() + Send + 'static,
    ) -> io::Result<BackgroundThread> {
        let entry = self.enter(part, name);
        let thread = thread::Builder::new().name(name.into()).spawn(move || {
            let ended = catch_unwind(AssertUnwindSafe(run));
            if ended.is_err() {
                entry.fail_node(&end_of(ended));
            }
        })?;
        Ok(BackgroundThread(thread))
    }

    /// Waits until a vital task or thread has failed, and returns the reason.
    pub async fn failed(&self) -> String {
        let mut failed = self.registry().failed.subscribe();
        match failed.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(why)) => why.clone(),
            // The sender is in `self`.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// The names of the background tasks and threads.
    pub fn background_names(&self) -> Vec<&'static str> {
        self.background()
            .values()
            .map(|running| running.name)
            .collect()
    }

    /// Makes the tasks of this name panic, for tests, and returns their number. Threads are not affected.
    pub fn inject_panic(&self, name: &str) -> usize {
        let running = self.background();
        let those = running.values().filter(|running| running.name == name);
        those.map(|running| running.panic.notify_one()).count()
    }

    fn enter(&self, part: Part, name: &'static str) -> Entry {
        let id = self.registry().next.fetch_add(1, Ordering::Relaxed);
        let panic = Arc::new(Notify::new());
        let running = Running {
            part,
            name,
            is_down: false,
            panic: panic.clone(),
        };
        self.background().insert(id, running);
        Entry {
            health: self.clone(),
            id,
            part,
            name,
            panic,
        }
    }

    fn background(&self) -> MutexGuard<'_, BTreeMap<u64, Running>> {
        self.registry().running.lock()
    }
}

/// The entry of a task in the registry. Dropping it removes the entry.
struct Entry {
    health: Health,
    id: u64,
    part: Part,
    name: &'static str,
    panic: Arc<Notify>,
}

impl Entry {
    /// Runs the task and describes how it ended.
    async fn run(&self, task: impl Future<Output = ()>) -> String {
        let task = async {
            tokio::select! {
                biased;
                () = self.panic.notified() => panic!("a panic injected by a test"),
                () = task => {}
            }
        };
        end_of(AssertUnwindSafe(task).catch_unwind().await)
    }

    fn report_end(&self, why: &str) {
        self.set_down(true);
        let reason = format!("{} ended: {why}", self.name);
        self.health.report(self.part, self.name, reason);
    }

    /// Clears the fault, unless another task of this name is down.
    fn set_healthy(&self) {
        if self.set_down(false) {
            let running = self.health.background();
            let others = running.values();
            let mut others = others.filter(|other| other.is_down && other.name == self.name);
            if !others.any(|other| other.part == self.part) {
                self.health.clear(self.part, self.name);
            }
        }
    }

    /// Returns whether the task was down before.
    fn set_down(&self, is_down: bool) -> bool {
        let mut running = self.health.background();
        let own = running.get_mut(&self.id);
        own.is_some_and(|own| std::mem::replace(&mut own.is_down, is_down))
    }

    fn fail_node(&self, why: &str) {
        let why = format!(
            "{} ended: {why}; the node cannot work without it",
            self.name
        );
        // First, so that the node ends whatever happens to the log. The first reason stands.
        self.health.registry().failed.send_if_modified(|failed| {
            let first = failed.is_none();
            failed.get_or_insert_with(|| why.clone());
            first
        });
        self.health.report(self.part, self.name, why);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.set_healthy();
        self.health.background().remove(&self.id);
    }
}

impl Background {
    /// Expects the task to end from now on.
    pub fn expect_end(&self) {
        self.ending.cancel();
    }

    /// Aborts the task at its next await, and waits until it has ended.
    pub async fn stop(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    /// Expects the task to end, and waits until it has. Cancel-safe: without a waiter, the task goes on until
    /// this is dropped.
    pub async fn ended(&mut self) {
        self.expect_end();
        let _ = (&mut self.task).await;
    }
}

impl BackgroundThread {
    /// Unparks the thread, and blocks until it has ended.
    pub fn join(self) {
        self.0.thread().unpark();
        // Its panic has been caught and reported.
        let _ = self.0.join();
    }
}

/// Describes how a task ended.
fn end_of(ended: Result<(), Box<dyn Any + Send>>) -> String {
    let Err(panic) = ended else {
        return "it returned".into();
    };
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("it panicked: {}", text.unwrap_or("without a message"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    fn faults(health: &Health) -> Vec<(Part, &'static str)> {
        health.faults().into_keys().collect()
    }

    #[tokio::test]
    async fn a_task_that_panics_is_reported_and_restarted() {
        let health = Health::default();
        let starts = Arc::new(AtomicUsize::new(0));
        let counted = starts.clone();
        let background = health.restarting(Part::Worker, "dispatcher", move || {
            let start = counted.fetch_add(1, Ordering::Relaxed);
            async move {
                assert!(start > 2, "no");
                std::future::pending::<()>().await;
            }
        });
        let mut changed = health.changed();
        changed.changed().await.unwrap();
        assert_eq!(faults(&health), [(Part::Worker, "dispatcher")]);
        changed.wait_for(|faults| faults.is_empty()).await.unwrap();
        assert_eq!(starts.load(Ordering::Relaxed), 4);
        assert_eq!(health.inject_panic("dispatcher"), 1);
        changed.wait_for(|faults| !faults.is_empty()).await.unwrap();
        changed.wait_for(|faults| faults.is_empty()).await.unwrap();
        assert_eq!(starts.load(Ordering::Relaxed), 5);
        assert_eq!(health.background_names(), ["dispatcher"]);
        background.stop().await;
        assert!(health.background_names().is_empty() && faults(&health).is_empty());
    }

    #[tokio::test]
    async fn the_unexpected_end_of_a_vital_task_fails_the_node() {
        let health = Health::default();
        let mut requested = health.vital(Part::Worker, "finisher", async {});
        requested.ended().await;
        let thread = health.vital_thread(Part::Queue, "queue-writer", thread::park);
        thread.unwrap().join();
        assert!(faults(&health).is_empty());
        assert!(health.failed().now_or_never().is_none());

        let _lost = health.vital_thread(Part::Queue, "queue-writer", || panic!("no"));
        let why = health.failed().await;
        assert_eq!(
            why,
            "queue-writer ended: it panicked: no; the node cannot work without it"
        );
        assert_eq!(faults(&health), [(Part::Queue, "queue-writer")]);
    }

    #[tokio::test]
    async fn a_fault_stands_while_a_task_of_its_name_is_down() {
        let health = Health::default();
        let _healthy = health.restarting(Part::Queue, "reader", std::future::pending::<()>);
        let _failing = health.restarting(Part::Queue, "reader", || async {});
        tokio::time::sleep(STEADY + BACKOFF.0).await;
        assert_eq!(faults(&health), [(Part::Queue, "reader")]);
    }
}
