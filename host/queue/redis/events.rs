//! What other queues change in a shard: its stream of events, read on a connection of its own, since
//! the read waits at the server. What this queue changes itself is told by whoever changed it.

use super::{core::Core, faults::CORRUPT, pace::Pace, row};
use crate::Change;
use hostel_redis::redirection;
use hostel_task::{Name, StateKind};
use redis::{FromRedisValue, RedisError, RedisResult, Value, aio::MultiplexedConnection, cmd};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{oneshot, watch},
    time::Instant,
};

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
    /// Told when the store is another one, where what was read last means nothing.
    lost: watch::Receiver<u64>,
    /// Told when it first knows where it is.
    begun: Option<oneshot::Sender<()>>,
}

/// Id, and its fields and values in turn.
type Event = (String, Vec<String>);

impl Reader {
    /// Tells `begun` when it misses nothing from there on.
    pub fn new(core: Arc<Core>, shard: usize, begun: Option<oneshot::Sender<()>>) -> Self {
        let stream = format!("{}:events", core.tags[shard]);
        Self {
            lost: core.stores.lost(),
            core,
            stream,
            last: None,
            redirected: None,
            pace: Pace::default(),
            begun,
        }
    }

    /// Reads for ever.
    pub async fn run(mut self) {
        let mut pause = AGAIN.0;
        loop {
            let Some(error) = self.follow(&mut pause).await else {
                self.last = None;
                continue;
            };
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

    /// Reads until something fails, and says what did; nothing when the store is another one.
    async fn follow(&mut self, pause: &mut Duration) -> Option<RedisError> {
        let connect = self
            .core
            .server
            .connect_blocking(self.redirected.as_ref(), BLOCK);
        let mut connection = match connect.await {
            Ok(connection) => connection,
            Err(error) => return Some(error),
        };
        let mut lost = self.lost.clone();
        loop {
            let read = tokio::select! {
                read = self.read(&mut connection) => read,
                Ok(()) = lost.changed() => {
                    self.lost.mark_unchanged();
                    return None;
                }
            };
            match read {
                Ok(()) => *pause = AGAIN.0,
                Err(error) => return Some(error),
            }
        }
    }

    async fn read(&mut self, connection: &mut MultiplexedConnection) -> RedisResult<()> {
        let Some(last) = &self.last else {
            self.last = Some(self.newest(connection).await?);
            // What happened before this, and since the connection was lost, was not seen.
            self.core.recent.clear();
            self.core.publisher.publish_missed();
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
                match *from == self.core.me {
                    // What this queue changes is told by whoever changes it, but for what its scripts
                    // come across.
                    true => self.report(&changes(text, |letter| letter == DAMAGED)),
                    false => self.tell(changes(text, |_| true)),
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
        self.core.recent.remove(again.map(|change| &change.id));
        self.core.publisher.publish(changes);
    }

    /// Of tasks whose records were found to be damaged.
    fn report(&self, damaged: &[Change]) {
        for change in damaged {
            if let Some(left_out) = self.core.log_limit.permit() {
                let task = &change.id;
                tracing::error!(%task, left_out, "its record in Redis is damaged: it has failed");
            }
        }
        if !damaged.is_empty() {
            let reason = "records of tasks in Redis were damaged, and these tasks have failed, with error \
                          class corrupt (hostel tasks list --state failed); does another program write \
                          under queue.prefix?";
            self.core.faults.happened(CORRUPT, reason.into());
            self.tell(damaged.to_vec());
        }
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

/// What stands for the state of a task whose record was found to be damaged.
const DAMAGED: u8 = b'd';

/// A line each, for those that begin with such a letter: state, id, type.
fn changes(text: &str, is_told: impl Fn(u8) -> bool) -> Vec<Change> {
    let change = |line: &str| {
        let mut words = line.split(' ');
        let letter = words
            .next()?
            .bytes()
            .next()
            .filter(|&letter| is_told(letter))?;
        let name = |word: Option<&str>| Name::parse("name", word?).ok();
        let (id, task_type) = (name(words.next())?, name(words.next())?);
        Some(Change {
            id,
            task_type,
            // `k` is a running task whose end was asked for.
            state: match letter {
                DAMAGED => StateKind::Failed,
                _ => row::state([letter]).unwrap_or(StateKind::Running),
            },
            cancel_requested: letter == b'k',
        })
    };
    text.lines().filter_map(change).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_skipped() {
        let text = "p a echo\n\nx\nk b:1 echo\nc c/d echo\nd d echo";
        let damaged = changes(text, |letter| letter == DAMAGED);
        assert_eq!(damaged.len(), 1);
        assert_eq!(damaged[0].state, StateKind::Failed);
        let seen = changes(text, |_| true);
        let seen: Vec<_> = seen
            .iter()
            .map(|c| (c.id.as_str(), c.state, c.cancel_requested))
            .collect();
        assert_eq!(
            seen,
            [
                ("a", StateKind::Pending, false),
                ("b:1", StateKind::Running, true),
                ("d", StateKind::Failed, false)
            ]
        );
    }
}
