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
//! A node that fails between two steps leaves a reservation without a task, which is void after `GRACE`, or
//! a task whose reservation is not confirmed, which the next submission finds by its state. Nothing gives a
//! key back when its task ends: the next submission does, or `sweep`.

use super::{
    batching::{MAX_TASKS, reassemble, split_by, split_by_shard},
    options, record,
    shard_client::ShardClient,
    submit_batcher::{self, Answer, Entry, Sender, compare_in_shard},
};
use crate::{Error, Submitted};
use futures_util::future::{join_all, try_join_all};
use hostel_task::{Name, Route, StateKind, Submission, TaskId};
use redis::cmd;
use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

/// How long after it was compared a task may be stored, by the clock of its shard.
const ALLOWED: Duration = Duration::from_secs(8);

/// For how long a reserved key belongs to a task that is not stored yet.
const GRACE: Duration = Duration::from_secs(10);

/// How long a submission waits for another one with its key that is on its way, and how often it looks.
const WAIT: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(10);

/// How often a requeue tries to reserve the key while others do.
const REQUEUE_TRIES: usize = 3;

/// How many keys one script looks for, and how many such scripts one sweep runs on a shard.
const SWEEP: usize = 500;
const SWEEPS: usize = 4;

pub(super) fn has_key(task: &Submission) -> bool {
    task.options()
        .is_some_and(|options| options.unique.is_some())
}

/// A unique key, and the task that is to have it.
struct Key {
    /// Type and key.
    name: String,
    shard: usize,
    id: TaskId,
    /// Distinguishes this reservation from others.
    token: String,
    /// How long the task has the key at least, in milliseconds.
    time: u64,
}

impl Key {
    fn new(client: &ShardClient, id: &TaskId, (name, time): (String, u64)) -> Self {
        Self {
            shard: client.shard_of_text(&name),
            name,
            id: id.clone(),
            token: format!("{:x}", fastrand::u64(..)),
            time,
        }
    }
}

/// The task that has a key.
#[derive(Debug, Clone)]
struct Holder {
    id: TaskId,
    token: String,
    /// It is known to be stored, or to have been.
    is_stored: bool,
    /// The time for which it has the key at least is not over.
    is_in_time: bool,
    /// How long ago the key was reserved.
    age: Duration,
}

/// The state of the task that has a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HolderState {
    Open,
    Ended,
    /// There is no task of this id with the key.
    Unknown,
}

/// What is known of a key that another task has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// The other task keeps it.
    Held,
    /// The other task may be on its way.
    Undecided,
    /// The other task has no claim any more.
    Free,
}

impl Holder {
    fn parse(words: &[String]) -> Option<Self> {
        let [id, token, stored, in_time, age] = words else {
            return None;
        };
        Some(Self {
            id: Name::parse("task id", id).ok()?,
            token: token.clone(),
            is_stored: stored == "1",
            is_in_time: in_time == "1",
            age: Duration::from_millis(age.parse().ok()?),
        })
    }

    /// Whether its task may be on its way to its shard.
    fn is_young(&self) -> bool {
        !self.is_stored && self.age < GRACE
    }

    /// Whether it keeps the key whatever the state of its task is.
    fn is_certain(&self) -> bool {
        self.is_stored && self.is_in_time
    }

    fn verdict(&self, state: HolderState) -> Verdict {
        match state {
            _ if self.is_certain() => Verdict::Held,
            HolderState::Open => Verdict::Held,
            HolderState::Ended if self.is_in_time => Verdict::Held,
            HolderState::Unknown if self.is_young() => Verdict::Undecided,
            HolderState::Ended | HolderState::Unknown => Verdict::Free,
        }
    }
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
    submitted.map_err(|error| match error {
        Error::Unavailable { reason, .. } if is_partial => Error::Unavailable {
            reason,
            outcome_unknown: true,
        },
        other => other,
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
        let options = task.options().map(|options| &**options);
        let key = options::unique_key(task.task_type(), options);
        let is_first = key.is_none_or(|(key, _)| keys.insert(key));
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
            let key = options::unique_key(task.task_type(), task.options().map(|it| &**it))?;
            Some(Key::new(client, task.id(), key))
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
                    reserved_until: now + millis(ALLOWED),
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
            Answer::Submitted(Submitted::Created | Submitted::Existing) => Some(Fate::Confirmed),
            Answer::Submitted(_) | Answer::NoMemory => Some(Fate::Deleted),
            // Another submission has it by now, or the next round reserves it again.
            Answer::Void => None,
        };
        if let (Some(key), Some(fate)) = (key, fate) {
            settled.push((key.shard, key.name.clone(), key.token.clone(), fate));
        }
        answered.extend(answer.submitted().map(|answer| (position, answer)));
    }
    settle(client, &settled).await;
    Ok(answered)
}

