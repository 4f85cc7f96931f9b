//! The conformance suite of message brokers: the contract of `MessageBroker`, one case for each rule. A
//! broker outside this repository runs it in its own tests:
//!
//! ```ignore
//! for case in conformance::cases() {
//!     case.run(|| async { Arc::new(MyBroker::open().await) as Arc<dyn MessageBroker> }).await;
//! }
//! ```
//!
//! A case panics if the broker breaks the contract. Each case uses topics of its own, so all cases can run
//! on one broker.

use super::{
    message::{Message, ReplyTo, Topic},
    message_broker::{MessageBroker, Published},
    subscription::{Attachment, Inbox, Overflow, Received, Subscription},
};
use bytes::Bytes;
use hostel_task::Name;
use std::{sync::Arc, time::Duration};

/// The backlog of the subscriptions of the cases.
pub const BACKLOG: usize = 64;

/// A broker under test.
pub type Broker = Arc<dyn MessageBroker>;

/// One rule of the contract.
pub type Case = hostel_runtime::conformance::Case<Broker>;

macro_rules! cases {
    ($($name:ident,)*) => {
        const CASES: &[Case] = &[$(Case::new(
            stringify!($name),
            |broker| Box::pin($name(broker)),
        )),*];
    };
}

cases! {
    every_receiver_of_the_topic_gets_the_message,
    other_topics_receive_nothing,
    a_topic_without_receivers_is_no_error,
    earlier_messages_are_not_received,
    the_order_of_each_sender_is_kept,
    only_a_slow_receiver_is_cut_off,
    a_full_inbox_that_refuses_receives_again,
    one_inbox_receives_from_all_its_topics,
    the_topic_of_a_node_is_separate,
    a_dropped_subscription_is_not_counted,
}

/// Returns the cases, in no particular order.
pub fn cases() -> impl Iterator<Item = Case> {
    CASES.iter().copied()
}

async fn every_receiver_of_the_topic_gets_the_message(broker: Broker) {
    let topic = topic();
    let mut first = subscribe(&broker, &topic).await;
    let mut second = subscribe(&broker, &topic).await;
    let sent = Message {
        id: "id-1".into(),
        from: "sender".into(),
        to: topic.clone(),
        message_type: "greeting".into(),
        payload: Bytes::from_static(b"\0binary\xff"),
        in_reply_to: "id-0".into(),
        error: "why not".into(),
        reply_to: Some(ReplyTo {
            node: Name::parse("node id", "node-1").unwrap(),
            request: Some(u64::MAX),
        }),
    };
    let shared = Topic::Shared(topic);
    assert!(
        broker
            .publish(&shared, sent.clone())
            .await
            .unwrap()
            .receivers
            > 0
    );
    assert_eq!(received(&mut first).await, sent);
    assert_eq!(received(&mut second).await, sent);
}

async fn other_topics_receive_nothing(broker: Broker) {
    let topic = topic();
    // A name that begins with the other one, and with a character of patterns.
    let longer = Name::parse("topic", &format!("{topic}.x")).unwrap();
    let mut here = subscribe(&broker, &topic).await;
    let mut there = subscribe(&broker, &longer).await;
    publish(&broker, &topic, "a", 1).await;
    publish(&broker, &longer, "a", 2).await;
    assert_eq!(received(&mut here).await.id, "1");
    assert_eq!(received(&mut there).await.id, "2");
}

async fn a_topic_without_receivers_is_no_error(broker: Broker) {
    assert_eq!(publish(&broker, &topic(), "a", 1).await, 0);
}

async fn earlier_messages_are_not_received(broker: Broker) {
    let topic = topic();
    publish(&broker, &topic, "a", 1).await;
    let mut late = subscribe(&broker, &topic).await;
    publish(&broker, &topic, "a", 2).await;
    assert_eq!(received(&mut late).await.id, "2");
}

async fn the_order_of_each_sender_is_kept(broker: Broker) {
    const SENDERS: usize = 4;
    const EACH: usize = 500;
    let topic = topic();
    let mut subscription = subscribe(&broker, &topic).await;
    // Fewer messages than the backlog are under way, so that the receiver is not cut off.
    let permits = Arc::new(tokio::sync::Semaphore::new(BACKLOG / 2));
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..SENDERS {
        let (broker, topic, permits) = (broker.clone(), topic.clone(), permits.clone());
        senders.spawn(async move {
            for number in 0..EACH {
                permits.acquire().await.unwrap().forget();
                publish(&broker, &topic, &sender.to_string(), number).await;
            }
        });
    }
    let mut next = [0; SENDERS];
    for _ in 0..SENDERS * EACH {
        let message = received(&mut subscription).await;
        let sender: usize = message.from.parse().unwrap();
        assert_eq!(message.id, next[sender].to_string(), "from sender {sender}");
        next[sender] += 1;
        permits.add_permits(1);
    }
    while let Some(sender) = senders.join_next().await {
        sender.unwrap();
    }
}

async fn only_a_slow_receiver_is_cut_off(broker: Broker) {
    let topic = topic();
    let mut slow = subscribe(&broker, &topic).await;
    let mut quick = subscribe(&broker, &topic).await;
    for number in 0..2 * BACKLOG {
        publish(&broker, &topic, "a", number).await;
        assert_eq!(received(&mut quick).await.id, number.to_string());
    }
    for number in 0..BACKLOG {
        let message = received(&mut slow).await;
        assert_eq!(
            message.id,
            number.to_string(),
            "messages before the cut-off are complete"
        );
    }
    assert!(matches!(next(&mut slow).await, Some(Received::CutOff)));
    assert!(next(&mut slow).await.is_none());
    // A new subscription works at once.
    let mut again = subscribe(&broker, &topic).await;
    publish(&broker, &topic, "a", 7).await;
    assert_eq!(received(&mut again).await.id, "7");
}

