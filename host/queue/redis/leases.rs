//! Leases due tasks, from one shard after another. A call whose answer was lost is repeated under its
//! number and returns the same tasks.

use super::{
    attempts::begun_at, batching::MAX_TASKS, errors::corrupt, finish, lease_args,
    lease_guard::LeaseGuard, lease_sequence::LeaseCall, permits::Permits, record::Record,
    scripts::ms, shard_client::ShardClient,
};
use crate::{Change, Error, LeaseRequest, LeaseToken, Leased, batch_size::MIN_RATE, task_cache};
use bytes::Bytes;
use hostel_task::{Name, StateKind, TaskId, UnixMs, is_suspect};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::task::TaskTracker;

/// How often the task types are registered with a shard that does not know them, before the call fails.
const REGISTRATIONS: usize = 3;

/// A lease counts from the script, and is renewed only when the whole call has returned. So an answer has as
/// many bytes as arrive within this part of the lease even over a slow connection.
const ARRIVES_WITHIN: u32 = 3;

/// The part of the lease, and the time, in which a call that has tasks runs another script.
const CONTINUES_WITHIN: (u32, Duration) = (10, Duration::from_millis(250));

/// Leases tasks from the shards in turn, beginning with `first`, until the request is satisfied or its
/// tasks have to be returned.
pub(super) async fn lease(
    client: Arc<ShardClient>,
    tracker: TaskTracker,
    mut request: LeaseRequest,
    first: usize,
) -> Result<LeaseGuard, Error> {
    let mut guard = LeaseGuard::new(client.clone(), tracker);
    let mut permits = Permits::take(&client, &mut request).await;
    let (mut answers, began) = (Vec::new(), Instant::now());
    for step in client.shards() {
        let is_late = guard.len() > 0 && is_late(began, &request);
        if request.max == 0 || is_late || permits.is_over() {
            break;
        }
        let shard = (first + step) % client.tags.len();
        let of_shard = (&mut permits, &mut guard);
        let answer = lease_from_shard(&client, shard, &mut request, of_shard, began).await;
        answers.push((shard, answer));
    }
    let is_certain = answers.iter().all(|(_, answer)| answer.is_ok());
    permits.give_back(&client, is_certain).await;
    // Tasks of one shard are valid even if all others failed.
    let result = client.collect_available("lease tasks", answers);
    if guard.len() == 0 {
        result?;
    }
    Ok(guard)
}

/// Leases from a shard for as long as a script returns as many tasks or bytes as it may, unless the call, which
/// began at `began`, has to return.
async fn lease_from_shard(
    client: &ShardClient,
    shard: usize,
    request: &mut LeaseRequest,
    (permits, guard): (&mut Permits, &mut LeaseGuard),
    began: Instant,
) -> Result<(), Error> {
    loop {
        let (leased, more) = call(client, shard, request, permits).await?;
        permits.subtract(&leased);
        let (fitting, excess) = split_fitting(request, leased);
        guard.add(fitting);
        guard.release(excess);
        if !more || request.max == 0 || is_late(began, request) || permits.is_over() {
            return Ok(());
        }
    }
}

