//! Looks after what is leased: renews our own, takes over what others lost, hears who asks for an
//! end, and forgets what ended long ago. Wakes the dispatcher, and goes on while the node is drained.

use super::{Shared, held::Why};
use crate::{
    queue::{Changes, Error, Expired, Finish, Renewal, Watch},
    task::{Ended, RetryPolicy, StateKind, transition},
};
use std::{sync::Arc, time::Duration};

/// How often to look for leases that have run out.
const SWEEP: Duration = Duration::from_secs(1);

/// The most tasks that one look takes.
const BATCH: usize = 512;

/// Renews what we hold, three times in a lease.
pub async fn renew(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(shared.lease_ttl / 3).await;
        let held = shared.held.tokens();
        if held.is_empty() {
            continue;
        }
        match shared.queue.renew(&held, shared.lease_ttl).await {
            Ok(renewals) => {
                for (token, renewal) in held.iter().zip(renewals) {
                    match renewal {
                        Renewal::Held => {}
                        Renewal::Lost => shared.held.interrupt(token, Why::Lost),
                        Renewal::CancelAsked => shared.held.interrupt(token, Why::Asked),
                    }
                }
            }
            Err(error) => tracing::warn!("cannot renew {} leases: {error}", held.len()),
        }
    }
}

/// Ends the attempts of those who went silent, and forgets old tasks.
pub async fn sweep(shared: Arc<Shared>) {
    loop {
        if let Err(error) = sweep_once(&shared).await {
            tracing::warn!("cannot look after lost and old tasks: {error}");
        }
        tokio::time::sleep(SWEEP).await;
    }
}

async fn sweep_once(shared: &Shared) -> Result<(), Error> {
    loop {
        let mut lost = shared.queue.expired(BATCH).await?;
        let full = lost.len() == BATCH;
        // What we hold ourselves is not lost: a late renewal or a result that waits to be written
        // will say so.
        lost.retain(|lost| !shared.held.holds(&lost.token));
        if lost.is_empty() {
            break;
        }
        tracing::info!(
            "{} attempts were lost with the node that ran them",
            lost.len()
        );
        let finishes = lost.into_iter().map(|lost| end_of(shared, lost)).collect();
        shared.queue.finish(finishes).await?;
        if !full {
            break;
        }
    }
    while shared.queue.purge(shared.keep_ended, BATCH).await? == BATCH {}
    Ok(())
}

fn end_of(shared: &Shared, lost: Expired) -> Finish {
    let ended = match lost.cancel_asked {
        true => Ended::Cancelled,
        false => Ended::Lost,
    };
    let handler = shared.plugins.catalog().resolve(lost.task_type.as_str());
    let policy = handler.map_or_else(RetryPolicy::default, |handler| handler.task_type.retry);
    Finish {
        outcome: transition(ended, lost.attempt, &policy, fastrand::f64()),
        token: lost.token,
        ran: None,
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
            Ok(()) = catalog.changed() => Some(Changes::Lost),
            // This node may have been drained or undrained.
            Ok(()) = cluster.changed() => Some(Changes::Lost),
        };
        match changes {
            Some(Changes::Seen(changes)) => {
                for change in changes.iter().filter(|change| change.cancel_asked) {
                    shared.held.interrupt_task(&change.id, Why::Asked);
                }
                if changes
                    .iter()
                    .any(|change| change.state == StateKind::Pending)
                {
                    shared.wake.notify_one();
                }
            }
            Some(Changes::Lost) => shared.wake.notify_one(),
            None => return,
        }
    }
}
