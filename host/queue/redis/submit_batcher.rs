//! Gathers the submissions of many callers into few scripts, one loop for each shard: while a script runs,
//! the next batch grows. The script decides which tasks are created and which conflict.

use super::{
    batching::MAX_TASKS,
    bulk::BulkConnection,
    coalescer::Coalescer,
    errors::closed,
    memory, record,
    shard_client::{CALL, ShardClient},
};
use crate::{BatchSize, Change, Error, Submitted};
use hostel_redis::Connection;
use hostel_task::{StateKind, Submission};
use redis::cmd;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    time::Instant,
};

/// How many calls may wait for the loop; further callers wait until there is room.
const BACKLOG: usize = 1024;

/// How long replicas may take to confirm a submission.
const REPLICATE: Duration = Duration::from_secs(2);

/// The tasks of one caller, all of one shard.
pub(super) struct Submit {
    tasks: Vec<Submission>,
    reply: oneshot::Sender<Result<Vec<Submitted>, Error>>,
}

pub(super) type Sender = mpsc::Sender<Submit>;

/// Submits tasks of one shard through its loop.
pub(super) async fn submit(
    sender: &Sender,
    tasks: Vec<Submission>,
) -> Result<Vec<Submitted>, Error> {
    let (reply, answer) = oneshot::channel();
    let sent = sender.send(Submit { tasks, reply }).await;
    sent.map_err(|_| closed())?;
    // The reply is dropped if the loop panics.
    answer.await.unwrap_or_else(|_| {
        Err(Error::Unavailable {
            reason: "the node failed while it submitted the task".into(),
            outcome_unknown: true,
        })
    })
}

/// The calls of a loop. A loop that is restarted continues with the same receiver.
pub(super) type Receiver = Arc<Mutex<mpsc::Receiver<Submit>>>;

pub(super) fn channel() -> (Sender, Receiver) {
    let (sender, receiver) = mpsc::channel(BACKLOG);
    (sender, Arc::new(Mutex::new(receiver)))
}

/// Submits the calls of a shard until every sender is gone. `bulk` is the loop's own connection, so that
/// waiting for replicas delays no other call.
pub(super) async fn serve(
    client: Arc<ShardClient>,
    shard: usize,
    bulk: Arc<BulkConnection>,
    receiver: Receiver,
) {
    let mut receiver = receiver.lock().await;
    let (mut waiting, coalescer) = (Vec::new(), Coalescer::default());
    let mut batch_size = BatchSize::default();
    while receiver.recv_many(&mut waiting, MAX_TASKS).await > 0 {
        let begun = Instant::now();
        coalescer.record(begun, waiting.iter().map(|call| call.tasks.len()).sum());
        let mut calls = waiting.drain(..).peekable();
        while let Some(first) = calls.next() {
            let size = |call: &Submit| call.tasks.iter().map(Submission::bytes).sum::<usize>();
            let (mut tasks, mut bytes) = (first.tasks.len(), size(&first));
            let mut batch = vec![first];
            while let Some(next) = calls.next_if(|next| {
                tasks + next.tasks.len() <= MAX_TASKS && bytes + size(next) <= batch_size.bytes()
            }) {
                (tasks, bytes) = (tasks + next.tasks.len(), bytes + size(&next));
                batch.push(next);
            }
            let tasks: Vec<&Submission> = batch.iter().flat_map(|call| &call.tasks).collect();
            let began = Instant::now();
            let done = write(&client, shard, &bulk, bytes, &tasks).await;
            match &done {
                Ok(_) => batch_size.confirmed(bytes, began.elapsed()),
                Err(_) => batch_size.failed(),
            }
            answer(&client, batch, done);
        }
        coalescer.wait().await;
    }
}

