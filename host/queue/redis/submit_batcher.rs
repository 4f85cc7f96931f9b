//! Gathers the submissions of many callers into few scripts, one loop for each shard: while a script runs,
//! the next batch grows. The script decides which tasks are created and which conflict, and leases new tasks
//! to the request that waits for them (`offers`).

use super::{
    attempts::begun_at,
    batching::{MAX_TASKS, reassemble, split_by_shard},
    bulk::BulkConnection,
    coalescer::Coalescer,
    entry::{Entry, are_simple},
    errors::closed,
    memory,
    offers::{self, Offer},
    record,
    scripts::ms,
    shard_client::{CALL, ShardClient},
};
use crate::{BatchSize, Change, Error, Submitted, task_cache};
use futures_util::future::try_join_all;
use hostel_redis::Connection;
use hostel_task::{Name, StateKind, Submission, TaskId, UnixMs};
use redis::cmd;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    time::Instant,
};

/// How many calls may wait for the loop; further callers wait until there is room.
const BACKLOG: usize = 1024;

/// The bytes of a record and its entries in the sets, without id and content.
const RECORD_BYTES: usize = 512;

/// How long replicas may take to confirm a submission.
const REPLICATE: Duration = Duration::from_secs(2);

/// The tasks of one caller, all of one shard.
pub(super) struct Submit {
    entries: Vec<Entry>,
    reply: oneshot::Sender<Result<Vec<Answer>, Error>>,
}

pub(super) type Sender = mpsc::Sender<Submit>;

/// Submits tasks, none of which has a unique key.
pub(super) async fn submit_to_shards(
    client: &ShardClient,
    senders: &[Sender],
    entries: Vec<Entry>,
) -> Result<Vec<Submitted>, Error> {
    let answers = submit_reserved(client, senders, entries).await?;
    let missing = || Error::Corrupt("a submission without a unique key was refused for it".into());
    let answers = answers.into_iter().map(Answer::submitted);
    answers.collect::<Option<Vec<_>>>().ok_or_else(missing)
}

/// Submits tasks, and returns an answer for each, in their order.
pub(super) async fn submit_reserved(
    client: &ShardClient,
    senders: &[Sender],
    entries: Vec<Entry>,
) -> Result<Vec<Answer>, Error> {
    // Most calls bring one task.
    if let [entry] = &entries[..] {
        let shard = client.shard_of(entry.task.id());
        return submit(&senders[shard], entries).await;
    }
    let parts = split_by_shard(
        client,
        &entries,
        |entry| entry.task.id(),
        |entry| entry.task.bytes(),
    );
    let submit = parts.into_iter().map(|(shard, positions)| {
        // Payloads are shared, so clones are cheap.
        let part = positions.iter().map(|&position| entries[position].clone());
        let (part, sender) = (part.collect(), &senders[shard]);
        async move {
            let answers = submit(sender, part).await?;
            Ok::<Vec<_>, Error>(positions.into_iter().zip(answers).collect())
        }
    });
    reassemble(entries.len(), try_join_all(submit).await?)
}

/// Submits tasks of one shard through its loop.
async fn submit(sender: &Sender, entries: Vec<Entry>) -> Result<Vec<Answer>, Error> {
    let (reply, answer) = oneshot::channel();
    let sent = sender.send(Submit { entries, reply }).await;
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
        coalescer.record(begun, waiting.iter().map(|call| call.entries.len()).sum());
        let mut calls = waiting.drain(..).peekable();
        while let Some(first) = calls.next() {
            let size = |call: &Submit| {
                let bytes = call.entries.iter().map(|entry| entry.task.bytes());
                bytes.sum::<usize>()
            };
            let (mut tasks, mut bytes) = (first.entries.len(), size(&first));
            let mut batch = vec![first];
            while let Some(next) = calls.next_if(|next| {
                tasks + next.entries.len() <= MAX_TASKS && bytes + size(next) <= batch_size.bytes()
            }) {
                (tasks, bytes) = (tasks + next.entries.len(), bytes + size(&next));
                batch.push(next);
            }
            let entries: Vec<&Entry> = batch.iter().flat_map(|call| &call.entries).collect();
            let (began, offer) = (Instant::now(), client.offers.take());
            let done = write(&client, shard, &bulk, &entries, offer.as_ref()).await;
            match &done {
                Ok(_) => batch_size.confirmed(bytes, began.elapsed()),
                Err(_) => batch_size.failed(),
            }
            // If this failed, the offer is dropped: the worker leases by itself.
            let done = done.map(|stored| publish(&client, &entries, stored, offer));
            answer(&client, batch, done);
        }
        coalescer.wait().await;
    }
}

