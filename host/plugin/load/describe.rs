//! Calls `describe` of a plugin that is being loaded, and checks on the same instance that every
//! export has the types that the node expects.

use super::contract::{self, Exports};
use crate::{
    diagnostic::Diagnostic,
    sandbox::{
        admission::GuestKind,
        bindings::manifest::{Description, GuestIndices},
        call_error::CallError,
        guest_log::Subject,
        linked_plugin::{CallContext, LinkedPlugin},
        store_state::StoreState,
    },
};
use std::time::Instant;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use wasmtime::Store;

/// The result of the call.
pub struct Described {
    /// Exports whose types differ from the node's.
    pub misfits: Vec<Diagnostic>,
    pub description: Result<Description, Diagnostic>,
}

/// Runs `describe` on the runtime for guests.
pub async fn describe(plugin: LinkedPlugin, exports: Exports) -> Described {
    let guests = plugin.engine.guests().clone();
    let describing = guests.spawn(async move {
        let mut misfits = Vec::new();
        let described = call(&plugin, exports, &mut misfits).await;
        (misfits, described)
    });
    let (misfits, described) = match AbortOnDropHandle::new(describing).await {
        Ok(described) => described,
        Err(_) => (Vec::new(), Err(CallError::Cancelled)),
    };
    Described {
        misfits,
        description: described.map_err(diagnostic),
    }
}

async fn call(
    plugin: &LinkedPlugin,
    exports: Exports,
    misfits: &mut Vec<Diagnostic>,
) -> Result<Description, CallError> {
    let timeout = plugin.sandbox.describe_timeout;
    let never = CancellationToken::new();
    let mut admitted = plugin.admit(GuestKind::Task, None, timeout, &never).await?;
    let work = async |store: &mut Store<StoreState>| {
        let instance = plugin.pre.instantiate_async(&mut *store).await?;
        *misfits = contract::misfits(store, &plugin.pre, &instance, exports);
        let indices = GuestIndices::new(&plugin.pre)?;
        let guest = indices.load(&mut *store, &instance)?;
        guest.call_describe(&mut *store).await
    };
    let context = CallContext {
        subject: Subject::Plugin,
        timeout,
        since: Instant::now(),
        cancel: &never,
        observer: None,
    };
    plugin.call(&mut admitted, context, work).await
}

fn diagnostic(error: CallError) -> Diagnostic {
    match error {
        CallError::Timeout(after) => Diagnostic::passing(format!(
            "failed to describe itself within {} ms (plugins.sandbox.describe_timeout_ms)",
            after.as_millis()
        )),
        CallError::NoRoom(_) => {
            Diagnostic::passing(format!("could not be asked to describe itself: {error}"))
        }
        CallError::Cancelled => Diagnostic::passing("the node is stopping"),
        error => Diagnostic::new(format!("failed to describe itself: {error}")),
    }
}
