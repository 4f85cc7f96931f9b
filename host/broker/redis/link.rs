//! The one connection that listens: which channels it shall be on, getting it there after every
//! loss, and handing what it hears to the inboxes. Publishes nothing.

use super::{
    super::{Inbox, Topic, table::Topics},
    channel::Channels,
    problem, wire,
};
use futures_util::StreamExt;
use hostel_redis::Server;
use hostel_runtime::health::{Health, Part};
use hostel_runtime::log_limit::LogLimit;
use redis::{
    Msg, RedisError, RedisResult,
    aio::{PubSub, PubSubSink, PubSubStream},
};
use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::{Notify, watch};

/// How long connecting, or the answer to one command, may take.
const ANSWER: Duration = Duration::from_secs(3);
/// How often an idle connection is asked whether it still is one.
const PING_EVERY: Duration = Duration::from_secs(5);
/// How long to wait before connecting again: at first, and at most.
const AGAIN: Duration = Duration::from_millis(50);
const AGAIN_MAX: Duration = Duration::from_secs(2);
/// A connection that held so long was a good one, so the next is tried at once.
const STEADY: Duration = Duration::from_secs(5);
/// The fault of a broker whose Redis is away.
const AWAY: &str = "away";
/// How many channels one command names.
const CHANNELS_AT_ONCE: usize = 1000;

/// What is listened to, and how far the connection is with it.
pub(super) struct Link {
    channels: Channels,
    state: Mutex<State>,
    /// There are topics to join or leave.
    steer: Notify,
    /// Counts up with each change of what is heard.
    heard: watch::Sender<u64>,
    health: Health,
    /// Of messages that are dropped.
    log_limit: LogLimit,
}

#[derive(Default)]
struct State {
    topics: Topics,
    /// Topics that somebody came to or left since the connection last looked.
    dirty: HashSet<Topic>,
    /// Topics that Redis has confirmed on this connection.
    live: HashSet<Topic>,
    /// Connecting has failed, and nothing is known to have changed since.
    away: bool,
}

impl Link {
    pub fn new(channels: Channels, health: Health) -> Self {
        Self {
            channels,
            state: Mutex::default(),
            steer: Notify::new(),
            heard: watch::Sender::default(),
            health,
            log_limit: LogLimit::new(5, Duration::from_secs(10)),
        }
    }

