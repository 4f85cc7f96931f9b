//! Admits tasks and answers for them: checks a submission against what live nodes can run, stores it, and
//! reads tasks and acts on them. Runs nothing itself and knows no worker; they share the queue.

mod accepted;
mod bounded_read;
mod bulk;
mod bulk_action;
mod changes;
mod details;
mod end_signals;
mod end_tracker;
mod error;
mod explain;
mod followers;
mod limit_reader;
mod limits_reached;
mod recently_left;
mod routing;
pub mod schedules;
mod task_status;
pub mod types;
mod wait_reason;
mod waiters;

pub use accepted::Accepted;
pub use bulk_action::{ActedOn, BulkAction, Progress};
pub use changes::MAX_CHANGES_READ;
pub use details::{DetailsRequest, TaskRead};
pub use end_tracker::EndTracker;
pub use error::Error;
pub use explain::Explanation;
pub use limit_reader::LimitReader;
pub use task_status::{TaskStatus, WaitOptions};
pub use wait_reason::WaitReason;

use crate::{
    budget::{Budget, Reservation},
    discovery::ServiceDiscovery,
    health::Health,
    log_limit::LogLimit,
    plugin::PluginHost,
    queue::{
        self, Cancel, ChangesRead, Counts, Durability, Filter, LimitTable, Listing, Page, Requeue,
        StatusRead, TaskQueue,
    },
    task::{Acted, Action, Name, PausedTypes, Submission, Task, TaskId, TypePause, UnixMs},
};
use async_trait::async_trait;
use bounded_read::read_within;
use explain::LocalNode;
use recently_left::RecentlyLeft;
use routing::Routing;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
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

    /// Returns a task with its submission and its attempts, and the memory of it, reserved in `budget`.
    async fn get_task(
        &self,
        id: &TaskId,
        request: DetailsRequest,
        budget: Option<Budget>,
    ) -> Result<TaskRead, Error>;

    /// Explains what a task waits for.
    async fn explain_task(&self, id: &TaskId) -> Result<Explanation, Error>;

    /// Waits some seconds for changes after a cursor. Returns at once without one. At most
    /// `MAX_CHANGES_READ` are returned.
    async fn next_changes(&self, after: Option<&str>) -> Result<ChangesRead, Error>;

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

/// The scheduler over a queue and a view of the live nodes.
pub struct DistributedTaskScheduler {
    queue: Arc<dyn TaskQueue>,
    routing: Routing,
    limits: Arc<LimitTable>,
    waiters: Waiters,
    /// This node, if it runs tasks.
    local: Option<LocalNode>,
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
            local: None,
            own_reads: Budget::new(OWN_READS_BYTES),
            log_limit: LogLimit::of_retries(),
        }
    }

    /// Admits only what `node` can run, for a queue that no other node takes tasks from.
    pub fn for_node(mut self, node: Name) -> Self {
        self.routing.only = Some(node);
        self
    }

    /// Explains tasks also by what the plugins of the node `id`, which is this one, need and have.
    pub fn with_plugins(mut self, id: Name, plugins: Arc<PluginHost>) -> Self {
        self.local = Some(LocalNode { id, plugins });
        self
    }

    /// Holds submissions to the limits of pending tasks of these, and explains tasks by all of them.
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
                return Ok(TaskStatus {
                    waiting_for: self.waiting_for(&task),
                    task,
                    reservation: reservation.filter(|_| wait.budget.is_some()).map(Arc::new),
                });
            }
        }
    }

    fn waiting_for(&self, task: &Task) -> Option<String> {
        let paused = self.queue.paused_types();
        let pause = paused.get(&task.task_type);
        self.routing.waiting_for(task, pause, self.queue.now())
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

    async fn get_task(
        &self,
        id: &TaskId,
        request: DetailsRequest,
        budget: Option<Budget>,
    ) -> Result<TaskRead, Error> {
        let budget = budget.as_ref().unwrap_or(&self.own_reads);
        let read = details::read_details(budget, id, request, |limits| {
            self.queue.get_details(id, limits)
        });
        let (details, reservation) = read.await?;
        Ok(TaskRead {
            waiting_for: self.waiting_for(&details.task),
            details,
            reservation,
        })
    }

    async fn explain_task(&self, id: &TaskId) -> Result<Explanation, Error> {
        let (task, _memory) = self.read_status(id, None).await?;
        let local = self.local.as_ref();
        let facts = explain::facts(&*self.queue, &self.routing, &self.limits, local, &task).await;
        let facts = facts.map_err(queue::Error::as_read_error)?;
        let now = self.queue.now();
        Ok(explain::explain(&self.routing, &task, facts, now))
    }

    async fn next_changes(&self, after: Option<&str>) -> Result<ChangesRead, Error> {
        let read = changes::next(&*self.queue, after).await;
        Ok(read.map_err(queue::Error::as_read_error)?)
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
