//! How leases are held and attempts ended, many at a time. The outcome was decided in
//! `task::transition`; the script applies it if the token still holds. A shard that fails leaves its own
//! tokens unconfirmed, and no others.

use super::{
    core::{Core, ms},
    pieces::{gathered_of_working, pieces},
    row,
};
use crate::{Change, Error, Finish, Finished, LeaseToken, Renewal, task_cache};
use futures_util::future::join_all;
use hostel_task::{Outcome, Route, UnixMs};
use std::{sync::Arc, time::Duration};

pub(super) async fn renew(
    core: &Core,
    held: &[LeaseToken],
    ttl: Duration,
) -> Result<Vec<Renewal>, Error> {
    let ttl = ms(ttl);
    let renew = pieces(core, held, |token| &token.id, |_| 256).into_iter();
    let renew = renew.map(async |(shard, places)| {
        let answers = core
            .call(shard, &core.scripts.renew, |call| {
                call.arg(ttl);
                for &place in &places {
                    call.arg(held[place].id.as_str()).arg(held[place].fence);
                }
            })
            .await;
        let renewal = |letter: u8| match letter {
            b'h' => Renewal::Held,
            b'k' => Renewal::CancelRequested,
            _ => Renewal::Lost,
        };
        let renewals = answers.map(|answers: String| answers.bytes().map(renewal).collect());
        ((shard, places), renewals)
    });
    let renewals = join_all(renew).await;
    gathered_of_working(
        core,
        "renew leases",
        held.len(),
        renewals,
        Renewal::Unconfirmed,
    )
}

pub(super) async fn finish(core: &Core, ended: &[Finish]) -> Result<Vec<Finished>, Error> {
    let finish = pieces(core, ended, |finish| &finish.token.id, size).into_iter();
    let finish = finish.map(async |(shard, places)| {
        let finished = finish_piece(core, shard, &places, ended).await;
        ((shard, places), finished)
    });
    let finished = join_all(finish).await;
    gathered_of_working(
        core,
        "end attempts",
        ended.len(),
        finished,
        Finished::Unconfirmed,
    )
}

/// The state that a task is in now, its lane, and whether its ending had been applied before.
type Answer = (String, String, String);

async fn finish_piece(
    core: &Core,
    shard: usize,
    places: &[usize],
    ended: &[Finish],
) -> Result<Vec<Finished>, Error> {
    let bytes = places.iter().map(|&place| size(&ended[place])).sum();
    let (now, answers): (u64, Vec<Answer>) = core
        .call_with_bulk(shard, &core.scripts.finish, bytes, |call| {
            for &place in places {
                let Finish {
                    token,
                    outcome,
                    executed_by,
                } = &ended[place];
                let (letter, after) = match outcome {
                    Outcome::Completed { .. } => ("c", Duration::ZERO),
                    Outcome::Retry { after, .. } => ("p", *after),
                    Outcome::Failed { .. } => ("f", Duration::ZERO),
                    Outcome::Cancelled => ("x", Duration::ZERO),
                    Outcome::Released => ("b", Duration::ZERO),
                    Outcome::Lost { after, .. } => ("l", *after),
                };
                call.arg(token.id.as_str()).arg(token.fence).arg(letter);
                call.arg(ms(after));
                call.arg(text(outcome))
                    .arg(row::write_executed_by(executed_by.as_ref()));
            }
        })
        .await
        .inspect_err(|_| core.publisher.publish_missed())?;
    let mut changes = Vec::with_capacity(places.len());
    let mut finished = Vec::with_capacity(places.len());
    let mut snapshots = Vec::with_capacity(places.len());
    for (&place, (letter, lane, before)) in places.iter().zip(answers) {
        let (finish, id) = (&ended[place], &ended[place].token.id);
        finished.push(match row::state(&letter).zip(Route::parse(&lane)) {
            // The reader of events tells of it.
            None if letter == "d" => {
                snapshots.push((id.clone(), None));
                Finished::Corrupt
            }
            None => Finished::Stale,
            Some((state, lane)) => {
                let known = core.recent.get(id).filter(|_| before.is_empty());
                let now = known.and_then(|known| task_cache::ended(&known, finish, UnixMs(now)));
                snapshots.push((id.clone(), now.map(Arc::new)));
                changes.push(Change::new(id.clone(), lane.task_type, state));
                Finished::Applied
            }
        });
    }
    core.recent.update(&mut snapshots);
    core.publisher.publish(changes);
    Ok(finished)
}

/// Has a task that was leased fail, for its record is damaged as `why` says.
pub(super) async fn condemn(core: &Core, shard: usize, damaged: &[(String, u64, String)]) {
    if damaged.is_empty() {
        return;
    }
    let condemn = core.call::<(u64, Vec<Answer>)>(shard, &core.scripts.finish, |call| {
        for (id, fence, why) in damaged {
            call.arg(id).arg(fence).arg("d").arg(0).arg(why).arg("");
        }
    });
    // Should this fail, their leases run out, and they are found again.
    if let Err(error) = condemn.await {
        tracing::debug!(shard, "cannot end damaged tasks: {error}");
    }
}

/// What an ending weighs in a script, in bytes.
fn size(finish: &Finish) -> usize {
    512 + text(&finish.outcome).len()
}

/// What the outcome leaves with the task.
fn text(outcome: &Outcome) -> &[u8] {
    match outcome {
        Outcome::Completed { result } => result,
        Outcome::Retry { error, .. } | Outcome::Lost { error, .. } | Outcome::Failed { error } => {
            error.as_bytes()
        }
        Outcome::Cancelled | Outcome::Released => b"",
    }
}
