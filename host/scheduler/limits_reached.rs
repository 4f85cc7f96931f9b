//! Which limits of its type and its group keep a pending task from being leased. `max_pending` is none of them: it
//! refuses submissions.

use super::wait_reason::WaitReason;
use crate::{
    queue::{self, TaskQueue, UsageScope},
    task::{Limits, Name, Task, TypeLimits},
};

/// Returns the limits that are reached, those of this node included.
pub(super) async fn of(
    queue: &dyn TaskQueue,
    limits: &TypeLimits,
    node: &Name,
    task: &Task,
) -> Result<Vec<WaitReason>, queue::Error> {
    let mut scope = UsageScope {
        task_type: task.task_type.clone(),
        group: None,
        node: node.clone(),
        rate: None,
    };
    let mut reached = of_scope(queue, &mut scope, &limits.of_type.limits()).await?;
    let group = task.options.as_ref().and_then(|it| it.group.as_ref());
    if let (Some(group), Some(limits)) = (group, limits.group_limits()) {
        scope.group = Some(group.clone());
        reached.extend(of_scope(queue, &mut scope, limits.of(group)).await?);
    }
    Ok(reached)
}

async fn of_scope(
    queue: &dyn TaskQueue,
    scope: &mut UsageScope,
    limits: &Limits,
) -> Result<Vec<WaitReason>, queue::Error> {
    let &Limits {
        max_concurrency,
        max_cluster_concurrency,
        max_rate,
        max_pending: _,
    } = limits;
    if max_concurrency.or(max_cluster_concurrency).is_none() && max_rate.is_none() {
        return Ok(Vec::new());
    }
    scope.rate = max_rate;
    let usage = queue.usage(scope).await?;
    let group = &scope.group;
    let concurrency = [
        ("max_concurrency", max_concurrency.zip(usage.on_node)),
        (
            "max_cluster_concurrency",
            max_cluster_concurrency.map(|max| (max, usage.running)),
        ),
    ];
    let reached = concurrency.into_iter().filter_map(|(limit, is)| {
        let (value, count) = is.filter(|(value, count)| count >= value)?;
        Some(WaitReason::LimitReached {
            limit,
            group: group.clone(),
            value: value as u64,
            count: count as u64,
        })
    });
    let rate = max_rate.filter(|_| !usage.wait.is_zero());
    let rate = rate.map(|rate| WaitReason::RateReached {
        rate,
        group: group.clone(),
        until: queue.now().after(usage.wait),
        wait_ms: u64::try_from(usage.wait.as_millis()).unwrap_or(u64::MAX),
    });
    Ok(reached.chain(rate).collect())
}
