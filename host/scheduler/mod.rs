//! Admission and answers: what comes in is checked against what live nodes can run and stored; who
//! asks about a task is answered, or woken when it ends. Runs nothing itself and never sees a
//! worker: they meet in the queue.

mod departed;
mod routing;
mod waiters;

use crate::{
    budget::{Budget, Reservation, Slot},
    discovery::ServiceDiscovery,
    health::Health,
    log_limit::LogLimit,
    queue::{
        self, Cancel, Counts, Durability, Filter, Listing, Page, Requeue, Submitted, TaskQueue,
    },
    task::{Name, Route, Submission, Target, Task, TaskId},
};
use async_trait::async_trait;
use departed::Departed;
use routing::{Routing, described};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;
use waiters::{EndOfTask, Waiters};

/// How long a waiting call trusts the wake-up before it looks for itself.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What all looks together may bring that are on no caller's account, in bytes, and what one may: a
/// payload and a result of the usual limits.
const LOOKS_BYTES: usize = 64 << 20;
const LOOK_BYTES: usize = 8 << 20;

/// How many task types a refusal lists: it travels in a header, and clients limit those.
const LISTED: usize = 30;

#[async_trait]
pub trait TaskScheduler: Send + Sync {
    /// Stores the task; on return it is durable.
    async fn submit_task(&self, task: Submission) -> Result<Accepted, Error>;

    /// What an accepted task survives, as far as is known now.
    fn durability(&self) -> Durability;

    /// The same, and then waits for the task's end, as `wait` says. The task is durable even
    /// where no status comes back: that only says that this node could not look at it.
    async fn submit_and_wait(
        &self,
        task: Submission,
        wait: &Patience,
    ) -> Result<(Accepted, Option<TaskStatus>), Error>;

    /// Where the task stands. With a `wait`, the answer comes when the task has ended or the wait
    /// is over, whichever is first.
    async fn get_task_status(&self, id: &TaskId, wait: &Patience) -> Result<TaskStatus, Error>;

    async fn cancel_task(&self, id: &TaskId) -> Result<Cancel, Error>;

    async fn requeue_task(&self, id: &TaskId) -> Result<(), Error>;

    async fn list_tasks(&self, filter: &Filter, page: &Page) -> Result<Listing, Error>;

    async fn count_tasks(&self) -> Result<Counts, Error>;
}

/// How long a call waits for the end of a task.
#[derive(Debug, Clone, Default)]
pub struct Patience {
    pub time: Duration,
    /// Ends the wait sooner, as if the time were over.
    pub end: CancellationToken,
    /// What the submission holds in memory. Cleared once the task is stored, before the wait.
    pub received: Slot,
    /// Where room for the task is reserved before it is read, and how much it may take.
    pub room: Option<(Budget, usize)>,
}

/// A submission that is durable now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    New,
    /// The same task had been submitted before.
    Existing,
}

/// A task, and why it does not run if it waits.
#[derive(Debug, Clone)]
pub struct TaskStatus {
    pub task: Task,
    pub waiting_for: Option<String>,
    /// What the task takes of the room that was given for it.
    pub room: Option<Arc<Reservation>>,
}

/// The scheduler over a queue and a view of the live nodes.
pub struct DistributedTaskScheduler {
    queue: Arc<dyn TaskQueue>,
    routing: Routing,
    waiters: Waiters,
    /// For what is read on no caller's account.
    looks: Budget,
    log_limit: LogLimit,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}", unknown_type(.task_type, .known))]
    UnknownType { task_type: Name, known: Vec<Name> },
    #[error("{}", no_such_target(.route, *.is_there, .known))]
    NoSuchTarget {
        route: Route,
        /// Such a node lives, but handles other types.
        is_there: bool,
        known: Vec<Name>,
    },
    /// A plugin that handles the type may come within moments.
    #[error(
        "no live node handles {task_type} yet, and {node} is still loading the plugins that it \
         found at its start: try again in a second"
    )]
    Starting { task_type: Name, node: Name },
    #[error("no task has the id {0}")]
    UnknownTask(TaskId),
    #[error("another task, with other content, has the id {0}")]
    Conflict(TaskId),
    #[error("the queue holds as many open tasks as it may (queue.max_open_tasks); try again later")]
    Full,
    #[error("task {id} is {state}; only failed and cancelled tasks can be requeued")]
    NotRequeued {
        id: TaskId,
        state: crate::task::StateKind,
    },
    /// Whether the task is stored is not known.
    #[error("{1}; whether it has the task {0} is not known")]
    Unsure(TaskId, queue::Error),
    #[error(transparent)]
    Queue(#[from] queue::Error),
}

