//! Messages between whoever is on a topic: at most once, in order for each sender and topic. The
//! contract and the one place that chooses an implementation. Never the only copy of a task.

mod local;
mod subscription;

pub use local::LocalBroker;
pub use subscription::{Delivery, Received, Subscription};

use crate::{config, task::Name};
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;

#[async_trait]
pub trait MessageBroker: Send + Sync {
    /// Hands the message to everyone who is subscribed to its topic, and says how many that were.
    /// Never waits for a receiver.
    async fn publish(&self, message: Message) -> Result<usize, Error>;

    /// Everything published to `topic` from now on.
    async fn subscribe(&self, topic: &Name) -> Result<Subscription, Error>;
}

/// Makes the broker that the configuration names. Nothing is connected before the first use.
pub fn open(config: &config::Config) -> Arc<dyn MessageBroker> {
    match config.broker {
        config::Broker::Local => Arc::new(LocalBroker::new(config.limits.subscriber_backlog)),
    }
}

/// A payload on its way to a topic. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub id: String,
    /// Whom to answer; empty when the sender is on no topic.
    pub from: String,
    pub topic: Name,
    pub message_type: String,
    pub payload: Bytes,
    /// The id of the message that this one answers, or empty.
    pub in_reply_to: String,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the message broker is unavailable: {0}")]
    Unavailable(String),
}
