//! Looks after what is leased: renews our own, takes over what others lost, hears who asks for an
//! end, and forgets what ended long ago. Wakes the dispatcher, and goes on while the node is drained.

use super::{Shared, held::Why};
use crate::{
    discovery::NodeRecord,
    log_limit::LogLimit,
    queue::{Change, Changes, Error, Expired, Finish, Finished, Renewal, Watch},
    task::{AttemptResult, RetryPolicy, StateKind, transition},
};
use std::{sync::Arc, time::Duration};

/// How often to look for leases that have run out.
const SWEEP: Duration = Duration::from_secs(1);

/// How soon to try again when leases could not be renewed.
const RENEW_AGAIN: Duration = Duration::from_secs(1);

/// The most tasks that one look takes.
const BATCH: usize = 512;

/// Renews what we hold, three times in a lease; more often while that fails.
pub async fn renew(shared: Arc<Shared>) {
    let mut pause = shared.lease_ttl / 3;
    let limit = LogLimit::of_retries();
    loop {
        tokio::time::sleep(pause).await;
        let held = shared.held.tokens();
        pause = shared.lease_ttl / 3;
        if held.is_empty() {
            continue;
        }
        match shared.queue.renew(&held, shared.lease_ttl).await {
            Ok(renewals) => {
                for (token, renewal) in held.iter().zip(renewals) {
                    match renewal {
                        Renewal::Held | Renewal::Unconfirmed => {}
                        Renewal::Lost => {
                            if shared.held.lose(token) {
                                let task = &token.id;
                                tracing::info!(%task, "its lease was lost: the task is not ours any more");
                            }
                        }
                        Renewal::CancelRequested => shared.held.interrupt(token, Why::Asked),
                    }
                }
            }
            Err(error) => {
                if let Some(left_out) = limit.permit() {
                    tracing::warn!(left_out, "cannot renew {} leases: {error}", held.len());
                }
                pause = pause.min(RENEW_AGAIN);
            }
        }
    }
}

/// Ends the attempts of those who went silent, and forgets old tasks.
pub async fn sweep(shared: Arc<Shared>) {
    let limit = LogLimit::of_retries();
    loop {
        let swept = async {
            take_over(&shared).await?;
            while shared.queue.purge(shared.keep_ended, BATCH).await? == BATCH {}
            Ok::<_, Error>(())
        };
        if let Err(error) = swept.await
            && let Some(left_out) = limit.permit()
        {
            tracing::warn!(left_out, "cannot look after lost and old tasks: {error}");
        }
        tokio::time::sleep(SWEEP).await;
    }
}

async fn take_over(shared: &Shared) -> Result<(), Error> {
    // What others host is left out of the next look, so that it hides nothing behind it.
    let mut of_others = Vec::new();
    loop {
        let expired = shared.queue.expired(shared.lease_ttl, &of_others, BATCH);
        let mut lost = expired.await?;
        let full = lost.len() == BATCH;
        let left_out = of_others.len();
        for lost in &lost {
            if !of_others.contains(&lost.task_type) && !is_ours_to_end(shared, lost) {
                of_others.push(lost.task_type.clone());
            }
        }
        // What we hold ourselves is not lost: a late renewal or a result that waits to be written
        // will say so.
        lost.retain(|lost| !of_others.contains(&lost.task_type) && !shared.held.holds(&lost.token));
        if lost.is_empty() && of_others.len() == left_out {
            return Ok(());
        }
        let finishes: Vec<_> = lost.into_iter().map(|lost| end_of(shared, lost)).collect();
        let finished = shared.queue.finish(finishes).await?;
        // Others look as well; the first of us ends the attempt.
        let ended = finished.iter().filter(|&&it| it == Finished::Applied);
        let ended = ended.count();
        if ended > 0 {
            tracing::info!("{ended} attempts were lost with the node that ran them");
        }
        if !full {
            return Ok(());
        }
    }
}

/// The node that hosts the type knows how often it is tried. When none does, and none may do so once
/// its plugins are loaded, any node ends the attempt.
fn is_ours_to_end(shared: &Shared, lost: &Expired) -> bool {
    let view = shared.plugins.catalog().view();
    if view.task_types.contains_key(&lost.task_type) {
        return true;
    }
    let may_host = |node: &NodeRecord| node.starting || node.expects(&lost.task_type);
    view.scanned && (!shared.queue.is_shared() || !shared.discovery.nodes().iter().any(may_host))
}

fn end_of(shared: &Shared, lost: Expired) -> Finish {
    let ended = match lost.cancel_requested {
        true => AttemptResult::Cancelled,
        false => AttemptResult::Lost {
            losses: lost.losses,
        },
    };
    let handler = shared.plugins.catalog().resolve(lost.task_type.as_str());
    let policy = handler.map_or_else(RetryPolicy::default, |handler| handler.task_type.retry);
    Finish {
        outcome: transition(ended, lost.attempt, &policy, fastrand::f64()),
        token: lost.token,
        executed_by: None,
    }
}

/// Passes on what the queue tells: work to fetch, attempts to interrupt.
pub async fn listen(shared: Arc<Shared>, mut watch: Watch) {
    let mut catalog = shared.plugins.changed();
    let mut cluster = shared.discovery.changed();
    loop {
        let changes = tokio::select! {
            changes = watch.next() => changes,
            // A new plugin may take what waits.
            Ok(()) = catalog.changed() => Some(Changes::Missed),
            // This node may have been drained or undrained.
            Ok(()) = cluster.changed() => Some(Changes::Missed),
        };
        match changes {
            Some(Changes::Batch(changes)) => {
                for change in changes.iter().filter(|change| change.cancel_requested) {
                    shared.held.interrupt_task(&change.id, Why::Asked);
                }
                if changes.iter().any(|change| makes_work(&shared, change)) {
                    shared.wake.notify_one();
                }
            }
            Some(Changes::Missed) => shared.wake.notify_one(),
            None => return,
        }
    }
}

/// Whether there may be something to lease since then: a task waits, or one has ended and with it
/// another of its type may run somewhere.
fn makes_work(shared: &Shared, change: &Change) -> bool {
    match change.state {
        StateKind::Pending => true,
        StateKind::Running => false,
        StateKind::Completed | StateKind::Failed | StateKind::Cancelled => {
            let view = shared.plugins.catalog().view();
            let handler = view.task_types.get(&change.task_type);
            handler.is_some_and(|handler| handler.task_type.max_cluster_concurrency.is_some())
        }
    }
}