impl DistributedTaskScheduler {
    /// Must be called within a tokio runtime: it listens to queue and discovery from here on.
    pub fn new(queue: Arc<dyn TaskQueue>, discovery: Arc<dyn ServiceDiscovery>) -> Self {
        Self::new_reporting(queue, discovery, &Health::default())
    }

    /// The same, and reports its faults to `health`.
    pub fn new_reporting(
        queue: Arc<dyn TaskQueue>,
        discovery: Arc<dyn ServiceDiscovery>,
        health: &Health,
    ) -> Self {
        let watched = queue.clone();
        let waiters = Waiters::new(move || watched.watch(), health);
        let routing = Routing {
            departed: Departed::new(discovery.clone(), health),
            discovery,
            only: None,
        };
        Self {
            queue,
            routing,
            waiters,
            looks: Budget::new(LOOKS_BYTES),
            log_limit: LogLimit::of_retries(),
        }
    }

    /// For a queue from which only this node takes tasks: what others can run is no help.
    pub fn only_on(mut self, node: Name) -> Self {
        self.routing.only = Some(node);
        self
    }

    /// The task when it has ended, or else as it stands when the wait is over. Whoever knows already that
    /// it is open hands over the end that it has been listening for since.
    async fn status_at_end(
        &self,
        id: &TaskId,
        wait: &Patience,
        mut open: Option<EndOfTask>,
    ) -> Result<TaskStatus, Error> {
        let deadline = Instant::now() + wait.time;
        loop {
            let left = || deadline.saturating_duration_since(Instant::now());
            if let Some(ended) = open {
                // Whichever it is, the next look decides.
                tokio::select! {
                    _ = tokio::time::timeout(left().min(LOOK_AGAIN), ended) => {}
                    () = wait.end.cancelled() => {}
                }
            }
            // Before the look, so that an ending between the two is not missed.
            let is_over = left().is_zero() || wait.end.is_cancelled();
            open = (!is_over).then(|| self.waiters.ended(id));
            let (task, room) = self.find(id, wait.room.as_ref()).await?;
            if open.is_none() || task.state.kind().is_terminal() {
                return Ok(TaskStatus {
                    waiting_for: self.routing.waiting_for(&task, self.queue.now()),
                    task,
                    room: wait.room.is_some().then(|| Arc::new(room)),
                });
            }
        }
    }

    /// The task, and the room that it takes, reserved before it was read.
    async fn find(
        &self,
        id: &TaskId,
        room: Option<&(Budget, usize)>,
    ) -> Result<(Task, Reservation), Error> {
        let mut room = match room {
            Some((budget, most)) => budget.reserve(*most).await,
            None => self.looks.reserve(LOOK_BYTES).await,
        };
        let found = self.queue.get(id).await;
        let found = found.map_err(queue::Error::as_read_error)?;
        let task = found.ok_or_else(|| Error::UnknownTask(id.clone()))?;
        room.shrink_to(task.bytes());
        Ok((task, room))
    }
}

