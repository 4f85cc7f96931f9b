//! Queries: a task, the number of tasks, the next due time, and expired leases.

use super::{
    finish, key_by_key,
    leases::{self, First},
    permits,
    record::{self, Parts, Record},
    scripts::ms,
    shard_client::ShardClient,
};
use crate::{Counts, Error, Expired, LeaseRequest, LeaseToken, StatusRead};
use bytes::Bytes;
use futures_util::future::join_all;
use hostel_task::{Name, State, Task, TaskId};
use redis::cmd;
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// The most expired leases that one script reads of a type.
const SCAN: usize = 1000;

/// How long a completed task is answered from the cache, at most: it does not change, but other nodes may
/// purge it.
const CACHED: Duration = Duration::from_secs(60);

/// The most bytes of a record, and of what is stored of the end of a task, that are read within a script.
/// Larger ones are read by commands of their own, which are as slow as their bytes.
pub(super) const INLINE: usize = 64 << 10;

/// How often a task is read that changes in between.
pub(super) const READS: usize = 5;

pub(super) async fn get(client: &ShardClient, id: &TaskId) -> Result<Option<Task>, Error> {
    if let Some(task) = cached(client, id) {
        return Ok(Some(task));
    }
    for _ in 0..READS {
        let Some(mut parts) = read(client, id, (INLINE, INLINE), false).await? else {
            return Ok(None);
        };
        let (record, size, .., end, end_size, _, _) = &mut parts;
        if read_rest(client, &client.key("task", id), record, *size).await?
            && read_rest(client, &client.key("end", id), end, *end_size).await?
        {
            return Ok(Some(record::task(id.clone(), parts)));
        }
    }
    Err(changes_too_quickly(id))
}

/// Reads a task without its payload, and with its result unless that has more than `max_result_bytes`.
pub(super) async fn get_status(
    client: &ShardClient,
    id: &TaskId,
    max_result_bytes: usize,
) -> Result<Option<StatusRead>, Error> {
    if let Some(task) = cached(client, id) {
        return Ok(Some(StatusRead::of(task, max_result_bytes)));
    }
    for _ in 0..READS {
        let max_end = INLINE.min(max_result_bytes);
        let Some(mut parts) = read(client, id, (0, max_end), false).await? else {
            return Ok(None);
        };
        let (.., end, end_size, _, _) = &mut parts;
        let bytes = end_size.saturating_sub(record::end_head_bytes(end));
        if bytes > max_result_bytes {
            return Ok(Some(StatusRead::ResultTooLarge { bytes }));
        }
        if read_rest(client, &client.key("end", id), end, *end_size).await? {
            let task = record::task(id.clone(), parts);
            return Ok(Some(StatusRead::Task(task)));
        }
    }
    Err(changes_too_quickly(id))
}

/// Reads a task without its payload and its result.
pub(super) async fn without_payload(
    client: &ShardClient,
    id: &TaskId,
) -> Result<Option<Task>, Error> {
    let parts = read(client, id, (0, 0), false).await?;
    Ok(parts.map(|parts| record::task(id.clone(), parts)))
}

/// Reads what is stored of a task: its record and that of its end as a whole if they have no more than so
/// many bytes, and what its earlier attempts left, all of it or the beginning.
pub(super) async fn read(
    client: &ShardClient,
    id: &TaskId,
    (max_record, max_end): (usize, usize),
    all_past: bool,
) -> Result<Option<Parts>, Error> {
    if client.server.is_cluster() {
        return key_by_key::read(client, id, (max_record, max_end)).await;
    }
    let shard = client.shard_of(id);
    let read = client.call_for_read(shard, &client.scripts.read, max_record + max_end, |call| {
        call.arg(id.as_str()).arg(max_record).arg(max_end);
        call.arg(u8::from(all_past));
    });
    let parts: Vec<Parts> = read.await?;
    Ok(parts.into_iter().next())
}

/// Reads a value of which the beginning is known, unless it is known as a whole. Returns `false` if it has
/// changed since.
pub(super) async fn read_rest(
    client: &ShardClient,
    key: &str,
    known: &mut Vec<u8>,
    size: usize,
) -> Result<bool, Error> {
    if known.len() == size {
        return Ok(true);
    }
    let mut get = cmd("GET");
    get.arg(key);
    let whole: Option<Vec<u8>> = client.read(size, &get).await?;
    let whole = whole.filter(|whole| whole.len() == size && whole.starts_with(known));
    Ok(whole.map(|whole| *known = whole).is_some())
}

pub(super) fn changes_too_quickly(id: &TaskId) -> Error {
    Error::Unavailable {
        reason: format!("task {id} changes while it is read"),
        outcome_unknown: false,
    }
}

