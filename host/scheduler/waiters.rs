//! Wakes the calls that wait for a task to end. One background task listens to the queue for all of
//! them. A wake-up is only a hint: the call that is woken reads the task.

use crate::{
    health::{Background, Health, Part},
    queue::{Changes, Watch},
    task::TaskId,
};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::sync::oneshot;

type Waiting = Arc<Mutex<HashMap<TaskId, Vec<oneshot::Sender<()>>>>>;

/// The calls that wait, by task. Dropping it ends the listener.
pub struct Waiters {
    waiting: Waiting,
    _listener: Background,
}

/// Resolves when its task has ended, or may have.
pub struct EndOfTask {
    id: TaskId,
    woken: oneshot::Receiver<()>,
    waiting: Waiting,
}

impl Waiters {
    /// Listens to the changes that `watch` subscribes to.
    pub fn new(watch: impl Fn() -> Watch + Send + 'static, health: &Health) -> Self {
        let waiting = Waiting::default();
        let (woken, mut first) = (waiting.clone(), Some(watch()));
        let listen = move || {
            let watch = first.take().unwrap_or_else(|| {
                let watch = watch();
                // After a restart: the ends before this subscription were missed.
                woken.lock().clear();
                watch
            });
            listen(watch, woken.clone())
        };
        Self {
            waiting,
            _listener: health.restarting(Part::Queue, "end-listener", listen),
        }
    }

    /// The end of the task `id`, from now on.
    pub fn ended(&self, id: &TaskId) -> EndOfTask {
        let (wake, woken) = oneshot::channel();
        let mut waiting = self.waiting.lock();
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
        let mut waiting = self.waiting.lock();
        if let Some(others) = waiting.get_mut(&self.id) {
            others.retain(|other| !other.is_closed());
            if others.is_empty() {
                waiting.remove(&self.id);
            }
        }
    }
}

async fn listen(mut watch: Watch, waiting: Waiting) {
    while let Some(changes) = watch.next().await {
        let mut waiting = waiting.lock();
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
    // The queue is closed. Returning would count as a failure of this task.
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        queue::{Change, Publisher},
        task::{Name, StateKind},
    };
    use futures_util::FutureExt;

    fn change(id: &TaskId, state: StateKind) -> Change {
        Change::new(id.clone(), Name::parse("type", "echo").unwrap(), state)
    }

    #[tokio::test]
    async fn the_end_of_a_task_wakes_its_waiters_alone() {
        let publisher = Publisher::new();
        let watched = publisher.clone();
        let waiters = Waiters::new(move || watched.watch(), &Health::default());
        let id = TaskId::parse("id", "a").unwrap();
        let other = TaskId::parse("id", "b").unwrap();
        let (first, second) = (waiters.ended(&id), waiters.ended(&id));
        let third = waiters.ended(&other);
        publisher.publish(vec![change(&id, StateKind::Running)]);
        publisher.publish(vec![change(&id, StateKind::Completed)]);
        first.await;
        second.await;
        assert!(third.now_or_never().is_none());
        assert!(waiters.waiting.lock().is_empty());
    }
}