#[async_trait]
impl TaskScheduler for DistributedTaskScheduler {
    async fn submit_task(&self, task: Submission) -> Result<Accepted, Error> {
        if let Err(refused) = self.routing.admit(task.route()) {
            // A repeated submission is answered even after its plugin went away.
            return match self.find(task.id(), None).await {
                Ok((known, _room)) => same_or_conflict(&task, &known),
                Err(Error::UnknownTask(_)) => Err(refused),
                Err(error) => Err(error),
            };
        }
        let id = task.id().clone();
        let submitted = self.queue.submit(vec![task]).await;
        let submitted = submitted.map_err(|error| match error {
            queue::Error::Unavailable {
                outcome_unknown: true,
                ..
            } => Error::Unsure(id.clone(), error),
            other => other.into(),
        });
        match submitted?.first() {
            Some(Submitted::Created) => Ok(Accepted::New),
            Some(Submitted::Existing) => Ok(Accepted::Existing),
            Some(Submitted::Conflict) => Err(Error::Conflict(id)),
            Some(Submitted::Full) => Err(Error::Full),
            None => Err(queue::Error::Corrupt("a submission got no answer".into()).into()),
        }
    }

    fn durability(&self) -> Durability {
        self.queue.durability()
    }

    async fn submit_and_wait(
        &self,
        task: Submission,
        wait: &Patience,
    ) -> Result<(Accepted, Option<TaskStatus>), Error> {
        let id = task.id().clone();
        // Before the queue has the task, so that its end is never missed.
        let ended = self.waiters.ended(&id);
        let accepted = self.submit_task(task).await?;
        wait.received.clear();
        // One that was there before may have ended long ago: that takes a look.
        let ended = (accepted == Accepted::New).then_some(ended);
        let status = self.status_at_end(&id, wait, ended).await;
        // An error would say that the task was refused.
        let status = status.inspect_err(|error| {
            if let Some(left_out) = self.log_limit.permit() {
                tracing::warn!(left_out, "cannot look at {id}: {error}");
            }
        });
        Ok((accepted, status.ok()))
    }

    async fn get_task_status(&self, id: &TaskId, wait: &Patience) -> Result<TaskStatus, Error> {
        self.status_at_end(id, wait, None).await
    }

    async fn cancel_task(&self, id: &TaskId) -> Result<Cancel, Error> {
        match self.queue.cancel(id).await? {
            Cancel::Unknown => Err(Error::UnknownTask(id.clone())),
            known => Ok(known),
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

    async fn list_tasks(&self, filter: &Filter, page: &Page) -> Result<Listing, Error> {
        let listing = self.queue.list(filter, page).await;
        Ok(listing.map_err(queue::Error::as_read_error)?)
    }

    async fn count_tasks(&self) -> Result<Counts, Error> {
        let counts = self.queue.counts().await;
        Ok(counts.map_err(queue::Error::as_read_error)?)
    }
}

fn same_or_conflict(task: &Submission, known: &Task) -> Result<Accepted, Error> {
    let same = known.task_type == *task.task_type()
        && known.target == *task.target()
        && known.payload == *task.payload()
        && known.metadata == *task.metadata();
    match same {
        true => Ok(Accepted::Existing),
        false => Err(Error::Conflict(task.id().clone())),
    }
}

fn unknown_type(task_type: &Name, known: &[Name]) -> String {
    if known.is_empty() {
        return format!(
            "no live node handles {task_type}, nor any other task type yet: \
             drop a plugin into a node's plugins directory"
        );
    }
    let listed = listed(known);
    format!("no live node handles {task_type}; known task types: {listed}")
}

fn no_such_target(route: &Route, is_there: bool, known: &[Name]) -> String {
    let Route { task_type, target } = route;
    let kind = match target {
        Target::Label(_) => "labels of nodes",
        _ => "nodes",
    };
    let known = match known.is_empty() {
        true => "none".into(),
        false => listed(known),
    };
    let target = described(target);
    match is_there {
        true => format!(
            "{target} lives, but has no plugin that handles {task_type}; {kind} that have: {known}"
        ),
        false => format!("{target} does not live; {kind} that handle {task_type}: {known}"),
    }
}

fn listed(known: &[Name]) -> String {
    let listed: Vec<_> = known.iter().take(LISTED).map(Name::as_str).collect();
    let listed = listed.join(", ");
    match known.len().saturating_sub(LISTED) {
        0 => listed,
        more => format!("{listed} and {more} more"),
    }
}