    /// Every change under this lock is whole, so a panic elsewhere does not spoil it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn add(&self, topic: &Topic, inbox: Inbox) -> u64 {
        let mut state = self.state();
        let id = state.topics.add(topic, inbox);
        if !state.live.contains(topic) {
            state.dirty.insert(topic.clone());
            self.steer.notify_one();
        }
        id
    }

    pub fn remove(&self, topic: &Topic, id: u64) {
        let mut state = self.state();
        state.topics.remove(topic, id);
        self.left(&mut state, topic);
    }

    /// The last one to leave has the channel left.
    fn left(&self, state: &mut State, topic: &Topic) {
        if !state.topics.has(topic) && state.dirty.insert(topic.clone()) {
            self.steer.notify_one();
        }
    }

    /// Waits until the topic is heard, and no longer than an answer may take. While Redis is away
    /// it does not wait: the topic will be heard once it is back.
    pub async fn hear(&self, topic: &Topic) {
        let mut heard = self.heard.subscribe();
        let waiting = async {
            loop {
                {
                    let state = self.state();
                    if state.away || state.live.contains(topic) {
                        return;
                    }
                }
                if heard.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(2 * ANSWER, waiting).await;
    }

    /// Listens for ever.
    pub async fn run(&self, server: Server) {
        let mut pause = AGAIN;
        for turn in 0.. {
            let since = Instant::now();
            let connect = async { server.node(turn)?.get_async_pubsub().await };
            let lost = match within(connect).await {
                Ok(connection) => self.serve(connection).await,
                Err(lost) => lost,
            };
            self.lost(&match lost {
                Lost::Error(error) => problem(&server, &error),
                Lost::Silent => format!("no answer within {} s", ANSWER.as_secs()),
                Lost::Closed => "the connection was closed".into(),
            });
            pause = match since.elapsed() >= STEADY {
                true => AGAIN,
                false => (pause * 2).min(AGAIN_MAX),
            };
            // All nodes lose their connection at once when Redis goes; they need not come back so.
            tokio::time::sleep(pause.mul_f32(0.5 + fastrand::f32() / 2.0)).await;
        }
    }

    fn lost(&self, why: &str) {
        let mut state = self.state();
        state.live.clear();
        if !std::mem::replace(&mut state.away, true) {
            let topics = state.topics.all().count();
            self.health.report(
                Part::Broker,
                AWAY,
                format!("not listening to Redis, messages on {topics} topics are missed: {why}"),
            );
        }
        drop(state);
        self.heard.send_modify(|count| *count += 1);
    }

    /// Uses a connection until it breaks, and says why it did.
    async fn serve(&self, connection: PubSub) -> Lost {
        {
            let mut state = self.state();
            state.live.clear();
            state.dirty = state.topics.all().cloned().collect();
            if std::mem::take(&mut state.away) {
                let topics = state.dirty.len();
                tracing::info!(topics, "listening to Redis again");
                self.health.clear(Part::Broker, AWAY);
            }
        }
        let (sink, stream) = connection.split();
        // Both at once: what is heard is handed on while Redis confirms other channels, so nothing
        // piles up.
        tokio::select! {
            () = self.listen(stream) => Lost::Closed,
            lost = self.steer(sink) => lost,
        }
    }

    async fn listen(&self, mut stream: PubSubStream) {
        while let Some(message) = stream.next().await {
            self.hand_on(&message);
        }
    }

    fn hand_on(&self, heard: &Msg) {
        let channel = heard.get_channel_name();
        let Some(topic) = self.channels.topic(channel) else {
            return;
        };
        match wire::decode(heard.get_payload_bytes()) {
            Ok(message) => {
                let mut state = self.state();
                let published = state.topics.publish(&topic, message);
                if published.full > 0
                    && let Some(left_out) = self.log_limit.permit()
                {
                    // Its sender has been told by now that this node took it.
                    tracing::warn!(
                        channel,
                        left_out,
                        "a message is dropped: its receiver has no room"
                    );
                }
                // It may have cut off the last one.
                self.left(&mut state, &topic);
            }
            Err(why) => {
                if let Some(left_out) = self.log_limit.permit() {
                    tracing::warn!(
                        channel,
                        left_out,
                        "a message cannot be read and is dropped: {why}"
                    );
                }
            }
        }
    }

    /// Keeps the connection on the channels that are wanted; returns why it cannot.
    async fn steer(&self, mut sink: PubSubSink) -> Lost {
        let mut on = HashSet::new();
        loop {
            if let Err(lost) = self.move_to_wanted(&mut sink, &mut on).await {
                return lost;
            }
            tokio::select! {
                () = self.steer.notified() => {}
                () = tokio::time::sleep(PING_EVERY) => {
                    if let Err(lost) = within(sink.ping::<redis::Value>()).await {
                        return lost;
                    }
                }
            }
        }
    }

    async fn move_to_wanted(
        &self,
        sink: &mut PubSubSink,
        on: &mut HashSet<Topic>,
    ) -> Result<(), Lost> {
        let (join, leave) = self.moves(on);
        for topics in join.chunks(CHANNELS_AT_ONCE) {
            let channels: Vec<_> = topics
                .iter()
                .map(|topic| self.channels.name(topic))
                .collect();
            within(sink.subscribe(channels)).await?;
            on.extend(topics.iter().cloned());
            self.state().live.extend(topics.iter().cloned());
            self.heard.send_modify(|count| *count += 1);
        }
        for topics in leave.chunks(CHANNELS_AT_ONCE) {
            let channels: Vec<_> = topics
                .iter()
                .map(|topic| self.channels.name(topic))
                .collect();
            within(sink.unsubscribe(channels)).await?;
            topics.iter().for_each(|topic| {
                on.remove(topic);
            });
        }
        Ok(())
    }

    /// What to join and what to leave. What is left is not live from here on: who comes to it
    /// meanwhile waits until it is joined again.
    fn moves(&self, on: &HashSet<Topic>) -> (Vec<Topic>, Vec<Topic>) {
        let mut state = self.state();
        let (mut join, mut leave) = (Vec::new(), Vec::new());
        for topic in std::mem::take(&mut state.dirty) {
            match (state.topics.has(&topic), on.contains(&topic)) {
                (true, false) => join.push(topic),
                (false, true) => {
                    state.live.remove(&topic);
                    leave.push(topic);
                }
                (true, true) | (false, false) => {}
            }
        }
        (join, leave)
    }
}

/// Why a connection is not used any more.
enum Lost {
    Error(RedisError),
    Silent,
    Closed,
}

/// The answer, or why there is none in time.
async fn within<T>(answer: impl Future<Output = RedisResult<T>>) -> Result<T, Lost> {
    match tokio::time::timeout(ANSWER, answer).await {
        Ok(answer) => answer.map_err(Lost::Error),
        Err(_) => Err(Lost::Silent),
    }
}