/// What a script did with a batch.
struct Stored {
    /// The time of the shard.
    now: UnixMs,
    /// The fencing token of the tasks that were handed off.
    fence: u64,
    answers: Vec<Answer>,
}

/// Runs the script that stores tasks, and waits for replicas if any are required.
async fn write(
    client: &ShardClient,
    shard: usize,
    bulk: &BulkConnection,
    entries: &[&Entry],
    offer: Option<&Offer>,
) -> Result<Stored, Error> {
    let replicas = client.settings.replicas;
    let mut connection = bulk.connection();
    let contents = entries.iter().map(|Entry { task, .. }| {
        let route = task.route().to_string();
        let content = record::write_content(task, &route);
        (route, content)
    });
    let contents: Vec<(String, Vec<u8>)> = contents.collect();
    let fixed = |entry: &&Entry| RECORD_BYTES + entry.task.id().as_str().len();
    let sizes = contents.iter().map(|(_, content)| content.len());
    let bytes = sizes.sum::<usize>() + entries.iter().map(fixed).sum::<usize>();
    let fitting = offer.map(|offer| offer.fitting(entries));
    let answer = client.run(shard, &client.scripts.submit, connection.clone(), |call| {
        let max_open_tasks = client.settings.max_open_tasks;
        call.arg(max_open_tasks.div_ceil(client.tags.len()))
            .arg(client.settings.reserve_percent)
            .arg(u32::from(replicas > 0))
            .arg(u8::from(are_simple(entries)))
            .arg(bytes)
            .arg(offer.map_or("", |offer| offer.request.node.as_str()))
            .arg(offer.map_or(0, |offer| ms(offer.request.ttl)));
        let mut last_route = "";
        for (at, (entry, (route, content))) in entries.iter().zip(&contents).enumerate() {
            let fits = fitting.as_ref().is_some_and(|fitting| fitting[at]);
            let route = route.as_str();
            call.arg(entry.task.id().as_str())
                .arg(if route == last_route { "" } else { route })
                .arg(entry.asks(fits))
                .arg(&content[..]);
            last_route = route;
        }
    });
    if replicas == 0 {
        return parse(bulk.within(CALL, bytes, answer).await?);
    }
    let tag = &client.tags[shard];
    // Replicas confirm what came over the same connection, which the client may replace in between.
    let before = client.within(connection_id(&mut connection, tag)).await?;
    let answers = bulk.within(CALL, bytes, answer).await?;
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
        return parse(answers);
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
    let shard = client.shard_of(task.id());
    let (_, mut answers) = compare_in_shard(client, shard, &[task]).await?;
    Ok(answers.pop().flatten())
}

/// Compares submissions with the tasks of their ids in a shard: `None` for each without one. Returns the
/// time of the shard as well.
pub(super) async fn compare_in_shard(
    client: &ShardClient,
    shard: usize,
    tasks: &[&Submission],
) -> Result<(u64, Vec<Option<Submitted>>), Error> {
    let bytes = tasks.iter().map(|task| task.bytes()).sum();
    let compare = client.call_with_bulk_args(shard, &client.scripts.compare, bytes, |call| {
        for task in tasks {
            let content = record::write_content(task, &task.route().to_string());
            call.arg(task.id().as_str()).arg(content);
        }
    });
    let (now, answers): (u64, String) = compare.await?;
    let compared = |letter: u8| match letter {
        b'u' => Ok(None),
        letter => Ok(parse_letter(letter)?.submitted()),
    };
    let answers: Result<Vec<_>, Error> = answers.bytes().map(compared).collect();
    Ok((now, answers?))
}

/// Returns the id of a connection, which is unique on its server.
async fn connection_id(connection: &mut Connection, tag: &str) -> redis::RedisResult<u64> {
    let mut id = cmd("CLIENT");
    id.arg("ID");
    connection.on_node_of_key(tag, id).await
}

/// The result for one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Submitted(Submitted),
    /// It was stored, and leased to the request that waits for tasks.
    HandedOff,
    /// There was no memory left for it.
    NoMemory,
    /// Another task has its unique key.
    Held(TaskId),
    /// The reservation of its unique key does not hold any more, or another task that may have the key is on
    /// its way.
    Void,
}

