//! Handing tasks out, from one shard after another. Who asked for work and was cancelled before the
//! answer came has not run anything: its tasks go back at once and the attempt is not counted. An
//! answer that was lost on its way is asked for again, and brings the same tasks.

use super::{
    core::{Core, ms},
    ending,
    pieces::MAX_TASKS,
    row,
};
use crate::{
    queue::{Change, Error, Finish, LeaseToken, Leased, Want, WantedType, recent},
    task::{Name, Outcome, StateKind, UnixMs},
};
use bytes::Bytes;
use std::{collections::BTreeMap, sync::Arc};
use tokio::{runtime::Handle, sync::Mutex};
use tokio_util::task::TaskTracker;

/// A shard's calls for work, one after the other. Each has a number, and keeps it until its answer has
/// been heard.
#[derive(Default)]
pub(super) struct Calls(Mutex<Call>);

#[derive(Default)]
struct Call {
    number: u64,
    unheard: bool,
}

/// Gives its tasks back when it is dropped before they were taken.
pub(super) struct Handed {
    leased: Vec<Leased>,
    core: Arc<Core>,
    tracker: TaskTracker,
}

impl Handed {
    pub fn len(&self) -> usize {
        self.leased.len()
    }

    pub fn take(mut self) -> Vec<Leased> {
        std::mem::take(&mut self.leased)
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        let leased = std::mem::take(&mut self.leased);
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        if leased.is_empty() {
            return;
        }
        let released = leased.into_iter().map(|leased| Finish {
            token: leased.token,
            outcome: Outcome::Released,
            ran: None,
        });
        let (released, core): (Vec<Finish>, _) = (released.collect(), self.core.clone());
        let release = async move {
            // Should this fail, the leases run out by themselves.
            if let Err(error) = ending::finish(&core, &released).await {
                tracing::debug!("cannot give tasks back: {error}");
            }
        };
        self.tracker.spawn_on(release, &runtime);
    }
}

/// Asks the shards in turn, beginning with `first`, until there is enough.
pub(super) async fn lease(
    core: Arc<Core>,
    tracker: TaskTracker,
    want: Want,
    first: usize,
) -> Result<Handed, Error> {
    let mut want = merged(want);
    let mut handed = Handed {
        leased: Vec::new(),
        core: core.clone(),
        tracker,
    };
    let mut answers = Vec::new();
    for step in core.shards() {
        if want.max == 0 || want.types.is_empty() {
            break;
        }
        let shard = (first + step) % core.tags.len();
        let answer = all_of_shard(&core, shard, &mut want, &mut handed).await;
        answers.push((shard, answer));
    }
    // What some gave is as good as ever, whatever became of the others.
    let worked = core.working("lease tasks", answers);
    if handed.leased.is_empty() {
        worked?;
    }
    Ok(handed)
}

/// Goes on while a script gives as many as one may.
async fn all_of_shard(
    core: &Arc<Core>,
    shard: usize,
    want: &mut Want,
    handed: &mut Handed,
) -> Result<(), Error> {
    loop {
        let leased = from_shard(core, shard, want).await?;
        let more = leased.len() == MAX_TASKS;
        let (fitting, beyond) = fitting(want, leased);
        handed.leased.extend(fitting);
        drop(Handed {
            leased: beyond,
            core: core.clone(),
            tracker: handed.tracker.clone(),
        });
        if !more || want.max == 0 {
            return Ok(());
        }
    }
}

/// Takes out of an answer what there is room for, and that room out of `want`. An answer that comes
/// again was asked for when there may have been more.
fn fitting(want: &mut Want, leased: Vec<Leased>) -> (Vec<Leased>, Vec<Leased>) {
    let Want { types, max, .. } = want;
    leased.into_iter().partition(|task| {
        let mut of_type = types.iter_mut();
        let wanted = of_type.find(|wanted| wanted.task_type == task.task_type);
        match wanted.filter(|wanted| wanted.max > 0 && *max > 0) {
            Some(wanted) => {
                wanted.max -= 1;
                *max -= 1;
                true
            }
            None => false,
        }
    })
}