fn millis(time: Duration) -> u64 {
    super::scripts::ms(time)
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

/// Whether a key could be reserved.
enum Reserved {
    Yes,
    /// This task has it.
    Held(TaskId),
    /// Another task that may have it is on its way.
    Undecided,
}

/// Reserves keys, also those whose task has no claim any more.
async fn reserve_or_take(client: &ShardClient, keys: &[Key]) -> Result<Vec<Reserved>, Error> {
    let all: Vec<(&Key, &str)> = keys.iter().map(|key| (key, "")).collect();
    let holders = reserve(client, &all).await?;
    let held = keys.iter().zip(&holders);
    let held = held.filter_map(|(key, holder)| Some((key, holder.as_ref()?)));
    let held: Vec<(&Key, &Holder)> = held.collect();
    let looks = held.iter().map(|(key, holder)| (&*key.name, *holder));
    let verdicts = verdicts(client, &looks.collect::<Vec<_>>()).await?;
    let free = held.iter().zip(&verdicts);
    let free = free.filter(|(_, verdict)| **verdict == Verdict::Free);
    let free: Vec<(&Key, &str)> = free
        .map(|((key, holder), _)| (*key, &*holder.token))
        .collect();
    let taken = reserve(client, &free).await?;
    // Another submission may have taken a free key first.
    let mut taken = taken.into_iter().map(|holder| match holder {
        None => Reserved::Yes,
        Some(_) => Reserved::Undecided,
    });
    let mut verdicts = verdicts.into_iter();
    let reserved = holders.iter().map(|holder| match holder {
        None => Reserved::Yes,
        Some(holder) => match verdicts.next() {
            Some(Verdict::Held) => Reserved::Held(holder.id.clone()),
            Some(Verdict::Free) => taken.next().unwrap_or(Reserved::Undecided),
            Some(Verdict::Undecided) | None => Reserved::Undecided,
        },
    });
    Ok(reserved.collect())
}

/// Reserves keys, each unless another task has it with another token than the given one. Returns the tasks
/// that keep the key from being reserved.
async fn reserve(
    client: &ShardClient,
    keys: &[(&Key, &str)],
) -> Result<Vec<Option<Holder>>, Error> {
    let parts = split_by(client.tags.len(), keys, |(key, _)| key.shard, |_| 0);
    let parts = parts.into_iter().map(async |(shard, part)| {
        let call = client.call(shard, &client.scripts.key_reserve, |call| {
            for &at in &part {
                let (key, replaced) = keys[at];
                call.arg(&key.name)
                    .arg(key.id.as_str())
                    .arg(&key.token)
                    .arg(key.time)
                    .arg(replaced);
            }
        });
        let answers: Vec<Vec<String>> = call.await?;
        let holders = answers.iter().map(|words| match &words[..] {
            [] => Ok(None),
            words => Holder::parse(words)
                .map(Some)
                .ok_or_else(|| Error::Corrupt("the holder of a unique key cannot be read".into())),
        });
        let holders: Result<Vec<_>, Error> = holders.collect();
        Ok::<Vec<_>, Error>(part.into_iter().zip(holders?).collect())
    });
    reassemble(keys.len(), try_join_all(parts).await?)
}

/// Decides for each named key whether its task keeps it. A task that is missing, and not on its way, can no
/// longer be stored with an earlier reservation.
async fn verdicts(client: &ShardClient, held: &[(&str, &Holder)]) -> Result<Vec<Verdict>, Error> {
    // Not asked where the answer makes no difference.
    let open = held.iter().filter(|(_, holder)| !holder.is_certain());
    let open: Vec<&(&str, &Holder)> = open.collect();
    let parts = split_by_shard(client, &open, |(_, holder)| &holder.id, |_| 0);
    let parts = parts.into_iter().map(async |(shard, part)| {
        let call = client.call(shard, &client.scripts.key_holders, |call| {
            call.arg(millis(ALLOWED));
            for &at in &part {
                let (name, holder) = open[at];
                call.arg(holder.id.as_str())
                    .arg(name)
                    .arg(u8::from(!holder.is_young()));
            }
        });
        let letters: String = call.await?;
        let states = letters.bytes().map(|letter| match letter {
            b'o' => HolderState::Open,
            b'e' => HolderState::Ended,
            _ => HolderState::Unknown,
        });
        Ok::<Vec<_>, Error>(part.into_iter().zip(states).collect())
    });
    let states = reassemble(open.len(), try_join_all(parts).await?)?;
    let mut states = states.into_iter();
    let verdicts = held.iter().map(|(_, holder)| {
        let state = if holder.is_certain() {
            None
        } else {
            states.next()
        };
        holder.verdict(state.unwrap_or(HolderState::Unknown))
    });
    Ok(verdicts.collect())
}

/// What becomes of a reservation.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// Its task is stored.
    Confirmed,
    /// Its task is not stored, or has no claim any more.
    Deleted,
    /// Its task keeps it, and is looked at again later.
    Kept,
}