impl Answer {
    /// Returns the answer for the caller; `None` if the key has to be reserved again.
    pub fn submitted(self) -> Option<Submitted> {
        match self {
            Self::Submitted(submitted) => Some(submitted),
            Self::HandedOff => Some(Submitted::Created),
            // Only a part of its call was stored.
            Self::NoMemory => Some(Submitted::Full),
            Self::Held(id) => Some(Submitted::Duplicate(id)),
            Self::Void => None,
        }
    }

    fn is_created(&self) -> bool {
        matches!(self, Self::Submitted(Submitted::Created) | Self::HandedOff)
    }
}

/// The time, the fencing token of what was handed off, a letter for each task, and the ids of the tasks that
/// have the keys of others.
type ScriptAnswer = (u64, u64, String, Vec<String>);

fn parse((now, fence, letters, holders): ScriptAnswer) -> Result<Stored, Error> {
    let mut holders = holders.iter();
    let answer = |letter: u8| match letter {
        b'u' => {
            let holder = holders
                .next()
                .and_then(|id| Name::parse("task id", id).ok());
            let missing = || Error::Corrupt("the holder of a unique key cannot be read".into());
            holder.map(Answer::Held).ok_or_else(missing)
        }
        letter => parse_letter(letter),
    };
    let answers: Result<Vec<Answer>, Error> = letters.bytes().map(answer).collect();
    Ok(Stored {
        now: UnixMs(now),
        fence,
        answers: answers?,
    })
}

fn parse_letter(letter: u8) -> Result<Answer, Error> {
    Ok(match letter {
        b'n' => Answer::Submitted(Submitted::Created),
        b'r' => Answer::HandedOff,
        b'e' => Answer::Submitted(Submitted::Existing),
        b'c' => Answer::Submitted(Submitted::Conflict),
        b'f' => Answer::Submitted(Submitted::Full),
        b'm' => Answer::NoMemory,
        b'v' => Answer::Void,
        other => {
            let reason = format!("a submission was answered with {other}");
            return Err(Error::Corrupt(reason));
        }
    })
}

/// Publishes the new tasks, and delivers those that were handed off. Returns the answers.
fn publish(
    client: &ShardClient,
    entries: &[&Entry],
    stored: Stored,
    offer: Option<Offer>,
) -> Vec<Answer> {
    let (mut changes, mut snapshots, mut leased) = (Vec::new(), Vec::new(), Vec::new());
    for (entry, answer) in entries.iter().zip(&stored.answers) {
        let id = entry.task.id();
        let change = |state| Change::new(id.clone(), entry.task.task_type().clone(), state);
        match (answer, &offer) {
            (Answer::HandedOff, Some(offer)) => {
                let (task, node) = (offers::leased(entry, stored.fence), &offer.request.node);
                let begun = begun_at(stored.fence);
                let times = [stored.now, begun, begun.after(offer.request.ttl)];
                let target = entry.task.target().clone();
                let running = task_cache::first_leased(&task, target, Name::clone(node), times);
                snapshots.push((id.clone(), Some(Arc::new(running))));
                changes.push(change(StateKind::Running));
                leased.push(task);
            }
            (answer, _) if answer.is_created() => {
                // The cache may have a task of this id that was purged since.
                snapshots.push((id.clone(), None));
                changes.push(change(StateKind::Pending));
            }
            _ => {}
        }
    }
    client.task_cache.update(&mut snapshots);
    client.publisher.publish(changes);
    match offer {
        Some(offer) if leased.is_empty() => client.offers.put_back(offer),
        Some(Offer { receiver, .. }) => receiver.deliver(leased),
        None => {}
    }
    stored.answers
}

/// Answers the callers. Changes are published before: a watch that begins after an answer gets no earlier
/// change.
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
    for call in batch {
        let share = answers.by_ref().take(call.entries.len()).collect();
        let _ = call.reply.send(answer_of_call(client, share));
    }
}

/// Returns the answer to one call. A call of which no task was stored for lack of memory fails with the
/// reason; a call of which a part was stored finds the queue full for the rest.
fn answer_of_call(client: &ShardClient, share: Vec<Answer>) -> Result<Vec<Answer>, Error> {
    if share.contains(&Answer::NoMemory) && !share.iter().any(Answer::is_created) {
        return Err(Error::Full {
            reason: memory::full(client.settings.reserve_percent),
        });
    }
    Ok(share)
}
