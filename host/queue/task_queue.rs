//! The contract that every queue backend keeps, and the values of its calls.
//!
//! Calls take batches, because a backend pays for each round trip or sync and not for each task.
//! Answers come in the order of the items. A conflict, a stale token or a full queue is a value; an
//! `Error` means that the backend could not do its work.

use super::{
    change_log::ChangesRead,
    details::{Place, ReadLimits, TaskDetails},
    error::Error,
    lease_request::LeaseRequest,
    status_read::StatusRead,
    usage::{Usage, UsageScope},
    watch::Watch,
};
pub use super::{
    filter::{Filter, Listing, Page, TimeRange},
    lease::{Expired, Finish, Finished, LeaseToken, Leased, Renew, Renewal},
};
use async_trait::async_trait;
use hostel_task::{
    Acted, Action, Name, PausedTypes, Retention, StateKind, Submission, Task, TaskId, TypePause,
    UnixMs,
};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Stores tasks until they have ended, and for some time after. A backend applies outcomes
/// atomically. It does not decide them (`task::transition` does) and knows neither plugins nor gRPC.
#[async_trait]
pub trait TaskQueue: Send + Sync {
    /// Stores tasks. On return each `Created` task is as durable as the backend makes it. Fails with
    /// `Error::Full` if the store has no room and a task is new. A task becomes due when its options
    /// say; a backend with a clock of its own converts the times in them.
    ///
    /// A unique key belongs to the task that was created with it until that has ended and its time is
    /// over, even if the task is purged before. A requeued task takes its key again if no other task has
    /// it.
    ///
    /// A task is refused while its type or its group has as many pending tasks as `Submission::pending_limits`
    /// says. A shared backend may accept a few more that are submitted at the same time.
    async fn submit(&self, tasks: Vec<Submission>) -> Result<Vec<Submitted>, Error>;

    /// Compares a submission with the stored task of its id, as `submit` does: `Existing` or `Conflict`,
    /// or `None` if there is no such task. Stores nothing, and takes no more memory than the submission.
    async fn compare(&self, task: &Submission) -> Result<Option<Submitted>, Error>;

    /// Leases due tasks, each to one holder, and counts the attempt. Lease number n of the queue goes to
    /// the priority `Priority::of_turn(n)`; if none of its tasks can be leased, to the highest that has
    /// one. Within a priority the oldest come first, except that groups of a route take turns: while a
    /// task of one group is due, no other group has two turns. Tasks without a group are one group, and
    /// suspects come by their age alone. Tasks that become due again in the same millisecond have no order
    /// among themselves. Passes over tasks of paused types, tasks that do not fit into the
    /// available resources, suspects except for one, and tasks whose `start_by` has passed before their
    /// first lease.
    ///
    /// Never leases more than the limits of types and groups allow, counted by the leases of all nodes, and
    /// takes a permit of a rate for each lease. A group at its limits holds up no other one.
    async fn lease(&self, request: &LeaseRequest) -> Result<Vec<Leased>, Error>;

    /// Waits until tasks become pending through this queue, and leases them as `lease` would, with the
    /// change that makes them pending. Tasks that are pending already are left to `lease`, and a watcher
    /// learns of those that are not handed off. Returns no task if something failed: then `lease` finds
    /// them. A later call takes the place of an earlier one. If the call is dropped, no task stays leased.
    /// A backend without a hand-off waits for ever.
    async fn hand_off(&self, _request: &LeaseRequest) -> Result<Vec<Leased>, Error> {
        std::future::pending().await
    }

    /// Extends leases to `ttl` from now, and stores the progress that comes with them. A task keeps it until
    /// its next lease, also after its end. Publishes no change.
    async fn renew(&self, leases: &[Renew], ttl: Duration) -> Result<Vec<Renewal>, Error>;

    /// Ends attempts. A token that no longer holds its task changes nothing and is counted. On an error
    /// the same call may be repeated: a backend whose answers can be lost answers `Applied` to a repeat
    /// of a finish that it has applied.
    async fn finish(&self, finishes: Vec<Finish>) -> Result<Vec<Finished>, Error>;

