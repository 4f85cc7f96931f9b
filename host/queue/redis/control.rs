//! Cancelling, requeuing and purging tasks.

use super::{errors::corrupt, record, scripts::ms, shard_client::ShardClient};
use crate::{Cancel, Change, Error, Requeue};
use hostel_task::{Route, StateKind, TaskId};
use redis::Script;
use std::{sync::atomic::Ordering, time::Duration};

/// How many tasks one script purges.
const PURGE_STEP: usize = 256;

pub(super) async fn cancel(client: &ShardClient, id: &TaskId) -> Result<Cancel, Error> {
    let Some((letter, route)) = run_on_task(client, &client.scripts.cancel, id).await? else {
        return Ok(Cancel::Unknown);
    };
    if letter == "k" {
        return Ok(Cancel::Requested);
    }
    Ok(match parse_state(id, &letter)? {
        StateKind::Pending => {
            publish(client, id, route, StateKind::Cancelled, false);
            Cancel::Cancelled
        }
        StateKind::Running => {
            publish(client, id, route, StateKind::Running, true);
            Cancel::Requested
        }
        ended => Cancel::Ended(ended),
    })
}

pub(super) async fn requeue(client: &ShardClient, id: &TaskId) -> Result<Requeue, Error> {
    let Some((letter, route)) = run_on_task(client, &client.scripts.requeue, id).await? else {
        return Ok(Requeue::Unknown);
    };
    // A task with a damaged record cannot be run.
    if letter == "d" {
        return Ok(Requeue::Refused(StateKind::Failed));
    }
    Ok(match parse_state(id, &letter)? {
        StateKind::Failed | StateKind::Cancelled => {
            publish(client, id, route, StateKind::Pending, false);
            Requeue::Requeued
        }
        other => Requeue::Refused(other),
    })
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

/// Runs a script on one task, and returns the state in which it found the task, and the task's route;
/// `None` if there is no such task.
async fn run_on_task(
    client: &ShardClient,
    script: &Script,
    id: &TaskId,
) -> Result<Option<(String, Route)>, Error> {
    let answer: Vec<String> = client
        .call(client.shard_of(id), script, |call| {
            call.arg(id.as_str());
        })
        .await
        .inspect_err(|_| client.publisher.publish_missed())?;
    let [state, route] = <[String; 2]>::try_from(answer).unwrap_or_default();
    if state.is_empty() {
        return Ok(None);
    }
    let route = Route::parse(&route).ok_or_else(|| corrupt(id.as_str(), "its route"))?;
    Ok(Some((state, route)))
}

fn parse_state(id: &TaskId, letter: &str) -> Result<StateKind, Error> {
    record::state(letter).ok_or_else(|| corrupt(id.as_str(), "its state"))
}

fn publish(
    client: &ShardClient,
    id: &TaskId,
    route: Route,
    state: StateKind,
    cancel_requested: bool,
) {
    let change = Change::new(id.clone(), route.task_type, state);
    client.publisher.publish(vec![Change {
        cancel_requested,
        ..change
    }]);
}
