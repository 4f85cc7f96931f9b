//! Where tasks live until they have ended, and after. The contract that every engine keeps, and the
//! one place that chooses an engine. Engines apply outcomes atomically; they decide no policy
//! (that is `task::transition`) and know nothing of plugins or gRPC.
//!
//! Verbs take batches, because engines pay per round trip or per fsync and not per task. Answers
//! come in the order of the questions. A conflict, a stale token or a full queue is a value; an
//! `Error` means that the engine could not do its work.

mod piece_size;
mod recent;
mod redis;
mod sqlite;
mod want;
mod watch;

pub use self::redis::RedisQueue;
pub use piece_size::{PieceSize, transfer_time};
pub use sqlite::SqliteQueue;
pub use want::{Want, WantedType, WantedTypes};
pub use watch::{Change, Changes, Publisher, Watch};

use async_trait::async_trait;
use bytes::Bytes;
use hostel_runtime::health::Health;
use hostel_task::{Name, Outcome, Ran, StateKind, Submission, Task, TaskId, UnixMs};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

#[async_trait]
pub trait TaskQueue: Send + Sync {
    /// Stores tasks. On return each `Created` task is as durable as the engine makes anything.
    /// `Error::Full` when the store has no room for them; tasks that are stored already are
    /// answered even then.
    async fn submit(&self, tasks: Vec<Submission>) -> Result<Vec<Submitted>, Error>;

    /// Hands out due tasks, oldest first, each to one holder, and counts the attempt. A task that does
    /// not fit into the room is passed by, and so are suspects but one.
    async fn lease(&self, want: &Want) -> Result<Vec<Leased>, Error>;

    /// Holds leases for another `ttl` from now.
    async fn renew(&self, held: &[LeaseToken], ttl: Duration) -> Result<Vec<Renewal>, Error>;

    /// Ends attempts. A token that no longer holds its task changes nothing and is counted. `Err` when
    /// nothing is known to be applied: the same may be asked again, and an engine whose answers can be
    /// lost says `Applied` to a repeat of what it has applied.
    async fn finish(&self, ended: Vec<Finish>) -> Result<Vec<Finished>, Error>;

    /// Up to `max` tasks, of other types than `except`, whose lease has run out. To be asked about
    /// once a second by each who shares the queue: after a longer time in which nobody could ask,
    /// nobody could renew a lease either, so that for half of `ttl` none counts as lost. They stay as they are until somebody finishes
    /// them with the token given here; two who try are told apart by the token.
    async fn expired(
        &self,
        ttl: Duration,
        except: &[Name],
        max: usize,
    ) -> Result<Vec<Expired>, Error>;

    /// Asks for the end of a task: at once when it waits, through its holder when it runs.
    async fn cancel(&self, id: &TaskId) -> Result<Cancel, Error>;

    /// Makes a failed or cancelled task due now, with its attempts counted from 0 again.
    async fn requeue(&self, id: &TaskId) -> Result<Requeue, Error>;

    async fn get(&self, id: &TaskId) -> Result<Option<Task>, Error>;

    /// Tasks without payloads and results (both are empty), newest first.
    async fn list(&self, filter: &Filter, page: &Page) -> Result<Listing, Error>;

    /// How many tasks each type has in each state; absent means none.
    async fn counts(&self) -> Result<Counts, Error>;

    /// How long until a task that `want` could take becomes due: zero when one is due now, `None`
    /// when none waits. How many it wants in all does not count here. What there is no room for, or a
    /// type of which as many run as may run, becomes free by an end, and has no time.
    async fn next_due(&self, want: &Want) -> Result<Option<Duration>, Error>;

    /// The type of the oldest due task that `want` passes by because it does not fit into the room.
    async fn passed_by(&self, want: &Want) -> Result<Option<Name>, Error>;

    /// Forgets up to `max` tasks that ended longer than `age` ago, and says how many went.
    async fn purge(&self, age: Duration, max: usize) -> Result<usize, Error>;

    /// Whether other nodes take tasks from it too.
    fn is_shared(&self) -> bool;

    /// The time by the engine's clock, which due times and leases are measured by.
    fn now(&self) -> UnixMs {
        now()
    }

    /// What a task survives once its submission is answered, as far as the engine knows now.
    fn durability(&self) -> Durability;

    /// The changes from now on. A wake-up, never the truth: who needs that calls `get` or `lease`.
    fn watch(&self) -> Watch;

    /// Writes out what is pending and lets go of the engine. Later calls are `Unavailable`.
    async fn close(&self);
}

