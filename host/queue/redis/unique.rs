//! Unique keys: of the tasks of a type with the same key, at most one is open. A key is in the shard that
//! its name hashes to, and its task in the shard of its id, so no script sees both. A submission
//!
//! 1. compares the task, as any submission does (`compare.lua`), and takes the time of its shard,
//! 2. reserves the key (`key_reserve.lua`). If another task has it, asks that task's shard for its state
//!    (`key_holders.lua`): the key is free if the task has ended and its time is over, or if the task was
//!    never stored,
//! 3. stores the task, which its shard refuses if too much time has passed since step 1, or if step 2 of
//!    another submission has found the task missing and declared the reservation void,
//! 4. confirms the reservation (`key_settle.lua`).
//!
//! With one shard, the script that stores a task does all of this.
//!
//! A node that fails between two steps leaves a reservation without a task, which is void after `key_holder::GRACE`, or
//! a task whose reservation is not confirmed, which the next submission finds by its state. Nothing gives a
//! key back when its task ends: the next submission does, or `key_sweep`.

use super::{
    batching::{reassemble, split_by_shard},
    entry::Entry,
    key_reservation::{ALLOWED, Fate, Key, Reserved, reserve_or_take, settle},
    options::{self, Reservation},
    queries,
    scripts::ms,
    shard_client::ShardClient,
    submit_batcher::{self, Answer, Sender, compare_in_shard},
};
use crate::{Error, Submitted};
use futures_util::future::try_join_all;
use hostel_task::{State, Submission, Task, TaskId};
use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

/// How long a submission waits for another one with its key that is on its way, and how often it looks.
const WAIT: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(10);

/// How often a requeue tries to reserve the key while others do.
const REQUEUE_TRIES: usize = 3;

pub(super) fn has_key(task: &Submission) -> bool {
    task.options()
        .is_some_and(|options| options.unique.is_some())
}

/// Returns the name of the key of a task and its time, as `options::unique_key` does.
fn key_of(task: &Submission) -> Option<(String, u64)> {
    options::unique_key(task.task_type(), task.options()?)
}

/// Submits tasks of which some have unique keys. The answers are those of submitting one after the other.
pub(super) async fn submit(
    client: &ShardClient,
    senders: &[Sender],
    tasks: Vec<Submission>,
) -> Result<Vec<Submitted>, Error> {
    let mut answers = vec![None; tasks.len()];
    let submitted = submit_all(client, senders, &tasks, &mut answers).await;
    let is_partial = answers.contains(&Some(Submitted::Created));
    submitted.map_err(|error| match is_partial {
        true => error.after_change(),
        false => error,
    })?;
    Ok(answers.into_iter().flatten().collect())
}

/// Submits tasks until each has an answer.
async fn submit_all(
    client: &ShardClient,
    senders: &[Sender],
    tasks: &[Submission],
    answers: &mut [Option<Submitted>],
) -> Result<(), Error> {
    let mut waits_since = None;
    loop {
        let round = next_round(tasks, answers);
        if round.is_empty() {
            return Ok(());
        }
        let answered = submit_round(client, senders, tasks, &round).await?;
        if answered.is_empty() {
            let since = *waits_since.get_or_insert_with(Instant::now);
            if since.elapsed() > WAIT {
                return Err(Error::Unavailable {
                    reason: "another task with the same unique key is being submitted".into(),
                    outcome_unknown: false,
                });
            }
            tokio::time::sleep(LOOK).await;
            continue;
        }
        waits_since = None;
        for (position, answer) in answered {
            answers[position] = Some(answer);
        }
    }
}

/// Returns the positions of tasks without an answer that can be submitted together: of those with the same
/// id or the same key, the first.
fn next_round(tasks: &[Submission], answers: &[Option<Submitted>]) -> Vec<usize> {
    let (mut ids, mut keys) = (HashSet::new(), HashSet::new());
    let open = tasks.iter().zip(answers).enumerate();
    let open = open.filter(|(_, (_, answer))| answer.is_none());
    let first = open.filter(|(_, (task, _))| {
        let is_first = key_of(task).is_none_or(|(key, _)| keys.insert(key));
        ids.insert(task.id()) && is_first
    });
    first.map(|(position, _)| position).collect()
}

