//! Ends attempts whose lease has expired because their node died and tasks that did not begin in time,
//! and purges tasks that ended long ago. Goes on while the node is drained and while it stops.

use super::shared::Shared;
use crate::{
    discovery::NodeRecord,
    log_limit::LogLimit,
    plugin::View,
    queue::{Error, Expired, Finish, Finished},
    task::{AttemptReport, AttemptResult, Name, RetryPolicy, transition},
};
use std::{sync::Arc, time::Duration};

/// How often to look for expired leases.
const INTERVAL: Duration = Duration::from_secs(1);

/// The most tasks that one call to the queue reaps, expires or purges.
const BATCH: usize = 512;

/// Reaps, expires and purges once in each interval, for ever.
pub async fn reap(shared: Arc<Shared>) {
    let limit = LogLimit::of_retries();
    loop {
        let reaped = async {
            reap_expired(&shared).await?;
            while shared.queue.expire(BATCH).await? == BATCH {}
            while shared.queue.purge(&shared.retention, BATCH).await? == BATCH {}
            Ok::<_, Error>(())
        };
        if let Err(error) = reaped.await
            && let Some(left_out) = limit.permit()
        {
            tracing::warn!(
                left_out,
                "cannot reap expired leases, expire tasks or purge ended tasks: {error}"
            );
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn reap_expired(shared: &Shared) -> Result<(), Error> {
    // Types that other nodes reap are excluded from the next query, so that they do not fill it.
    let mut of_others = Vec::new();
    loop {
        let view = shared.plugins.catalog().view();
        let sharing = if shared.queue.is_shared() {
            shared.discovery.nodes()
        } else {
            Arc::default()
        };
        let expired = shared.queue.expired(shared.lease_ttl, &of_others, BATCH);
        let mut expired = expired.await?;
        let is_full = expired.len() == BATCH;
        let excluded = of_others.len();
        for lease in &expired {
            if !of_others.contains(&lease.task_type) && !may_reap(&view, &sharing, &lease.task_type)
            {
                of_others.push(lease.task_type.clone());
            }
        }
        // This worker's own leases are not lost: a late renewal or a result that waits to be written
        // settles them.
        expired.retain(|lease| {
            !of_others.contains(&lease.task_type) && !shared.active_leases.holds(&lease.token)
        });
        if expired.is_empty() && of_others.len() == excluded {
            return Ok(());
        }
        let finishes = expired.into_iter().map(|lease| finish_of(shared, lease));
        let finished = shared.queue.finish(finishes.collect()).await?;
        // Other nodes reap as well; the first one ends the attempt.
        let ended = finished.iter().filter(|&&it| it == Finished::Applied);
        let ended = ended.count();
        if ended > 0 {
            tracing::info!("reaped {ended} attempts that were lost with the node that ran them");
        }
        if !is_full {
            return Ok(());
        }
    }
}

/// Whether the node with this `view` may end attempts of a type. A node that hosts the type knows its
/// retry policy, so it goes first. If no node hosts the type, nor could once it has loaded its plugins,
/// any node may. `sharing` are the nodes that share the queue, this one included.
fn may_reap(view: &View, sharing: &[NodeRecord], task_type: &Name) -> bool {
    let may_host = |node: &NodeRecord| node.starting || node.expects(task_type);
    view.task_types.contains_key(task_type) || (view.scanned && !sharing.iter().any(may_host))
}

fn finish_of(shared: &Shared, lease: Expired) -> Finish {
    let ended = if lease.cancel_requested {
        AttemptResult::Cancelled
    } else {
        AttemptResult::Lost {
            losses: lease.losses,
        }
    };
    let handler = shared.plugins.catalog().resolve(lease.task_type.as_str());
    let policy = handler.map_or_else(RetryPolicy::default, |handler| handler.task_type.retry);
    let options = lease.options.as_deref();
    let policy = options.map_or(policy, |options| options.retry_policy(policy));
    Finish {
        outcome: transition(ended, lease.attempt, &policy, fastrand::f64()),
        token: lease.token,
        executed_by: None,
        report: AttemptReport::lost(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(scanned: bool) -> View {
        View {
            generations: Default::default(),
            task_types: Default::default(),
            rejected: Vec::new(),
            loading: Vec::new(),
            scanned,
        }
    }

    #[test]
    fn a_node_reaps_what_no_node_hosts_only_after_its_first_scan() {
        let name = |text| Name::parse("name", text).unwrap();
        let (kept, gone) = (name("kept"), name("gone"));
        assert!(!may_reap(&view(false), &[], &gone));
        assert!(may_reap(&view(true), &[], &gone));
        let mut other = NodeRecord::new(name("other"), "");
        other.task_types.insert(kept.clone());
        let sharing = [other.clone()];
        assert!(!may_reap(&view(true), &sharing, &kept));
        assert!(may_reap(&view(true), &sharing, &gone));
        assert!(!may_reap(&view(false), &sharing, &gone));
        // Until another node has scanned its plugins, it may host any type.
        other.starting = true;
        assert!(!may_reap(&view(true), &[other], &gone));
    }
}
