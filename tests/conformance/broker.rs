//! What every `MessageBroker` does, as cases that any implementation runs. Each case uses topics
//! of its own, so that all can share one server.

use bytes::Bytes;
use hostel::{
    broker::{Message, MessageBroker, Received, Subscription},
    task::Name,
};
use std::{pin::Pin, sync::Arc, time::Duration};

/// The backlog that a broker under test has to be opened with.
pub const BACKLOG: usize = 64;

pub type Broker = Arc<dyn MessageBroker>;
pub type Case = fn(Broker) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// All cases with their names.
pub const CASES: &[(&str, Case)] = &[
    ("everyone_on_the_topic_receives", |broker| {
        Box::pin(everyone_on_the_topic_receives(broker))
    }),
    ("other_topics_hear_nothing", |broker| {
        Box::pin(other_topics_hear_nothing(broker))
    }),
    ("nobody_listening_is_no_error", |broker| {
        Box::pin(nobody_listening_is_no_error(broker))
    }),
    ("nothing_from_before_is_received", |broker| {
        Box::pin(nothing_from_before_is_received(broker))
    }),
    ("each_senders_order_holds", |broker| {
        Box::pin(each_senders_order_holds(broker))
    }),
    ("who_falls_behind_is_cut_off_alone", |broker| {
        Box::pin(who_falls_behind_is_cut_off_alone(broker))
    }),
    ("who_left_is_not_counted", |broker| {
        Box::pin(who_left_is_not_counted(broker))
    }),
];

pub async fn everyone_on_the_topic_receives(broker: Broker) {
    let topic = topic();
    let mut first = subscribe(&broker, &topic).await;
    let mut second = subscribe(&broker, &topic).await;
    let sent = Message {
        id: "id-1".into(),
        from: "sender".into(),
        topic: topic.clone(),
        message_type: "greeting".into(),
        payload: Bytes::from_static(b"\0binary\xff"),
        in_reply_to: "id-0".into(),
    };
    assert!(broker.publish(sent.clone()).await.unwrap() > 0);
    assert_eq!(received(&mut first).await, sent);
    assert_eq!(received(&mut second).await, sent);
}

pub async fn other_topics_hear_nothing(broker: Broker) {
    let topic = topic();
    // A name that begins with the other one, and the characters that patterns are made of.
    let longer = Name::parse("topic", &format!("{topic}.x")).unwrap();
    let mut here = subscribe(&broker, &topic).await;
    let mut there = subscribe(&broker, &longer).await;
    publish(&broker, &topic, "a", 1).await;
    publish(&broker, &longer, "a", 2).await;
    assert_eq!(received(&mut here).await.id, "1");
    assert_eq!(received(&mut there).await.id, "2");
}

pub async fn nobody_listening_is_no_error(broker: Broker) {
    assert_eq!(publish(&broker, &topic(), "a", 1).await, 0);
}

pub async fn nothing_from_before_is_received(broker: Broker) {
    let topic = topic();
    publish(&broker, &topic, "a", 1).await;
    let mut late = subscribe(&broker, &topic).await;
    publish(&broker, &topic, "a", 2).await;
    assert_eq!(received(&mut late).await.id, "2");
}

pub async fn each_senders_order_holds(broker: Broker) {
    const SENDERS: usize = 4;
    const EACH: usize = 500;
    let topic = topic();
    let mut subscription = subscribe(&broker, &topic).await;
    // One step at a time for each sender, so that the reader below is never left behind.
    let room = Arc::new(tokio::sync::Semaphore::new(BACKLOG / 2));
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..SENDERS {
        let (broker, topic, room) = (broker.clone(), topic.clone(), room.clone());
        senders.spawn(async move {
            for number in 0..EACH {
                room.acquire().await.unwrap().forget();
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
        room.add_permits(1);
    }
    while let Some(sender) = senders.join_next().await {
        sender.unwrap();
    }
}

pub async fn who_falls_behind_is_cut_off_alone(broker: Broker) {
    let topic = topic();
    let mut slow = subscribe(&broker, &topic).await;
    let mut quick = subscribe(&broker, &topic).await;
    for number in 0..2 * BACKLOG {
        publish(&broker, &topic, "a", number).await;
        assert_eq!(received(&mut quick).await.id, number.to_string());
    }
    for number in 0..BACKLOG {
        let message = received(&mut slow).await;
        assert_eq!(message.id, number.to_string(), "what came before is whole");
    }
    assert!(matches!(next(&mut slow).await, Some(Received::CutOff)));
    assert!(next(&mut slow).await.is_none());
    // It may come back at once.
    let mut again = subscribe(&broker, &topic).await;
    publish(&broker, &topic, "a", 7).await;
    assert_eq!(received(&mut again).await.id, "7");
}

pub async fn who_left_is_not_counted(broker: Broker) {
    let topic = topic();
    let subscription = subscribe(&broker, &topic).await;
    assert!(publish(&broker, &topic, "a", 1).await > 0);
    drop(subscription);
    // A server may take a moment to hear of it.
    for _ in 0..100 {
        if publish(&broker, &topic, "a", 2).await == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("a subscription that was dropped is still counted");
}

/// A name that no other case and no other run uses.
fn topic() -> Name {
    let name = format!("topic-{}", uuid::Uuid::now_v7());
    Name::parse("topic", &name).unwrap()
}

async fn subscribe(broker: &Broker, topic: &Name) -> Subscription {
    broker.subscribe(topic).await.unwrap()
}

async fn publish(broker: &Broker, topic: &Name, from: &str, id: usize) -> usize {
    let message = Message {
        id: id.to_string(),
        from: from.into(),
        topic: topic.clone(),
        message_type: "test".into(),
        payload: Bytes::new(),
        in_reply_to: String::new(),
    };
    broker.publish(message).await.unwrap()
}

async fn next(subscription: &mut Subscription) -> Option<Received> {
    let next = tokio::time::timeout(Duration::from_secs(10), subscription.next());
    next.await
        .expect("something is received within ten seconds")
}

async fn received(subscription: &mut Subscription) -> Message {
    match next(subscription).await {
        Some(Received::Message(message)) => message,
        other => panic!("a message expected, {other:?} received"),
    }
}
