//! One loaded version of a plugin, immutable. Running calls hold it by its `Arc`, so that a swap
//! never takes it away from them.

use super::{
    bindings::{component, message_handler, task_handler},
    call::{Call, Finished},
    gate::Room,
    manifest::TaskType,
    program::Program,
};
use hostel_task::{AttemptResult, Name, Resources};
use std::{fmt, path::PathBuf, sync::Arc, time::SystemTime};
use tokio_util::task::AbortOnDropHandle;

pub struct Generation {
    pub name: Name,
    pub version: String,
    pub description: String,
    /// Of the wasm file, in hex.
    pub sha256: String,
    pub file: PathBuf,
    pub loaded_at: SystemTime,
    pub task_types: Vec<Arc<TaskType>>,
    /// What its component listens to besides its own name.
    pub topics: Vec<Name>,
    pub(super) program: Program,
    pub(super) handler: Option<task_handler::GuestIndices>,
    pub(super) component: Option<ComponentIndices>,
}

/// The exports of a plugin's component.
pub struct ComponentIndices {
    pub life: component::GuestIndices,
    pub messages: message_handler::GuestIndices,
}

impl Generation {
    /// Whether it has a component, which is called as the plugin is.
    pub fn has_component(&self) -> bool {
        self.component.is_some()
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({:.12})", self.name, self.version, self.sha256)
    }
}

/// The code that runs tasks of one type. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handler {
    pub generation: Arc<Generation>,
    pub task_type: Arc<TaskType>,
}

impl Handler {
    /// Runs one attempt on the guests' threads, in an instance of its own and under the limits in
    /// force, once there is room for it. Dropping the future ends the guest, as does `call.cancel`. Whatever the guest does
    /// comes back as a value; this never fails.
    pub async fn run(&self, call: Call) -> Finished {
        let handler = self.clone();
        let guests = self.generation.program.engine.guests();
        let running = guests.spawn(async move { handler.run_here(call).await });
        let error = match AbortOnDropHandle::new(running).await {
            Ok(finished) => return finished,
            Err(error) => error,
        };
        if error.is_panic() {
            tracing::error!(plugin = %self.generation.name, "the node failed while it ran a task: {error}");
            return Finished::node_failed();
        }
        Finished::without_run(AttemptResult::Drained)
    }

    /// What one attempt takes of the node's room.
    pub fn needs(&self) -> Resources {
        self.generation.program.needs()
    }

    /// As `run`, on the thread that polls it: only for callers that are themselves on
    /// `PluginHost::runtime`, because a guest holds its thread for up to 10 ms at a time.
    pub async fn run_here(&self, call: Call) -> Finished {
        self.attempt(call, None).await
    }

    /// As `run_here`, in room that was reserved and is at least what `needs` says.
    pub async fn run_in(&self, room: Room, call: Call) -> Finished {
        self.attempt(call, Some(room)).await
    }

    async fn attempt(&self, call: Call, room: Option<Room>) -> Finished {
        let Some(handler) = &self.generation.handler else {
            // Cannot be: a manifest with task types and no handler is refused.
            return Finished::without_run(AttemptResult::Drained);
        };
        let TaskType {
            name,
            timeout,
            retry,
            ..
        } = &*self.task_type;
        let program = &self.generation.program;
        program
            .handle(handler, name, retry.max_attempts, *timeout, call, room)
            .await
    }
}
