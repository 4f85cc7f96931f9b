//! Who waits for which task to end. One pump listens to the queue for all of them. A wake-up only
//! means "look now"; the one who looks decides.

use crate::{
    health::{Background, Health, Part},
    queue::{Changes, Watch},
    task::TaskId,
};
use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};
use tokio::sync::oneshot;

type Waiting = Arc<Mutex<HashMap<TaskId, Vec<oneshot::Sender<()>>>>>;

/// Everyone who waits. Dropping it ends the pump.
pub struct Waiters {
    waiting: Waiting,
    _pump: Background,
}

/// Resolves when its task ends, or may have ended.
pub struct EndOfTask {
    id: TaskId,
    woken: oneshot::Receiver<()>,
    waiting: Waiting,
}

impl Waiters {
    /// Listens to what `watch` returns.
    pub fn new(watch: impl Fn() -> Watch + Send + 'static, health: &Health) -> Self {
        let waiting = Waiting::default();
        let (woken, mut first) = (waiting.clone(), Some(watch()));
        let pump = move || {
            let watch = first.take().unwrap_or_else(|| {
                let watch = watch();
                // What ended before it began was not seen.
                lock(&woken).clear();
                watch
            });
            pump(watch, woken.clone())
        };
        Self {
            waiting,
            _pump: health.restarting(Part::Queue, "end-listener", pump),
        }
    }

    /// The end of the task `id`, from now on.
    pub fn ended(&self, id: &TaskId) -> EndOfTask {
        let (wake, woken) = oneshot::channel();
        let mut waiting = lock(&self.waiting);
        waiting.entry(id.clone()).or_default().push(wake);
        EndOfTask {
            id: id.clone(),
            woken,
            waiting: self.waiting.clone(),
        }
    }
}

impl Future for EndOfTask {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.woken).poll(context).map(|_| ())
    }
}

impl Drop for EndOfTask {
    fn drop(&mut self) {
        self.woken.close();
        let mut waiting = lock(&self.waiting);
        if let Some(others) = waiting.get_mut(&self.id) {
            others.retain(|other| !other.is_closed());
            if others.is_empty() {
                waiting.remove(&self.id);
            }
        }
    }
}

async fn pump(mut watch: Watch, waiting: Waiting) {
    while let Some(changes) = watch.next().await {
        let mut waiting = lock(&waiting);
        match changes {
            // Dropping a sender wakes its receiver.
            Changes::Missed => waiting.clear(),
            Changes::Batch(changes) if !waiting.is_empty() => {
                for change in changes.iter().filter(|c| c.state.is_terminal()) {
                    waiting.remove(&change.id);
                }
            }
            Changes::Batch(_) => {}
        }
    }
    // The queue is closed, and nobody has ended this.
    std::future::pending().await
}

/// The map is whole at every await and panic: it has no invariant beyond its own.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        queue::{Change, Publisher},
        task::{Name, StateKind},
    };
    use std::time::Duration;

    fn change(id: &TaskId, state: StateKind) -> Change {
        Change::new(id.clone(), Name::parse("type", "echo").unwrap(), state)
    }

    #[tokio::test]
    async fn wakes_at_the_end_and_forgets() {
        let publisher = Publisher::new();
        let watched = publisher.clone();
        let waiters = Waiters::new(move || watched.watch(), &Health::default());
        let id = TaskId::parse("id", "a").unwrap();
        let other = TaskId::parse("id", "b").unwrap();
        let (first, second) = (waiters.ended(&id), waiters.ended(&id));
        let mut third = waiters.ended(&other);
        publisher.publish(vec![change(&id, StateKind::Running)]);
        publisher.publish(vec![change(&id, StateKind::Completed)]);
        first.await;
        second.await;
        assert!(
            tokio::time::timeout(Duration::from_millis(20), &mut third)
                .await
                .is_err()
        );
        drop(third);
        assert!(lock(&waiters.waiting).is_empty());
    }
}
