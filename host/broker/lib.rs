//! Messages between whoever is on a topic: at most once, in order for each sender and topic. The
//! contract and the one place that chooses an implementation. Never the only copy of a task.

mod local;
mod message;
mod redis;
mod subscription;
mod table;

pub use self::redis::RedisBroker;
pub use local::LocalBroker;
pub use message::{InvalidMessage, Message, ReplyTo, Topic};
pub use subscription::{Attachment, Inbox, Overflow, Received, Refusal, Subscription};

use async_trait::async_trait;
use hostel_runtime::health::Health;
use std::sync::Arc;

#[async_trait]
pub trait MessageBroker: Send + Sync {
    /// Hands the message to every inbox that is attached to the topic. Never waits for a receiver.
    async fn publish(&self, topic: &Topic, message: Message) -> Result<Published, Error>;

    /// Everything published to `topic` from now on goes into `inbox`, until the attachment is
    /// dropped.
    async fn attach(&self, topic: &Topic, inbox: Inbox) -> Result<Attachment, Error>;

    /// A subscription to `topic` alone; who falls `backlog` messages behind is cut off.
    async fn subscribe(&self, topic: &Topic, backlog: usize) -> Result<Subscription, Error> {
        let (inbox, mut subscription) = Subscription::new(backlog, Overflow::CutOff);
        subscription.keep(self.attach(topic, inbox).await?);
        Ok(subscription)
    }
}

/// What became of a message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Published {
    /// How many took it. Across machines this counts nodes, not subscribers.
    pub receivers: usize,
    /// How many on this machine had no room for it.
    pub full: usize,
}

/// Makes the broker that the configuration names. Nothing is connected before the first use.
/// It reports its faults to `health`.
pub fn open(
    config: &hostel_config::Config,
    health: &Health,
) -> Result<Arc<dyn MessageBroker>, Error> {
    Ok(match &config.broker {
        hostel_config::Broker::Local => Arc::new(LocalBroker::default()),
        hostel_config::Broker::Redis(redis) => {
            Arc::new(RedisBroker::open_reporting(redis, health.clone())?)
        }
    })
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the message broker is unavailable: {0}")]
    Unavailable(String),
    /// What the operator said cannot be used.
    #[error("{0}")]
    Misconfigured(String),
}
