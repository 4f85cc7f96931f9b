//! Reads the changes that other queues make in a shard, from its stream of events. Each reader has its own
//! connection, since a read waits at the server. This queue's own changes are published by the call that
//! makes them.

use super::{
    coalescer::Coalescer,
    event::{self, DAMAGED},
    faults::CORRUPT,
    shard_client::ShardClient,
};
use crate::Change;
use hostel_backoff::Backoff;
use hostel_redis::redirection;
use hostel_task::StateKind;
use redis::{FromRedisValue, RedisError, RedisResult, Value, aio::MultiplexedConnection, cmd};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{oneshot, watch},
    time::Instant,
};

/// How long a read waits at the server.
const BLOCK: Duration = Duration::from_secs(5);

/// The most events of one read. A reader that gets as many has fallen behind.
const READ: usize = 256;

/// The delay before reconnecting, at first and at most.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// How many failures in a row health shows. A lost connection alone causes fewer.
const FAILURES: u32 = 5;

/// The rights that an ACL must give, as an error names them.
const NEEDS: &str = "XREAD and XREVRANGE on the keys under queue.prefix";

/// Reads the events of one shard.
pub(super) struct EventReader {
    client: Arc<ShardClient>,
    shard: usize,
    stream: String,
    /// How many attempts have failed since events were last read.
    failures: u32,
    /// The id of the last event that was read.
    last: Option<String>,
    redirected: Option<(String, u16)>,
    coalescer: Coalescer,
    /// Signals another store, in which the last id means nothing.
    losses: watch::Receiver<u64>,
    /// Signalled when the reader first knows its position.
    started: Option<oneshot::Sender<()>>,
}

/// What a read has found.
enum Read {
    /// The newest event, from which the reader goes on.
    Position,
    /// The events after the last one; there may be none.
    Events,
}

/// Id, and its fields and values in turn.
type Event = (String, Vec<String>);

impl EventReader {
    /// Creates a reader that signals `started` once it misses no further event.
    pub fn new(
        client: Arc<ShardClient>,
        shard: usize,
        started: Option<oneshot::Sender<()>>,
    ) -> Self {
        let stream = format!("{}:events", client.tags[shard]);
        Self {
            losses: client.stores.losses(),
            client,
            shard,
            stream,
            failures: 0,
            last: None,
            redirected: None,
            coalescer: Coalescer::default(),
            started,
        }
    }

    /// Reads until it is dropped.
    pub async fn run(mut self) {
        let mut backoff = Backoff::new(RECONNECT.0, RECONNECT.1);
        loop {
            let Some(error) = self.follow(&mut backoff).await else {
                self.last = None;
                continue;
            };
            match redirection(&error) {
                Some(node) => {
                    self.redirected = Some(node);
                    // Two nodes may redirect to each other for a moment.
                    tokio::time::sleep(RECONNECT.0).await;
                }
                None => {
                    self.redirected = None;
                    self.failed(&error);
                    tokio::time::sleep(backoff.next_delay()).await;
                }
            }
        }
    }

    fn failed(&mut self, error: &RedisError) {
        tracing::debug!(stream = self.stream, "not reading events: {error}");
        self.failures = self.failures.saturating_add(1);
        if self.failures >= FAILURES {
            let why = self.client.server.describe(error, NEEDS);
            self.client.faults.events_failed(self.shard, why);
        }
    }

    /// Reads until an error, which it returns; `None` if the store is another one.
    async fn follow(&mut self, backoff: &mut Backoff) -> Option<RedisError> {
        let connect = self
            .client
            .server
            .connect_blocking(self.redirected.as_ref(), BLOCK);
        let mut connection = match connect.await {
            Ok(connection) => connection,
            Err(error) => return Some(error),
        };
        let mut losses = self.losses.clone();
        loop {
            let read = tokio::select! {
                read = self.read(&mut connection) => read,
                Ok(()) = losses.changed() => {
                    self.losses.mark_unchanged();
                    return None;
                }
            };
            match read {
                Ok(Read::Position) => {}
                Ok(Read::Events) => {
                    self.failures = 0;
                    self.client.faults.events_read(self.shard);
                    backoff.reset();
                }
                Err(error) => {
                    // An event that cannot be read would fail the next read as well.
                    self.last = None;
                    return Some(error);
                }
            }
        }
    }

