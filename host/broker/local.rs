//! Messages within one process: a table of topics and who listens. Nothing is stored; whoever is
//! not subscribed misses it.

use super::{Delivery, Error, Message, MessageBroker, Subscription};
use crate::task::Name;
use async_trait::async_trait;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

/// Hands messages to subscribers in the same process.
pub struct LocalBroker {
    topics: Arc<Mutex<Topics>>,
    backlog: usize,
}

/// No topic without a subscriber stays here: clients choose the names, so that would grow for ever.
#[derive(Default)]
struct Topics {
    subscribers: HashMap<Name, BTreeMap<u64, Delivery>>,
    last_id: u64,
}

impl LocalBroker {
    /// A subscriber that is `backlog` messages behind is cut off.
    pub fn new(backlog: usize) -> Self {
        let topics = Arc::default();
        Self { topics, backlog }
    }
}

#[async_trait]
impl MessageBroker for LocalBroker {
    async fn publish(&self, message: Message) -> Result<usize, Error> {
        Ok(lock(&self.topics).publish(message))
    }

    async fn subscribe(&self, topic: &Name) -> Result<Subscription, Error> {
        let (delivery, subscription) = Subscription::new(self.backlog);
        let id = lock(&self.topics).add(topic, delivery);
        let (topics, topic) = (Arc::downgrade(&self.topics), topic.clone());
        Ok(subscription.on_drop(move || {
            if let Some(topics) = Weak::upgrade(&topics) {
                lock(&topics).remove(&topic, id);
            }
        }))
    }
}

impl Topics {
    /// Under one lock for all receivers, so that each of them sees the same order.
    fn publish(&mut self, message: Message) -> usize {
        let topic = message.topic.clone();
        let Some(subscribers) = self.subscribers.get_mut(&topic) else {
            return 0;
        };
        subscribers.retain(|_, delivery| delivery.deliver(message.clone()));
        let reached = subscribers.len();
        if reached == 0 {
            self.subscribers.remove(&topic);
        }
        reached
    }

    fn add(&mut self, topic: &Name, delivery: Delivery) -> u64 {
        self.last_id += 1;
        let subscribers = self.subscribers.entry(topic.clone()).or_default();
        subscribers.insert(self.last_id, delivery);
        self.last_id
    }

    fn remove(&mut self, topic: &Name, id: u64) {
        if let Some(subscribers) = self.subscribers.get_mut(topic) {
            subscribers.remove(&id);
            if subscribers.is_empty() {
                self.subscribers.remove(topic);
            }
        }
    }
}

/// A panic while the lock was held leaves the table whole: every change is one insert or remove.
fn lock(topics: &Mutex<Topics>) -> MutexGuard<'_, Topics> {
    topics.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::{super::Received, *};
    use bytes::Bytes;

    fn message(topic: &Name, payload: Bytes) -> Message {
        Message {
            id: "1".into(),
            from: "tester".into(),
            topic: topic.clone(),
            message_type: "test".into(),
            payload,
            in_reply_to: String::new(),
        }
    }

    #[tokio::test]
    async fn no_topic_outlives_its_subscribers() {
        let broker = LocalBroker::new(1);
        let topic = Name::parse("topic", "t").unwrap();
        let known = || lock(&broker.topics).subscribers.len();
        broker.publish(message(&topic, Bytes::new())).await.unwrap();
        assert_eq!(known(), 0, "publishing makes no topic");
        let first = broker.subscribe(&topic).await.unwrap();
        let second = broker.subscribe(&topic).await.unwrap();
        drop(first);
        assert_eq!(known(), 1);
        drop(second);
        assert_eq!(known(), 0);
        let slow = broker.subscribe(&topic).await.unwrap();
        assert_eq!(
            broker.publish(message(&topic, Bytes::new())).await.unwrap(),
            1
        );
        assert_eq!(
            broker.publish(message(&topic, Bytes::new())).await.unwrap(),
            0
        );
        assert_eq!(known(), 0, "the slow one was cut off");
        drop(slow);
    }

    #[tokio::test]
    async fn receivers_share_one_payload_and_outlive_the_broker() {
        let broker = LocalBroker::new(4);
        let topic = Name::parse("topic", "t").unwrap();
        let mut first = broker.subscribe(&topic).await.unwrap();
        let mut second = broker.subscribe(&topic).await.unwrap();
        let payload = Bytes::from(vec![7; 1024]);
        broker
            .publish(message(&topic, payload.clone()))
            .await
            .unwrap();
        drop(broker);
        for subscription in [&mut first, &mut second] {
            let Some(Received::Message(got)) = subscription.next().await else {
                panic!("what was delivered is still received");
            };
            assert_eq!(got.payload.as_ptr(), payload.as_ptr());
            assert!(subscription.next().await.is_none());
        }
    }
}
