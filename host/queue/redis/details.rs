//! Reading a task with all that is stored of it, where a pending task waits, and how much of their limits types and
//! groups use.

use super::{
    permit_calls::{running, take_permits},
    queries::{self, INLINE, READS},
    record,
    shard_client::ShardClient,
};
use crate::{
    Error,
    details::{Place, ReadLimits, TaskDetails},
    usage::{Usage, UsageScope},
};
use hostel_task::TaskId;
use std::time::Duration;

/// Reads a task, its sizes and its attempts.
pub(super) async fn get(
    client: &ShardClient,
    id: &TaskId,
    limits: ReadLimits,
) -> Result<Option<TaskDetails>, Error> {
    let inline = |limit: usize| if limit > 0 { INLINE } else { 0 };
    let max = (inline(limits.payload_bytes), inline(limits.result_bytes));
    for _ in 0..READS {
        let Some(mut parts) = queries::read(client, id, max, true).await? else {
            return Ok(None);
        };
        let attempts = record::history(&parts);
        let (stored, size, .., end, end_size, _, _) = &mut parts;
        let head = record::head_bytes(stored);
        let end_head = record::end_head_bytes(end);
        let payload_bytes = size.saturating_sub(head);
        let result_bytes = end_size.saturating_sub(end_head);
        let (task_key, end_key) = (client.key("task", id), client.key("end", id));
        let mut is_same = true;
        if payload_bytes <= limits.payload_bytes {
            is_same &= queries::read_rest(client, &task_key, stored, *size).await?;
        } else {
            stored.truncate(head);
        }
        if result_bytes <= limits.result_bytes {
            is_same &= queries::read_rest(client, &end_key, end, *end_size).await?;
        } else {
            end.truncate(end_head);
        }
        if is_same {
            return Ok(Some(TaskDetails {
                task: record::task(id.clone(), parts),
                payload_bytes,
                result_bytes,
                attempts,
            }));
        }
    }
    Err(queries::changes_too_quickly(id))
}

/// Returns where a task waits; `None` unless it is pending.
pub(super) async fn place(client: &ShardClient, id: &TaskId) -> Result<Option<Place>, Error> {
    let shard = client.shard_of(id);
    let place = client.call(shard, &client.scripts.place, |call| {
        call.arg(id.as_str());
    });
    let place: Vec<u64> = place.await?;
    Ok(match place[..] {
        [ahead, is_late] => Some(Place {
            ahead: usize::try_from(ahead).unwrap_or(usize::MAX),
            is_more: false,
            is_expired: is_late == 1,
        }),
        _ => None,
    })
}

/// Returns how much of its limits a type or a group uses.
pub(super) async fn usage(client: &ShardClient, scope: &UsageScope) -> Result<Usage, Error> {
    let task_type = &scope.task_type;
    let text = match &scope.group {
        Some(group) => format!("{task_type}/{group}"),
        None => task_type.to_string(),
    };
    let counts = running(client, &scope.node, &[text]).await?;
    let (running, on_node) = counts.first().copied().unwrap_or_default();
    let mut wait = 0;
    if scope.rate.is_some() {
        let of_group = scope.group.as_ref().map(|group| (group, scope.rate, 0));
        let of_type = scope.rate.filter(|_| of_group.is_none());
        let of_group = of_group.as_slice();
        let permits = take_permits(client, task_type, Duration::ZERO, (of_type, 0), of_group);
        // The last one is that of the group, if there is one.
        wait = permits.await?.last().map_or(0, |&(_, wait)| wait);
    }
    Ok(Usage {
        running,
        on_node: scope.group.is_some().then_some(on_node),
        wait: Duration::from_millis(wait),
    })
}
