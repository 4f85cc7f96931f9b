//! One loaded version of a plugin, immutable. Calls that run hold it by its `Arc`, so a swap never
//! takes it away from them.

use super::{
    load::{contract::ComponentIndices, manifest::TaskType},
    sandbox::{
        admission::{GuestKind, Permit},
        bindings::task_handler,
        call::{Call, CallOutcome},
        linked_plugin::LinkedPlugin,
    },
};
use hostel_task::{AttemptResult, Name, Resources};
use std::{fmt, path::PathBuf, sync::Arc, time::SystemTime};
use tokio_util::task::AbortOnDropHandle;

/// One loaded version of a plugin.
pub struct Generation {
    /// The plugin's name.
    pub name: Name,
    /// The version that the plugin gives itself.
    pub version: String,
    /// What the plugin says of itself.
    pub description: String,
    /// Hash of the wasm file, in hex.
    pub sha256: String,
    /// The file it was loaded from.
    pub file: PathBuf,
    /// When it was loaded.
    pub loaded_at: SystemTime,
    /// The task types that it handles, with their limits.
    pub task_types: Vec<Arc<TaskType>>,
    /// Topics that its component listens to besides its own name.
    pub topics: Vec<Name>,
    pub(crate) plugin: LinkedPlugin,
    pub(crate) handler: Option<task_handler::GuestIndices>,
    pub(crate) component: Option<ComponentIndices>,
}

impl Generation {
    /// Whether it exports a component, whose id is the name of the plugin.
    pub fn has_component(&self) -> bool {
        self.component.is_some()
    }

    /// Reserves memory and a pool slot for an instance of its component, if they are free now.
    pub fn try_reserve(&self) -> Option<Permit> {
        let admission = &self.plugin.engine.admission;
        admission.try_acquire(GuestKind::Component, self.plugin.needs())
    }

    /// Whether the components' share of memory and pool slots is large enough for an instance of this
    /// and one of `other` together, whatever else holds a part of it now.
    pub fn fits_beside(&self, other: &Generation) -> bool {
        let total = self.plugin.engine.admission.total(GuestKind::Component);
        let rest = total.checked_sub(other.plugin.needs());
        rest.is_some_and(|rest| self.plugin.needs().fits_in(rest))
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
    /// The generation whose handler it is.
    pub generation: Arc<Generation>,
    /// The type that it handles.
    pub task_type: Arc<TaskType>,
}

impl Handler {
    /// Runs one attempt on the runtime for guests, in an instance of its own and under the limits in
    /// force, once it is admitted. Dropping the future ends the guest, as does `call.cancel`. Every
    /// failure of the guest is part of the outcome.
    pub async fn run(&self, call: Call) -> CallOutcome {
        let handler = self.clone();
        let guests = self.generation.plugin.engine.guests();
        let running = guests.spawn(async move { handler.run_here(call).await });
        let error = match AbortOnDropHandle::new(running).await {
            Ok(outcome) => return outcome,
            Err(error) => error,
        };
        if error.is_panic() {
            tracing::error!(plugin = %self.generation.name, "the node failed while it ran a task: {error}");
            return CallOutcome::node_failed();
        }
        CallOutcome::without_run(AttemptResult::Drained)
    }

    /// What one attempt takes of the node's memory and pool slots.
    pub fn needs(&self) -> Resources {
        self.generation.plugin.needs()
    }

    /// Runs one attempt like `run`, on the thread that polls it. Only for callers on
    /// `PluginHost::runtime`, because a guest holds its thread for up to 10 ms at a time.
    pub async fn run_here(&self, call: Call) -> CallOutcome {
        self.attempt(call, None).await
    }

    /// Runs one attempt like `run_here`, in a permit of at least what `needs` returns.
    pub async fn run_in(&self, permit: Permit, call: Call) -> CallOutcome {
        self.attempt(call, Some(permit)).await
    }

    async fn attempt(&self, call: Call, permit: Option<Permit>) -> CallOutcome {
        let Some(handler) = &self.generation.handler else {
            // Unreachable: a manifest with task types and no handler is refused.
            return CallOutcome::without_run(AttemptResult::Drained);
        };
        let TaskType {
            name,
            timeout,
            retry,
            ..
        } = &*self.task_type;
        let max_attempts = call.max_attempts.unwrap_or(retry.max_attempts);
        let timeout = call.timeout.unwrap_or(*timeout);
        self.generation
            .plugin
            .handle(handler, name, max_attempts, timeout, call, permit)
            .await
    }
}
