//! Listens to changes of the queue, the plugins and the cluster: wakes the dispatcher when there may be
//! a task to lease, and interrupts attempts whose cancellation was requested.

use super::{attempt::InterruptReason, hosted_types::HostedTypes, shared::Shared};
use crate::{
    queue::{Change, Changes, RequestedType, Watch},
    task::StateKind,
};
use std::sync::Arc;

/// Listens until the queue is closed.
pub async fn listen(shared: Arc<Shared>, mut watch: Watch) {
    let mut catalog = shared.plugins.changed();
    let mut cluster = shared.discovery.changed();
    let mut limits = shared.limits.changed();
    let mut hosted = HostedTypes::of(shared.plugins.catalog(), &shared.limits);
    loop {
        let changes = tokio::select! {
            changes = watch.next() => changes,
            // A new plugin may handle tasks that wait.
            Ok(()) = catalog.changed() => Some(Changes::Missed),
            // This node may have been drained or undrained.
            Ok(()) = cluster.changed() => Some(Changes::Missed),
            // A limit that tasks wait for may have been raised.
            Ok(()) = limits.changed() => Some(Changes::Missed),
        };
        match changes {
            Some(Changes::Batch(changes)) => {
                for change in changes.iter().filter(|change| change.cancel_requested) {
                    shared
                        .active_leases
                        .interrupt_task(&change.id, InterruptReason::CancelRequested);
                }
                hosted.update(shared.plugins.catalog(), &shared.limits);
                if changes.iter().any(|change| makes_work(&hosted, change)) {
                    shared.wake.notify_one();
                }
            }
            Some(Changes::Missed) => shared.wake.notify_one(),
            None => return,
        }
    }
}

/// Whether there may be a task to lease after `change`: one has become pending, or one has ended and
/// another of its type may run, since the type or its groups have a limit in the cluster.
fn makes_work(hosted: &HostedTypes, change: &Change) -> bool {
    match change.state {
        StateKind::Pending => true,
        StateKind::Running => false,
        StateKind::Completed | StateKind::Failed | StateKind::Cancelled => {
            let requested = hosted.types.get(&change.task_type);
            requested.is_some_and(RequestedType::is_limited_in_cluster)
        }
    }
}
