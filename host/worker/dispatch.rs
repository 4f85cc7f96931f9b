//! Takes due tasks as slots become free, and runs each in its guest. The queue's signal only wakes
//! the dispatcher; what it leases decides.

use super::{
    Shared,
    held::{Interrupt, Why},
};
use crate::{
    log_limit::LogLimit,
    plugin::{Call, Finished, Handler},
    queue::{Finish, Leased, Want, WantedType},
    task::{Ended, Name, Outcome, Ran, transition},
};
use futures_util::FutureExt;
use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

/// How long an idle dispatcher trusts the signals before it looks for itself.
const SCAN: Duration = Duration::from_secs(1);

/// The least time between two questions for the next due task.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// Where runs go.
#[derive(Clone)]
pub struct Runs {
    pub shared: Arc<Shared>,
    pub running: TaskTracker,
    pub finished: mpsc::Sender<Finish>,
}

/// What one lease brought.
struct Taken {
    count: usize,
    /// A type has no room left: there may be more of it.
    at_limit: bool,
}

/// Leases and runs, for ever.
pub async fn dispatch(runs: Runs) {
    let shared = runs.shared.clone();
    let mut asked: Option<Instant> = None;
    let (mut was_drained, mut was_in_doubt) = (false, false);
    let limit = LogLimit::of_retries();
    loop {
        let drained = shared.discovery.is_drained(&shared.node);
        if drained != was_drained {
            was_drained = drained;
            match drained {
                true => {
                    tracing::info!("drained: this node takes no new task until it is undrained")
                }
                false => tracing::info!("undrained: this node takes tasks again"),
            }
        }
        let in_doubt = shared.discovery.is_id_in_doubt();
        if in_doubt != was_in_doubt {
            was_in_doubt = in_doubt;
            match in_doubt {
                true => tracing::warn!(
                    "another node may have this node's id: it takes no task until it has its id again"
                ),
                false => tracing::info!("this node has its id: it takes tasks again"),
            }
        }
        if drained || in_doubt {
            let _ = tokio::time::timeout(SCAN, shared.wake.notified()).await;
            continue;
        }
        let types = hosted_types(&shared);
        let hosted = types.len();
        // Said before the lease: a slot that becomes free during it wakes us afterwards.
        shared.busy.set_hungry(true);
        let (room, max) = shared.busy.room(types);
        if !room.is_empty() {
            let all_types = room.len() == hosted;
            match runs.lease(room, max).await {
                Ok(leased) if leased.count == max => continue,
                // Unless a type came to its own limit, everything due is ours now, and what
                // becomes due wakes us by itself.
                Ok(leased) => shared.busy.set_hungry(leased.at_limit || !all_types),
                Err(error) => {
                    if let Some(left_out) = limit.permit() {
                        tracing::warn!(left_out, "cannot lease tasks: {error}");
                    }
                    tokio::time::sleep(SCAN).await;
                    continue;
                }
            }
        }
        let nap = nap(&shared, &mut asked).await;
        let _ = tokio::time::timeout(nap, shared.wake.notified()).await;
    }
}

/// How long to sleep if nothing wakes us: until the next task is due, as far as we know. What has no
/// room here waits for an end, and that wakes us.
async fn nap(shared: &Shared, asked: &mut Option<Instant>) -> Duration {
    if asked.is_some_and(|at| at.elapsed() < ASK_AGAIN) {
        return ASK_AGAIN;
    }
    let (types, _) = shared.busy.room(hosted_types(shared));
    if types.is_empty() {
        return SCAN;
    }
    *asked = Some(Instant::now());
    match shared.queue.next_due(&want(shared, types, 1)).await {
        Ok(Some(due)) => due.clamp(ASK_AGAIN / 10, SCAN),
        Ok(None) => SCAN,
        Err(error) => {
            // The next lease says so where it matters.
            tracing::debug!("cannot ask for the next due task: {error}");
            SCAN
        }
    }
}

/// What this node can run now, each type with its own limit.
fn hosted_types(shared: &Shared) -> Vec<(Name, Option<usize>)> {
    let view = shared.plugins.catalog().view();
    let handlers = view.task_types.iter();
    handlers
        .map(|(name, handler)| (name.clone(), handler.task_type.max_concurrency))
        .collect()
}