    /// Returns up to `max` tasks, of other types than `except`, whose lease has expired. Each node that
    /// shares the queue calls this about once a second. After a longer time in which no node could
    /// call it, no node could renew a lease either, so no lease counts as expired for half of `ttl`.
    /// The tasks stay as they are until one is finished with the token returned here; of two nodes
    /// that finish the same task, the token lets one succeed.
    async fn expired(
        &self,
        ttl: Duration,
        except: &[Name],
        max: usize,
    ) -> Result<Vec<Expired>, Error>;

    /// Does the same to up to `MAX_ACTED` tasks, and answers for each in their order. After an error it is
    /// not known which of them it was done to; to do it again to those does no more, except that a task may
    /// be requeued that has failed since.
    ///
    /// A task whose state the action is not for is refused and stays as it is. The reason of a cancellation
    /// becomes the error of the task once it is cancelled; the first one counts. A requeued task is due
    /// now, and the `start_by` of its options no longer applies. A new priority counts for the leases from
    /// then on, and for what is read of the task; a submission is compared with what was submitted.
    async fn act(&self, action: &Action, ids: &[TaskId]) -> Result<Vec<Acted>, Error>;

    /// Cancels a task: at once if it is pending, and through its holder if it runs.
    async fn cancel(&self, id: &TaskId) -> Result<Cancel, Error> {
        let acted = self
            .act(&Action::Cancel(None), std::slice::from_ref(id))
            .await?;
        Ok(match acted.first() {
            Some(Acted::Done) => Cancel::Cancelled,
            Some(Acted::Requested) => Cancel::Requested,
            Some(Acted::Refused(state)) => Cancel::Ended(*state),
            Some(Acted::Unknown) | None => Cancel::Unknown,
        })
    }

    /// Ends up to `max` pending tasks as failed, of the class `Expired`, because no attempt had begun by
    /// their `start_by`. Returns how many.
    async fn expire(&self, max: usize) -> Result<usize, Error>;

    /// Makes a failed or cancelled task due now and counts its attempts from 0 again.
    async fn requeue(&self, id: &TaskId) -> Result<Requeue, Error> {
        let acted = self.act(&Action::Requeue, std::slice::from_ref(id)).await?;
        Ok(match acted.first() {
            Some(Acted::Done | Acted::Requested) => Requeue::Requeued,
            Some(Acted::Refused(state)) => Requeue::Refused(*state),
            Some(Acted::Unknown) | None => Requeue::Unknown,
        })
    }

    /// Returns a task, if there is one with this id.
    async fn get(&self, id: &TaskId) -> Result<Option<Task>, Error>;

    /// Reads a task without its payload; its metadata may be left out. A result of more than
    /// `max_result_bytes` is not read.
    async fn get_status(
        &self,
        id: &TaskId,
        max_result_bytes: usize,
    ) -> Result<Option<StatusRead>, Error>;

    /// Reads a task with its metadata and its ended attempts.
    async fn get_details(
        &self,
        id: &TaskId,
        limits: ReadLimits,
    ) -> Result<Option<TaskDetails>, Error>;

    /// Returns where a task waits; `None` unless it is pending.
    async fn place(&self, id: &TaskId) -> Result<Option<Place>, Error>;

    /// Returns how much of its limits a task type or a group uses.
    async fn usage(&self, scope: &UsageScope) -> Result<Usage, Error>;

    /// Returns up to `max` changes after a cursor that an earlier call has returned, and none if there are
    /// none yet. Without a cursor it returns the one from which later changes follow. The latest 100,000
    /// changes can be read, for as long as a reader comes back within minutes. A cursor that is older, or
    /// is of another store, is answered with a resync. Fails with `BadCursor` if it is no cursor.
    async fn read_changes(&self, after: Option<&str>, max: usize) -> Result<ChangesRead, Error>;

    /// Returns tasks, newest first, with empty payloads, results and metadata, and with their options. A page
    /// may be short or empty although there are more, so that it takes a bounded time.
    async fn list(&self, filter: &Filter, page: &Page) -> Result<Listing, Error>;

    /// Returns how many tasks each type has in each state, without the zeros.
    async fn counts(&self) -> Result<Counts, Error>;