async fn a_full_inbox_that_refuses_receives_again(broker: Broker) {
    let topic = topic();
    let shared = Topic::Shared(topic.clone());
    let (inbox, mut mailbox) = Subscription::new(2, Overflow::Refuse);
    mailbox.keep(attach(&broker, &shared, inbox).await);
    // Across machines a message may find the inbox full only later, so the receiver decides: it has the
    // first two messages, in order, and later those for which it has room again.
    for number in 0..5 {
        broker
            .publish(&shared, message(&topic, "a", number))
            .await
            .unwrap();
    }
    for number in 0..2 {
        assert_eq!(received(&mut mailbox).await.id, number.to_string());
    }
    // Earlier messages may still arrive and take the room of this one.
    for _ in 0..100 {
        let after = broker.publish(&shared, message(&topic, "a", 9)).await;
        assert_eq!(after.unwrap().full, 0);
        let soon = Duration::from_millis(100);
        while let Ok(Some(Received::Message(message))) =
            tokio::time::timeout(soon, mailbox.next()).await
        {
            if message.id == "9" {
                return;
            }
        }
    }
    panic!("the inbox receives nothing any more");
}

async fn one_inbox_receives_from_all_its_topics(broker: Broker) {
    let (first, second) = (topic(), topic());
    let (inbox, mut mailbox) = Subscription::new(BACKLOG, Overflow::Refuse);
    let shared = |name: &Name| Topic::Shared(name.clone());
    mailbox.keep(attach(&broker, &shared(&first), inbox.clone()).await);
    let other = attach(&broker, &shared(&second), inbox).await;
    publish(&broker, &first, "a", 1).await;
    assert_eq!(received(&mut mailbox).await.to, first);
    publish(&broker, &second, "a", 2).await;
    assert_eq!(received(&mut mailbox).await.to, second);
    // The other topic stays attached.
    drop(other);
    for number in 0..100 {
        if publish(&broker, &second, "a", number).await == 0 {
            break;
        }
        assert!(number < 99, "a detached topic is still received");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    publish(&broker, &first, "a", 1000).await;
    while received(&mut mailbox).await.id != "1000" {}
}

async fn the_topic_of_a_node_is_separate(broker: Broker) {
    let name = topic();
    let mut shared = subscribe(&broker, &name).await;
    let node = Topic::Node(name.clone());
    let mut own = broker.subscribe(&node, BACKLOG).await.unwrap();
    assert_eq!(publish(&broker, &name, "a", 1).await, 1);
    let Published { receivers, full } =
        broker.publish(&node, message(&name, "a", 2)).await.unwrap();
    assert_eq!((receivers, full), (1, 0));
    assert_eq!(received(&mut shared).await.id, "1");
    assert_eq!(received(&mut own).await.id, "2");
}

async fn a_dropped_subscription_is_not_counted(broker: Broker) {
    let topic = topic();
    let subscription = subscribe(&broker, &topic).await;
    assert!(publish(&broker, &topic, "a", 1).await > 0);
    drop(subscription);
    // A server may take a moment to learn of it.
    for _ in 0..100 {
        if publish(&broker, &topic, "a", 2).await == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("a subscription that was dropped is still counted");
}

/// Returns a name that no other case and no other run uses.
pub fn topic() -> Name {
    let name = format!("topic-{:016x}", fastrand::u64(..));
    Name::parse("topic", &name).unwrap()
}

/// Subscribes to a shared topic.
pub async fn subscribe(broker: &Broker, topic: &Name) -> Subscription {
    let topic = Topic::Shared(topic.clone());
    broker.subscribe(&topic, BACKLOG).await.unwrap()
}

async fn attach(broker: &Broker, topic: &Topic, inbox: Inbox) -> Attachment {
    broker.attach(topic, inbox).await.unwrap()
}

/// Publishes a small message to a shared topic, and returns the number of receivers.
pub async fn publish(broker: &Broker, topic: &Name, from: &str, id: usize) -> usize {
    let shared = Topic::Shared(topic.clone());
    let published = broker.publish(&shared, message(topic, from, id)).await;
    published.unwrap().receivers
}

/// Returns a message without a payload.
pub fn message(to: &Name, from: &str, id: usize) -> Message {
    Message {
        id: id.to_string(),
        from: from.into(),
        to: to.clone(),
        message_type: "test".into(),
        payload: Bytes::new(),
        in_reply_to: String::new(),
        error: String::new(),
        reply_to: None,
    }
}

/// Returns the next item of a subscription. Panics if none comes.
pub async fn next(subscription: &mut Subscription) -> Option<Received> {
    let next = tokio::time::timeout(Duration::from_secs(10), subscription.next());
    next.await.expect("an item is received within ten seconds")
}

/// Returns the next message of a subscription. Panics if none comes.
pub async fn received(subscription: &mut Subscription) -> Message {
    match next(subscription).await {
        Some(Received::Message(message)) => message,
        other => panic!("expected a message, received {other:?}"),
    }
}