/// Opens the engine that the configuration names. It reports its faults to `health`.
pub async fn open(
    queue: &hostel_config::Queue,
    health: &Health,
) -> Result<Arc<dyn TaskQueue>, Error> {
    match queue {
        hostel_config::Queue::Sqlite(settings) => {
            Ok(Arc::new(SqliteQueue::open(settings, health).await?))
        }
        hostel_config::Queue::Redis(settings) => {
            let queue = RedisQueue::open_reporting(settings, health.clone()).await?;
            Ok(Arc::new(queue))
        }
    }
}

/// What became of one submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Submitted {
    Created,
    /// The same task had been submitted before; nothing changed.
    Existing,
    /// Another task has this id.
    Conflict,
    /// The queue holds as many open tasks as it may.
    Full,
}

/// What a task survives, from the moment its submission is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The engine keeps it in memory: its end is the task's.
    Memory,
    /// It is written to disk every second or so: a crash of the machine may lose the last ones.
    Periodic,
    /// It is on disk.
    Synced,
    /// As many replicas as were asked for have it.
    Replicated,
    /// The engine does not let us know.
    Unknown,
}

impl Durability {
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

/// The right to run one attempt of a task.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LeaseToken {
    pub id: TaskId,
    /// Differs for every lease of the task.
    pub fence: u64,
}

/// A task handed out to be run.
#[derive(Debug, Clone)]
pub struct Leased {
    pub token: LeaseToken,
    pub task_type: Name,
    pub payload: Bytes,
    pub metadata: Arc<BTreeMap<String, String>>,
    /// This attempt's number, 1 for the first.
    pub attempt: u32,
    /// It was lost so often that its node runs no other suspect beside it.
    pub suspect: bool,
}

/// A task whose holder has gone silent.
#[derive(Debug, Clone)]
pub struct Expired {
    pub token: LeaseToken,
    pub task_type: Name,
    pub attempt: u32,
    /// How often it was lost before without being charged for it.
    pub losses: u32,
    pub cancel_asked: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    Held,
    /// Somebody else holds the task, or it has ended: stop running it.
    Lost,
    /// Still held, and somebody asked for its end.
    CancelAsked,
    /// The part of the store that holds this task did not say.
    Unconfirmed,
}

/// The end of one attempt.
#[derive(Debug, Clone)]
pub struct Finish {
    pub token: LeaseToken,
    pub outcome: Outcome,
    /// Who ran it; `None` when nobody is known to have.
    pub ran: Option<Ran>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finished {
    Applied,
    /// The token no longer held the task; nothing changed.
    Stale,
    /// The task's record is damaged: the task is marked as failed, and the outcome is dropped.
    Corrupt,
    /// The part of the store that holds this task did not say: to be finished again.
    Unconfirmed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancel {
    /// It had been waiting and is cancelled now.
    Cancelled,
    /// It runs; its holder has been asked.
    Asked,
    /// It had ended before, in this state.
    Ended(StateKind),
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requeue {
    Requeued,
    /// Only failed and cancelled tasks can be requeued; this one is in the state given.
    Refused(StateKind),
    Unknown,
}

/// Which tasks to list; everything by default.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub state: Option<StateKind>,
    pub task_type: Option<Name>,
}

#[derive(Debug, Clone)]
pub struct Page {
    pub size: usize,
    /// `Listing::next` of the page before.
    pub after: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub struct Listing {
    pub tasks: Vec<Task>,
    /// Present when there may be more.
    pub next: Option<String>,
}

pub type Counts = BTreeMap<(Name, StateKind), u64>;

/// Why an engine could not do its work, by what the caller can do about it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Try again later. When `outcome_unknown`, the change may or may not have been made.
    #[error("the task queue is unavailable: {reason}")]
    Unavailable {
        reason: String,
        outcome_unknown: bool,
    },
    /// The store has no room for new tasks, for this reason; nothing was stored. Only submissions
    /// are refused so.
    #[error("the task queue takes no new tasks: {reason}")]
    Full { reason: String },
    /// What is stored does not make sense; an operator has to look.
    #[error("the task queue is corrupt: {0}")]
    Corrupt(String),
    /// A setting has to change.
    #[error("the task queue cannot be opened: {0}")]
    Misconfigured(String),
    /// The page token was not one of ours.
    #[error("the page token is not valid")]
    BadPage,
}

impl Error {
    /// The same of a call that changes nothing: there is no outcome that could be unknown.
    pub fn of_a_look(self) -> Self {
        match self {
            Self::Unavailable { reason, .. } => Self::Unavailable {
                reason,
                outcome_unknown: false,
            },
            other => other,
        }
    }
}

/// When a task became due or ended, for the engines' own use.
pub fn now() -> UnixMs {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