    async fn read(&mut self, connection: &mut MultiplexedConnection) -> RedisResult<Read> {
        let Some(last) = &self.last else {
            self.last = Some(self.newest(connection).await?);
            // Earlier changes, and those since the connection was lost, were missed.
            self.client.task_cache.clear();
            self.client.publisher.publish_missed();
            let _ = self.started.take().map(|started| started.send(()));
            return Ok(Read::Position);
        };
        self.coalescer.wait().await;
        let begun = Instant::now();
        let mut read = cmd("XREAD");
        read.arg("COUNT")
            .arg(READ)
            .arg("BLOCK")
            .arg(BLOCK.as_millis() as usize);
        read.arg("STREAMS").arg(&self.stream).arg(last);
        let events = events(read.query_async(connection).await?)?;
        if events.len() == READ {
            self.last = None;
            return Ok(Read::Events);
        }
        let mut count = 0;
        for (id, fields) in events {
            if let [_, from, rest @ ..] = &fields[..] {
                let changes: Vec<_> = event::Event::parse(rest).sound().collect();
                count += changes.len();
                let damaged = changes.iter().filter(|(letter, _)| *letter == DAMAGED);
                self.report(damaged.map(|(_, change)| change.clone()).collect());
                // Of this queue's own events only damaged tasks are news: its scripts find them.
                if *from != self.client.queue_id {
                    let others = changes.into_iter().filter(|(letter, _)| *letter != DAMAGED);
                    self.publish(others.map(|(_, change)| change).collect());
                }
            }
            self.last = Some(id);
        }
        self.coalescer.record(begun, count);
        Ok(Read::Events)
    }

    fn publish(&self, changes: Vec<Change>) {
        // Submitted or requeued, so what the cache has of it is outdated.
        let pending = changes.iter().filter(|it| it.state == StateKind::Pending);
        self.client
            .task_cache
            .remove(pending.map(|change| &change.id));
        self.client.publisher.publish(changes);
    }

    /// Reports tasks whose records were found to be damaged.
    fn report(&self, damaged: Vec<Change>) {
        for change in &damaged {
            if let Some(left_out) = self.client.log_limit.permit() {
                let task = &change.id;
                tracing::error!(%task, left_out, "the task's record in Redis is damaged; the task has failed");
            }
        }
        if !damaged.is_empty() {
            let reason = "records of tasks in Redis were damaged, and these tasks have failed, with error \
                          class corrupt (hostel tasks list --state failed); does another program write \
                          under queue.prefix?";
            self.client.faults.event(CORRUPT, reason.into());
            self.publish(damaged);
        }
    }

    /// Returns the id of the newest event, whatever its content.
    async fn newest(&self, connection: &mut MultiplexedConnection) -> RedisResult<String> {
        let mut newest = cmd("XREVRANGE");
        newest
            .arg(&self.stream)
            .arg("+")
            .arg("-")
            .arg("COUNT")
            .arg(1);
        let newest: Vec<(String, Value)> = newest.query_async(connection).await?;
        let newest = newest.into_iter().next();
        Ok(newest.map_or_else(|| "0-0".to_owned(), |(id, _)| id))
    }
}

/// Returns the events of an answer, which has one stream or is nil after the wait.
fn events(answer: Value) -> RedisResult<Vec<Event>> {
    if answer == Value::Nil {
        return Ok(Vec::new());
    }
    let streams: Vec<(String, Vec<Event>)> = FromRedisValue::from_redis_value(answer)?;
    Ok(streams.into_iter().flat_map(|(_, events)| events).collect())
}
