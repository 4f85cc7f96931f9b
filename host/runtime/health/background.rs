//! Supervision of a node's background tasks and threads. Health hears of every end; one that nobody
//! requested is logged with its panic and is a fault of its part at once, and then the task is started
//! again or the node fails. Nothing else in a node spawns what outlives the call that spawned it.

use super::{Health, Part};
use futures_util::FutureExt;
use hostel_backoff::Backoff;
use std::{
    any::Any,
    collections::BTreeMap,
    future::Future,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// The pause before a task is started again: the first one, and the longest. It doubles in between.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// A task that has run this long is well: its fault is over, and its next pause is the first one.
const STEADY: Duration = Duration::from_secs(1);

/// The background tasks and threads that run, and why the node has failed if it has.
#[derive(Debug, Default)]
pub(super) struct Registry {
    failed: watch::Sender<Option<String>>,
    next: AtomicU64,
    running: Mutex<BTreeMap<u64, Running>>,
}

#[derive(Debug)]
struct Running {
    part: Part,
    name: &'static str,
    /// It has ended unrequested, and is not well again.
    is_down: bool,
    /// Makes it panic.
    fault: Arc<Notify>,
}

/// A background task. Dropping it ends the task at its next await.
pub struct Background {
    /// From here on its end is requested.
    ending: CancellationToken,
    task: AbortOnDropHandle<()>,
}

/// A background thread, which goes on when this is dropped.
pub struct BackgroundThread(thread::JoinHandle<()>);

impl Health {
    /// Runs what `start` returns, again after a pause whenever it ends unrequested.
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

    /// The same on another runtime than the caller's.
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
            let mut backoff = Backoff::new(PAUSE.0, PAUSE.1);
            loop {
                let mut run = pin!(entry.run(async { start().await }));
                let ended = match timeout(STEADY, &mut run).await {
                    Ok(ended) => ended,
                    Err(_) => {
                        backoff.reset();
                        entry.is_well();
                        run.await
                    }
                };
                if requested.is_cancelled() {
                    return;
                }
                let pause = backoff.next_delay();
                entry.is_down(&format!("{ended}; it starts again in {pause:.1?}"));
                requested
                    .run_until_cancelled(tokio::time::sleep(pause))
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

    /// Runs a task that the node cannot go on without: its unrequested end fails the node.
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
                entry.fails_the_node(&ended);
            }
        });
        Background {
            ending,
            task: AbortOnDropHandle::new(task),
        }
    }

    /// Runs a thread that the node cannot go on without: its panic fails the node. It returns when it
    /// is told to, which is its owner's affair.
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
                entry.fails_the_node(&end_of(ended));
            }
        })?;
        Ok(BackgroundThread(thread))
    }

    /// Waits until a part that the node cannot go on without has failed, and returns why.
    pub async fn failed(&self) -> String {
        let mut failed = self.registry().failed.subscribe();
        match failed.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(why)) => why.clone(),
            // The sender is in `self`.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// The names of the background tasks and threads that run now.
    pub fn background_names(&self) -> Vec<&'static str> {
        self.background()
            .values()
            .map(|running| running.name)
            .collect()
    }

    /// Has the tasks of this name panic, so that tests see what follows; a thread does not hear it.
    /// Returns how many have been told.
    pub fn inject_panic(&self, name: &str) -> usize {
        let running = self.background();
        let those = running.values().filter(|running| running.name == name);
        those.map(|running| running.fault.notify_one()).count()
    }

    fn enter(&self, part: Part, name: &'static str) -> Entry {
        let id = self.registry().next.fetch_add(1, Ordering::Relaxed);
        let fault = Arc::new(Notify::new());
        let running = Running {
            part,
            name,
            is_down: false,
            fault: fault.clone(),
        };
        self.background().insert(id, running);
        Entry {
            health: self.clone(),
            id,
            part,
            name,
            fault,
        }
    }

    /// Every change under this lock is one assignment, so a panic elsewhere does not spoil it.
    fn background(&self) -> MutexGuard<'_, BTreeMap<u64, Running>> {
        self.registry()
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of a task among those that run. Dropping it gives it up.
struct Entry {
    health: Health,
    id: u64,
    part: Part,
    name: &'static str,
    fault: Arc<Notify>,
}

