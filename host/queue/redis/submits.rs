//! Submissions of many callers, gathered into few scripts: while one script runs, the next batch
//! grows. One such loop a shard. What makes a task durable, or a conflict, is the script's to say.

use super::{bulk::Bulk, core::Core, memory, pace::Pace, pieces::MAX_TASKS, row};
use crate::{BatchSize, Change, Error, Submitted};
use hostel_redis::Connection;
use hostel_task::{StateKind, Submission};
use redis::cmd;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    time::Instant,
};

/// How many calls may wait for the loop; further callers wait to be let in.
const BACKLOG: usize = 1024;

/// How long replicas get to confirm.
const REPLICATE: Duration = Duration::from_secs(2);

/// One caller's tasks, all of one shard.
pub(super) struct Submit {
    tasks: Vec<Submission>,
    reply: oneshot::Sender<Result<Vec<Submitted>, Error>>,
}

pub(super) type Sender = mpsc::Sender<Submit>;

/// Has tasks of one shard submitted.
pub(super) async fn submit(
    sender: &Sender,
    tasks: Vec<Submission>,
) -> Result<Vec<Submitted>, Error> {
    let (reply, answer) = oneshot::channel();
    let sent = sender.send(Submit { tasks, reply }).await;
    sent.map_err(|_| super::closed())?;
    // Dropped by a loop that failed with the call in its hands.
    answer.await.unwrap_or_else(|_| {
        Err(Error::Unavailable {
            reason: "the node failed while it submitted the task".into(),
            outcome_unknown: true,
        })
    })
}

/// Where a loop takes its calls from; the loop that follows one which failed has the same.
pub(super) type Receiver = Arc<Mutex<mpsc::Receiver<Submit>>>;

pub(super) fn channel() -> (Sender, Receiver) {
    let (sender, receiver) = mpsc::channel(BACKLOG);
    (sender, Arc::new(Mutex::new(receiver)))
}

/// Serves a shard until every sender is gone. `bulk` is the loop's own, so that waiting for replicas
/// holds up nobody else.
pub(super) async fn serve(core: Arc<Core>, shard: usize, bulk: Arc<Bulk>, receiver: Receiver) {
    let mut receiver = receiver.lock().await;
    let (mut waiting, pace) = (Vec::new(), Pace::default());
    let mut batch_size = BatchSize::default();
    while receiver.recv_many(&mut waiting, MAX_TASKS).await > 0 {
        let begun = Instant::now();
        pace.carried(begun, waiting.iter().map(|call| call.tasks.len()).sum());
        let mut calls = waiting.drain(..).peekable();
        while let Some(first) = calls.next() {
            let size = |call: &Submit| call.tasks.iter().map(size).sum::<usize>();
            let (mut tasks, mut bytes) = (first.tasks.len(), size(&first));
            let mut batch = vec![first];
            while let Some(next) = calls.next_if(|next| {
                tasks + next.tasks.len() <= MAX_TASKS && bytes + size(next) <= batch_size.bytes()
            }) {
                (tasks, bytes) = (tasks + next.tasks.len(), bytes + size(&next));
                batch.push(next);
            }
            let all = batch.iter().flat_map(|call| &call.tasks);
            let began = Instant::now();
            let done = write(&core, shard, &bulk, bytes, all).await;
            match &done {
                Ok(_) => batch_size.confirmed(bytes, began.elapsed()),
                Err(_) => batch_size.failed(),
            }
            answer(&core, batch, done);
        }
        pace.rest().await;
    }
}

/// What a submission weighs in a script, in bytes.
pub(super) fn size(task: &Submission) -> usize {
    let metadata = task.metadata().iter();
    let metadata: usize = metadata.map(|(key, value)| key.len() + value.len()).sum();
    task.payload().len() + metadata + 256
}

