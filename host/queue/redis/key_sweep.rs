//! Deletes the unique keys of tasks that have no claim to them any more, as the next submission with such a
//! key would: most keys are never used again.

use super::{
    batching::MAX_TASKS,
    key_holder::{Holder, Verdict},
    key_reservation::{Fate, settle, verdicts},
    shard_client::ShardClient,
};
use crate::Error;

/// How many keys one script looks for, and how many such scripts one sweep runs on a shard.
const SWEEP: usize = 500;
const SWEEPS: usize = 4;

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
