//! Cancelling, requeuing, expiring and purging tasks.

use super::{errors::corrupt, record, scripts::ms, shard_client::ShardClient, unique};
use crate::{Cancel, Change, Error, Requeue};
use hostel_task::{Name, StateKind, TaskId};
use redis::Script;
use std::{sync::atomic::Ordering, time::Duration};

/// How many tasks one script purges, or expires.
const PURGE_STEP: usize = 256;
const EXPIRE_STEP: usize = 256;

pub(super) async fn cancel(client: &ShardClient, id: &TaskId) -> Result<Cancel, Error> {
    let Some((letter, task_type)) = run_on_task(client, &client.scripts.cancel, id).await? else {
        return Ok(Cancel::Unknown);
    };
    if letter == "k" {
        return Ok(Cancel::Requested);
    }
    Ok(match parse_state(id, &letter)? {
        StateKind::Pending => {
            publish(client, id, task_type, StateKind::Cancelled, false);
            Cancel::Cancelled
        }
        StateKind::Running => {
            publish(client, id, task_type, StateKind::Running, true);
            Cancel::Requested
        }
        ended => Cancel::Ended(ended),
    })
}

pub(super) async fn requeue(client: &ShardClient, id: &TaskId) -> Result<Requeue, Error> {
    let key = unique::take_for_requeue(client, id).await?;
    let requeued = run_on_task(client, &client.scripts.requeue, id).await;
    if let Some(key) = key
        && let Ok(Some(_)) = requeued
    {
        key.confirm(client).await;
    }
    let Some((letter, task_type)) = requeued? else {
        return Ok(Requeue::Unknown);
    };
    // A task with a damaged record cannot be run.
    if letter == "d" {
        return Ok(Requeue::Refused(StateKind::Failed));
    }
    Ok(match parse_state(id, &letter)? {
        StateKind::Failed | StateKind::Cancelled => {
            publish(client, id, task_type, StateKind::Pending, false);
            Requeue::Requeued
        }
        other => Requeue::Refused(other),
    })
}

/// Fails up to `max` pending tasks of which no attempt has begun in time, and returns how many.
pub(super) async fn expire(client: &ShardClient, max: usize) -> Result<usize, Error> {
    let (mut expired, mut answers) = (0, Vec::new());
    for shard in client.shards() {
        let answer = expire_in_shard(client, shard, max, &mut expired).await;
        answers.push((shard, answer));
    }
    let result = client.collect_available("expire tasks", answers);
    // A failed shard does not undo what was expired.
    if expired == 0 {
        result?;
    }
    Ok(expired)
}

async fn expire_in_shard(
    client: &ShardClient,
    shard: usize,
    max: usize,
    expired: &mut usize,
) -> Result<(), Error> {
    while *expired < max {
        let step = EXPIRE_STEP.min(max - *expired);
        let expire = client.call(shard, &client.scripts.expire, |call| {
            call.arg(step);
        });
        // Id and type of each task.
        let tasks: Vec<(String, String)> = expire
            .await
            .inspect_err(|_| client.publisher.publish_missed())?;
        *expired += tasks.len();
        let changes = tasks.iter().filter_map(|(id, task_type)| {
            let name = |text| Name::parse("name", text).ok();
            Some(Change::new(name(id)?, name(task_type)?, StateKind::Failed))
        });
        client.publisher.publish(changes.collect());
        if tasks.len() < step {
            break;
        }
    }
    Ok(())
}

/// Purges up to `max` tasks that ended at least `age` ago, and returns how many.
pub(super) async fn purge(client: &ShardClient, age: Duration, max: usize) -> Result<usize, Error> {
    let age = ms(age);
    client.keep_ended_ms.store(age, Ordering::Relaxed);
    let (mut purged, mut answers) = (0, Vec::new());
    for shard in client.shards() {
        let answer = purge_shard(client, shard, age, max, &mut purged).await;
        answers.push((shard, answer));
    }
    let result = client.collect_available("purge ended tasks", answers);
    // A failed shard does not undo what was purged.
    if purged == 0 {
        result?;
    }
    Ok(purged)
}

async fn purge_shard(
    client: &ShardClient,
    shard: usize,
    age: u64,
    max: usize,
    purged: &mut usize,
) -> Result<(), Error> {
    while *purged < max {
        let step = PURGE_STEP.min(max - *purged);
        let purge = client.call(shard, &client.scripts.purge, |call| {
            call.arg(age).arg(step);
        });
        let count: usize = purge.await?;
        *purged += count;
        if count > 0 {
            client.task_cache.clear();
        }
        if count < step {
            break;
        }
    }
    Ok(())
}

/// Runs a script on one task, and returns the state in which it found the task, and its type; `None` if
/// there is no such task.
async fn run_on_task(
    client: &ShardClient,
    script: &Script,
    id: &TaskId,
) -> Result<Option<(String, Name)>, Error> {
    let answer: Vec<String> = client
        .call(client.shard_of(id), script, |call| {
            call.arg(id.as_str());
        })
        .await
        .inspect_err(|_| client.publisher.publish_missed())?;
    let [state, task_type] = <[String; 2]>::try_from(answer).unwrap_or_default();
    if state.is_empty() {
        return Ok(None);
    }
    let task_type = Name::parse("task type", &task_type);
    let task_type = task_type.map_err(|_| corrupt(id.as_str(), "its type"))?;
    Ok(Some((state, task_type)))
}

fn parse_state(id: &TaskId, letter: &str) -> Result<StateKind, Error> {
    record::state(letter).ok_or_else(|| corrupt(id.as_str(), "its state"))
}

fn publish(
    client: &ShardClient,
    id: &TaskId,
    task_type: Name,
    state: StateKind,
    cancel_requested: bool,
) {
    let change = Change::new(id.clone(), task_type, state);
    client.publisher.publish(vec![Change {
        cancel_requested,
        ..change
    }]);
}