/// A task that this queue completed a moment ago.
fn cached(client: &ShardClient, id: &TaskId) -> Option<Task> {
    let task = client.task_cache.get(id)?;
    let State::Completed { finished_at, .. } = task.state else {
        return None;
    };
    let age = client.now().0.abs_diff(finished_at.0);
    let own = task.options.as_ref().and_then(|options| options.result_ttl);
    let kept = own.map_or_else(|| client.keep_completed_ms.load(Ordering::Relaxed), ms);
    let is_fresh = age < ms(CACHED).min(kept);
    is_fresh.then(|| Arc::unwrap_or_clone(task))
}

pub(super) async fn counts(client: &ShardClient) -> Result<Counts, Error> {
    let mut counts = Counts::new();
    for shard in client.shards() {
        // Type, letter of the state, and number.
        let of_shard: Vec<(String, String, u64)> =
            client.call(shard, &client.scripts.counts, |_| {}).await?;
        for (task_type, letter, count) in of_shard {
            let name = Name::parse("task type", &task_type).ok();
            if let Some(key) = name.zip(record::state(letter)) {
                *counts.entry(key).or_insert(0) += count;
            }
        }
    }
    Ok(counts)
}

pub(super) async fn next_due(
    client: &ShardClient,
    request: &LeaseRequest,
) -> Result<Option<Duration>, Error> {
    let (open, waits) = permits::look(client, request).await?;
    let mut soonest = first(client, &open, First::Due).await?.map(|(due, _)| due);
    for (task_type, wait) in waits {
        let alone = LeaseRequest {
            only: Some(task_type),
            ..request.clone()
        };
        let due = first(client, &alone, First::Due).await?;
        let due = due.map(|(due, _)| due.max(wait));
        soonest = soonest.into_iter().chain(due).min();
    }
    Ok(soonest.map(Duration::from_millis))
}

pub(super) async fn oldest_blocked(
    client: &ShardClient,
    request: &LeaseRequest,
) -> Result<Option<Name>, Error> {
    let (open, _) = permits::look(client, request).await?;
    Ok(first(client, &open, First::Blocked)
        .await?
        .map(|(_, task_type)| task_type))
}

/// Returns the first such task of all shards.
async fn first(
    client: &ShardClient,
    request: &LeaseRequest,
    which: First,
) -> Result<Option<(u64, Name)>, Error> {
    if request.types.is_empty() {
        return Ok(None);
    }
    let answers = client.shards().map(async |shard| {
        let first = leases::first(client, shard, request, which).await;
        (shard, first)
    });
    let first = client.collect_available("query the next due task", join_all(answers).await)?;
    Ok(first.into_iter().flatten().min())
}

/// Id, fencing token and type, the record without its payload, and whether its cancellation was requested.
type ExpiredRow = (String, u64, String, Vec<u8>, u8);

pub(super) async fn expired(
    client: &ShardClient,
    ttl: Duration,
    except: &[Name],
    max: usize,
) -> Result<Vec<Expired>, Error> {
    let (mut expired, mut answers) = (Vec::new(), Vec::new());
    for shard in client.shards() {
        let left = max - expired.len();
        if left == 0 {
            break;
        }
        let rows = client
            .call(shard, &client.scripts.expired, |call| {
                call.arg(left).arg(SCAN).arg(ms(ttl));
                for task_type in except {
                    call.arg(task_type.as_str());
                }
            })
            .await;
        let rows: Vec<ExpiredRow> = match rows {
            Ok(rows) => rows,
            Err(error) => {
                answers.push((shard, Err(error)));
                continue;
            }
        };
        answers.push((shard, Ok(())));
        let mut damaged = Vec::new();
        for (id, fence, task_type, stored, cancel_requested) in rows {
            let names = Name::parse("task type", &task_type)
                .and_then(|task_type| Ok((task_type, Name::parse("task id", &id)?)))
                .map_err(|error| error.to_string());
            let record = Record::read(&id, Bytes::from(stored));
            let record = record.map_err(|error| error.to_string());
            match names.and_then(|names| Ok((names, record?))) {
                Ok(((task_type, id), record)) => expired.push(Expired {
                    task_type,
                    token: LeaseToken { id, fence },
                    options: record.options,
                    attempt: record.attempts.saturating_add(1),
                    losses: record.losses,
                    cancel_requested: cancel_requested == 1,
                }),
                Err(error) => damaged.push((id, fence, error)),
            }
        }
        finish::fail_damaged(client, shard, &damaged).await;
    }
    client.collect_available("query expired leases", answers)?;
    Ok(expired)
}
