//! The limits of pending tasks. They are counted in all shards before a submission: with several callers at a time, a
//! few more than the limit may be accepted.

use super::{shard_client::ShardClient, submit_batcher};
use crate::{Error, Submitted};
use futures_util::future::try_join_all;
use hostel_task::{PendingLimits, Submission};
use std::collections::BTreeMap;

/// Whether a submission is held to a limit.
pub(super) fn is_limited(task: &Submission) -> bool {
    task.pending_limits() != PendingLimits::default()
}

/// The types and groups whose pending tasks are limited for a submission, with the limit and the refusal.
fn limits(task: &Submission) -> impl Iterator<Item = (String, usize, Submitted)> {
    let PendingLimits { of_type, of_group } = task.pending_limits();
    let task_type = task.task_type();
    let of_type = of_type.map(|max| (task_type.to_string(), max, Submitted::TypeFull));
    let of_group = of_group
        .zip(task.group())
        .map(|(max, group)| (format!("{task_type}/{group}"), max, Submitted::GroupFull));
    of_type.into_iter().chain(of_group)
}

/// Returns the answer to each submission that is refused, or whose task is there already although a new one would be
/// refused; `None` for those that are to be stored.
pub(super) async fn answers(
    client: &ShardClient,
    tasks: &[Submission],
) -> Result<Vec<Option<Submitted>>, Error> {
    let mut counts = count(client, tasks).await?;
    let mut answers = Vec::with_capacity(tasks.len());
    for task in tasks {
        let is_full = |(scope, max, _): &(String, usize, Submitted)| {
            counts.get(scope).is_some_and(|count| count >= max)
        };
        let refused = limits(task).find(is_full);
        if let Some((.., refusal)) = refused {
            let stored = submit_batcher::compare(client, task).await?;
            answers.push(Some(stored.unwrap_or(refusal)));
            continue;
        }
        for (scope, ..) in limits(task) {
            *counts.entry(scope).or_default() += 1;
        }
        answers.push(None);
    }
    Ok(answers)
}

async fn count(
    client: &ShardClient,
    tasks: &[Submission],
) -> Result<BTreeMap<String, usize>, Error> {
    let scopes = tasks.iter().flat_map(limits).map(|(scope, ..)| (scope, 0));
    let mut counts: BTreeMap<String, usize> = scopes.collect();
    let scopes: Vec<String> = counts.keys().cloned().collect();
    let of_shards = client
        .shards()
        .map(|shard| count_in_shard(client, shard, &scopes));
    for of_shard in try_join_all(of_shards).await? {
        for (scope, count) in scopes.iter().zip(of_shard) {
            *counts.entry(scope.clone()).or_default() += count;
        }
    }
    Ok(counts)
}

async fn count_in_shard(
    client: &ShardClient,
    shard: usize,
    scopes: &[String],
) -> Result<Vec<usize>, Error> {
    client
        .call(shard, &client.scripts.pending, |call| {
            for scope in scopes {
                call.arg(scope.as_str());
            }
        })
        .await
}
