//! The lease of a task: what its holder gets, and the values with which it is renewed and ended.

use bytes::Bytes;
use hostel_task::{AttemptReport, ExecutedBy, Name, Outcome, Progress, TaskId, TaskOptions};
use std::{collections::BTreeMap, sync::Arc};

/// The right to run one attempt of a task.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LeaseToken {
    /// The task's id.
    pub id: TaskId,
    /// The fencing token, different for every lease of the task.
    pub fence: u64,
}

/// A lease to renew.
#[derive(Debug, Clone)]
pub struct Renew {
    /// Identifies the lease.
    pub token: LeaseToken,
    /// How far the attempt has come; `None` if that has not changed.
    pub progress: Option<Progress>,
}

impl From<LeaseToken> for Renew {
    /// Renews a lease without new progress.
    fn from(token: LeaseToken) -> Self {
        let progress = None;
        Self { token, progress }
    }
}

/// A leased task.
#[derive(Debug, Clone)]
pub struct Leased {
    /// Identifies the lease.
    pub token: LeaseToken,
    /// The task's type.
    pub task_type: Name,
    /// The payload.
    pub payload: Bytes,
    /// The metadata of the submission.
    pub metadata: Arc<BTreeMap<String, String>>,
    /// The options of the submission; `None` if it asks for nothing.
    pub options: Option<Arc<TaskOptions>>,
    /// The number of this attempt, 1 for the first.
    pub attempt: u32,
    /// The task was lost so often that its node runs no other suspect beside it.
    pub suspect: bool,
}

impl Leased {
    /// The group of the task, if it has one.
    pub fn group(&self) -> Option<&Name> {
        self.options.as_ref()?.group.as_ref()
    }
}

/// A task whose lease has expired.
#[derive(Debug, Clone)]
pub struct Expired {
    /// Identifies the lease.
    pub token: LeaseToken,
    /// The task's type.
    pub task_type: Name,
    /// The options of the submission; `None` if it asks for nothing.
    pub options: Option<Arc<TaskOptions>>,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// How often the task was lost before without the attempt being counted.
    pub losses: u32,
    /// Whether the task is to be cancelled.
    pub cancel_requested: bool,
}

/// The result of one renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// The lease holds until its new deadline.
    Held,
    /// The token no longer holds the task, which must not be run further.
    Lost,
    /// The lease is held, and the task is to be cancelled.
    CancelRequested,
    /// The part of the store that has this task did not answer.
    Unconfirmed,
}

/// The end of one attempt.
#[derive(Debug, Clone)]
pub struct Finish {
    /// Identifies the lease.
    pub token: LeaseToken,
    /// What the attempt ended with.
    pub outcome: Outcome,
    /// `None` if the attempt is not known to have run.
    pub executed_by: Option<ExecutedBy>,
    /// What the history of the task has of it besides.
    pub report: AttemptReport,
}

impl Finish {
    /// The size of a finish without its result or error, in bytes.
    const FIXED_BYTES: usize = 512;

    /// Ends an attempt of which no more is known than its outcome and what ran it.
    pub fn new(token: LeaseToken, outcome: Outcome, executed_by: Option<ExecutedBy>) -> Self {
        Self {
            token,
            report: AttemptReport::of(&outcome),
            outcome,
            executed_by,
        }
    }

    /// Gives a lease back unused.
    pub fn released(token: LeaseToken) -> Self {
        Self::new(token, Outcome::Released, None)
    }

    /// Returns the result or the error that is stored with the task; empty if there is neither.
    pub fn content(&self) -> &[u8] {
        match &self.outcome {
            Outcome::Completed { result } => result,
            _ => self.error().unwrap_or_default().as_bytes(),
        }
    }

    /// Returns the error of the attempt, if it has one.
    pub fn error(&self) -> Option<&str> {
        match &self.outcome {
            Outcome::Retry { error, .. }
            | Outcome::Lost { error, .. }
            | Outcome::Failed { error } => Some(error),
            Outcome::Completed { .. } | Outcome::Cancelled | Outcome::Released => None,
        }
    }

    /// Returns the size of what is sent to the store, in bytes.
    pub fn bytes(&self) -> usize {
        Self::FIXED_BYTES + self.content().len()
    }
}

/// The result of one finish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finished {
    /// The outcome was recorded.
    Applied,
    /// The token no longer held the task; nothing changed.
    Stale,
    /// The task's record is damaged: the task is marked as failed, and the outcome is dropped.
    Corrupt,
    /// The part of the store that has this task did not answer: the finish has to be repeated.
    Unconfirmed,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_finish_counts_its_result_or_its_error() {
        let id = TaskId::parse("id", "a").unwrap();
        let released = Finish::released(LeaseToken { id, fence: 1 });
        let error = || "e".repeat(1000);
        let after = Duration::ZERO;
        for outcome in [
            Outcome::Completed {
                result: vec![0; 1000].into(),
            },
            Outcome::Failed { error: error() },
            Outcome::Retry {
                after,
                error: error(),
            },
            Outcome::Lost {
                after,
                error: error(),
            },
        ] {
            let finish = Finish {
                outcome,
                ..released.clone()
            };
            assert_eq!(finish.bytes(), released.bytes() + 1000, "{finish:?}");
        }
    }
}