    /// Returns how long until a task that the request could lease is due: zero if one is due now,
    /// `None` if none is pending. A task whose type or group waits for its rate is due when that allows it.
    /// Ignores `LeaseRequest::max`, and the tasks that do not fit or whose type is paused or whose type or
    /// group is at its limit: those can be leased when another task ends or the type is resumed, at a time
    /// that is not known; a backend may return when to look again instead.
    async fn next_due(&self, request: &LeaseRequest) -> Result<Option<Duration>, Error>;

    /// Returns the type of the oldest due task that the request passes over because it does not fit
    /// into the available resources.
    async fn oldest_blocked(&self, request: &LeaseRequest) -> Result<Option<Name>, Error>;

    /// Deletes up to `max` tasks that ended longer ago than they are kept, and returns how many. The
    /// `result_ttl` of a task's options counts instead of `retention`.
    async fn purge(&self, retention: &Retention, max: usize) -> Result<usize, Error>;

    /// Pauses a task type: no task of it is leased or handed off until it is resumed, by any node that
    /// shares the queue; nodes other than this one may do so for a second more. Tasks that run go on, and
    /// submissions are accepted. The type need not be known. Pausing a paused type only changes the reason.
    /// Returns `None` if `MAX_PAUSED_TYPES` others are paused.
    async fn pause_type(
        &self,
        task_type: &Name,
        reason: Option<Arc<str>>,
    ) -> Result<Option<TypePause>, Error>;

    /// Ends the pause of a task type, and returns whether it was paused.
    async fn resume_type(&self, task_type: &Name) -> Result<bool, Error>;

    /// Returns the paused types as this queue knows them, which may be a second old if others share it.
    fn paused_types(&self) -> Arc<PausedTypes>;

    /// Whether other nodes lease tasks from it, too.
    fn is_shared(&self) -> bool;

    /// Returns the time of the backend's clock, which due times and leases are measured by.
    fn now(&self) -> UnixMs {
        now()
    }

    /// Returns what a submitted task survives, as far as the backend knows now.
    fn durability(&self) -> Durability;

    /// Watches the changes from now on. They are hints: the state of a task is what `get` returns.
    fn watch(&self) -> Watch;

    /// Writes what is pending and closes the backend. Later calls fail with `Unavailable`.
    async fn close(&self);
}

/// The most tasks of one call of `TaskQueue::act`.
pub const MAX_ACTED: usize = 500;

/// The result of one submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Submitted {
    /// It was stored.
    Created,
    /// The same task was submitted before; nothing changed.
    Existing,
    /// The task with this id has the unique key that the options ask for; nothing changed.
    Duplicate(TaskId),
    /// Another task has this id.
    Conflict,
    /// The queue has as many open tasks as it may have.
    Full,
    /// The type has as many pending tasks as it may have.
    TypeFull,
    /// The group has as many pending tasks as it may have.
    GroupFull,
}

/// What a submitted task survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The task is in memory: it is lost with the backend's process.
    Memory,
    /// It is written to disk about every second: a crash of the machine may lose the latest tasks.
    Periodic,
    /// It is on disk.
    Synced,
    /// The configured number of replicas have it.
    Replicated,
    /// The backend does not reveal it.
    Unknown,
}

impl Durability {
    /// Returns the name as clients see it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Periodic => "periodic",
            Self::Synced => "synced",
            Self::Replicated => "replicated",
            Self::Unknown => "unknown",
        }
    }
}

/// The result of a cancellation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancel {
    /// The task was pending and is cancelled now.
    Cancelled,
    /// The task runs, and its holder learns of the request.
    Requested,
    /// The task had ended before, in this state.
    Ended(StateKind),
    /// No task has this id.
    Unknown,
}

/// The result of a requeue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requeue {
    /// The task is pending again.
    Requeued,
    /// Only failed and cancelled tasks can be requeued; this one is in the state given.
    Refused(StateKind),
    /// No task has this id.
    Unknown,
}

/// How many tasks each type has in each state.
pub type Counts = BTreeMap<(Name, StateKind), u64>;

/// Returns the time of this machine's clock.
pub fn now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let ms = since.unwrap_or_default().as_millis();
    UnixMs(u64::try_from(ms).unwrap_or(u64::MAX))
}
