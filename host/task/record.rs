//! A task as the queue stores it.

use super::{
    name::{Name, TaskId},
    options::TaskOptions,
    progress::Progress,
    route::Target,
    submission::metadata_bytes,
    unix_ms::UnixMs,
};
use bytes::Bytes;
use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc};

/// A task and its history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// The task's id, unique in its queue.
    pub id: TaskId,
    /// The task type, by which a handler is found.
    pub task_type: Name,
    /// Which nodes may run it.
    pub target: Target,
    /// The payload.
    pub payload: Bytes,
    /// The metadata of the submission.
    pub metadata: Arc<BTreeMap<String, String>>,
    /// The options of the submission; `None` if it asks for nothing.
    pub options: Option<Arc<TaskOptions>>,
    /// When it was accepted.
    pub submitted_at: UnixMs,
    /// Its state, with what belongs to that state only.
    pub state: State,
    /// The number of counted attempts, the running one included; 0 before the first.
    pub attempt: u32,
    /// The error of the latest unsuccessful attempt. Retries keep it.
    pub error: Option<String>,
    /// The kind of the error that ended the task, if clients can tell it from others.
    pub error_class: Option<ErrorClass>,
    /// What executed the latest attempt that ended.
    pub executed_by: Option<ExecutedBy>,
    /// How far the latest attempt has come, if its handler reported it. Kept until the next attempt begins.
    pub progress: Option<Progress>,
    /// How often the task was lost with its node without the attempt being counted; from
    /// `SUSPECT_AFTER` on it is a suspect.
    pub losses: u32,
    /// How often the task has ended since it was submitted or requeued: 0 while it is open, 1 once it
    /// has ended. Any other value is a fault of the queue.
    pub finishes: u32,
}

impl Task {
    /// Returns the size of payload, metadata and result in bytes.
    pub fn bytes(&self) -> usize {
        let result = match &self.state {
            State::Completed { result, .. } => result.len(),
            _ => 0,
        };
        let options = self.options.as_ref().map_or(0, |options| options.bytes());
        self.payload.len() + metadata_bytes(&self.metadata) + options + result
    }
}

/// The state of a task, with its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Waits until `due_at`, then for a node with a free slot.
    Pending {
        /// When it may be leased.
        due_at: UnixMs,
    },
    /// Leased to `node`.
    Running {
        /// The node that holds the lease.
        node: Name,
        /// When the attempt began.
        started_at: UnixMs,
        /// When the lease expires unless it is renewed.
        lease_until: UnixMs,
        /// Whether the task is to be cancelled.
        cancel_requested: bool,
    },
    /// Ended with a result. Final.
    Completed {
        /// The result.
        result: Bytes,
        /// When the attempt began.
        started_at: UnixMs,
        /// When the task ended.
        finished_at: UnixMs,
    },
    /// Ended with an error: a dead letter. Final until it is requeued.
    Failed {
        /// When the last attempt began, if there was one.
        started_at: Option<UnixMs>,
        /// When the task ended.
        finished_at: UnixMs,
    },
    /// Ended by a cancellation. Final until it is requeued.
    Cancelled {
        /// When the last attempt began, if there was one.
        started_at: Option<UnixMs>,
        /// When the task ended.
        finished_at: UnixMs,
    },
}

/// A kind of error that clients can tell from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// The stored record of the task is damaged. The task failed for that reason alone; nothing is
    /// known of its attempts.
    Corrupt,
    /// No attempt had begun by `start_by_ms`.
    Expired,
}

impl ErrorClass {
    /// All classes.
    pub const ALL: [Self; 2] = [Self::Corrupt, Self::Expired];

    /// Returns the text of `TaskStatus.error_class`.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorClass::Corrupt => "corrupt",
            ErrorClass::Expired => "expired",
        }
    }
}

/// The node and the plugin version that executed an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecutedBy {
    /// The node that ran it.
    pub node: Name,
    /// The plugin that ran it.
    pub plugin: Name,
    /// The version of this plugin.
    pub plugin_version: Arc<str>,
}

/// A state without its data, for filters, counts and the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StateKind {
    /// It waits for a lease.
    Pending,
    /// A node holds its lease.
    Running,
    /// It ended with a result.
    Completed,
    /// It failed for good.
    Failed,
    /// It was cancelled.
    Cancelled,
}

impl State {
    /// Returns the kind of the state.
    pub fn kind(&self) -> StateKind {
        match self {
            State::Pending { .. } => StateKind::Pending,
            State::Running { .. } => StateKind::Running,
            State::Completed { .. } => StateKind::Completed,
            State::Failed { .. } => StateKind::Failed,
            State::Cancelled { .. } => StateKind::Cancelled,
        }
    }
}

impl StateKind {
    /// All kinds.
    pub const ALL: [StateKind; 5] = [
        StateKind::Pending,
        StateKind::Running,
        StateKind::Completed,
        StateKind::Failed,
        StateKind::Cancelled,
    ];

    /// Returns whether a task in this state has ended.
    pub fn is_terminal(self) -> bool {
        !matches!(self, StateKind::Pending | StateKind::Running)
    }

    /// Returns the text of `TaskStatus.status`.
    pub fn as_str(self) -> &'static str {
        match self {
            StateKind::Pending => "pending",
            StateKind::Running => "running",
            StateKind::Completed => "completed",
            StateKind::Failed => "failed",
            StateKind::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for StateKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for StateKind {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == given)
            .ok_or_else(|| {
                let states = Self::ALL.map(Self::as_str).join(", ");
                format!("{given:?} is not a task state; the states are {states}")
            })
    }
}