/// As many tasks of each type as are said, and `max` in all.
fn want(shared: &Shared, types: Vec<(Name, usize)>, max: usize) -> Want {
    let view = shared.plugins.catalog().view();
    let wanted = |(task_type, max)| WantedType {
        max_in_cluster: view
            .task_types
            .get(&task_type)
            .and_then(|handler| handler.task_type.max_cluster_concurrency),
        task_type,
        max,
    };
    Want {
        node: shared.node.clone(),
        labels: shared.labels.clone(),
        types: types.into_iter().map(wanted).collect(),
        max,
        ttl: shared.lease_ttl,
    }
}

impl Runs {
    /// Leases up to `max` tasks and starts them.
    async fn lease(
        &self,
        types: Vec<(Name, usize)>,
        max: usize,
    ) -> Result<Taken, crate::queue::Error> {
        let mut room: HashMap<Name, usize> = types.iter().cloned().collect();
        let want = want(&self.shared, types, max);
        let leased = self.shared.queue.lease(&want).await?;
        let count = leased.len();
        for task in leased {
            if let Some(room) = room.get_mut(&task.task_type) {
                *room = room.saturating_sub(1);
            }
            self.shared.busy.take(&task.task_type);
            let interrupt = self.shared.held.add(task.token.clone());
            let run = run(self.shared.clone(), task, interrupt, self.finished.clone());
            // Boxed: the runtime moves what it runs about, and this is some kilobytes.
            self.running
                .spawn_on(Box::pin(run), self.shared.plugins.runtime());
        }
        let at_limit = room.values().any(|&room| room == 0);
        Ok(Taken { count, at_limit })
    }
}

/// One attempt, from its lease to the finisher.
async fn run(
    shared: Arc<Shared>,
    task: Leased,
    interrupt: Interrupt,
    finished: mpsc::Sender<Finish>,
) {
    let task_type = task.task_type.clone();
    let token = task.token.clone();
    let (outcome, ran) = match shared.plugins.catalog().resolve(task_type.as_str()) {
        Some(handler) => attempt(&shared, handler, task, &interrupt).await,
        // Its plugin went away since the lease.
        None => (Some(Outcome::Released), None),
    };
    if shared.busy.free(&task_type) {
        shared.wake.notify_one();
    }
    let Some(outcome) = outcome else {
        shared.held.remove(&token);
        return;
    };
    let finish = Finish {
        token,
        outcome,
        ran,
    };
    // The finisher outlives every run.
    let _ = finished.send(finish).await;
}

/// A fault of the node's own must cost one attempt, and neither the slot nor the lease.
async fn guarded(run: impl Future<Output = Finished>) -> Finished {
    AssertUnwindSafe(run)
        .catch_unwind()
        .await
        .unwrap_or_else(|_| {
            tracing::error!("the node failed while it ran a task; the panic above says where");
            Finished::node_failed()
        })
}

/// Runs the guest, on its own threads. No outcome means that the task is not ours any more.
async fn attempt(
    shared: &Shared,
    handler: Handler,
    task: Leased,
    interrupt: &Interrupt,
) -> (Option<Outcome>, Option<Ran>) {
    let ran = Ran {
        node: shared.node.clone(),
        plugin: handler.generation.name.clone(),
        plugin_version: handler.generation.version.as_str().into(),
    };
    let attempt = task.attempt;
    let id = task.token.id.clone();
    let call = Call {
        id: task.token.id,
        payload: task.payload,
        metadata: task.metadata,
        attempt,
        cancel: interrupt.token(),
    };
    let finished = guarded(handler.run_here(call)).await;
    let ended = match (finished.ended, interrupt.why()) {
        (Ended::Cancelled, Some(Why::Lost)) => return (None, None),
        (Ended::Cancelled, Some(Why::Drain)) => Ended::Drained,
        (ended, _) => ended,
    };
    let policy = &handler.task_type.retry;
    let outcome = transition(ended, attempt, policy, fastrand::f64());
    if let Some(class) = finished.class {
        let failures = &shared.failures;
        failures.report(&handler, &id, attempt, class, &outcome);
    }
    (Some(outcome), Some(ran))
}
