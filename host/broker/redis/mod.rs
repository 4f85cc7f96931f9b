//! Messages between nodes through Redis pub/sub: one connection that publishes and one that listens
//! (`link.rs`). Redis keeps nothing, so whoever is not listening misses it, and so does everybody
//! while Redis is away.

mod channel;
mod link;
mod wire;

use super::{Attachment, Error, Inbox, Message, MessageBroker, Published, Topic};
use crate::{config, task::Name};
use async_trait::async_trait;
use channel::Channels;
use link::Link;
use redis::{
    Client, ConnectionInfo, ErrorKind, IntoConnectionInfo, RedisError,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

/// How long connecting and the answer to a publish may take, each.
const CONNECT: Duration = Duration::from_millis(1500);
const ANSWER: Duration = Duration::from_secs(3);
/// How long publishing may take in all, the wait for a new connection included.
const PUBLISH: Duration = Duration::from_secs(5);
/// How many messages wait for the socket; further senders wait with theirs.
const PIPELINE: usize = 256;
/// After how long without an acknowledgement a connection counts as dead: one whose other end has
/// vanished would otherwise look idle for a quarter of an hour.
const DEAD: Duration = Duration::from_secs(10);

/// Hands messages to receivers on every node that uses the same Redis and prefix.
pub struct RedisBroker {
    client: Client,
    channels: Channels,
    link: Arc<Link>,
    running: Mutex<Running>,
    /// Where both connections live. Components publish from a runtime of their own, which has no
    /// sockets.
    runtime: Handle,
}

/// What is begun at the first use. Dropping it ends both connections.
#[derive(Default)]
struct Running {
    publisher: Option<ConnectionManager>,
    listening: Option<AbortOnDropHandle<()>>,
}

impl RedisBroker {
    /// For the Redis at `url`, under the prefix that nodes have unless told otherwise. Connects at
    /// the first use.
    pub async fn new(url: &str) -> Result<Self, Error> {
        let prefix = Name::parse("prefix", config::Redis::PREFIX);
        let prefix = prefix.map_err(|error| Error::Misconfigured(error.to_string()))?;
        let url = config::SecretUrl::new(url);
        Self::open(&config::Redis { url, prefix })
    }

    /// The same from the configuration.
    pub fn open(settings: &config::Redis) -> Result<Self, Error> {
        let unusable = |error: RedisError| {
            let url = &settings.url;
            Error::Misconfigured(format!("broker.url ({url}) cannot be used: {error}"))
        };
        let server: ConnectionInfo = settings
            .url
            .reveal()
            .into_connection_info()
            .map_err(unusable)?;
        let tcp = server.tcp_settings().clone();
        let server = server.set_tcp_settings(watchful(tcp));
        let channels = || Channels::new(&settings.prefix);
        Ok(Self {
            client: Client::open(server).map_err(unusable)?,
            channels: channels(),
            link: Arc::new(Link::new(channels())),
            running: Mutex::default(),
            runtime: Handle::try_current().map_err(|error| {
                Error::Misconfigured(format!("a broker is opened within a runtime: {error}"))
            })?,
        })
    }

    /// Every change under this lock is one assignment, so a panic elsewhere does not spoil it.
    fn running(&self) -> std::sync::MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publisher(&self) -> Result<ConnectionManager, RedisError> {
        let mut running = self.running();
        if let Some(publisher) = &running.publisher {
            return Ok(publisher.clone());
        }
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(ANSWER))
            .set_number_of_retries(1)
            .set_max_delay(Duration::from_millis(200))
            .set_pipeline_buffer_size(PIPELINE);
        let publisher = self.client.get_connection_manager_lazy(config)?;
        running.publisher = Some(publisher.clone());
        Ok(publisher)
    }

    fn listen(&self) {
        let mut running = self.running();
        running.listening.get_or_insert_with(|| {
            let (link, client) = (self.link.clone(), self.client.clone());
            AbortOnDropHandle::new(self.runtime.spawn(async move { link.run(client).await }))
        });
    }
}

#[async_trait]
impl MessageBroker for RedisBroker {
    /// The receivers are the nodes that took it. Fails after 5 s at most; when the answer is what
    /// was missing, the message may have been delivered.
    async fn publish(&self, topic: &Topic, message: Message) -> Result<Published, Error> {
        let mut command = redis::cmd("PUBLISH");
        command
            .arg(self.channels.name(topic))
            .arg(wire::encode(&message));
        let mut publisher = self.publisher().map_err(|error| unavailable(&error))?;
        let answer = AbortOnDropHandle::new(self.runtime.spawn(async move {
            let answer = command.query_async::<usize>(&mut publisher);
            tokio::time::timeout(PUBLISH, answer).await
        }));
        let answer = answer
            .await
            .map_err(|_| Error::Unavailable("the node is stopping".into()))?;
        match answer {
            Ok(Ok(receivers)) => Ok(Published { receivers, full: 0 }),
            Ok(Err(error)) => Err(unavailable(&error)),
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

fn watchful(tcp: redis::io::tcp::TcpSettings) -> redis::io::tcp::TcpSettings {
    let tcp = tcp.set_nodelay(true);
    #[cfg(target_os = "linux")]
    let tcp = tcp.set_user_timeout(DEAD);
    tcp
}

fn unavailable(error: &RedisError) -> Error {
    Error::Unavailable(problem(error))
}

/// What went wrong, and what to do where somebody has to do something.
fn problem(error: &RedisError) -> String {
    let refused = error.kind() == ErrorKind::AuthenticationFailed
        || matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM"));
    match refused {
        true => format!(
            "Redis refuses this node: {error}; check the user and password in broker.url, and that \
             its ACL allows PUBLISH, SUBSCRIBE and PING on the channels under broker.prefix"
        ),
        false => error.to_string(),
    }
}