/// Whether a call that has tasks has to return them.
fn is_late(began: Instant, request: &LeaseRequest) -> bool {
    let (part, least) = CONTINUES_WITHIN;
    began.elapsed() > least.max(request.ttl / part)
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

/// Id and record of each task, and whether it was tried before.
type Row = (String, Vec<u8>, u8);

/// The time of the shard, the fencing token of all tasks, whether it has lost the task types, whether due tasks
/// were left because of their bytes, and the leased tasks.
type Answer = (u64, u64, u8, u8, Vec<Row>);

/// Leases from a shard with one script. Returns the tasks, and whether the script returned as many as it may.
async fn call(
    client: &ShardClient,
    shard: usize,
    request: &LeaseRequest,
    permits: &Permits,
) -> Result<(Vec<Leased>, bool), Error> {
    let mut sequence = client.lease_sequences[shard].next().await;
    let rooms = permits.rooms();
    let (now, fence, more, rows) = rows(client, shard, request, &rooms, &mut sequence).await?;
    let more = more || rows.len() == MAX_TASKS;
    client.set_time(now);
    let lease_until = now.after(request.ttl);
    let mut leased = Vec::with_capacity(rows.len());
    let mut changes = Vec::with_capacity(rows.len());
    let mut snapshots = Vec::with_capacity(rows.len());
    let mut damaged = Vec::new();
    for (id, stored, was_tried) in rows {
        let name = Name::parse("id", &id).map_err(|_| corrupt(&id, "its id"));
        let read = name.and_then(|name| Ok((name, Record::read(&id, Bytes::from(stored))?)));
        let (id, record) = match read {
            Ok(read) => read,
            // The other tasks of this answer are valid.
            Err(error) => {
                damaged.push((id, fence, error.to_string()));
                continue;
            }
        };
        let task_type = record.task_type.clone();
        changes.push(Change::new(id.clone(), task_type, StateKind::Running));
        let is_first = record.attempts == 0 && was_tried == 0;
        let times = [record.submitted_at(), begun_at(fence), lease_until];
        let target = record.target.clone();
        let task = leased_task(id.clone(), fence, record);
        let snapshot =
            is_first.then(|| task_cache::first_leased(&task, target, request.node.clone(), times));
        snapshots.push((id, snapshot.map(Arc::new)));
        leased.push(task);
    }
    client.task_cache.update(&mut snapshots);
    client.publisher.publish(changes);
    finish::fail_damaged(client, shard, &damaged).await;
    Ok((leased, more))
}

fn leased_task(id: TaskId, fence: u64, record: Record) -> Leased {
    Leased {
        token: LeaseToken { id, fence },
        attempt: record.attempts.saturating_add(1),
        suspect: is_suspect(record.losses),
        task_type: record.task_type,
        payload: record.payload,
        metadata: record.metadata,
        options: record.options,
    }
}

/// Runs the lease script, as often as it takes to register the task types.
async fn rows(
    client: &ShardClient,
    shard: usize,
    request: &LeaseRequest,
    rooms: &[(String, String)],
    sequence: &mut LeaseCall,
) -> Result<(UnixMs, u64, bool, Vec<Row>), Error> {
    let repeated = sequence.unanswered;
    sequence.number += u64::from(!repeated);
    sequence.unanswered = true;
    let number = sequence.number;
    for _ in 0..REGISTRATIONS {
        let types = lease_args::register(&mut sequence.types, client, shard, request).await?;
        let (began, read_at_once) = (Instant::now(), sequence.read_at_once());
        let size = &mut sequence.batch_size;
        let most = size.bytes_within(request.ttl / ARRIVES_WITHIN);
        let leased = client.call_for_lease(shard, &client.scripts.lease, most, |call| {
            call.arg(number).arg(u8::from(repeated));
            call.arg(request.node.as_str())
                .arg(ms(request.ttl))
                .arg(request.max.min(MAX_TASKS))
                .arg(most)
                .arg(MIN_RATE / 1000)
                .arg(read_at_once);
            lease_args::push(call, types, request);
            for (scope, room) in rooms {
                call.arg(scope.as_str()).arg(room.as_str());
            }
        });
        let leased: Result<Answer, Error> = leased.await;
        let (now, fence, unknown, more, rows) = leased.inspect_err(|_| {
            size.failed();
            client.publisher.publish_missed();
        })?;
        if unknown == 0 {
            let bytes: usize = rows.iter().map(|(_, record, _)| record.len()).sum();
            size.confirmed(bytes, began.elapsed());
            sequence.record_answer(rows.len(), bytes);
            sequence.unanswered = false;
            return Ok((UnixMs(now), fence, more == 1, rows));
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
