//! Admits tasks and answers for them: checks a submission against what live nodes can run, stores it, and
//! reads tasks and acts on them. Runs nothing itself and knows no worker; they share the queue.

mod accepted;
mod bounded_read;
mod bulk;
mod bulk_action;
mod end_signals;
mod end_tracker;
mod error;
mod followers;
mod limit_reader;
mod recently_left;
mod routing;
pub mod schedules;
pub mod types;
mod waiters;

pub use accepted::Accepted;
pub use bulk_action::{ActedOn, BulkAction, Progress};
pub use end_tracker::EndTracker;
pub use error::Error;
pub use limit_reader::LimitReader;

use crate::{
    budget::{Budget, Reservation, SharedReservation},
    discovery::ServiceDiscovery,
    health::Health,
    log_limit::LogLimit,
    queue::{
        self, Cancel, Counts, Durability, Filter, LimitTable, Listing, Page, Requeue, StatusRead,
        TaskQueue,
    },
    task::{Acted, Action, Name, PausedTypes, Submission, Task, TaskId, TypePause, UnixMs},
};
use async_trait::async_trait;
use bounded_read::read_within;
use recently_left::RecentlyLeft;
use routing::Routing;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;
use waiters::{EndOfTask, Waiters};

/// How long a waiting call relies on the wake-up before it reads the task without one.
const RECHECK_INTERVAL: Duration = Duration::from_secs(5);

/// The budget of all reads that count in no caller's budget, in bytes.
const OWN_READS_BYTES: usize = 64 << 20;

/// The scheduler behind a node's API.
#[async_trait]
pub trait TaskScheduler: Send + Sync {
    /// Stores a task. It is durable when this returns.
    async fn submit_task(&self, task: Submission) -> Result<Accepted, Error>;

    /// Returns the time of the clock that start times and due times are measured by.
    fn now(&self) -> UnixMs;

    /// Stores tasks as `submit_task` does, with few calls of the queue. Answers the first of them, at least
    /// one, in their order: it does not go on after some refusals, so that these take bounded memory.
    async fn submit_many(&self, tasks: Vec<Submission>) -> Vec<Result<Accepted, Error>>;

    /// Follows the ends of many tasks, none at first.
    fn track_ends(&self) -> EndTracker;

    /// Reads tasks as they are now, without their payloads. A result of more than `max_result_bytes` is not
    /// read.
    async fn read_many(
        &self,
        ids: &[TaskId],
        max_result_bytes: usize,
    ) -> Vec<Result<StatusRead, Error>>;

    /// What an accepted task survives, as far as is known now.
    fn durability(&self) -> Durability;

    /// Stores a task as `submit_task` does, and then waits for its end. The task is durable even if no
    /// status is returned: then only reading it failed.
    async fn submit_and_wait(
        &self,
        task: Submission,
        wait: &WaitOptions,
    ) -> Result<(Accepted, Option<TaskStatus>), Error>;

    /// Returns the status of a task when the task has ended or the wait is over, whichever is first.
    async fn get_task_status(&self, id: &TaskId, wait: &WaitOptions) -> Result<TaskStatus, Error>;

    /// Cancels a task: at once if it is pending, through its worker if it runs. The reason becomes its error.
    async fn cancel_task(&self, id: &TaskId, reason: Option<Arc<str>>) -> Result<Cancel, Error>;

    /// Makes a failed or cancelled task pending again.
    async fn requeue_task(&self, id: &TaskId) -> Result<(), Error>;

    /// Does the same to up to `MAX_ACTED` tasks, and answers for each in their order. `BulkAction` does it to
    /// more.
    async fn act(&self, action: &Action, ids: &[TaskId]) -> Result<Vec<Acted>, Error>;

    /// Pauses a task type in the whole cluster, or changes the reason of its pause.
    async fn pause_type(
        &self,
        task_type: &Name,
        reason: Option<Arc<str>>,
    ) -> Result<TypePause, Error>;

    /// Ends the pause of a task type, and returns whether it was paused.
    async fn resume_type(&self, task_type: &Name) -> Result<bool, Error>;

    /// Returns the paused types.
    fn paused_types(&self) -> Arc<PausedTypes>;

    /// Lists one page of tasks.
    async fn list_tasks(&self, filter: &Filter, page: &Page) -> Result<Listing, Error>;

    /// Counts the tasks of each type and state.
    async fn count_tasks(&self) -> Result<Counts, Error>;
}

