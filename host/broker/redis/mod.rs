//! Messages between nodes through Redis pub/sub: one connection that publishes and one that listens
//! (`link.rs`). Redis keeps nothing, so whoever is not listening misses it, and so does everybody
//! while Redis is away.

mod channel;
mod link;
mod wire;

use super::{Attachment, Error, Inbox, Message, MessageBroker, Published, Topic};
use async_trait::async_trait;
use channel::Channels;
use hostel_redis::{Connection, Nodes, Server};
use hostel_runtime::health::{Background, Health, Part};
use link::Link;
use redis::{RedisError, RedisResult};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{runtime::Handle, sync::OnceCell};
use tokio_util::task::AbortOnDropHandle;

/// How long publishing may take in all, the wait for a new connection included.
const PUBLISH: Duration = Duration::from_secs(5);

/// What the user has to be allowed.
const NEEDS: &str = "PUBLISH, SUBSCRIBE and UNSUBSCRIBE on the channels under broker.prefix, PING, and in \
                     a cluster PUBSUB NUMSUB";

/// Hands messages to receivers on every node that uses the same Redis and prefix.
pub struct RedisBroker {
    server: Server,
    channels: Channels,
    link: Arc<Link>,
    publisher: Arc<OnceCell<Connection>>,
    listening: Mutex<Option<Background>>,
    health: Health,
    /// Where both connections live. Components publish from a runtime of their own, which has no
    /// sockets.
    runtime: Handle,
}

impl RedisBroker {
    /// For the Redis at `url`, under the prefix that nodes have unless told otherwise. Connects at
    /// the first use.
    pub async fn new(url: &str) -> Result<Self, Error> {
        let settings = hostel_config::Redis::at(url, hostel_config::Redis::PREFIX);
        let settings = settings.ok_or_else(|| Error::Misconfigured("the prefix".into()))?;
        Self::open(&settings)
    }

    /// The same from the configuration.
    pub fn open(settings: &hostel_config::Redis) -> Result<Self, Error> {
        Self::open_reporting(settings, Health::default())
    }

    /// The same, and reports its faults to `health`.
    pub fn open_reporting(settings: &hostel_config::Redis, health: Health) -> Result<Self, Error> {
        let channels = || Channels::new(&settings.prefix);
        Ok(Self {
            server: Server::new(settings, "broker", false).map_err(Error::Misconfigured)?,
            channels: channels(),
            link: Arc::new(Link::new(channels(), health.clone())),
            publisher: Arc::default(),
            listening: Mutex::default(),
            health,
            runtime: Handle::try_current().map_err(|error| {
                Error::Misconfigured(format!("a broker is opened within a runtime: {error}"))
            })?,
        })
    }

    fn listen(&self) {
        let mut listening = self
            .listening
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        listening.get_or_insert_with(|| {
            let (link, server) = (self.link.clone(), self.server.clone());
            let listen = move || {
                let (link, server) = (link.clone(), server.clone());
                async move { link.run(server).await }
            };
            self.health
                .restarting_on(&self.runtime, Part::Broker, "redis-subscriber", listen)
        });
    }
}

#[async_trait]
impl MessageBroker for RedisBroker {
    /// The receivers are the nodes that took it. Fails after 5 s at most; when the answer is what
    /// was missing, the message may have been delivered.
    async fn publish(&self, topic: &Topic, message: Message) -> Result<Published, Error> {
        let (channel, message) = (self.channels.name(topic), wire::encode(&message));
        let (server, publisher) = (self.server.clone(), self.publisher.clone());
        let answer = async move {
            let publisher = publisher.get_or_try_init(|| server.connect()).await?;
            let mut connection = publisher.clone();
            let mut publish = redis::cmd("PUBLISH");
            publish.arg(&channel).arg(message);
            let publish = publish.query_async::<usize>(&mut connection);
            match server.is_cluster() {
                true => {
                    let (heard, listening) =
                        tokio::join!(publish, listening(publisher.clone(), &channel));
                    match (heard?, listening) {
                        (0, Err(error)) => Err(error),
                        (heard, Err(_)) => Ok(heard),
                        (heard, Ok(listening)) => Ok(heard.max(listening)),
                    }
                }
                false => publish.await,
            }
        };
        let answer = tokio::time::timeout(PUBLISH, answer);
        let answer = AbortOnDropHandle::new(self.runtime.spawn(answer));
        let answer = answer
            .await
            .map_err(|_| Error::Unavailable("the node is stopping".into()))?;
        match answer {
            Ok(Ok(receivers)) => Ok(Published { receivers, full: 0 }),
            Ok(Err(error)) => Err(Error::Unavailable(problem(&self.server, &error))),
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
        let id = self.link.add(topic, inbox);
        let (link, left) = (Arc::downgrade(&self.link), topic.clone());
        let attachment = Attachment::new(move || {
            if let Some(link) = link.upgrade() {
                link.remove(&left, id);
            }
        });
        self.link.hear(topic).await;
        Ok(attachment)
    }
}

/// How many listen to a channel at all nodes of a cluster. Each hands on what is published at any, and
/// counts its own listeners only.
async fn listening(mut connection: Connection, channel: &str) -> RedisResult<usize> {
    let mut count = redis::cmd("PUBSUB");
    count.arg("NUMSUB").arg(channel);
    let counts: Vec<Vec<(String, usize)>> = connection.everywhere(Nodes::All, count).await?;
    Ok(counts.iter().flatten().map(|(_, count)| count).sum())
}

/// What went wrong, and what to do where somebody has to do something.
fn problem(server: &Server, error: &RedisError) -> String {
    server.problem(error, NEEDS)
}
