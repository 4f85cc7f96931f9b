//! How leases are held and attempts ended, many at a time. The outcome was decided in
//! `task::transition`; the script applies it if the token still holds.

use super::{
    core::{Core, ms},
    pieces::{gathered, pieces},
    row,
};
use crate::{
    queue::{Change, Error, Finish, Finished, LeaseToken, Renewal, recent},
    task::{Lane, Outcome, UnixMs},
};
use futures_util::future::try_join_all;
use std::{sync::Arc, time::Duration};

pub(super) async fn renew(
    core: &Core,
    held: &[LeaseToken],
    ttl: Duration,
) -> Result<Vec<Renewal>, Error> {
    let ttl = ms(ttl);
    let renew = pieces(core, held, |token| &token.id, |_| 256).into_iter();
    let renew = renew.map(async |(shard, places)| {
        let answers: String = core
            .call(shard, &core.scripts.renew, |call| {
                call.arg(ttl);
                for &place in &places {
                    call.arg(held[place].id.as_str()).arg(held[place].fence);
                }
            })
            .await?;
        let renewal = |letter: u8| match letter {
            b'h' => Renewal::Held,
            b'k' => Renewal::CancelAsked,
            _ => Renewal::Lost,
        };
        let renewals = answers.bytes().map(renewal);
        Ok::<Vec<_>, Error>(places.into_iter().zip(renewals).collect())
    });
    gathered(held.len(), try_join_all(renew).await?)
}

pub(super) async fn finish(core: &Core, ended: &[Finish]) -> Result<Vec<Finished>, Error> {
    let size = |finish: &Finish| 512 + text(&finish.outcome).len();
    let finish = pieces(core, ended, |finish| &finish.token.id, size).into_iter();
    let finish = finish.map(async |(shard, places)| {
        let bytes = places.iter().map(|&place| size(&ended[place])).sum();
        let (now, answers): (u64, Vec<(String, String)>) = core
            .call_with_bulk(shard, &core.scripts.finish, bytes, |call| {
                for &place in &places {
                    let Finish {
                        token,
                        outcome,
                        ran,
                    } = &ended[place];
                    let (letter, after) = match outcome {
                        Outcome::Completed { .. } => ("c", Duration::ZERO),
                        Outcome::Retry { after, .. } => ("p", *after),
                        Outcome::Failed { .. } => ("f", Duration::ZERO),
                        Outcome::Cancelled => ("x", Duration::ZERO),
                        Outcome::Released => ("b", Duration::ZERO),
                    };
                    call.arg(token.id.as_str()).arg(token.fence).arg(letter);
                    call.arg(ms(after));
                    call.arg(text(outcome)).arg(row::write_ran(ran.as_ref()));
                }
            })
            .await
            .inspect_err(|_| core.publisher.lost())?;
        let mut changes = Vec::with_capacity(places.len());
        let mut finished = Vec::with_capacity(places.len());
        let mut snapshots = Vec::with_capacity(places.len());
        for (place, (letter, lane)) in places.into_iter().zip(answers) {
            let task = row::state(letter).zip(Lane::parse(&lane));
            if task.is_some() {
                let (finish, id) = (&ended[place], &ended[place].token.id);
                let before = core.recent.get(id);
                let now = before.and_then(|before| recent::ended(&before, finish, UnixMs(now)));
                snapshots.push((id.clone(), now.map(Arc::new)));
            }
            finished.push((
                place,
                match task {
                    Some(_) => Finished::Applied,
                    None => Finished::Stale,
                },
            ));
            changes.extend(task.map(|(state, lane)| {
                let id = ended[place].token.id.clone();
                Change::new(id, lane.task_type, state)
            }));
        }
        core.recent.update(&mut snapshots);
        core.publisher.publish(changes);
        Ok::<_, Error>(finished)
    });
    gathered(ended.len(), try_join_all(finish).await?)
}

/// What the outcome leaves with the task.
fn text(outcome: &Outcome) -> &[u8] {
    match outcome {
        Outcome::Completed { result } => result,
        Outcome::Retry { error, .. } | Outcome::Failed { error } => error.as_bytes(),
        Outcome::Cancelled | Outcome::Released => b"",
    }
}
