//! The contract that every message broker fulfils.

use super::{
    error::Error,
    message::{Message, Topic},
    subscription::{Attachment, Inbox, Overflow, Subscription},
};
use async_trait::async_trait;

/// Delivers messages to the receivers of a topic: at most once, and in order for each sender and topic.
#[async_trait]
pub trait MessageBroker: Send + Sync {
    /// Delivers the message to every inbox attached to the topic, without waiting for a receiver.
    async fn publish(&self, topic: &Topic, message: Message) -> Result<Published, Error>;

    /// Delivers what is published to `topic` from now on to `inbox`, until the attachment is dropped.
    async fn attach(&self, topic: &Topic, inbox: Inbox) -> Result<Attachment, Error>;

    /// Returns a subscription to `topic` alone. It is cut off when it falls `backlog` messages behind.
    async fn subscribe(&self, topic: &Topic, backlog: usize) -> Result<Subscription, Error> {
        let (inbox, mut subscription) = Subscription::new(backlog, Overflow::CutOff);
        subscription.keep(self.attach(topic, inbox).await?);
        Ok(subscription)
    }
}

/// The deliveries of one message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Published {
    /// How many receivers took it. Across machines this counts nodes and not subscribers.
    pub receivers: usize,
    /// How many receivers on this machine had no room for it.
    pub full: usize,
}
