//! What operators do to tasks (`scripts/act.lua`), and expiring and purging tasks.

use super::{errors::corrupt, options, record, scripts::ms, shard_client::ShardClient, unique};
use crate::{Change, Error};
use futures_util::future::{join_all, try_join_all};
use hostel_task::{Acted, Action, KeepTimes, Name, Retention, StateKind, TaskId};
use std::{collections::HashSet, sync::atomic::Ordering};

/// How many tasks one script acts on, purges, or expires.
const ACT_STEP: usize = 128;
const PURGE_STEP: usize = 256;
const EXPIRE_STEP: usize = 256;

/// Does the same to each task, and answers in their order.
pub(super) async fn act(
    client: &ShardClient,
    action: &Action,
    ids: &[TaskId],
) -> Result<Vec<Acted>, Error> {
    // The places of the ids in each shard.
    let mut places = vec![Vec::new(); client.tags.len()];
    for (place, id) in ids.iter().enumerate() {
        places[client.shard_of(id)].push(place);
    }
    let mut calls = Vec::with_capacity(places.len());
    for (shard, places) in places.iter().enumerate() {
        let ids: Vec<TaskId> = places.iter().map(|&place| ids[place].clone()).collect();
        calls.push(act_in_shard(client, shard, action, ids));
    }
    let mut acted = vec![Acted::Unknown; ids.len()];
    for (places, answers) in places.iter().zip(join_all(calls).await) {
        for (&place, answer) in places.iter().zip(answers?) {
            acted[place] = answer;
        }
    }
    Ok(acted)
}

async fn act_in_shard(
    client: &ShardClient,
    shard: usize,
    action: &Action,
    ids: Vec<TaskId>,
) -> Result<Vec<Acted>, Error> {
    let mut acted = Vec::with_capacity(ids.len());
    for ids in ids.chunks(ACT_STEP) {
        let keys = match action {
            Action::Requeue => keys_to_requeue(client, ids).await?,
            _ => Vec::new(),
        };
        let (letter, value) = arguments(action);
        let call = client.call(shard, &client.scripts.act, |call| {
            call.arg(letter).arg(value);
            ids.iter().for_each(|id| {
                call.arg(id.as_str());
            });
        });
        let answer: Result<Vec<String>, Error> = call.await;
        let answer = answer.inspect_err(|_| client.publisher.publish_missed())?;
        // The tasks exist, or the reservation of their keys ends by itself.
        join_all(keys.into_iter().map(|key| key.confirm(client))).await;
        if *action == Action::Purge {
            client.task_cache.remove(ids.iter());
        }
        let mut changes = Vec::new();
        for (id, stored) in ids.iter().zip(answer.chunks_exact(2)) {
            let answer = answer_to(action, id, &stored[0])?;
            acted.push(answer);
            changes.extend(change(action, id, answer, stored));
        }
        client.publisher.publish(changes);
    }
    Ok(acted)
}

/// Reserves the unique keys of tasks that are to be requeued, of those that have one that no other task has.
async fn keys_to_requeue(
    client: &ShardClient,
    ids: &[TaskId],
) -> Result<Vec<unique::RequeuedKey>, Error> {
    let keys = ids.iter().map(|id| unique::key_to_requeue(client, id));
    let keys = try_join_all(keys).await?;
    let (mut taken, mut seen) = (Vec::new(), HashSet::new());
    // One after the other, since two of them may have the same key: the first one has it.
    for (id, key) in ids.iter().zip(keys) {
        if let Some(key) = key
            && seen.insert(id)
        {
            taken.extend(unique::take_for_requeue(client, id, key).await?);
        }
    }
    Ok(taken)
}

/// Returns the letter of an action and its value, as `scripts/act.lua` reads them.
fn arguments(action: &Action) -> (&'static str, String) {
    match action {
        // A text always has a JSON form.
        Action::Cancel(reason) => {
            let reason = reason.as_deref().map(serde_json::to_string);
            ("k", reason.and_then(Result::ok).unwrap_or_default())
        }
        Action::Requeue => ("q", String::new()),
        Action::Purge => ("g", String::new()),
        Action::SetPriority(priority) => ("y", options::priority_mark(*priority).to_string()),
        Action::RunNow => ("n", String::new()),
    }
}

/// Returns what became of a task, by the letter that the script has returned.
fn answer_to(action: &Action, id: &TaskId, letter: &str) -> Result<Acted, Error> {
    Ok(match letter {
        "" => Acted::Unknown,
        // A task with a damaged record has failed.
        "d" => Acted::Refused(StateKind::Failed),
        "k" => Acted::Requested,
        "n" => Acted::Done,
        letter => match parse_state(id, letter)? {
            state if !action.is_for(state) => Acted::Refused(state),
            StateKind::Running => Acted::Requested,
            _ => Acted::Done,
        },
    })
}

/// Returns the change of a task for watchers, if it has entered a state or is to be cancelled. `stored` is the
/// letter that the script has returned, and the type.
fn change(action: &Action, id: &TaskId, answer: Acted, stored: &[String]) -> Option<Change> {
    let (letter, task_type) = (stored[0].as_str(), stored[1].as_str());
    let state = match (action, answer) {
        (Action::Cancel(_), Acted::Done) => StateKind::Cancelled,
        (Action::Cancel(_), Acted::Requested) if letter != "k" => StateKind::Running,
        (Action::Requeue, Acted::Done) => StateKind::Pending,
        (Action::RunNow, Acted::Done) if letter == "n" => StateKind::Pending,
        _ => return None,
    };
    let task_type = Name::parse("task type", task_type).ok()?;
    Some(Change {
        cancel_requested: state == StateKind::Running,
        ..Change::new(id.clone(), task_type, state)
    })
}

fn parse_state(id: &TaskId, letter: &str) -> Result<StateKind, Error> {
    record::state(letter).ok_or_else(|| corrupt(id.as_str(), "its state"))
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

/// Purges up to `max` tasks that were kept for long enough, and returns how many.
pub(super) async fn purge(
    client: &ShardClient,
    retention: &Retention,
    max: usize,
) -> Result<usize, Error> {
    let of_types = retention.of_types().map(|(_, times)| times);
    let all = of_types.chain([retention.general()]);
    let completed = all.map(|times| ms(times.completed)).min().unwrap_or(0);
    client.keep_completed_ms.store(completed, Ordering::Relaxed);
    let (mut purged, mut answers) = (0, Vec::new());
    for shard in client.shards() {
        let answer = purge_shard(client, shard, retention, max, &mut purged).await;
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
    retention: &Retention,
    max: usize,
    purged: &mut usize,
) -> Result<(), Error> {
    let in_ms = |times: &KeepTimes| -> Vec<u64> {
        [times.completed, times.failed, times.cancelled]
            .map(ms)
            .into()
    };
    while *purged < max {
        let step = PURGE_STEP.min(max - *purged);
        let purge = client.call(shard, &client.scripts.purge, |call| {
            call.arg(step).arg(in_ms(retention.general()));
            for (task_type, times) in retention.of_types() {
                call.arg(task_type.as_str()).arg(in_ms(times));
            }
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
