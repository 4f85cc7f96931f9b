//! The broker of several nodes, through Redis pub/sub: one connection publishes and one listens
//! (`listener.rs`). Redis stores no message, so a node that is not listening misses it, and so does
//! every node while Redis is away.

mod channel;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod listener;
mod wire;

use super::{
    error::Error,
    message::{Message, Topic},
    message_broker::{MessageBroker, Published},
    subscription::{Attachment, Inbox},
};
use async_trait::async_trait;
use channel::Channels;
use hostel_redis::{Connection, Nodes, Server};
use hostel_runtime::health::{Background, Health, Part};
use listener::Listener;
use parking_lot::Mutex;
use redis::{RedisError, RedisResult};
use std::{sync::Arc, time::Duration};
use tokio::{runtime::Handle, sync::OnceCell};
use tokio_util::task::AbortOnDropHandle;

/// How long publishing may take in all, including the wait for a new connection.
const PUBLISH: Duration = Duration::from_secs(5);

/// The rights that an ACL must give, as an error names them.
const NEEDS: &str = "PUBLISH, SUBSCRIBE and UNSUBSCRIBE on the channels under broker.prefix, PING, and in \
                     a cluster PUBSUB NUMSUB";

/// Delivers messages to receivers on every node that uses the same Redis and prefix.
pub struct RedisBroker {
    server: Server,
    channels: Channels,
    listener: Arc<Listener>,
    publisher: Arc<OnceCell<Connection>>,
    listening: Mutex<Option<Background>>,
    health: Health,
    /// The runtime of both connections. Components publish from a runtime of their own, which has no
    /// sockets.
    runtime: Handle,
}

impl RedisBroker {
    /// Creates a broker for the Redis at `url`, with the default prefix. It connects at its first use.
    pub async fn new(url: &str) -> Result<Self, Error> {
        let settings = hostel_config::Redis::at(url, hostel_config::Redis::PREFIX);
        let settings = settings.ok_or_else(|| Error::Misconfigured("the prefix".into()))?;
        Self::open(&settings)
    }

    /// Creates a broker from the configuration.
    pub fn open(settings: &hostel_config::Redis) -> Result<Self, Error> {
        Self::open_reporting(settings, Health::default())
    }

    /// Creates a broker from the configuration that reports its faults to `health`.
    pub fn open_reporting(settings: &hostel_config::Redis, health: Health) -> Result<Self, Error> {
        let channels = || Channels::new(&settings.prefix);
        Ok(Self {
            server: Server::new(settings, "broker", false).map_err(Error::Misconfigured)?,
            channels: channels(),
            listener: Arc::new(Listener::new(channels(), health.clone())),
            publisher: Arc::default(),
            listening: Mutex::default(),
            health,
            runtime: Handle::try_current().map_err(|error| {
                Error::Misconfigured(format!("open the broker within a Tokio runtime: {error}"))
            })?,
        })
    }

    /// Starts the listener at the first call.
    fn listen(&self) {
        self.listening.lock().get_or_insert_with(|| {
            let (listener, server) = (self.listener.clone(), self.server.clone());
            let listen = move || {
                let (listener, server) = (listener.clone(), server.clone());
                async move { listener.run(server, describe).await }
            };
            self.health
                .restarting_on(&self.runtime, Part::Broker, "redis-subscriber", listen)
        });
    }
}

#[async_trait]
impl MessageBroker for RedisBroker {
    /// Counts the nodes that took the message. Fails after 5 s at most; the message may have been
    /// delivered if only the answer was lost.
    async fn publish(&self, topic: &Topic, message: Message) -> Result<Published, Error> {
        let (channel, message) = (self.channels.name(topic), wire::encode(&message));
        let (server, publisher) = (self.server.clone(), self.publisher.clone());
        let publish = async move {
            let publisher = publisher.get_or_try_init(|| server.connect()).await?;
            publish(publisher, server.is_cluster(), &channel, message).await
        };
        let publish = tokio::time::timeout(PUBLISH, publish);
        let published = AbortOnDropHandle::new(self.runtime.spawn(publish))
            .await
            .map_err(|_| Error::Unavailable("the node is stopping".into()))?;
        match published {
            Ok(Ok(receivers)) => Ok(Published { receivers, full: 0 }),
            Ok(Err(error)) => Err(Error::Unavailable(describe(&self.server, &error))),
            Err(_) => {
                let seconds = PUBLISH.as_secs();
                Err(Error::Unavailable(format!(
                    "no answer from Redis within {seconds} s"
                )))
            }
        }
    }

    async fn attach(&self, topic: &Topic, inbox: Inbox) -> Result<Attachment, Error> {
        self.listen();
        let id = self.listener.add(topic, inbox);
        let (listener, attached) = (Arc::downgrade(&self.listener), topic.clone());
        let attachment = Attachment::new(move || {
            if let Some(listener) = listener.upgrade() {
                listener.remove(&attached, id);
            }
        });
        self.listener.until_live(topic).await;
        Ok(attachment)
    }
}

/// Publishes to a channel, and returns the number of nodes that listen to it.
async fn publish(
    connection: &Connection,
    is_cluster: bool,
    channel: &str,
    message: Vec<u8>,
) -> RedisResult<usize> {
    let mut publishing = connection.clone();
    let mut publish = redis::cmd("PUBLISH");
    publish.arg(channel).arg(message);
    let publish = publish.query_async::<usize>(&mut publishing);
    if !is_cluster {
        return publish.await;
    }
    // A node of a cluster counts only its own listeners.
    let (published, listeners) =
        tokio::join!(publish, count_listeners(connection.clone(), channel));
    match (published?, listeners) {
        (0, Err(error)) => Err(error),
        (published, Err(_)) => Ok(published),
        (published, Ok(listeners)) => Ok(published.max(listeners)),
    }
}

/// Counts the listeners of a channel on all nodes of a cluster.
async fn count_listeners(mut connection: Connection, channel: &str) -> RedisResult<usize> {
    let mut count = redis::cmd("PUBSUB");
    count.arg("NUMSUB").arg(channel);
    let counts: Vec<Vec<(String, usize)>> = connection.on_nodes(Nodes::All, count).await?;
    Ok(counts.iter().flatten().map(|(_, count)| count).sum())
}

fn describe(server: &Server, error: &RedisError) -> String {
    server.describe(error, NEEDS)
}