/// Runs the script that stores tasks, and waits for replicas if any are required.
async fn write(
    client: &ShardClient,
    shard: usize,
    bulk: &BulkConnection,
    bytes: usize,
    tasks: &[&Submission],
) -> Result<Vec<Answer>, Error> {
    let replicas = client.settings.replicas;
    let mut connection = bulk.connection();
    let answer = client.run(shard, &client.scripts.submit, connection.clone(), |call| {
        let max_open_tasks = client.settings.max_open_tasks;
        call.arg(max_open_tasks.div_ceil(client.tags.len()))
            .arg(client.settings.reserve_percent)
            .arg(u32::from(replicas > 0));
        for task in tasks {
            let route = task.route().to_string();
            let head = record::write_head(task, &route);
            call.arg(task.id().as_str())
                .arg(route)
                .arg(head)
                .arg(&task.payload()[..]);
        }
    });
    if replicas == 0 {
        let answers: String = bulk.within(CALL, bytes, answer).await?;
        return parse(&answers);
    }
    let tag = &client.tags[shard];
    // Replicas confirm what came over the same connection, which the client may replace in between.
    let before = client.within(connection_id(&mut connection, tag)).await?;
    let answers: String = bulk.within(CALL, bytes, answer).await?;
    let mut wait = cmd("WAIT");
    wait.arg(replicas).arg(REPLICATE.as_millis() as usize);
    let confirmation = async {
        let confirmed: u32 = client.within(connection.on_node_of_key(tag, wait)).await?;
        let after = client.within(connection_id(&mut connection, tag)).await?;
        Ok((confirmed, after))
    };
    let (confirmed, after) = confirmation.await.map_err(Error::after_change)?;
    let reason = if confirmed < replicas {
        format!("{confirmed} of {replicas} replicas confirmed the task (queue.replicas)")
    } else if after != before {
        "the connection was lost before replicas confirmed the task (queue.replicas)".into()
    } else {
        return parse(&answers);
    };
    Err(Error::Unavailable {
        reason,
        outcome_unknown: true,
    })
}

/// Compares a submission with the task of its id, outside of the loop.
pub(super) async fn compare(
    client: &ShardClient,
    task: &Submission,
) -> Result<Option<Submitted>, Error> {
    let (shard, script) = (client.shard_of(task.id()), &client.scripts.compare);
    let compare = client.call_with_bulk_args(shard, script, task.bytes(), |call| {
        call.arg(task.id().as_str())
            .arg(record::write_head(task, &task.route().to_string()))
            .arg(&task.payload()[..]);
    });
    let answer: String = compare.await?;
    Ok(parse(&answer)?.pop().flatten())
}

/// Returns the id of a connection, which is unique on its server.
async fn connection_id(connection: &mut Connection, tag: &str) -> redis::RedisResult<u64> {
    let mut id = cmd("CLIENT");
    id.arg("ID");
    connection.on_node_of_key(tag, id).await
}

/// The result for one task; `None` if there was no memory left for it.
type Answer = Option<Submitted>;

fn parse(answers: &str) -> Result<Vec<Answer>, Error> {
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

/// Publishes the new tasks, and then answers the callers: a watch that begins after an answer gets no
/// earlier change.
fn answer(client: &ShardClient, batch: Vec<Submit>, done: Result<Vec<Answer>, Error>) {
    let mut answers = match done {
        Ok(answers) => answers.into_iter(),
        Err(error) => {
            client.publisher.publish_missed();
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
    let created = batch.iter().zip(&shares).flat_map(|(call, share)| {
        let tasks = call.tasks.iter().zip(share);
        tasks.filter(|(_, answer)| **answer == Some(Submitted::Created))
    });
    let changes = created.map(|(task, _)| {
        let (id, task_type) = (task.id().clone(), task.task_type().clone());
        Change::new(id, task_type, StateKind::Pending)
    });
    let changes: Vec<Change> = changes.collect();
    // The cache may have a task of this id that was purged since.
    let ids = changes.iter().map(|change| &change.id);
    client.task_cache.remove(ids);
    client.publisher.publish(changes);
    for (call, share) in batch.into_iter().zip(shares) {
        let _ = call.reply.send(answer_of_call(client, share));
    }
}

/// Returns the answer to one call. A call of which no task was stored for lack of memory fails with the
/// reason; a call of which a part was stored finds the queue full for the rest.
fn answer_of_call(client: &ShardClient, share: Vec<Answer>) -> Result<Vec<Submitted>, Error> {
    if share.contains(&None) && !share.contains(&Some(Submitted::Created)) {
        return Err(Error::Full {
            reason: memory::full(client.settings.reserve_percent),
        });
    }
    let answers = share.into_iter();
    Ok(answers
        .map(|answer| answer.unwrap_or(Submitted::Full))
        .collect())
}