/// How a call waits for the end of a task, and which budgets it counts in.
#[derive(Debug, Clone, Default)]
pub struct WaitOptions {
    /// How long to wait.
    pub time: Duration,
    /// Ends the wait early, as if the time were over.
    pub end: CancellationToken,
    /// The memory of the submission. Released once the task is stored, before the wait.
    pub received: SharedReservation,
    /// The budget in which the result is reserved before it is read.
    pub budget: Option<Budget>,
}

/// The status of a task.
#[derive(Debug, Clone)]
pub struct TaskStatus {
    /// The task, without its payload.
    pub task: Task,
    /// What it waits for; `None` unless it is pending.
    pub waiting_for: Option<String>,
    /// The memory of the result, reserved in the budget of `WaitOptions`; `None` if the result is tiny.
    pub reservation: Option<Arc<Reservation>>,
}

impl TaskStatus {
    /// The status of a task without what it waits for, on no budget's account.
    pub fn of(task: Task) -> Self {
        Self {
            task,
            waiting_for: None,
            reservation: None,
        }
    }
}

/// The scheduler over a queue and a view of the live nodes.
pub struct DistributedTaskScheduler {
    queue: Arc<dyn TaskQueue>,
    routing: Routing,
    limits: Arc<LimitTable>,
    waiters: Waiters,
    /// The budget of reads that count in no caller's.
    own_reads: Budget,
    log_limit: LogLimit,
}

impl DistributedTaskScheduler {
    /// Creates a scheduler that listens to queue and discovery from here on. Must be called within a tokio
    /// runtime.
    pub fn new(queue: Arc<dyn TaskQueue>, discovery: Arc<dyn ServiceDiscovery>) -> Self {
        Self::with_health(queue, discovery, &Health::default())
    }

    /// Creates a scheduler that reports its faults to `health`.
    pub fn with_health(
        queue: Arc<dyn TaskQueue>,
        discovery: Arc<dyn ServiceDiscovery>,
        health: &Health,
    ) -> Self {
        let watched = queue.clone();
        let waiters = Waiters::new(move || watched.watch(), health);
        let routing = Routing {
            recently_left: RecentlyLeft::new(discovery.clone(), health),
            discovery,
            only: None,
        };
        Self {
            queue,
            routing,
            limits: Arc::new(LimitTable::empty()),
            waiters,
            own_reads: Budget::new(OWN_READS_BYTES),
            log_limit: LogLimit::of_retries(),
        }
    }

    /// Admits only what `node` can run, for a queue that no other node takes tasks from.
    pub fn for_node(mut self, node: Name) -> Self {
        self.routing.only = Some(node);
        self
    }

    /// Holds submissions to the limits of pending tasks of these.
    pub fn with_limits(mut self, limits: Arc<LimitTable>) -> Self {
        self.limits = limits;
        self
    }

    /// Returns the task when it has ended, or as it is when the wait is over. If the task is known to be
    /// open, `open` is its end, listened for since before that was known.
    async fn status_at_end(
        &self,
        id: &TaskId,
        wait: &WaitOptions,
        mut open: Option<EndOfTask>,
    ) -> Result<TaskStatus, Error> {
        // None: a wait without an end.
        let deadline = Instant::now().checked_add(wait.time);
        loop {
            let left = || {
                deadline.map_or(Duration::MAX, |at| {
                    at.saturating_duration_since(Instant::now())
                })
            };
            if let Some(ended) = open {
                // Whichever it is, the read below decides.
                tokio::select! {
                    _ = tokio::time::timeout(left().min(RECHECK_INTERVAL), ended) => {}
                    () = wait.end.cancelled() => {}
                }
            }
            // Listens before the read, so that an end between the two is not missed.
            let is_over = left().is_zero() || wait.end.is_cancelled();
            open = (!is_over).then(|| self.waiters.ended(id));
            let (task, reservation) = self.read_status(id, wait.budget.as_ref()).await?;
            if open.is_none() || task.state.kind().is_terminal() {
                let pause = self.queue.paused_types().get(&task.task_type).cloned();
                let now = self.queue.now();
                return Ok(TaskStatus {
                    waiting_for: self.routing.waiting_for(&task, pause.as_ref(), now),
                    task,
                    reservation: reservation.filter(|_| wait.budget.is_some()).map(Arc::new),
                });
            }
        }
    }

    /// Reads a task without its payload, with the memory of its result reserved before that.
    async fn read_status(
        &self,
        id: &TaskId,
        budget: Option<&Budget>,
    ) -> Result<(Task, Option<Reservation>), Error> {
        let budget = budget.unwrap_or(&self.own_reads);
        read_within(budget, id, |max| self.queue.get_status(id, max)).await
    }
}

