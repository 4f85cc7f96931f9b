//! Leases due tasks, from one shard after another. A call whose answer was lost is repeated under its
//! number and returns the same tasks.

use super::{
    batching::MAX_TASKS, errors::corrupt, finish, lease_args, lease_guard::LeaseGuard,
    lease_sequence::LeaseCall, record, scripts::ms, shard_client::ShardClient,
};
use crate::{Change, Error, LeaseRequest, LeaseToken, Leased, task_cache};
use bytes::Bytes;
use hostel_task::{Name, StateKind, UnixMs};
use std::sync::Arc;
use tokio_util::task::TaskTracker;

/// How often the task types are registered with a shard that does not know them, before the call fails.
const REGISTRATIONS: usize = 3;

/// Leases tasks from the shards in turn, beginning with `first`, until the request is satisfied.
pub(super) async fn lease(
    client: Arc<ShardClient>,
    tracker: TaskTracker,
    mut request: LeaseRequest,
    first: usize,
) -> Result<LeaseGuard, Error> {
    let mut guard = LeaseGuard::new(client.clone(), tracker);
    let mut answers = Vec::new();
    for step in client.shards() {
        if request.max == 0 {
            break;
        }
        let shard = (first + step) % client.tags.len();
        let answer = lease_from_shard(&client, shard, &mut request, &mut guard).await;
        answers.push((shard, answer));
    }
    // Tasks of one shard are valid even if all others failed.
    let result = client.collect_available("lease tasks", answers);
    if guard.len() == 0 {
        result?;
    }
    Ok(guard)
}

/// Leases from a shard for as long as a script returns as many tasks as it may.
async fn lease_from_shard(
    client: &ShardClient,
    shard: usize,
    request: &mut LeaseRequest,
    guard: &mut LeaseGuard,
) -> Result<(), Error> {
    loop {
        let leased = call(client, shard, request).await?;
        let more = leased.len() == MAX_TASKS;
        let (fitting, excess) = split_fitting(request, leased);
        guard.add(fitting);
        guard.release(excess);
        if !more || request.max == 0 {
            return Ok(());
        }
    }
}

/// Splits tasks into those that fit, which are subtracted from `request`, and the rest. There is a rest if
/// a repeated call returns the tasks of an earlier request, which allowed more.
fn split_fitting(request: &mut LeaseRequest, leased: Vec<Leased>) -> (Vec<Leased>, Vec<Leased>) {
    leased.into_iter().partition(|task| {
        let fits = (request.allow_suspect || !task.suspect) && request.take(&task.task_type);
        request.allow_suspect &= !(fits && task.suspect);
        fits
    })
}

/// Id, fencing token, attempt, head and payload of each task, when it was submitted and when this attempt
/// began, whether this is its first attempt without an error, and whether it is a suspect.
type Row = (String, u64, u64, Vec<u8>, Vec<u8>, u64, u64, u8, u8);

/// The time of the shard, whether it has lost the task types, and the leased tasks.
type Answer = (u64, u8, Vec<Row>);

async fn call(
    client: &ShardClient,
    shard: usize,
    request: &LeaseRequest,
) -> Result<Vec<Leased>, Error> {
    let mut sequence = client.lease_sequences[shard].next().await;
    let (now, rows) = rows(client, shard, request, &mut sequence).await?;
    client.set_time(now);
    let mut leased = Vec::with_capacity(rows.len());
    let mut changes = Vec::with_capacity(rows.len());
    let mut snapshots = Vec::with_capacity(rows.len());
    let mut damaged = Vec::new();
    for (id, fence, attempt, head, payload, submitted_at, begun, is_first, suspect) in rows {
        let name = Name::parse("id", &id).map_err(|_| corrupt(&id, "its id"));
        let (id, head) = match (name, record::read_head(&id, &head)) {
            (Ok(id), Ok(head)) => (id, head),
            // The other tasks of this answer are valid.
            (Err(error), _) | (_, Err(error)) => {
                damaged.push((id, fence, error.to_string()));
                continue;
            }
        };
        let task_type = head.task_type.clone();
        changes.push(Change::new(id.clone(), task_type, StateKind::Running));
        let task = Leased {
            token: LeaseToken {
                id: id.clone(),
                fence,
            },
            task_type: head.task_type,
            payload: Bytes::from(payload),
            metadata: head.metadata,
            attempt: u32::try_from(attempt).unwrap_or(u32::MAX),
            suspect: suspect == 1,
        };
        let times = [UnixMs(submitted_at), UnixMs(begun), now.after(request.ttl)];
        let snapshot = (is_first == 1)
            .then(|| task_cache::first_leased(&task, head.target, request.node.clone(), times));
        snapshots.push((id, snapshot.map(Arc::new)));
        leased.push(task);
    }
    client.task_cache.update(&mut snapshots);
    client.publisher.publish(changes);
    finish::fail_damaged(client, shard, &damaged).await;
    Ok(leased)
}

/// Runs the lease script, as often as it takes to register the task types.
async fn rows(
    client: &ShardClient,
    shard: usize,
    request: &LeaseRequest,
    sequence: &mut LeaseCall,
) -> Result<(UnixMs, Vec<Row>), Error> {
    let repeated = sequence.unanswered;
    sequence.number += u64::from(!repeated);
    sequence.unanswered = true;
    let number = sequence.number;
    for _ in 0..REGISTRATIONS {
        let types = lease_args::register(&mut sequence.types, client, shard, request).await?;
        let (now, unknown, rows): Answer = client
            .call_for_bulk_answer(shard, &client.scripts.lease, |call| {
                call.arg(number).arg(u8::from(repeated));
                call.arg(request.node.as_str())
                    .arg(ms(request.ttl))
                    .arg(request.max.min(MAX_TASKS));
                lease_args::push(call, types, request);
            })
            .await
            .inspect_err(|_| client.publisher.publish_missed())?;
        if unknown == 0 {
            sequence.unanswered = false;
            return Ok((UnixMs(now), rows));
        }
        sequence.types.forget();
    }
    Err(types_lost())
}

/// Which waiting task of a shard to look for.
#[derive(Clone, Copy)]
pub(super) enum First {
    /// The task with the earliest due time that fits into the available resources.
    Due,
    /// The oldest due task that does not fit.
    Blocked,
}

/// Returns the time in milliseconds until the first such task is due, and its type.
pub(super) async fn first(
    client: &ShardClient,
    shard: usize,
    request: &LeaseRequest,
    which: First,
) -> Result<Option<(u64, Name)>, Error> {
    let mut sequence = client.lease_sequences[shard].next().await;
    for _ in 0..REGISTRATIONS {
        let types = lease_args::register(&mut sequence.types, client, shard, request).await?;
        let (unknown, due, task_type): (u8, String, String) = client
            .call(shard, &client.scripts.next_due, |call| {
                call.arg(match which {
                    First::Due => "d",
                    First::Blocked => "p",
                });
                lease_args::push(call, types, request);
            })
            .await?;
        if unknown == 0 {
            let due = due.parse().ok();
            return Ok(due.zip(Name::parse("task type", &task_type).ok()));
        }
        sequence.types.forget();
    }
    Err(types_lost())
}

fn types_lost() -> Error {
    Error::Unavailable {
        reason:
            "Redis loses the task types of this node at once; check that no other program deletes \
                 keys under queue.prefix"
                .into(),
        outcome_unknown: false,
    }
}
