//! Renews the leases of this worker, so that its tasks are not taken for lost. Goes on while the node
//! is drained and while it stops.

use super::{active_leases::InterruptReason, shared::Shared};
use crate::{log_limit::LogLimit, queue::Renewal};
use std::{sync::Arc, time::Duration};

/// How long to wait before the next attempt when leases could not be renewed.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Renews all active leases three times within their time to live, and more often while that fails.
pub async fn renew(shared: Arc<Shared>) {
    let mut pause = shared.lease_ttl / 3;
    let limit = LogLimit::of_retries();
    loop {
        tokio::time::sleep(pause).await;
        let tokens = shared.active_leases.tokens();
        pause = shared.lease_ttl / 3;
        if tokens.is_empty() {
            continue;
        }
        match shared.queue.renew(&tokens, shared.lease_ttl).await {
            Ok(renewals) => {
                for (token, renewal) in tokens.iter().zip(renewals) {
                    match renewal {
                        Renewal::Held => {}
                        Renewal::Unconfirmed => pause = pause.min(RETRY_DELAY),
                        Renewal::Lost => {
                            if shared.active_leases.lose(token) {
                                let task = &token.id;
                                tracing::info!(%task, "the lease of a task was lost; its handler is interrupted");
                            }
                        }
                        Renewal::CancelRequested => {
                            shared
                                .active_leases
                                .interrupt(token, InterruptReason::CancelRequested);
                        }
                    }
                }
            }
            Err(error) => {
                if let Some(left_out) = limit.permit() {
                    let count = tokens.len();
                    tracing::warn!(left_out, "cannot renew {count} leases: {error}");
                }
                pause = pause.min(RETRY_DELAY);
            }
        }
    }
}
