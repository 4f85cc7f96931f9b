//! Queries: a task, a page of tasks, their counts, the next due time, and expired leases.

use super::{
    finish,
    leases::{self, First},
    options,
    record::{self, BULK, FIELDS},
    scripts::ms,
    shard_client::ShardClient,
};
use crate::{Counts, Error, Expired, Filter, LeaseRequest, LeaseToken, Listing, Page, StatusRead};
use futures_util::future::{join_all, try_join, try_join_all};
use hostel_task::{Name, State, Task, TaskId};
use redis::cmd;
use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// The most tasks of a page.
const MAX_PAGE: usize = 1000;

/// The most tasks that one script reads, so that a filter with few matches delays no submission.
const SCAN: usize = 1000;

/// The most bytes of the tasks that one script returns, without the last task's.
const LIST_BYTES: usize = 256 << 10;

/// How long a completed task is answered from the cache, at most: it does not change, but other nodes may
/// purge it.
const CACHED: Duration = Duration::from_secs(60);

pub(super) async fn get(client: &ShardClient, id: &TaskId) -> Result<Option<Task>, Error> {
    if let Some(task) = cached(client, id) {
        return Ok(Some(task));
    }
    let key = key(client, id);
    // The size first, which says how long the answer may take.
    let sizes = BULK.map(|field| size_of(client, &key, field));
    let bytes: Vec<usize> = match try_join_all(sizes).await {
        Ok(bytes) => bytes,
        Err(error) => return unreadable(id, error),
    };
    let mut get = cmd("HMGET");
    get.arg(&key).arg(&FIELDS).arg(&BULK);
    match client.read(bytes.iter().sum(), &get).await {
        Ok(values) => Ok(record::task(id.clone(), values)),
        Err(error) => unreadable(id, error),
    }
}

async fn size_of(client: &ShardClient, key: &str, field: &str) -> Result<usize, Error> {
    let mut size = cmd("HSTRLEN");
    size.arg(key).arg(field);
    client.short(&size).await
}