#[async_trait]
impl TaskScheduler for DistributedTaskScheduler {
    async fn submit_task(&self, task: Submission) -> Result<Accepted, Error> {
        if let Err(refused) = self.routing.admit(task.route()) {
            // A repeated submission is answered even after its plugin was removed.
            return Accepted::if_existing(&*self.queue, &task, refused).await;
        }
        let id = task.id().clone();
        let pending_limits = self.limits.pending_limits(&task);
        let submitted = self.queue.submit(vec![task.limited(pending_limits)]).await;
        let submitted = submitted.map_err(|error| Error::of_submission(&id, error))?;
        Accepted::of_answer(id, submitted.into_iter().next())
    }

    async fn submit_many(&self, tasks: Vec<Submission>) -> Vec<Result<Accepted, Error>> {
        bulk::submit(&*self.queue, &self.routing, &self.limits, tasks).await
    }

    fn track_ends(&self) -> EndTracker {
        EndTracker::new(self.waiters.follow())
    }

    async fn read_many(
        &self,
        ids: &[TaskId],
        max_result_bytes: usize,
    ) -> Vec<Result<StatusRead, Error>> {
        bulk::read(&*self.queue, ids, max_result_bytes).await
    }

    fn now(&self) -> UnixMs {
        self.queue.now()
    }

    fn durability(&self) -> Durability {
        self.queue.durability()
    }

    async fn submit_and_wait(
        &self,
        task: Submission,
        wait: &WaitOptions,
    ) -> Result<(Accepted, Option<TaskStatus>), Error> {
        let id = task.id().clone();
        // Listens before the queue has the task, so that its end is never missed.
        let ended = self.waiters.ended(&id);
        let accepted = self.submit_task(task).await?;
        wait.received.clear();
        let id = match &accepted {
            Accepted::New | Accepted::Existing => id,
            Accepted::Duplicate(other) => other.clone(),
        };
        // An existing task may have ended long ago, so it is read first.
        let ended = (accepted == Accepted::New).then_some(ended);
        let status = self.status_at_end(&id, wait, ended).await;
        // An error would mean that the task was refused.
        let status = status.inspect_err(|error| {
            if let Some(left_out) = self.log_limit.permit() {
                tracing::warn!(left_out, "cannot read the status of {id}: {error}");
            }
        });
        Ok((accepted, status.ok()))
    }

    async fn get_task_status(&self, id: &TaskId, wait: &WaitOptions) -> Result<TaskStatus, Error> {
        self.status_at_end(id, wait, None).await
    }

    async fn cancel_task(&self, id: &TaskId, reason: Option<Arc<str>>) -> Result<Cancel, Error> {
        let ids = std::slice::from_ref(id);
        let acted = self.queue.act(&Action::Cancel(reason), ids).await?;
        match acted.first() {
            Some(Acted::Done) => Ok(Cancel::Cancelled),
            Some(Acted::Requested) => Ok(Cancel::Requested),
            Some(Acted::Refused(state)) => Ok(Cancel::Ended(*state)),
            Some(Acted::Unknown) | None => Err(Error::UnknownTask(id.clone())),
        }
    }

    async fn requeue_task(&self, id: &TaskId) -> Result<(), Error> {
        let id = id.clone();
        match self.queue.requeue(&id).await? {
            Requeue::Requeued => Ok(()),
            Requeue::Refused(state) => Err(Error::NotRequeued { id, state }),
            Requeue::Unknown => Err(Error::UnknownTask(id)),
        }
    }

    async fn act(&self, action: &Action, ids: &[TaskId]) -> Result<Vec<Acted>, Error> {
        Ok(self.queue.act(action, ids).await?)
    }

    async fn pause_type(
        &self,
        task_type: &Name,
        reason: Option<Arc<str>>,
    ) -> Result<TypePause, Error> {
        let pause = self.queue.pause_type(task_type, reason).await?;
        pause.ok_or(Error::TooManyPaused)
    }

    async fn resume_type(&self, task_type: &Name) -> Result<bool, Error> {
        Ok(self.queue.resume_type(task_type).await?)
    }

    fn paused_types(&self) -> Arc<PausedTypes> {
        self.queue.paused_types()
    }

    async fn list_tasks(&self, filter: &Filter, page: &Page) -> Result<Listing, Error> {
        let listing = self.queue.list(filter, page).await;
        Ok(listing.map_err(queue::Error::as_read_error)?)
    }

    async fn count_tasks(&self) -> Result<Counts, Error> {
        let counts = self.queue.counts().await;
        Ok(counts.map_err(queue::Error::as_read_error)?)
    }
}
