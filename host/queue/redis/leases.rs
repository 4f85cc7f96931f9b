//! Handing tasks out, from one shard after another. Who asked for work and was cancelled before the
//! answer came has not run anything: its tasks go back at once and the attempt is not counted. An
//! answer that was lost on its way is asked for again, and brings the same tasks.

use super::{
    core::{Core, ms},
    ending,
    pieces::MAX_TASKS,
    row,
    wants::{self, Told},
};
use crate::{Change, Error, Finish, LeaseRequest, LeaseToken, Leased, task_cache};
use bytes::Bytes;
use hostel_task::{Name, Outcome, StateKind, UnixMs};
use std::sync::Arc;
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
    told: Told,
}

/// How often a shard is told again what is wanted before it counts as one that cannot be told.
const TELL: usize = 3;

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
            executed_by: None,
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
    mut want: LeaseRequest,
    first: usize,
) -> Result<Handed, Error> {
    let mut handed = Handed {
        leased: Vec::new(),
        core: core.clone(),
        tracker,
    };
    let mut answers = Vec::new();
    for step in core.shards() {
        if want.max == 0 {
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
    want: &mut LeaseRequest,
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
fn fitting(want: &mut LeaseRequest, leased: Vec<Leased>) -> (Vec<Leased>, Vec<Leased>) {
    leased.into_iter().partition(|task| {
        let fits = (want.allow_suspect || !task.suspect) && want.take(&task.task_type);
        want.allow_suspect &= !(fits && task.suspect);
        fits
    })
}

/// Id, fence, attempt, head and payload of each task, when it was submitted and when this attempt
/// began, whether it is as it was submitted, and whether it is a suspect.
type Row = (String, u64, u32, Vec<u8>, Vec<u8>, u64, u64, u8, u8);

/// What a shard says to a call for work: its time, whether it has to be told what is wanted, and tasks.
type Answer = (u64, u8, Vec<Row>);

async fn from_shard(core: &Core, shard: usize, want: &LeaseRequest) -> Result<Vec<Leased>, Error> {
    let mut asked = core.calls[shard].0.lock().await;
    let asked = &mut *asked;
    let again = asked.unheard;
    asked.number += u64::from(!again);
    asked.unheard = true;
    let number = asked.number;
    let mut tries = 0;
    let (now, rows) = loop {
        let told = asked.told.tell(core, shard, want).await?;
        let (now, unknown, rows): Answer = core
            .call_for_bulk(shard, &core.scripts.lease, |call| {
                call.arg(number).arg(u8::from(again));
                call.arg(want.node.as_str())
                    .arg(ms(want.ttl))
                    .arg(want.max.min(MAX_TASKS));
                wants::say(call, told, want);
            })
            .await
            .inspect_err(|_| core.publisher.publish_missed())?;
        if unknown == 0 {
            break (now, rows);
        }
        asked.told.forget();
        tries += 1;
        if tries == TELL {
            return Err(forgets());
        }
    };
    asked.unheard = false;
    let mut leased = Vec::with_capacity(rows.len());
    let mut changes = Vec::with_capacity(rows.len());
    let mut snapshots = Vec::with_capacity(rows.len());
    let (now, mut damaged) = (UnixMs(now), Vec::new());
    core.note_time(now);
    for (id, fence, attempt, head, payload, submitted_at, begun, fresh, suspect) in rows {
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
            suspect: suspect == 1,
        };
        let times = [UnixMs(submitted_at), UnixMs(begun), now.after(want.ttl)];
        let first = (fresh == 1)
            .then(|| task_cache::first_leased(&task, head.target, want.node.clone(), times));
        snapshots.push((id, first.map(Arc::new)));
        leased.push(task);
    }
    core.recent.update(&mut snapshots);
    core.publisher.publish(changes);
    ending::condemn(core, shard, &damaged).await;
    Ok(leased)
}

/// Asks a shard about tasks that wait: when the first is due that there is room for, or which due one has
/// not the room. The time until then, and its type.
pub(super) async fn first(
    core: &Core,
    shard: usize,
    want: &LeaseRequest,
    passed: bool,
) -> Result<Option<(u64, Name)>, Error> {
    let mut asked = core.calls[shard].0.lock().await;
    for _ in 0..TELL {
        let told = asked.told.tell(core, shard, want).await?;
        let (unknown, due, task_type): (u8, String, String) = core
            .call(shard, &core.scripts.due, |call| {
                call.arg(if passed { "p" } else { "d" });
                wants::say(call, told, want);
            })
            .await?;
        if unknown == 0 {
            let due = due.parse().ok();
            return Ok(due.zip(Name::parse("task type", &task_type).ok()));
        }
        asked.told.forget();
    }
    Err(forgets())
}

fn forgets() -> Error {
    Error::Unavailable {
        reason: "Redis forgets at once what this node runs".into(),
        outcome_unknown: false,
    }
}
