//! The one connection that listens: keeps it subscribed to the channels that have receivers, reconnects
//! after every loss, and delivers messages to the inboxes.

use super::{channel::Channels, wire};
use crate::{message::Topic, subscription::Inbox, topics::Topics};
use futures_util::StreamExt;
use hostel_backoff::Backoff;
use hostel_redis::Server;
use hostel_runtime::{
    health::{Health, Part},
    log_limit::LogLimit,
};
use parking_lot::Mutex;
use redis::{
    Msg, RedisError, RedisResult,
    aio::{PubSub, PubSubSink, PubSubStream},
};
use std::{
    collections::HashSet,
    time::{Duration, Instant},
};
use tokio::sync::{Notify, watch};

/// How long connecting, or the answer to one command, may take.
const ANSWER: Duration = Duration::from_secs(3);
/// How often an idle connection is checked with PING.
const PING_EVERY: Duration = Duration::from_secs(5);
/// The delay before reconnecting, at first and at most.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// After a connection that lasted this long the delay begins again with the first.
const STEADY: Duration = Duration::from_secs(5);
/// The fault of a broker that has no connection to Redis.
const AWAY: &str = "away";
/// How many channels one command names.
const CHANNELS_AT_ONCE: usize = 1000;

/// The topics to listen to, and the state of the connection.
pub(super) struct Listener {
    channels: Channels,
    state: Mutex<State>,
    /// Signalled when there are topics to subscribe to or to leave.
    dirty: Notify,
    /// Counts the changes of `State::live` and `State::link`.
    changed: watch::Sender<u64>,
    health: Health,
    /// Limits the log lines of dropped messages.
    log_limit: LogLimit,
}

#[derive(Default)]
struct State {
    topics: Topics,
    /// Topics whose first receiver came, or whose last one left, since the connection last looked. Empty
    /// while there is no connection: the next one begins with all topics.
    dirty: HashSet<Topic>,
    /// Topics that Redis has confirmed on this connection.
    live: HashSet<Topic>,
    link: Link,
}

/// The connection to Redis.
#[derive(Default, PartialEq, Eq)]
enum Link {
    /// The first attempt to connect has not ended.
    #[default]
    Connecting,
    Up,
    /// The last attempt to connect failed, or its connection was lost.
    Away,
}

impl State {
    /// Has the connection subscribe to the topic or leave it. Returns whether that is news to it.
    fn set_dirty(&mut self, topic: &Topic) -> bool {
        self.link == Link::Up && self.dirty.insert(topic.clone())
    }
}

impl Listener {
    pub fn new(channels: Channels, health: Health) -> Self {
        Self {
            channels,
            state: Mutex::default(),
            dirty: Notify::new(),
            changed: watch::Sender::default(),
            health,
            log_limit: LogLimit::new(5, Duration::from_secs(10)),
        }
    }

    /// Attaches an inbox to a topic, and returns the id with which it is removed.
    pub fn add(&self, topic: &Topic, inbox: Inbox) -> u64 {
        let mut state = self.state.lock();
        let id = state.topics.add(topic, inbox);
        if !state.live.contains(topic) && state.set_dirty(topic) {
            self.dirty.notify_one();
        }
        id
    }

    pub fn remove(&self, topic: &Topic, id: u64) {
        let mut state = self.state.lock();
        state.topics.remove(topic, id);
        self.leave_if_empty(&mut state, topic);
    }

    /// Leaves the channel of a topic that has no inbox any more.
    fn leave_if_empty(&self, state: &mut State, topic: &Topic) {
        if !state.topics.contains(topic) && state.set_dirty(topic) {
            self.dirty.notify_one();
        }
    }