/// Each type once.
fn merged(mut want: Want) -> Want {
    let mut types = BTreeMap::new();
    for wanted in want.types.drain(..).filter(|wanted| wanted.max > 0) {
        types
            .entry(wanted.task_type.clone())
            .and_modify(|before: &mut WantedType| before.max += wanted.max)
            .or_insert(wanted);
    }
    want.types = types.into_values().collect();
    want
}

/// Id, fence, attempt, head and payload of each task, when it was submitted and when this attempt
/// began, and whether it is as it was submitted.
type Row = (String, u64, u32, Vec<u8>, Vec<u8>, u64, u64, u8);

async fn from_shard(core: &Core, shard: usize, want: &Want) -> Result<Vec<Leased>, Error> {
    let shards = core.tags.len();
    let mut asked = core.calls[shard].0.lock().await;
    let again = asked.unheard;
    asked.number += u64::from(!again);
    asked.unheard = true;
    let number = asked.number;
    let (now, rows): (u64, Vec<Row>) = core
        .call(shard, &core.scripts.lease, |call| {
            call.arg(number).arg(u8::from(again));
            call.arg(want.node.as_str())
                .arg(ms(want.ttl))
                .arg(want.max.min(MAX_TASKS));
            for wanted in &want.types {
                let lanes = lanes(want, wanted);
                let share = share(wanted, shard, shards);
                call.arg(wanted.task_type.as_str())
                    .arg(wanted.max)
                    .arg(share);
                call.arg(lanes.len()).arg(lanes);
            }
        })
        .await
        .inspect_err(|_| core.publisher.lost())?;
    asked.unheard = false;
    drop(asked);
    let mut leased = Vec::with_capacity(rows.len());
    let mut changes = Vec::with_capacity(rows.len());
    let mut snapshots = Vec::with_capacity(rows.len());
    let (now, mut damaged) = (UnixMs(now), Vec::new());
    core.note_time(now);
    for (id, fence, attempt, head, payload, submitted_at, begun, fresh) in rows {
        let name = Name::parse("id", &id).map_err(|_| row::corrupt(&id, "its id"));
        let (id, head) = match (name, row::read_head(&id, &head)) {
            (Ok(id), Ok(head)) => (id, head),
            // The others of this answer are as good as ever.
            (Err(error), _) | (_, Err(error)) => {
                damaged.push((id, fence, error.to_string()));
                continue;
            }
        };
        let task_type = head.task_type.clone();
        changes.push(Change::new(id.clone(), task_type, StateKind::Running));
        let task = Leased {
            token: LeaseToken {
                id: id.clone(),
                fence,
            },
            task_type: head.task_type,
            payload: Bytes::from(payload),
            metadata: head.metadata,
            attempt,
        };
        let times = [UnixMs(submitted_at), UnixMs(begun), now.after(want.ttl)];
        let first = (fresh == 1)
            .then(|| recent::first_leased(&task, head.target, want.node.clone(), times));
        snapshots.push((id, first.map(Arc::new)));
        leased.push(task);
    }
    core.recent.update(&mut snapshots);
    core.publisher.publish(changes);
    ending::condemn(core, shard, &damaged).await;
    Ok(leased)
}

/// The lanes of a type, as scripts take them.
pub(super) fn lanes(want: &Want, wanted: &WantedType) -> Vec<String> {
    let lanes = want.lanes(&wanted.task_type);
    lanes.map(|lane| lane.to_string()).collect()
}

/// How many of a type may run in a shard, as scripts take it: -1 stands for any number.
pub(super) fn share(wanted: &WantedType, shard: usize, shards: usize) -> i64 {
    let max = wanted.max_in_cluster;
    let share = max.map(|max| share_of(max, shard, shards));
    share
        .and_then(|share| i64::try_from(share).ok())
        .unwrap_or(-1)
}

/// A limit over all nodes, divided among the shards: each script sees its own shard alone. No share
/// is zero, so that no shard's tasks wait for ever; with more shards than the limit says, as many
/// may run as there are shards.
fn share_of(max: usize, shard: usize, shards: usize) -> usize {
    (max / shards + usize::from(shard < max % shards)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_the_limit() {
        for (max, shards) in [(1, 1), (7, 3), (8, 4), (100, 7)] {
            let sum: usize = (0..shards).map(|shard| share_of(max, shard, shards)).sum();
            assert_eq!(sum, max);
        }
        assert_eq!(share_of(1, 2, 3), 1);
    }
}