/// Submits the tasks at these positions. Returns the answers; a task whose key may belong to another that is
/// on its way has none.
async fn submit_round(
    client: &ShardClient,
    senders: &[Sender],
    tasks: &[Submission],
    round: &[usize],
) -> Result<Vec<(usize, Submitted)>, Error> {
    if client.tags.len() == 1 {
        return submit_in_one_shard(client, senders, tasks, round).await;
    }
    let (keyed, plain): (Vec<usize>, Vec<usize>) = round
        .iter()
        .copied()
        .partition(|&position| has_key(&tasks[position]));
    let mut answered = Vec::new();
    let mut new = Vec::new();
    for (position, (now, answer)) in keyed.iter().zip(compare(client, tasks, &keyed).await?) {
        match answer {
            Some(answer) => answered.push((*position, answer)),
            None => new.push((*position, now)),
        }
    }
    let keys: Vec<Key> = new
        .iter()
        .filter_map(|&(position, _)| {
            let task = &tasks[position];
            Some(Key::new(client, task.id(), key_of(task)?))
        })
        .collect();
    let reserved = reserve_or_take(client, &keys).await?;
    let mut entries: Vec<(usize, Entry, Option<&Key>)> = plain
        .into_iter()
        .map(|position| (position, tasks[position].clone().into(), None))
        .collect();
    for (((position, now), key), reserved) in new.into_iter().zip(&keys).zip(reserved) {
        match reserved {
            Reserved::Yes => {
                let entry = Entry {
                    task: tasks[position].clone(),
                    reservation: Reservation::Until(now + ms(ALLOWED)),
                };
                entries.push((position, entry, Some(key)));
            }
            Reserved::Held(id) => answered.push((position, Submitted::Duplicate(id))),
            Reserved::Undecided => {}
        }
    }
    if entries.is_empty() {
        return Ok(answered);
    }
    // In the order of the call, which is the order of submission.
    entries.sort_unstable_by_key(|&(position, ..)| position);
    let batch = entries.iter().map(|(_, entry, _)| entry.clone()).collect();
    let stored = submit_batcher::submit_reserved(client, senders, batch).await?;
    let mut settled = Vec::new();
    for ((position, _, key), answer) in entries.into_iter().zip(stored) {
        let fate = match &answer {
            Answer::Submitted(Submitted::Created | Submitted::Existing) | Answer::HandedOff => {
                Some(Fate::Confirmed)
            }
            Answer::Submitted(_) | Answer::NoMemory => Some(Fate::Deleted),
            // Another submission has it by now, or the next round reserves it again.
            Answer::Held(_) | Answer::Void => None,
        };
        if let (Some(key), Some(fate)) = (key, fate) {
            settled.push((key.shard, key.name.clone(), key.token.clone(), fate));
        }
        answered.extend(answer.submitted().map(|answer| (position, answer)));
    }
    settle(client, &settled).await;
    Ok(answered)
}

/// Does the same where the shard of each task has its key: the script that stores it does all steps.
async fn submit_in_one_shard(
    client: &ShardClient,
    senders: &[Sender],
    tasks: &[Submission],
    round: &[usize],
) -> Result<Vec<(usize, Submitted)>, Error> {
    let batch = round.iter().map(|&position| Entry {
        task: tasks[position].clone(),
        reservation: Reservation::InScript,
    });
    let stored = submit_batcher::submit_reserved(client, senders, batch.collect()).await?;
    let answers = round.iter().zip(stored);
    let answers = answers.filter_map(|(&position, answer)| Some((position, answer.submitted()?)));
    Ok(answers.collect())
}

