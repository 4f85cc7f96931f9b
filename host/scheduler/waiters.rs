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

type Waiting = Arc<Mutex<Waits>>;

/// The calls that wait, by task and number, so that each is added and removed in constant time.
#[derive(Default)]
struct Waits {
    next: u64,
    by_task: HashMap<TaskId, HashMap<u64, oneshot::Sender<()>>>,
}

/// The calls that wait, by task. Dropping it ends the listener.
pub struct Waiters {
    waiting: Waiting,
    _listener: Background,
}

/// Resolves when its task has ended, or may have.
pub struct EndOfTask {
    id: TaskId,
    /// Tells it from the other waits for the same task.
    number: u64,
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
                wake_all(&woken);
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
        let number = waiting.next;
        waiting.next += 1;
        let of_task = waiting.by_task.entry(id.clone()).or_default();
        of_task.insert(number, wake);
        EndOfTask {
            id: id.clone(),
            number,
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
        let mut waiting = self.waiting.lock();
        if let Some(of_task) = waiting.by_task.get_mut(&self.id) {
            of_task.remove(&self.number);
            if of_task.is_empty() {
                waiting.by_task.remove(&self.id);
            }
        }
    }
}

async fn listen(mut watch: Watch, waiting: Waiting) {
    while let Some(changes) = watch.next().await {
        match changes {
            Changes::Missed => wake_all(&waiting),
            Changes::Batch(changes) => {
                let ended = changes.iter().filter(|c| c.state.is_terminal());
                let mut waiting = waiting.lock();
                let woken: Vec<_> = ended
                    .filter_map(|change| waiting.by_task.remove(&change.id))
                    .collect();
                // Dropping a sender wakes its receiver, which needs the lock next.
                drop(waiting);
                drop(woken);
            }
        }
    }
    // The queue is closed. Returning would count as a failure of this task.
    std::future::pending().await
}

/// Wakes every call, since the ends of their tasks may have been missed.
fn wake_all(waiting: &Waiting) {
    let woken = std::mem::take(&mut waiting.lock().by_task);
    drop(woken);
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
        assert!(waiters.waiting.lock().by_task.is_empty());
    }

    #[tokio::test]
    async fn waits_for_one_task_cost_the_same_however_many_there_are() {
        const WAITS: usize = 50_000;
        let publisher = Publisher::new();
        let watched = publisher.clone();
        let waiters = Waiters::new(move || watched.watch(), &Health::default());
        let id = TaskId::parse("id", "a").unwrap();
        let all: Vec<_> = (0..WAITS).map(|_| waiters.ended(&id)).collect();
        assert_eq!(waiters.waiting.lock().by_task[&id].len(), WAITS);
        let (dropped, woken): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|wait| wait.number % 2 == 0);
        // When each drop looked at all others, this took minutes.
        let since = std::time::Instant::now();
        drop(dropped);
        let took = since.elapsed();
        assert!(took < std::time::Duration::from_secs(5), "{took:?}");
        assert_eq!(waiters.waiting.lock().by_task[&id].len(), WAITS / 2);
        publisher.publish(vec![change(&id, StateKind::Completed)]);
        futures_util::future::join_all(woken).await;
        assert!(waiters.waiting.lock().by_task.is_empty());
    }
}
