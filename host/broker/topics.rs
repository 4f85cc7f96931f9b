//! The table of topics and their inboxes, through which every broker delivers. Callers lock it.

use super::{
    message::{Message, Topic},
    message_broker::Published,
    subscription::{Inbox, Refusal},
};
use std::collections::{BTreeMap, HashMap};

/// The inboxes attached to each topic. A topic without inboxes is removed, since clients choose the
/// names and the table would grow without bound.
#[derive(Default)]
pub(super) struct Topics {
    inboxes: HashMap<Topic, BTreeMap<u64, Inbox>>,
    last_id: u64,
}

impl Topics {
    /// Delivers the message to every inbox of the topic. One call serves all of them, so each receiver
    /// sees the same order.
    pub fn publish(&mut self, topic: &Topic, message: Message) -> Published {
        let mut published = Published::default();
        let Some(inboxes) = self.inboxes.get_mut(topic) else {
            return published;
        };
        inboxes.retain(|_, inbox| match inbox.deliver(message.clone()) {
            Ok(()) => {
                published.receivers += 1;
                true
            }
            Err(Refusal::Full) => {
                published.full += 1;
                true
            }
            Err(Refusal::Closed) => false,
        });
        if inboxes.is_empty() {
            self.inboxes.remove(topic);
        }
        published
    }

    /// Attaches an inbox, and returns the id with which it is removed.
    pub fn add(&mut self, topic: &Topic, inbox: Inbox) -> u64 {
        self.last_id += 1;
        let inboxes = self.inboxes.entry(topic.clone()).or_default();
        inboxes.insert(self.last_id, inbox);
        self.last_id
    }

    pub fn remove(&mut self, topic: &Topic, id: u64) {
        if let Some(inboxes) = self.inboxes.get_mut(topic) {
            inboxes.remove(&id);
            if inboxes.is_empty() {
                self.inboxes.remove(topic);
            }
        }
    }

    /// Whether the topic has an inbox.
    pub fn contains(&self, topic: &Topic) -> bool {
        self.inboxes.contains_key(topic)
    }

    /// The topics that have an inbox.
    pub fn iter(&self) -> impl Iterator<Item = &Topic> {
        self.inboxes.keys()
    }
}
