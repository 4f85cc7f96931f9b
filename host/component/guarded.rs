//! The calls of a component's instance, so that a failure of the node during one ends the instance and not
//! the actor's loop.

use super::actor_state::ActorState;
use crate::{
    plugin::{CallError, Instance, Permit},
    untrusted::Untrusted,
};
use futures_util::FutureExt;
use std::panic::AssertUnwindSafe;

/// Stops an instance, and returns the permit that it ran in.
pub async fn retire(state: &ActorState, instance: Instance) -> Option<Permit> {
    let version = instance.generation().version.clone();
    let stopping = instance.stop(state.limits.stop_timeout);
    let stopped: Result<_, CallError> = guarded(async { Ok(stopping.await) }).await;
    let (stopped, permit) = match stopped {
        Ok((stopped, permit)) => (stopped, Some(permit)),
        Err(error) => (Err(error.to_string()), None),
    };
    if let Err(error) = stopped {
        let error = Untrusted::new(error);
        tracing::warn!(component = %state.id, version, "did not stop well: {error}");
    }
    permit
}

/// Turns a panic of the node during a call of a guest into an error, so that it ends the instance and
/// not the loop.
pub async fn guarded<T, E: From<CallError>>(
    call: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    match AssertUnwindSafe(call).catch_unwind().await {
        Ok(ended) => ended,
        Err(_) => {
            let error = "the node failed while it ran the component";
            Err(CallError::Trap(error.into()).into())
        }
    }
}