    /// Waits until Redis has confirmed the subscription to the topic, for two answers at most. Does not
    /// wait while Redis is away: the subscription follows once it is back.
    pub async fn until_live(&self, topic: &Topic) {
        let mut changed = self.changed.subscribe();
        let live = async {
            loop {
                {
                    let state = self.state.lock();
                    if state.link == Link::Away || state.live.contains(topic) {
                        return;
                    }
                }
                if changed.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(2 * ANSWER, live).await;
    }

    /// Listens until it is dropped. `describe` turns an error into what an operator reads.
    pub async fn run(&self, server: Server, describe: impl Fn(&Server, &RedisError) -> String) {
        let mut backoff = Backoff::new(RECONNECT.0, RECONNECT.1);
        for turn in 0.. {
            let since = Instant::now();
            let connect = async { server.node(turn)?.get_async_pubsub().await };
            let lost = match within(connect).await {
                Ok(connection) => self.serve(connection).await,
                Err(lost) => lost,
            };
            self.report_loss(&match lost {
                Lost::Error(error) => describe(&server, &error),
                Lost::Silent => format!("no answer within {} s", ANSWER.as_secs()),
                Lost::Closed => "the connection was closed".into(),
            });
            if since.elapsed() >= STEADY {
                backoff.reset();
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }

    fn report_loss(&self, why: &str) {
        let mut state = self.state.lock();
        state.live.clear();
        state.dirty.clear();
        if std::mem::replace(&mut state.link, Link::Away) != Link::Away {
            let topics = state.topics.iter().count();
            self.health.report(
                Part::Broker,
                AWAY,
                format!("not listening to Redis, messages on {topics} topics are missed: {why}"),
            );
        }
        drop(state);
        self.changed.send_modify(|count| *count += 1);
    }

    /// Uses a connection until it is lost, and returns the reason.
    async fn serve(&self, connection: PubSub) -> Lost {
        {
            let mut state = self.state.lock();
            state.live.clear();
            state.dirty = state.topics.iter().cloned().collect();
            if std::mem::replace(&mut state.link, Link::Up) == Link::Away {
                let topics = state.dirty.len();
                tracing::info!(topics, "listening to Redis again");
                self.health.clear(Part::Broker, AWAY);
            }
        }
        let (sink, stream) = connection.split();
        // Both at once, so that messages are delivered while Redis confirms other channels.
        tokio::select! {
            () = self.receive(stream) => Lost::Closed,
            lost = self.keep_subscribed(sink) => lost,
        }
    }

    async fn receive(&self, mut stream: PubSubStream) {
        while let Some(message) = stream.next().await {
            self.deliver(&message);
        }
    }

    fn deliver(&self, received: &Msg) {
        let channel = received.get_channel_name();
        let Some(topic) = self.channels.topic(channel) else {
            return;
        };
        match wire::decode(received.get_payload_bytes()) {
            Ok(message) => {
                let mut state = self.state.lock();
                let published = state.topics.publish(&topic, message);
                if published.full > 0
                    && let Some(left_out) = self.log_limit.permit()
                {
                    // The sender was already informed that this node took the message.
                    tracing::warn!(
                        channel,
                        left_out,
                        "a message is dropped: its receiver has no room"
                    );
                }
                // The delivery may have cut off the last receiver.
                self.leave_if_empty(&mut state, &topic);
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

    /// Keeps the connection subscribed to the topics that have inboxes; returns why it cannot.
    async fn keep_subscribed(&self, mut sink: PubSubSink) -> Lost {
        let mut subscribed = HashSet::new();
        loop {
            if let Err(lost) = self.update(&mut sink, &mut subscribed).await {
                return lost;
            }
            tokio::select! {
                () = self.dirty.notified() => {}
                () = tokio::time::sleep(PING_EVERY) => {
                    if let Err(lost) = within(sink.ping::<redis::Value>()).await {
                        return lost;
                    }
                }
            }
        }
    }

    async fn update(
        &self,
        sink: &mut PubSubSink,
        subscribed: &mut HashSet<Topic>,
    ) -> Result<(), Lost> {
        let (join, leave) = self.take_changes(subscribed);
        for topics in join.chunks(CHANNELS_AT_ONCE) {
            within(sink.subscribe(self.names(topics))).await?;
            subscribed.extend(topics.iter().cloned());
            self.state.lock().live.extend(topics.iter().cloned());
            self.changed.send_modify(|count| *count += 1);
        }
        for topics in leave.chunks(CHANNELS_AT_ONCE) {
            within(sink.unsubscribe(self.names(topics))).await?;
            for topic in topics {
                subscribed.remove(topic);
            }
        }
        Ok(())
    }

    fn names(&self, topics: &[Topic]) -> Vec<String> {
        let name = |topic| self.channels.name(topic);
        topics.iter().map(name).collect()
    }

    /// Returns the topics to subscribe to and those to leave. A topic to leave is not live from here on,
    /// so a receiver that comes meanwhile waits until it is subscribed to again.
    fn take_changes(&self, subscribed: &HashSet<Topic>) -> (Vec<Topic>, Vec<Topic>) {
        let mut state = self.state.lock();
        let (mut join, mut leave) = (Vec::new(), Vec::new());
        for topic in std::mem::take(&mut state.dirty) {
            match (state.topics.contains(&topic), subscribed.contains(&topic)) {
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

/// Why a connection cannot be used any more.
enum Lost {
    Error(RedisError),
    Silent,
    Closed,
}

/// Waits for an answer, up to the time limit.
async fn within<T>(answer: impl Future<Output = RedisResult<T>>) -> Result<T, Lost> {
    match tokio::time::timeout(ANSWER, answer).await {
        Ok(answer) => answer.map_err(Lost::Error),
        Err(_) => Err(Lost::Silent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subscription::{Overflow, Subscription};
    use hostel_task::Name;

    #[test]
    fn topics_that_come_and_go_without_a_connection_leave_nothing_behind() {
        let name = |text: &str| Name::parse("name", text).unwrap();
        let listener = Listener::new(Channels::new(&name("test")), Health::default());
        let come_and_go = |count: usize| {
            for number in 0..count {
                let topic = Topic::Shared(name(&format!("t{number}")));
                let (inbox, _subscription) = Subscription::new(1, Overflow::Refuse);
                let id = listener.add(&topic, inbox);
                listener.remove(&topic, id);
            }
        };
        come_and_go(100);
        assert!(listener.state.lock().dirty.is_empty());
        listener.state.lock().link = Link::Up;
        come_and_go(100);
        assert_eq!(listener.state.lock().dirty.len(), 100);
        listener.report_loss("closed");
        come_and_go(100);
        assert!(listener.state.lock().dirty.is_empty());
    }
}
