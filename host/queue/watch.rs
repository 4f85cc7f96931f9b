//! The stream of changes that a queue publishes. Bounded: a watcher that falls behind learns that it
//! missed changes, and reads the queue. Carries no payloads.

use hostel_task::{Name, StateKind, TaskId};
use std::sync::Arc;
use tokio::sync::broadcast::{self, error::RecvError};

/// How many batches a watcher may lag behind.
const BACKLOG: usize = 1024;

/// One task that has just entered a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The task that changed.
    pub id: TaskId,
    /// Its type.
    pub task_type: Name,
    /// Its state after the change.
    pub state: StateKind,
    /// The task runs and is to be cancelled.
    pub cancel_requested: bool,
    /// The number of the attempt that began or ended, as far as it is known; 0 if the change is about none.
    pub attempt: u32,
    /// The node that runs or ran this attempt, as far as it is known.
    pub node: Option<Name>,
    /// The group of the task.
    pub group: Option<Name>,
}

impl Change {
    /// Makes the change of a task that is not to be cancelled, about no attempt.
    pub fn new(id: TaskId, task_type: Name, state: StateKind) -> Self {
        Self {
            id,
            task_type,
            state,
            cancel_requested: false,
            attempt: 0,
            node: None,
            group: None,
        }
    }
}

/// What a watcher receives.
#[derive(Debug, Clone)]
pub enum Changes {
    /// Changes in the order in which they happened.
    Batch(Arc<[Change]>),
    /// Some changes were not delivered.
    Missed,
}

/// The queue's end of the stream.
#[derive(Debug, Clone)]
pub struct Publisher(broadcast::Sender<Changes>);

/// A watcher's end of the stream.
#[derive(Debug)]
pub struct Watch(broadcast::Receiver<Changes>);

impl Publisher {
    /// Makes a publisher without watches.
    pub fn new() -> Self {
        Self(broadcast::channel(BACKLOG).0)
    }

    /// Returns a watch of what is published from now on.
    pub fn watch(&self) -> Watch {
        Watch(self.0.subscribe())
    }

    /// Publishes changes to all watches.
    pub fn publish(&self, changes: Vec<Change>) {
        self.publish_shared(changes.into());
    }

    /// Publishes changes that are kept elsewhere, too.
    pub fn publish_shared(&self, changes: Arc<[Change]>) {
        if !changes.is_empty() {
            // An error only means that there is no watcher.
            let _ = self.0.send(Changes::Batch(changes));
        }
    }

    /// Reports that the backend itself missed changes.
    pub fn publish_missed(&self) {
        let _ = self.0.send(Changes::Missed);
    }
}

impl Default for Publisher {
    fn default() -> Self {
        Self::new()
    }
}

impl Watch {
    /// Returns the next batch of changes, or `None` once the queue is closed. Cancel safe.
    pub async fn next(&mut self) -> Option<Changes> {
        match self.0.recv().await {
            Ok(changes) => Some(changes),
            Err(RecvError::Lagged(_)) => Some(Changes::Missed),
            Err(RecvError::Closed) => None,
        }
    }
}
