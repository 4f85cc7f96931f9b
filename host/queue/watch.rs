//! The stream of changes that a queue tells its watchers. Bounded: a watcher that falls behind is
//! told so and looks for itself. Carries no payloads.

use hostel_task::{Name, StateKind, TaskId};
use std::sync::Arc;
use tokio::sync::broadcast::{self, error::RecvError};

/// How many batches a watcher may fall behind.
const BACKLOG: usize = 1024;

/// One task that has just entered a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub id: TaskId,
    pub task_type: Name,
    pub state: StateKind,
    /// A running task whose end somebody asked for.
    pub cancel_asked: bool,
}

impl Change {
    pub fn new(id: TaskId, task_type: Name, state: StateKind) -> Self {
        Self {
            id,
            task_type,
            state,
            cancel_asked: false,
        }
    }
}

/// What a watcher is told.
#[derive(Debug, Clone)]
pub enum Changes {
    Seen(Arc<[Change]>),
    /// Some changes went by untold.
    Lost,
}

/// The queue's end.
#[derive(Debug, Clone)]
pub struct Publisher(broadcast::Sender<Changes>);

/// A watcher's end.
#[derive(Debug)]
pub struct Watch(broadcast::Receiver<Changes>);

impl Publisher {
    pub fn new() -> Self {
        Self(broadcast::channel(BACKLOG).0)
    }

    pub fn watch(&self) -> Watch {
        Watch(self.0.subscribe())
    }

    pub fn publish(&self, changes: Vec<Change>) {
        if !changes.is_empty() {
            // An error only means that nobody watches.
            let _ = self.0.send(Changes::Seen(changes.into()));
        }
    }

    /// For an engine that has missed something itself.
    pub fn lost(&self) {
        let _ = self.0.send(Changes::Lost);
    }
}

impl Default for Publisher {
    fn default() -> Self {
        Self::new()
    }
}

impl Watch {
    /// The next batch of changes; `None` once the queue is closed. Cancel safe.
    pub async fn next(&mut self) -> Option<Changes> {
        match self.0.recv().await {
            Ok(changes) => Some(changes),
            Err(RecvError::Lagged(_)) => Some(Changes::Lost),
            Err(RecvError::Closed) => None,
        }
    }
}