async fn write<'t>(
    core: &Core,
    shard: usize,
    bulk: &Bulk,
    bytes: usize,
    tasks: impl Iterator<Item = &'t Submission>,
) -> Result<Vec<Answer>, Error> {
    let replicas = core.settings.replicas;
    let mut connection = bulk.connection();
    let connection = &mut connection;
    let mut invocation = core.invocation(shard, &core.scripts.submit);
    let share = core.settings.max_open_tasks.div_ceil(core.tags.len());
    invocation
        .arg(share)
        .arg(core.settings.reserve_percent)
        .arg(u32::from(replicas > 0));
    for task in tasks {
        let lane = task.route().to_string();
        let head = row::write_head(task, &lane);
        invocation
            .arg(task.id().as_str())
            .arg(lane)
            .arg(head)
            .arg(&task.payload()[..]);
    }
    if replicas == 0 {
        let answer = invocation.invoke_async(connection);
        let answers: String = bulk.within(core, bytes, answer).await?;
        return read(&answers);
    }
    let tag = &core.tags[shard];
    // What replicas confirm is what came over the same connection; a cluster may change it unasked.
    let before = core.within(session(connection, tag)).await?;
    let answer = invocation.invoke_async(connection);
    let answers: String = bulk.within(core, bytes, answer).await?;
    let mut wait = cmd("WAIT");
    wait.arg(replicas).arg(REPLICATE.as_millis() as usize);
    let confirmed: u32 = core.within(connection.beside(tag, wait)).await?;
    let reason = if confirmed < replicas {
        format!("{confirmed} of {replicas} replicas confirmed the task (queue.replicas)")
    } else if core.within(session(connection, tag)).await? != before {
        "the connection was lost before replicas confirmed the task (queue.replicas)".into()
    } else {
        return read(&answers);
    };
    Err(Error::Unavailable {
        reason,
        outcome_unknown: true,
    })
}

/// Differs for every connection to a server.
async fn session(connection: &mut Connection, tag: &str) -> redis::RedisResult<u64> {
    let mut id = cmd("CLIENT");
    id.arg("ID");
    connection.beside(tag, id).await
}

/// What became of one task; `None` when there was no memory left for it.
type Answer = Option<Submitted>;

fn read(answers: &str) -> Result<Vec<Answer>, Error> {
    let submitted = |letter: u8| match letter {
        b'n' => Ok(Some(Submitted::Created)),
        b'e' => Ok(Some(Submitted::Existing)),
        b'c' => Ok(Some(Submitted::Conflict)),
        b'f' => Ok(Some(Submitted::Full)),
        b'm' => Ok(None),
        other => Err(Error::Corrupt(format!(
            "a submission was answered with {other}"
        ))),
    };
    answers.bytes().map(submitted).collect()
}

/// Tells the callers, and before them the watchers: who watches from an answer on is told nothing
/// older.
fn answer(core: &Core, batch: Vec<Submit>, done: Result<Vec<Answer>, Error>) {
    let mut answers = match done {
        Ok(answers) => answers.into_iter(),
        Err(error) => {
            core.publisher.publish_missed();
            for call in batch {
                let _ = call.reply.send(Err(error.clone()));
            }
            return;
        }
    };
    let shares: Vec<Vec<Answer>> = batch
        .iter()
        .map(|call| answers.by_ref().take(call.tasks.len()).collect())
        .collect();
    let told = batch.iter().zip(&shares).flat_map(|(call, share)| {
        let created = call.tasks.iter().zip(share);
        created.filter(|(_, answer)| **answer == Some(Submitted::Created))
    });
    let told = told.map(|(task, _)| {
        let (id, task_type) = (task.id().clone(), task.task_type().clone());
        Change::new(id, task_type, StateKind::Pending)
    });
    let told: Vec<Change> = told.collect();
    // A task of this id may have been forgotten since.
    core.recent.remove(told.iter().map(|change| &change.id));
    core.publisher.publish(told);
    for (call, share) in batch.into_iter().zip(shares) {
        let _ = call.reply.send(of_one_call(core, share));
    }
}

/// A call of which nothing was stored for want of memory is told why; one of which a part was, that the rest
/// found the queue full.
fn of_one_call(core: &Core, share: Vec<Answer>) -> Result<Vec<Submitted>, Error> {
    let refused = share.contains(&None) && !share.contains(&Some(Submitted::Created));
    match refused {
        true => Err(Error::Full {
            reason: memory::full(core.settings.reserve_percent),
        }),
        false => Ok(share
            .into_iter()
            .map(|it| it.unwrap_or(Submitted::Full))
            .collect()),
    }
}