/// Compares tasks with those of their ids. Returns the time of the shard and the answer for each.
async fn compare(
    client: &ShardClient,
    tasks: &[Submission],
    positions: &[usize],
) -> Result<Vec<(u64, Option<Submitted>)>, Error> {
    let compared: Vec<&Submission> = positions.iter().map(|&at| &tasks[at]).collect();
    let parts = split_by_shard(client, &compared, |task| task.id(), |task| task.bytes());
    let parts = parts.into_iter().map(async |(shard, part)| {
        let of_part: Vec<&Submission> = part.iter().map(|&at| compared[at]).collect();
        let (now, answers) = compare_in_shard(client, shard, &of_part).await?;
        let answers = answers.into_iter().map(|answer| (now, answer));
        Ok::<Vec<_>, Error>(part.into_iter().zip(answers).collect())
    });
    reassemble(compared.len(), try_join_all(parts).await?)
}

/// A key that was reserved for a task to be requeued.
pub(super) struct RequeuedKey(Key);

impl RequeuedKey {
    /// Confirms that the task exists.
    pub async fn confirm(self, client: &ShardClient) {
        let Self(key) = self;
        let settled = (key.shard, key.name, key.token, Fate::Confirmed);
        settle(client, &[settled]).await;
    }
}

/// Returns the unique key of a failed or cancelled task, if it has one.
pub(super) async fn key_to_requeue(
    client: &ShardClient,
    id: &TaskId,
) -> Result<Option<(String, u64)>, Error> {
    let task = queries::without_payload(client, id).await;
    Ok(task.map_err(Error::as_read_error)?.and_then(key_of_ended))
}

/// Reserves the unique key of a task that is to be requeued, if no other task has it.
pub(super) async fn take_for_requeue(
    client: &ShardClient,
    id: &TaskId,
    key: (String, u64),
) -> Result<Option<RequeuedKey>, Error> {
    for _ in 0..REQUEUE_TRIES {
        let key = Key::new(client, id, key.clone());
        match reserve_or_take(client, std::slice::from_ref(&key)).await?[..] {
            [Reserved::Yes] => return Ok(Some(RequeuedKey(key))),
            [Reserved::Undecided] => tokio::time::sleep(LOOK).await,
            _ => return Ok(None),
        }
    }
    Ok(None)
}

/// Returns the key of a task, if it has failed or was cancelled.
fn key_of_ended(task: Task) -> Option<(String, u64)> {
    if !matches!(task.state, State::Failed { .. } | State::Cancelled { .. }) {
        return None;
    }
    let (name, _) = options::unique_key(&task.task_type, task.options.as_deref()?)?;
    // The time counts from the submission.
    Some((name, 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use hostel_task::{Name, SubmissionLimits, TaskOptions, Unique};

    #[test]
    fn tasks_with_one_id_or_key_are_submitted_one_after_the_other() {
        let task = |id: &str, key: Option<&str>| {
            let limits = SubmissionLimits {
                payload_bytes: 1,
                metadata_entries: 0,
                metadata_bytes: 0,
            };
            let name = |text| Name::parse("name", text).unwrap();
            let unique = key.map(|key| Unique {
                key: name(key),
                time: None,
            });
            let options = TaskOptions {
                unique,
                ..TaskOptions::default()
            };
            let task = Submission::new(id, "echo", Bytes::new(), Default::default(), &limits);
            task.unwrap().with(options)
        };
        let tasks = [
            task("a", Some("k")),
            task("b", Some("k")),
            task("b", None),
            task("c", Some("other")),
            task("d", None),
        ];
        let mut answers = vec![None; tasks.len()];
        assert_eq!(next_round(&tasks, &answers), [0, 3, 4]);
        for position in [0, 3, 4] {
            answers[position] = Some(Submitted::Created);
        }
        assert_eq!(next_round(&tasks, &answers), [1]);
        answers[1] = Some(Submitted::Existing);
        assert_eq!(next_round(&tasks, &answers), [2]);
    }
}
