//! The broker of a single process: a table of topics under a lock.

use super::{
    error::Error,
    message::{Message, Topic},
    message_broker::{MessageBroker, Published},
    subscription::{Attachment, Inbox},
    topics::Topics,
};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::sync::{Arc, Weak};

/// Delivers messages to receivers in the same process.
#[derive(Default)]
pub struct LocalBroker {
    topics: Arc<Mutex<Topics>>,
}

#[async_trait]
impl MessageBroker for LocalBroker {
    async fn publish(&self, topic: &Topic, message: Message) -> Result<Published, Error> {
        Ok(self.topics.lock().publish(topic, message))
    }

    async fn attach(&self, topic: &Topic, inbox: Inbox) -> Result<Attachment, Error> {
        let id = self.topics.lock().add(topic, inbox);
        let (topics, topic) = (Arc::downgrade(&self.topics), topic.clone());
        Ok(Attachment::new(move || {
            if let Some(topics) = Weak::upgrade(&topics) {
                topics.lock().remove(&topic, id);
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Overflow, Received, Subscription};
    use bytes::Bytes;
    use hostel_task::Name;

    fn topic() -> Topic {
        Topic::Shared(Name::parse("topic", "t").unwrap())
    }

    fn message(payload: Bytes) -> Message {
        Message {
            id: "1".into(),
            from: "tester".into(),
            to: Name::parse("topic", "t").unwrap(),
            message_type: "test".into(),
            payload,
            in_reply_to: String::new(),
            error: String::new(),
            reply_to: None,
        }
    }

    async fn receivers(broker: &LocalBroker) -> usize {
        let published = broker.publish(&topic(), message(Bytes::new())).await;
        published.unwrap().receivers
    }

    #[tokio::test]
    async fn a_topic_is_removed_with_its_last_receiver() {
        let broker = LocalBroker::default();
        let known = || broker.topics.lock().iter().count();
        assert_eq!(receivers(&broker).await, 0);
        assert_eq!(known(), 0, "publishing creates no topic");
        let first = broker.subscribe(&topic(), 1).await.unwrap();
        let second = broker.subscribe(&topic(), 1).await.unwrap();
        drop(first);
        assert_eq!(known(), 1);
        drop(second);
        assert_eq!(known(), 0);
        let slow = broker.subscribe(&topic(), 1).await.unwrap();
        assert_eq!(receivers(&broker).await, 1);
        assert_eq!(receivers(&broker).await, 0);
        assert_eq!(known(), 0, "the slow receiver was cut off");
        drop(slow);
    }

    #[tokio::test]
    async fn receivers_share_one_payload_and_outlive_the_broker() {
        let broker = LocalBroker::default();
        let mut first = broker.subscribe(&topic(), 4).await.unwrap();
        let mut second = broker.subscribe(&topic(), 4).await.unwrap();
        let payload = Bytes::from(vec![7; 1024]);
        let sent = message(payload.clone());
        broker.publish(&topic(), sent).await.unwrap();
        drop(broker);
        for subscription in [&mut first, &mut second] {
            let Some(Received::Message(got)) = subscription.next().await else {
                panic!("a delivered message is still received");
            };
            assert_eq!(got.payload.as_ptr(), payload.as_ptr());
            assert!(subscription.next().await.is_none());
        }
    }

    #[tokio::test]
    async fn one_inbox_on_several_topics_has_one_limit_and_one_end() {
        let broker = LocalBroker::default();
        let other = Topic::Shared(Name::parse("topic", "other").unwrap());
        for overflow in [Overflow::CutOff, Overflow::Refuse] {
            let own = topic();
            let (inbox, mut subscription) = Subscription::new(2, overflow);
            for topic in [&topic(), &other] {
                let attachment = broker.attach(topic, inbox.clone()).await.unwrap();
                subscription.keep(attachment);
            }
            drop(inbox);
            let publish = async |topic: &Topic| {
                let published = broker.publish(topic, message(Bytes::new())).await.unwrap();
                (published.receivers, published.full)
            };
            assert_eq!(publish(&own).await, (1, 0));
            assert_eq!(publish(&other).await, (1, 0));
            let refused = overflow == Overflow::Refuse;
            assert_eq!(publish(&own).await, (0, usize::from(refused)));
            for _ in 0..2 {
                let next = subscription.next().await;
                assert!(matches!(next, Some(Received::Message(_))), "{next:?}");
            }
            if refused {
                assert_eq!(publish(&own).await, (1, 0), "there is room again");
            } else {
                assert_eq!(publish(&other).await, (0, 0));
                assert!(matches!(subscription.next().await, Some(Received::CutOff)));
                assert!(subscription.next().await.is_none());
            }
        }
    }
}
