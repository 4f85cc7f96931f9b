//! Reserves unique keys, finds out whether the tasks that have them keep them, and settles reservations.
//! `unique` describes the steps.

use super::{
    batching::{reassemble, split_by, split_by_shard},
    key_holder::{Holder, HolderState, Verdict},
    scripts::ms,
    shard_client::ShardClient,
};
use crate::Error;
use futures_util::future::{join_all, try_join_all};
use hostel_task::TaskId;
use std::time::Duration;

/// How long after it was compared a task may be stored, by the clock of its shard.
pub(super) const ALLOWED: Duration = Duration::from_secs(8);

/// A unique key, and the task that is to have it.
pub(super) struct Key {
    /// Type and key.
    pub name: String,
    pub shard: usize,
    pub id: TaskId,
    /// Distinguishes this reservation from others.
    pub token: String,
    /// How long the task has the key at least, in milliseconds.
    pub time: u64,
}

impl Key {
    pub fn new(client: &ShardClient, id: &TaskId, (name, time): (String, u64)) -> Self {
        Self {
            shard: client.shard_of_text(&name),
            name,
            id: id.clone(),
            token: format!("{:x}", fastrand::u64(..)),
            time,
        }
    }
}

/// Whether a key could be reserved.
pub(super) enum Reserved {
    Yes,
    /// This task has it.
    Held(TaskId),
    /// Another task that may have it is on its way.
    Undecided,
}

/// Reserves keys, also those whose task has no claim any more.
pub(super) async fn reserve_or_take(
    client: &ShardClient,
    keys: &[Key],
) -> Result<Vec<Reserved>, Error> {
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

/// Decides for each named key whether its task keeps it. A task that does not, and is not on its way, can no
/// longer be stored with an earlier reservation.
pub(super) async fn verdicts(
    client: &ShardClient,
    held: &[(&str, &Holder)],
) -> Result<Vec<Verdict>, Error> {
    // Not asked where the answer makes no difference.
    let open = held.iter().filter(|(_, holder)| !holder.is_certain());
    let open: Vec<&(&str, &Holder)> = open.collect();
    let parts = split_by_shard(client, &open, |(_, holder)| &holder.id, |_| 0);
    let parts = parts.into_iter().map(async |(shard, part)| {
        let call = client.call(shard, &client.scripts.key_holders, |call| {
            call.arg(ms(ALLOWED));
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
pub(super) enum Fate {
    /// Its task is stored.
    Confirmed,
    /// Its task is not stored, or has no claim any more.
    Deleted,
    /// Its task keeps it, and is looked at again later.
    Kept,
}

/// Settles reservations, each given by shard, name and token. What fails is found later.
pub(super) async fn settle(client: &ShardClient, settled: &[(usize, String, String, Fate)]) {
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

#[cfg(test)]
mod tests {
    use super::{super::key_holder::GRACE, *};

    #[test]
    fn a_void_reservation_allows_nothing_beyond_the_grace_period() {
        assert!(ALLOWED < GRACE);
    }
}
