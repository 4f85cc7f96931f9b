//! Renews leases and finishes attempts, many at a time. The outcome was decided in `task::transition`; the
//! script applies it if the token is still valid. If a shard fails, only its own tokens are unconfirmed.

use super::{
    attempts,
    batching::{reassemble_available, split_by_shard},
    record,
    scripts::ms,
    shard_client::ShardClient,
};
use crate::{Change, Error, Finish, Finished, Renew, Renewal, task_cache};
use futures_util::future::join_all;
use hostel_task::{Name, Outcome, StateKind, UnixMs};
use std::{sync::Arc, time::Duration};

pub(super) async fn renew(
    client: &ShardClient,
    held: &[Renew],
    ttl: Duration,
) -> Result<Vec<Renewal>, Error> {
    let ttl = ms(ttl);
    // What is cached of a task has no progress.
    let reported = held.iter().filter(|lease| lease.progress.is_some());
    client
        .task_cache
        .remove(reported.map(|lease| &lease.token.id));
    let renew = split_by_shard(client, held, |lease| &lease.token.id, |_| 1024).into_iter();
    let renew = renew.map(async |(shard, positions)| {
        let answers = client
            .call(shard, &client.scripts.renew, |call| {
                call.arg(ttl);
                for &position in &positions {
                    let Renew { token, progress } = &held[position];
                    call.arg(token.id.as_str()).arg(token.fence);
                    // Numbers and a text always serialize.
                    let progress = progress.as_ref().map(serde_json::to_vec);
                    call.arg(progress.and_then(Result::ok).unwrap_or_default());
                }
            })
            .await;
        let renewal = |letter: u8| match letter {
            b'h' => Renewal::Held,
            b'k' => Renewal::CancelRequested,
            _ => Renewal::Lost,
        };
        let renewals = answers.map(|answers: String| answers.bytes().map(renewal).collect());
        ((shard, positions), renewals)
    });
    let renewals = join_all(renew).await;
    reassemble_available(
        client,
        "renew leases",
        held.len(),
        renewals,
        Renewal::Unconfirmed,
    )
}

pub(super) async fn finish(client: &ShardClient, ended: &[Finish]) -> Result<Vec<Finished>, Error> {
    let finish =
        split_by_shard(client, ended, |finish| &finish.token.id, Finish::bytes).into_iter();
    let finish = finish.map(async |(shard, positions)| {
        let finished = finish_part(client, shard, &positions, ended).await;
        ((shard, positions), finished)
    });
    let finished = join_all(finish).await;
    reassemble_available(
        client,
        "finish attempts",
        ended.len(),
        finished,
        Finished::Unconfirmed,
    )
}

/// The state of a task after the call, in a capital letter if the outcome had been applied before, and its
/// type.
type Answer = (String, String);

async fn finish_part(
    client: &ShardClient,
    shard: usize,
    positions: &[usize],
    ended: &[Finish],
) -> Result<Vec<Finished>, Error> {
    let bytes = positions
        .iter()
        .map(|&position| ended[position].bytes())
        .sum();
    let (now, answers): (u64, Vec<Answer>) = client
        .call_with_bulk_args(shard, &client.scripts.finish, bytes, |call| {
            for &position in positions {
                let finish = &ended[position];
                let (letter, after) = match &finish.outcome {
                    Outcome::Completed { .. } => ("c", Duration::ZERO),
                    Outcome::Retry { after, .. } => ("p", *after),
                    Outcome::Failed { .. } => ("f", Duration::ZERO),
                    Outcome::Cancelled => ("x", Duration::ZERO),
                    Outcome::Released => ("b", Duration::ZERO),
                    Outcome::Lost { after, .. } => ("l", *after),
                };
                let token = &finish.token;
                call.arg(token.id.as_str()).arg(token.fence).arg(letter);
                call.arg(ms(after))
                    .arg(attempts::write_attempt(finish, &client.queue_id));
            }
        })
        .await
        .inspect_err(|_| client.publisher.publish_missed())?;
    let mut changes = Vec::with_capacity(positions.len());
    let mut finished = Vec::with_capacity(positions.len());
    let mut snapshots = Vec::with_capacity(positions.len());
    for (&position, answer) in positions.iter().zip(&answers) {
        let (finish, id) = (&ended[position], &ended[position].token.id);
        finished.push(match applied(answer) {
            // The event reader publishes this change.
            None if answer.0 == "d" => {
                snapshots.push((id.clone(), None));
                Finished::Corrupt
            }
            None => Finished::Stale,
            Some((state, task_type, is_repeated)) => {
                let known = client.task_cache.get(id).filter(|_| !is_repeated);
                let now = known.and_then(|known| task_cache::ended(&known, finish, UnixMs(now)));
                snapshots.push((id.clone(), now.map(Arc::new)));
                changes.push(Change::new(id.clone(), task_type, state));
                Finished::Applied
            }
        });
    }
    client.task_cache.update(&mut snapshots);
    client.publisher.publish(changes);
    Ok(finished)
}

/// Returns the state and the type of a task whose outcome was applied, and whether it had been before.
fn applied((letter, task_type): &Answer) -> Option<(StateKind, Name, bool)> {
    let state = record::state(letter.to_ascii_lowercase())?;
    let task_type = Name::parse("task type", task_type).ok()?;
    Some((state, task_type, letter.starts_with(char::is_uppercase)))
}

/// Fails leased tasks whose records are damaged. Each has its id, its fencing token and what is wrong.
pub(super) async fn fail_damaged(
    client: &ShardClient,
    shard: usize,
    damaged: &[(String, u64, String)],
) {
    if damaged.is_empty() {
        return;
    }
    let fail_damaged = client.call::<(u64, Vec<Answer>)>(shard, &client.scripts.finish, |call| {
        for (id, fence, why) in damaged {
            call.arg(id).arg(fence).arg("d").arg(0).arg(why);
        }
    });
    // If this fails, the leases expire and the tasks are found again.
    if let Err(error) = fail_damaged.await {
        tracing::debug!(shard, "cannot fail damaged tasks: {error}");
    }
}