/// Settles reservations, each given by shard, name and token. What fails is found later.
async fn settle(client: &ShardClient, settled: &[(usize, String, String, Fate)]) {
    let parts = split_by(client.tags.len(), settled, |(shard, ..)| *shard, |_| 0);
    let parts = parts.into_iter().map(async |(shard, part)| {
        let call = client.call::<()>(shard, &client.scripts.key_settle, |call| {
            for &at in &part {
                let (_, name, token, fate) = &settled[at];
                call.arg(name).arg(token).arg(match fate {
                    Fate::Confirmed => "c",
                    Fate::Deleted => "d",
                    Fate::Kept => "l",
                });
            }
        });
        if let Err(error) = call.await {
            tracing::debug!(shard, "cannot settle unique keys: {error}");
        }
    });
    join_all(parts).await;
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

/// Reserves the unique key of a failed or cancelled task, if it has one that no other task has.
pub(super) async fn take_for_requeue(
    client: &ShardClient,
    id: &TaskId,
) -> Result<Option<RequeuedKey>, Error> {
    let tag = &client.tags[client.shard_of(id)];
    let mut read = cmd("HMGET");
    read.arg(format!("{tag}:t:{id}")).arg(&["s", "l", "i"]);
    let stored: [Option<Vec<u8>>; 3] = match client.short(&read).await {
        Ok(stored) => stored,
        // The requeue itself reports a damaged record.
        Err(Error::Corrupt(_)) => return Ok(None),
        Err(error) => return Err(error.as_read_error()),
    };
    let Some(key) = key_of_ended(id, &stored) else {
        return Ok(None);
    };
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

/// Returns the key of a task, from its fields `s`, `l` and `i`, if it has failed or was cancelled.
fn key_of_ended(id: &TaskId, stored: &[Option<Vec<u8>>; 3]) -> Option<(String, u64)> {
    let [state, route, given] = stored;
    let state = record::state(state.as_ref()?)?;
    if !matches!(state, StateKind::Failed | StateKind::Cancelled) {
        return None;
    }
    let route = Route::parse(std::str::from_utf8(route.as_ref()?).ok()?)?;
    let options = options::read(id.as_str(), given.as_ref()?).ok()??;
    let (name, _) = options::unique_key(&route.task_type, Some(&options))?;
    // The time counts from the submission.
    Some((name, 0))
}

/// Deletes the keys of tasks that have no claim to them any more, a part of them with each call.
pub(super) async fn sweep(client: &ShardClient) {
    for shard in client.shards() {
        for _ in 0..SWEEPS {
            match sweep_shard(client, shard).await {
                Ok(SWEEP..) => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::debug!(shard, "cannot look for unused unique keys: {error}");
                    break;
                }
            }
        }
    }
}

async fn sweep_shard(client: &ShardClient, shard: usize) -> Result<usize, Error> {
    const { assert!(SWEEP <= MAX_TASKS) };
    let due = client.call(shard, &client.scripts.key_due, |call| {
        call.arg(SWEEP);
    });
    let due: Vec<Vec<String>> = due.await?;
    let holders = due.iter().filter_map(|words| {
        let (name, words) = words.split_first()?;
        Some((&**name, Holder::parse(words)?))
    });
    let holders: Vec<(&str, Holder)> = holders.collect();
    let looks: Vec<(&str, &Holder)> = holders.iter().map(|(name, it)| (*name, it)).collect();
    let verdicts = verdicts(client, &looks).await?;
    let settled = looks.iter().zip(verdicts).map(|((name, holder), verdict)| {
        let fate = match verdict {
            Verdict::Free => Fate::Deleted,
            Verdict::Held | Verdict::Undecided => Fate::Kept,
        };
        (shard, (*name).to_owned(), holder.token.clone(), fate)
    });
    settle(client, &settled.collect::<Vec<_>>()).await;
    Ok(due.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use hostel_task::{SubmissionLimits, TaskOptions, Unique};

    fn holder(is_stored: bool, is_in_time: bool, age: Duration) -> Holder {
        Holder {
            id: Name::parse("id", "a").unwrap(),
            token: "t".into(),
            is_stored,
            is_in_time,
            age,
        }
    }

    #[test]
    fn a_key_is_free_once_its_task_has_no_claim() {
        use HolderState::{Ended, Open, Unknown};
        use Verdict::{Free, Held, Undecided};
        for (stored, in_time, age, expected) in [
            (true, true, Duration::ZERO, [Held, Held, Held]),
            (true, false, Duration::ZERO, [Held, Free, Free]),
            // A task that is not known to be stored may be on its way at first.
            (false, true, Duration::ZERO, [Held, Held, Undecided]),
            (false, false, Duration::ZERO, [Held, Free, Undecided]),
            (false, true, GRACE, [Held, Held, Free]),
            (false, false, GRACE, [Held, Free, Free]),
        ] {
            let holder = holder(stored, in_time, age);
            let verdicts = [Open, Ended, Unknown].map(|state| holder.verdict(state));
            assert_eq!(verdicts, expected, "{holder:?}");
        }
    }

    #[test]
    fn a_void_reservation_allows_nothing_beyond_the_grace_period() {
        assert!(ALLOWED < GRACE);
    }

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
