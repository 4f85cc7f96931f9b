//! What other queues change in a shard: its stream of events, read on a connection of its own, since
//! the read waits at the server. What this queue changes itself is told by whoever changed it.

use super::{core::Core, pace::Pace, row};
use crate::{
    queue::Change,
    redis::redirection,
    task::{Name, StateKind},
};
use redis::{FromRedisValue, RedisError, RedisResult, Value, aio::MultiplexedConnection, cmd};
use std::{sync::Arc, time::Duration};
use tokio::{sync::oneshot, time::Instant};

/// How long a read waits at the server.
const BLOCK: Duration = Duration::from_secs(5);

/// How many events one read brings. Who finds as many has fallen behind.
const READ: usize = 256;

/// How long to wait before connecting again: at first, and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// One shard's reader.
pub(super) struct Reader {
    core: Arc<Core>,
    stream: String,
    /// The last event read.
    last: Option<String>,
    redirected: Option<(String, u16)>,
    pace: Pace,
    /// Told when it first knows where it is.
    begun: Option<oneshot::Sender<()>>,
}

/// Id, and its fields and values in turn.
type Event = (String, Vec<String>);

impl Reader {
    /// And what is told when it misses nothing from there on.
    pub fn new(core: Arc<Core>, shard: usize) -> (Self, oneshot::Receiver<()>) {
        let stream = format!("{}:events", core.tags[shard]);
        let (begun, beginning) = oneshot::channel();
        let reader = Self {
            core,
            stream,
            last: None,
            redirected: None,
            pace: Pace::default(),
            begun: Some(begun),
        };
        (reader, beginning)
    }

    /// Reads for ever.
    pub async fn run(mut self) {
        let mut pause = AGAIN.0;
        loop {
            let error = self.follow(&mut pause).await;
            match redirection(&error) {
                Some(node) => {
                    self.redirected = Some(node);
                    // Two nodes that name each other, as they may for a moment, are not asked in a
                    // whirl.
                    tokio::time::sleep(AGAIN.0).await;
                }
                None => {
                    self.redirected = None;
                    tracing::debug!(stream = self.stream, "not reading events: {error}");
                    tokio::time::sleep(pause.mul_f32(0.5 + fastrand::f32() / 2.0)).await;
                    pause = (pause * 2).min(AGAIN.1);
                }
            }
        }
    }

    /// Reads until something fails, and says what did.
    async fn follow(&mut self, pause: &mut Duration) -> RedisError {
        let connect = self
            .core
            .server
            .connect_blocking(self.redirected.as_ref(), BLOCK);
        let mut connection = match connect.await {
            Ok(connection) => connection,
            Err(error) => return error,
        };
        loop {
            match self.read(&mut connection).await {
                Ok(()) => *pause = AGAIN.0,
                Err(error) => return error,
            }
        }
    }

    async fn read(&mut self, connection: &mut MultiplexedConnection) -> RedisResult<()> {
        let Some(last) = &self.last else {
            self.last = Some(self.newest(connection).await?);
            // What happened before this, and since the connection was lost, was not seen.
            self.core.recent.clear();
            self.core.publisher.lost();
            let _ = self.begun.take().map(|begun| begun.send(()));
            return Ok(());
        };
        self.pace.rest().await;
        let begun = Instant::now();
        let mut read = cmd("XREAD");
        read.arg("COUNT")
            .arg(READ)
            .arg("BLOCK")
            .arg(BLOCK.as_millis() as usize);
        read.arg("STREAMS").arg(&self.stream).arg(last);
        let found: Value = match read.query_async(connection).await {
            Ok(found) => found,
            Err(error) => {
                self.last = None;
                return Err(error);
            }
        };
        let events = events(found)?;
        if events.len() == READ {
            self.last = None;
            return Ok(());
        }
        let mut told = 0;
        for (id, fields) in events {
            if let [_, from, _, text] = &fields[..] {
                told += text.lines().count();
                if *from != self.core.me {
                    self.tell(changes(text));
                }
            }
            self.last = Some(id);
        }
        self.pace.carried(begun, told);
        Ok(())
    }

    fn tell(&self, changes: Vec<Change>) {
        // Submitted or requeued: what was known of it before is of another life.
        let again = changes.iter().filter(|it| it.state == StateKind::Pending);
        self.core.recent.forget(again.map(|change| &change.id));
        self.core.publisher.publish(changes);
    }

    async fn newest(&self, connection: &mut MultiplexedConnection) -> RedisResult<String> {
        let mut newest = cmd("XREVRANGE");
        newest
            .arg(&self.stream)
            .arg("+")
            .arg("-")
            .arg("COUNT")
            .arg(1);
        let newest: Vec<Event> = newest.query_async(connection).await?;
        let newest = newest.into_iter().next();
        Ok(newest.map_or_else(|| "0-0".to_owned(), |(id, _)| id))
    }
}

/// The events of the one stream that was asked for; none when the wait was over.
fn events(found: Value) -> RedisResult<Vec<Event>> {
    if found == Value::Nil {
        return Ok(Vec::new());
    }
    let streams: Vec<(String, Vec<Event>)> = FromRedisValue::from_redis_value(found)?;
    Ok(streams.into_iter().flat_map(|(_, events)| events).collect())
}

/// A line each: state, id, type.
fn changes(text: &str) -> Vec<Change> {
    let change = |line: &str| {
        let mut words = line.split(' ');
        let letter = words.next()?.bytes().next()?;
        let name = |word: Option<&str>| Name::parse("name", word?).ok();
        let (id, task_type) = (name(words.next())?, name(words.next())?);
        Some(Change {
            id,
            task_type,
            // `k` is a running task whose end was asked for.
            state: row::state([letter]).unwrap_or(StateKind::Running),
            cancel_asked: letter == b'k',
        })
    };
    text.lines().filter_map(change).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_skipped() {
        let seen = changes("p a echo\n\nx\nk b:1 echo\nc c/d echo");
        let seen: Vec<_> = seen
            .iter()
            .map(|c| (c.id.as_str(), c.state, c.cancel_asked))
            .collect();
        assert_eq!(
            seen,
            [
                ("a", StateKind::Pending, false),
                ("b:1", StateKind::Running, true)
            ]
        );
    }
}