impl Entry {
    /// Runs the task, and returns how it ended.
    async fn run(&self, task: impl Future<Output = ()>) -> String {
        let task = async {
            tokio::select! {
                biased;
                () = self.fault.notified() => panic!("a panic that a test asked for"),
                () = task => {}
            }
        };
        end_of(AssertUnwindSafe(task).catch_unwind().await)
    }

    fn is_down(&self, why: &str) {
        self.set_down(true);
        let reason = format!("{} ended: {why}", self.name);
        self.health.report(self.part, self.name, reason);
    }

    /// Takes the fault back, unless another task of this name is down.
    fn is_well(&self) {
        if self.set_down(false) {
            let running = self.health.background();
            let others = running.values();
            let mut others = others.filter(|other| other.is_down && other.name == self.name);
            if !others.any(|other| other.part == self.part) {
                self.health.clear(self.part, self.name);
            }
        }
    }

    /// Returns what it was before.
    fn set_down(&self, is_down: bool) -> bool {
        let mut running = self.health.background();
        let own = running.get_mut(&self.id);
        own.is_some_and(|own| std::mem::replace(&mut own.is_down, is_down))
    }

    fn fails_the_node(&self, why: &str) {
        let why = format!("{} ended: {why}; the node cannot go on", self.name);
        self.health.report(self.part, self.name, &*why);
        // The first reason stands.
        self.health.registry().failed.send_if_modified(|failed| {
            let first = failed.is_none();
            failed.get_or_insert(why);
            first
        });
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.is_well();
        self.health.background().remove(&self.id);
    }
}

impl Background {
    /// From here on the task may end.
    pub fn expect_end(&self) {
        self.ending.cancel();
    }

    /// Ends the task at its next await, and returns when it has ended.
    pub async fn stop(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    /// Waits until the task has ended by itself, as it has been told to. Cancel-safe: a task that is
    /// not waited for any longer goes on until this is dropped.
    pub async fn ended(&mut self) {
        self.expect_end();
        let _ = (&mut self.task).await;
    }
}

impl BackgroundThread {
    /// Wakes the thread where it is parked, and blocks until it has ended.
    pub fn join(self) {
        self.0.thread().unpark();
        // Its panic has been caught and reported.
        let _ = self.0.join();
    }
}

/// How something ended, in words.
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
    async fn a_task_that_panics_is_reported_and_starts_again() {
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
    async fn the_end_of_what_is_vital_fails_the_node_unless_it_was_requested() {
        let health = Health::default();
        let mut requested = health.vital(Part::Worker, "finisher", async {});
        requested.ended().await;
        let thread = health.vital_thread(Part::Queue, "queue-writer", || thread::park());
        thread.unwrap().join();
        assert!(faults(&health).is_empty());
        assert!(health.failed().now_or_never().is_none());

        let _lost = health.vital_thread(Part::Queue, "queue-writer", || panic!("no"));
        let why = health.failed().await;
        assert_eq!(
            why,
            "queue-writer ended: it panicked: no; the node cannot go on"
        );
        assert_eq!(faults(&health), [(Part::Queue, "queue-writer")]);
    }

    #[tokio::test]
    async fn a_fault_stands_while_one_of_that_name_is_down() {
        let health = Health::default();
        let _well = health.restarting(Part::Queue, "reader", std::future::pending::<()>);
        let _ill = health.restarting(Part::Queue, "reader", || async {});
        tokio::time::sleep(STEADY + PAUSE.0).await;
        assert_eq!(faults(&health), [(Part::Queue, "reader")]);
    }
}
