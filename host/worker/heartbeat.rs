//! Renews the leases of this worker, so that its tasks are not taken for lost, and stores the progress of their
//! attempts with that. Goes on while the node is drained and while it stops.

use super::{attempt::InterruptReason, shared::Shared};
use crate::{
    log_limit::LogLimit,
    queue::{Renew, Renewal},
};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep_until};

/// How long to wait before the next attempt when leases could not be renewed.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The least time between two renewals that store progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// Renews all active leases three times within their time to live, and more often while that fails. In
/// between, renews those alone whose attempts have reported progress.
pub async fn renew(shared: Arc<Shared>) {
    let limit = LogLimit::of_retries();
    let mut renew_at = Instant::now() + shared.lease_ttl / 3;
    let mut progress_at = Instant::now();
    loop {
        tokio::select! {
            () = sleep_until(renew_at) => {}
            () = shared.active_leases.progressed(progress_at) => {}
        }
        let now = Instant::now();
        let (all, with_progress) = (now >= renew_at, now >= progress_at);
        let leases = shared.active_leases.renewals(all, with_progress);
        if leases.iter().any(|lease| lease.progress.is_some()) {
            progress_at = now + PROGRESS_INTERVAL;
        }
        let confirmed = leases.is_empty() || renew_some(&shared, &leases, &limit).await;
        if all {
            let pause = shared.lease_ttl / 3;
            let pause = if confirmed {
                pause
            } else {
                pause.min(RETRY_DELAY)
            };
            renew_at = Instant::now() + pause;
        }
    }
}

/// Renews leases, and returns whether the queue answered for each.
async fn renew_some(shared: &Shared, leases: &[Renew], limit: &LogLimit) -> bool {
    let active_leases = &shared.active_leases;
    let renewals = match shared.queue.renew(leases, shared.lease_ttl).await {
        Ok(renewals) => renewals,
        Err(error) => {
            if let Some(left_out) = limit.permit() {
                let count = leases.len();
                tracing::warn!(left_out, "cannot renew {count} leases: {error}");
            }
            for lease in leases {
                active_leases.put_back_progress(lease);
            }
            return false;
        }
    };
    let mut confirmed = true;
    for (lease, renewal) in leases.iter().zip(renewals) {
        let token = &lease.token;
        match renewal {
            Renewal::Held => {}
            Renewal::Unconfirmed => {
                active_leases.put_back_progress(lease);
                confirmed = false;
            }
            Renewal::Lost => {
                if active_leases.lose(token) {
                    let task = &token.id;
                    tracing::info!(%task, "the lease of a task was lost; its handler is interrupted");
                }
            }
            Renewal::CancelRequested => {
                active_leases.interrupt(token, InterruptReason::CancelRequested);
            }
        }
    }
    confirmed
}
