//! The ends of a stream's tasks, for a client that asked for them. A task is read once the client takes
//! responses, so what is not taken waits in the store.

use super::answers;
use crate::{
    api::{
        convert,
        status::{self, IntoStatus},
    },
    budget::{Budget, Reservation},
    proto::hostel::v1::SubmitManyResponse,
    queue::StatusRead,
    scheduler::{Accepted, EndTracker, TaskScheduler, TaskStatus, WaitOptions},
    task::TaskId,
};
use prost::Message;
use std::sync::Arc;
use tonic::Status;

/// The most tasks of a stream whose ends are not sent yet.
const MAX_TRACKED: usize = 100_000;

/// So many tasks are tracked even if other streams use up the budget of `Tracked`.
const MIN_TRACKED: usize = 64;

/// By how many tasks the limit of a stream grows, and what a task counts in the budget.
const STEP: usize = 1024;
const TRACKED_BYTES: usize = 256;

/// How many tasks are read at once with small results, and what these may take: the result, the error and
/// the names of each.
const READ_AT_ONCE: usize = 30;
const SMALL_RESULT_BYTES: usize = 2 << 10;
const READ_BYTES: usize = READ_AT_ONCE * (8 << 10);

/// A node's budget for the tasks that all streams track, in bytes.
pub const TRACKED_BUDGET_BYTES: usize = 128 << 20;

/// A response with a result of any size, and the memory reserved for it.
pub type Large = (SubmitManyResponse, Option<Arc<Reservation>>);

/// The budgets of a stream's results.
#[derive(Clone)]
pub struct Budgets {
    /// For the tasks that are tracked, shared by all streams of the node.
    pub tracked: Budget,
    /// For results that wait until the client takes them.
    pub waiting: Budget,
    /// The largest response.
    pub max_message_bytes: usize,
}

/// The tasks whose ends are to be sent.
pub struct Results {
    scheduler: Arc<dyn TaskScheduler>,
    budgets: Budgets,
    tracker: EndTracker,
    /// How many tasks may be tracked, and the memory for them.
    allowed: usize,
    tracked: Vec<Reservation>,
    /// The memory of the responses of the latest read.
    read: Option<Reservation>,
    /// Ended tasks with results that are read one by one.
    large: Vec<(u64, TaskId)>,
}

impl Results {
    pub fn new(scheduler: Arc<dyn TaskScheduler>, budgets: Budgets) -> Self {
        Self {
            tracker: scheduler.track_ends(),
            scheduler,
            budgets,
            allowed: MIN_TRACKED,
            tracked: Vec::new(),
            read: None,
            large: Vec::new(),
        }
    }

    /// Whether every end was sent.
    pub fn is_empty(&self) -> bool {
        self.tracker.is_empty()
    }

    /// Whether one more task can be tracked beside those that are, and `more` others.
    pub fn has_room(&mut self, more: usize) -> bool {
        let count = self.tracker.len() + more;
        while count >= self.allowed && self.allowed < MAX_TRACKED {
            let Some(step) = self.budgets.tracked.try_reserve(STEP * TRACKED_BYTES) else {
                break;
            };
            self.tracked.push(step);
            self.allowed += STEP;
        }
        while self.allowed - MIN_TRACKED >= count + 2 * STEP {
            self.tracked.pop();
            self.allowed -= STEP;
        }
        count < self.allowed
    }

    /// Follows tasks that are about to be stored.
    pub fn follow(&mut self, tasks: impl IntoIterator<Item = (u64, TaskId)>) {
        self.tracker.follow(tasks);
    }

    /// Records that a task is stored.
    pub fn stored(&mut self, position: u64, accepted: Accepted) {
        match accepted {
            Accepted::New => self.tracker.stored(position),
            Accepted::Existing => self.tracker.check(position),
            Accepted::Duplicate(other) => {
                self.tracker.forget([position]);
                self.tracker.follow([(position, other)]);
                self.tracker.check(position);
            }
        }
    }

    /// Records that a task is not stored.
    pub fn refused(&mut self, position: u64) {
        self.tracker.forget([position]);
    }

    /// Waits until tasks may have ended. Cancel-safe.
    pub async fn next(&mut self) -> Vec<(u64, TaskId)> {
        self.tracker.next(READ_AT_ONCE).await
    }

    /// Reads tasks that may have ended, and returns the ends that are small.
    pub async fn read(
        &mut self,
        due: Vec<(u64, TaskId)>,
    ) -> Result<Vec<SubmitManyResponse>, Status> {
        self.read = self.budgets.waiting.try_reserve(READ_BYTES);
        // Without memory each result is read by itself.
        let max = self.read.as_ref().map_or(0, |_| SMALL_RESULT_BYTES);
        let ids: Vec<TaskId> = due.iter().map(|(_, id)| id.clone()).collect();
        let reads = self.scheduler.read_many(&ids, max).await;
        let (mut responses, mut sent) = (Vec::with_capacity(due.len()), Vec::new());
        for ((position, id), read) in due.into_iter().zip(reads) {
            responses.push(match read {
                Ok(StatusRead::Task(task)) if task.state.kind().is_terminal() => {
                    answers::ended(position, convert::task_status(TaskStatus::of(task)))
                }
                // It was requeued, or was only looked at.
                Ok(StatusRead::Task(_)) => continue,
                Ok(StatusRead::ResultTooLarge { .. }) => {
                    self.large.push((position, id));
                    continue;
                }
                Err(error) if error.is_outage() => return Err(error.into_status()),
                Err(error) => answers::unread(position, &id, &error.into_status()),
            });
            sent.push(position);
        }
        self.tracker.forget(sent);
        Ok(responses)
    }

    /// Releases the memory of the latest read, whose responses were taken.
    pub fn responses_taken(&mut self) {
        self.read = None;
    }

    /// Takes an ended task with a larger result.
    pub fn take_large(&mut self) -> Option<(u64, TaskId)> {
        self.large.pop()
    }

    /// Reads such a task once there is memory for its result. Returns the response with that memory, or
    /// nothing if the task is open again.
    pub async fn read_large(
        &mut self,
        (position, id): (u64, TaskId),
    ) -> Result<Option<Large>, Status> {
        let wait = WaitOptions {
            budget: Some(self.budgets.waiting.clone()),
            ..WaitOptions::default()
        };
        let (response, memory) = match self.scheduler.get_task_status(&id, &wait).await {
            Ok(status) if !status.task.state.kind().is_terminal() => return Ok(None),
            Ok(status) => {
                let memory = status.reservation.clone();
                let response = answers::ended(position, convert::task_status(status));
                if response.encoded_len() > self.budgets.max_message_bytes {
                    let status = status::end_too_large(self.budgets.max_message_bytes);
                    (answers::unread(position, &id, &status), None)
                } else {
                    (response, memory)
                }
            }
            Err(error) if error.is_outage() => return Err(error.into_status()),
            Err(error) => (answers::unread(position, &id, &error.into_status()), None),
        };
        self.tracker.forget([position]);
        Ok(Some((response, memory)))
    }
}
