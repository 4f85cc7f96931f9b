//! Wakes the calls that wait for a task to end, and signals ends to trackers, each of which follows many
//! tasks. One background task listens to the queue for all of them. A wake-up or a signal is only a hint:
//! who gets it reads the task.

use super::{end_signals::EndSignals, followers::Followers};
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

/// How many tasks are added to or removed from a tracker while the lock is held, which all calls share.
const LOCKED_STEP: usize = 512;

/// The calls that wait, by task and number, so that each is added and removed in constant time; and what
/// trackers follow.
#[derive(Default)]
struct Waits {
    next: u64,
    by_task: HashMap<TaskId, HashMap<u64, oneshot::Sender<()>>>,
    followed: HashMap<TaskId, Followers>,
    trackers: HashMap<u64, Arc<EndSignals>>,
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

/// The tasks that one tracker follows. Dropping it ends the signals, once its tasks are removed.
pub(super) struct Following {
    /// Tells it from the other trackers.
    number: u64,
    signals: Arc<EndSignals>,
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

    /// Follows tasks for a new tracker, none at first.
    pub(super) fn follow(&self) -> Following {
        Following::among(self.waiting.clone())
    }
}

impl Default for Following {
    /// Follows tasks that no queue is listened to for: there are no signals.
    fn default() -> Self {
        Self::among(Waiting::default())
    }
}

impl Following {
    fn among(waiting: Waiting) -> Self {
        let signals = Arc::<EndSignals>::default();
        let mut waits = waiting.lock();
        let number = waits.next;
        waits.next += 1;
        waits.trackers.insert(number, signals.clone());
        drop(waits);
        Self {
            number,
            signals,
            waiting,
        }
    }

    /// The signals of the tasks that are followed.
    pub fn signals(&self) -> &EndSignals {
        &self.signals
    }

    /// Follows these tasks from now on, each under its position.
    pub fn add<'t>(&self, tasks: impl IntoIterator<Item = (u64, &'t TaskId)>) {
        self.in_steps(tasks, |waits, position, id| {
            let (follower, signals) = ((self.number, position), self.signals.clone());
            match waits.followed.get_mut(id) {
                Some(followers) => followers.add(follower, signals),
                None => {
                    let one = Followers::One(follower, signals);
                    waits.followed.insert(id.clone(), one);
                }
            }
        });
    }

    /// Follows these tasks no more.
    pub fn remove<'t>(&self, tasks: impl IntoIterator<Item = (u64, &'t TaskId)>) {
        self.in_steps(tasks, |waits, position, id| {
            let followers = waits.followed.get_mut(id);
            if followers.is_some_and(|followers| followers.remove((self.number, position))) {
                waits.followed.remove(id);
            }
        });
    }

    fn in_steps<'t>(
        &self,
        tasks: impl IntoIterator<Item = (u64, &'t TaskId)>,
        change: impl Fn(&mut Waits, u64, &'t TaskId),
    ) {
        let mut tasks = tasks.into_iter().peekable();
        while tasks.peek().is_some() {
            let mut waits = self.waiting.lock();
            for (position, id) in tasks.by_ref().take(LOCKED_STEP) {
                change(&mut waits, position, id);
            }
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.waiting.lock().trackers.remove(&self.number);
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
                let mut woken = Vec::new();
                let mut waiting = waiting.lock();
                for change in changes.iter().filter(|c| c.state.is_terminal()) {
                    woken.extend(waiting.by_task.remove(&change.id));
                    if let Some(followers) = waiting.followed.get(&change.id) {
                        followers.signal();
                    }
                }
                // Dropping a sender wakes its receiver, which needs the lock next.
                drop(waiting);
                drop(woken);
            }
        }
    }
    // The queue is closed. Returning would count as a failure of this task.
    std::future::pending().await
}

/// Wakes every call and every tracker, since the ends of their tasks may have been missed.
fn wake_all(waiting: &Waiting) {
    let mut waiting = waiting.lock();
    waiting.trackers.values().for_each(|signals| signals.miss());
    let woken = std::mem::take(&mut waiting.by_task);
    drop(waiting);
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
    async fn each_tracker_is_told_of_the_tasks_that_it_follows() {
        let publisher = Publisher::new();
        let watched = publisher.clone();
        let waiters = Waiters::new(move || watched.watch(), &Health::default());
        let id = TaskId::parse("id", "a").unwrap();
        let other = TaskId::parse("id", "b").unwrap();
        let (first, second) = (waiters.follow(), waiters.follow());
        first.add([(1, &id), (2, &id), (3, &other)]);
        second.add([(7, &other)]);
        publisher.publish(vec![
            change(&id, StateKind::Running),
            change(&id, StateKind::Failed),
        ]);
        first.signals().signalled().await;
        let mut ended = first.signals().take().ended;
        ended.sort_unstable();
        assert_eq!(ended, [1, 2]);
        assert!(second.signals().signalled().now_or_never().is_none());
        // A task stays followed until its end was read.
        first.remove([(1, &id), (3, &other)]);
        publisher.publish(vec![
            change(&id, StateKind::Failed),
            change(&other, StateKind::Completed),
        ]);
        second.signals().signalled().await;
        assert_eq!(first.signals().take().ended, [2]);
        assert_eq!(second.signals().take().ended, [7]);
        publisher.publish_missed();
        second.signals().signalled().await;
        assert!(first.signals().take().missed && second.signals().take().missed);
        first.remove([(2, &id)]);
        second.remove([(7, &other)]);
        drop((first, second));
        let waiting = waiters.waiting.lock();
        assert!(waiting.followed.is_empty() && waiting.trackers.is_empty());
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