/// Reads a task without its payload and its metadata, and with its result unless that has more than
/// `max_result_bytes`.
pub(super) async fn get_status(
    client: &ShardClient,
    id: &TaskId,
    max_result_bytes: usize,
) -> Result<Option<StatusRead>, Error> {
    if let Some(task) = cached(client, id) {
        return Ok(Some(StatusRead::of(task, max_result_bytes)));
    }
    let key = key(client, id);
    let [result, ..] = BULK;
    let mut head = cmd("HMGET");
    head.arg(&key).arg(&FIELDS);
    // Sent together. A pipeline would hide the code of an error.
    let read = try_join(client.short(&head), size_of(client, &key, result));
    let (values, bytes): (Vec<Option<Vec<u8>>>, usize) = match read.await {
        Ok(read) => read,
        Err(error) => return Ok(unreadable(id, error)?.map(StatusRead::Task)),
    };
    if bytes > max_result_bytes {
        return Ok(Some(StatusRead::ResultTooLarge { bytes }));
    }
    if bytes == 0 && !record::is_completed(&values) {
        return Ok(record::task(id.clone(), values).map(StatusRead::Task));
    }
    // Once more with the result, in one command: meanwhile the task may have been purged and submitted
    // again. A result that seems empty may have been purged between the two answers.
    let mut whole = cmd("HMGET");
    whole.arg(&key).arg(&FIELDS).arg(result);
    match client.read(bytes, &whole).await {
        Ok(values) => {
            let task = record::task(id.clone(), values);
            Ok(task.map(|task| StatusRead::of(task, max_result_bytes)))
        }
        Err(error) => Ok(unreadable(id, error)?.map(StatusRead::Task)),
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
    let kept = own.map_or_else(|| client.keep_ended_ms.load(Ordering::Relaxed), ms);
    let is_fresh = age < ms(CACHED).min(kept);
    is_fresh.then(|| Arc::unwrap_or_clone(task))
}

fn key(client: &ShardClient, id: &TaskId) -> String {
    let tag = &client.tags[client.shard_of(id)];
    format!("{tag}:t:{id}")
}

/// The task as failed, if its key holds another type of value.
fn unreadable(id: &TaskId, error: Error) -> Result<Option<Task>, Error> {
    match error {
        Error::Corrupt(_) => Ok(Some(record::unreadable(id.clone(), &error))),
        error => Err(error),
    }
}

pub(super) async fn counts(client: &ShardClient) -> Result<Counts, Error> {
    let mut counts = Counts::new();
    for tag in &client.tags {
        let mut all = cmd("HGETALL");
        all.arg(format!("{tag}:n"));
        let mut connection = client.connection();
        let all: HashMap<String, String> = client.within(all.query_async(&mut connection)).await?;
        for (field, count) in all {
            // Fields without a space are not counters of tasks.
            let Some((letter, task_type)) = field.split_once(' ') else {
                continue;
            };
            let state = record::state(letter);
            let name = Name::parse("task type", task_type).ok();
            if let (Some(state), Some(name), Ok(count)) = (state, name, count.parse::<u64>()) {
                *counts.entry((name, state)).or_insert(0) += count;
            }
        }
    }
    Ok(counts)
}

pub(super) async fn next_due(
    client: &ShardClient,
    request: &LeaseRequest,
) -> Result<Option<Duration>, Error> {
    let first = first(client, request, First::Due).await?;
    Ok(first.map(|(due, _)| Duration::from_millis(due)))
}

pub(super) async fn oldest_blocked(
    client: &ShardClient,
    request: &LeaseRequest,
) -> Result<Option<Name>, Error> {
    Ok(first(client, request, First::Blocked)
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

/// Id, fencing token, type, attempt, whether its cancellation was requested, its losses so far, and its
/// options.
type ExpiredRow = (String, u64, String, u64, u8, u64, Vec<u8>);

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
        for (id, fence, task_type, attempt, cancel_requested, losses, options) in rows {
            let names = Name::parse("task type", &task_type)
                .and_then(|task_type| Ok((task_type, Name::parse("task id", &id)?)))
                .map_err(|error| error.to_string());
            let options = options::read(&id, &options).map_err(|error| error.to_string());
            match names.and_then(|names| Ok((names, options?))) {
                Ok(((task_type, id), options)) => expired.push(Expired {
                    task_type,
                    token: LeaseToken { id, fence },
                    options,
                    attempt: u32::try_from(attempt).unwrap_or(u32::MAX),
                    losses: u32::try_from(losses).unwrap_or(u32::MAX),
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

/// The position of a task in the order of submission, and its id, as Redis returned them.
type Position = (String, String);

/// Parses a page token: the position of the last task of the previous page.
pub(super) fn parse_token(token: Option<&str>) -> Result<Option<Position>, Error> {
    let Some(token) = token else {
        return Ok(None);
    };
    let position = || {
        let (order, id) = token.strip_prefix('p')?.split_once('-')?;
        order.parse::<u64>().ok()?;
        Name::parse("task id", id).ok()?;
        let plain = order.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| (order.to_owned(), id.to_owned()))
    };
    position().map(Some).ok_or(Error::BadPage)
}

/// Where one script stopped, and id, order and fields of each task.
type Rows = (String, String, Vec<(String, String, Vec<Option<Vec<u8>>>)>);

/// Returns the newest tasks of all shards after the given position that pass the filter.
pub(super) async fn list(
    client: &ShardClient,
    filter: &Filter,
    page: &Page,
    after: Option<Position>,
) -> Result<Listing, Error> {
    let size = page.size.clamp(1, MAX_PAGE);
    // One task more than the page shows whether there is a next page.
    let shards = client
        .shards()
        .map(|shard| list_shard(client, shard, filter, size + 1, after.clone()));
    let mut found: Vec<(u64, Task)> = try_join_all(shards).await?.into_iter().flatten().collect();
    found.sort_unstable_by(|(a, x), (b, y)| (b, &y.id).cmp(&(a, &x.id)));
    let more = found.len() > size;
    found.truncate(size);
    let last = found.last().filter(|_| more);
    Ok(Listing {
        next: last.map(|(order, task)| format!("p{order}-{}", task.id)),
        tasks: found.into_iter().map(|(_, task)| task).collect(),
    })
}

async fn list_shard(
    client: &ShardClient,
    shard: usize,
    filter: &Filter,
    size: usize,
    mut after: Option<Position>,
) -> Result<Vec<(u64, Task)>, Error> {
    let mut found = Vec::new();
    loop {
        let left = size - found.len();
        let (order, id, rows): Rows = client
            .call_for_read(shard, &client.scripts.list, LIST_BYTES, |call| {
                let state = filter.state.map(|state| record::letter(state).to_string());
                let (order, id) = after.take().unwrap_or_default();
                call.arg(state.unwrap_or_default());
                call.arg(filter.task_type.as_ref().map_or("", Name::as_str));
                call.arg(left).arg(order).arg(id).arg(SCAN).arg(LIST_BYTES);
                call.arg(filter.group.as_ref().map_or("", Name::as_str));
                call.arg(filter.tag.as_ref().map_or("", Name::as_str));
            })
            .await?;
        for (id, order, fields) in rows {
            // An entry with an invalid id is not a task.
            if let (Ok(id), Ok(order)) = (Name::parse("task id", &id), order.parse()) {
                found.extend(record::task(id, fields).map(|task| (order, task)));
            }
        }
        if order.is_empty() || found.len() >= size {
            return Ok(found);
        }
        after = Some((order, id));
    }
}
