//! A table of topics and the inboxes on each, which every broker delivers through. Holds no lock and
//! no connection.

use super::{Inbox, Message, Published, Refusal, Topic};
use std::collections::{BTreeMap, HashMap};

/// No topic without a receiver stays here: clients choose the names, so that would grow for ever.
#[derive(Default)]
pub(super) struct Topics {
    inboxes: HashMap<Topic, BTreeMap<u64, Inbox>>,
    last_id: u64,
}

impl Topics {
    /// Under one lock for all receivers, so that each of them sees the same order.
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

    /// Whether anybody is on the topic.
    pub fn has(&self, topic: &Topic) -> bool {
        self.inboxes.contains_key(topic)
    }

    /// The topics that somebody is on.
    pub fn all(&self) -> impl Iterator<Item = &Topic> {
        self.inboxes.keys()
    }
}
