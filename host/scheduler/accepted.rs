//! What became of a submission.

use super::error::Error;
use crate::{
    queue::{self, Submitted, TaskQueue},
    task::{Submission, TaskId},
};

/// A submission that is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepted {
    /// The task was stored now.
    New,
    /// The same task was submitted before.
    Existing,
    /// The task with this id has the unique key of the submission.
    Duplicate(TaskId),
}

impl Accepted {
    /// What the queue's answer means for the submission of the task `id`.
    pub(super) fn of_answer(id: TaskId, submitted: Option<Submitted>) -> Result<Self, Error> {
        match submitted {
            Some(Submitted::Created) => Ok(Self::New),
            Some(Submitted::Existing) => Ok(Self::Existing),
            Some(Submitted::Duplicate(other)) => Ok(Self::Duplicate(other)),
            Some(Submitted::Conflict) => Err(Error::Conflict(id)),
            Some(Submitted::Full) => Err(Error::Full),
            Some(Submitted::TypeFull) => Err(Error::TypeFull(id)),
            Some(Submitted::GroupFull) => Err(Error::GroupFull(id)),
            None => Err(queue::Error::Corrupt("a submission got no answer".into()).into()),
        }
    }

    /// Answers a submission that is refused unless the same task exists.
    pub(super) async fn if_existing(
        queue: &dyn TaskQueue,
        task: &Submission,
        refused: Error,
    ) -> Result<Self, Error> {
        let stored = queue.compare(task).await;
        match stored.map_err(queue::Error::as_read_error)? {
            None => Err(refused),
            Some(Submitted::Existing) => Ok(Self::Existing),
            Some(_) => Err(Error::Conflict(task.id().clone())),
        }
    }
}
