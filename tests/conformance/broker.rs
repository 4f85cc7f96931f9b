//! What every `MessageBroker` does, as cases that any implementation runs. Each case uses topics
//! of its own, so that all can share one server.

use bytes::Bytes;
use hostel::{
    broker::{
        Attachment, Inbox, Message, MessageBroker, Overflow, Published, Received, ReplyTo,
        Subscription, Topic,
    },
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
    ("a_full_inbox_that_refuses_goes_on", |broker| {
        Box::pin(a_full_inbox_that_refuses_goes_on(broker))
    }),
    ("one_inbox_hears_all_of_its_topics", |broker| {
        Box::pin(one_inbox_hears_all_of_its_topics(broker))
    }),
    ("a_nodes_own_topic_is_nobody_elses", |broker| {
        Box::pin(a_nodes_own_topic_is_nobody_elses(broker))
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
        to: topic.clone(),
        message_type: "greeting".into(),
        payload: Bytes::from_static(b"\0binary\xff"),
        in_reply_to: "id-0".into(),
        error: "why not".into(),
        reply_to: Some(ReplyTo {
            node: Name::parse("node id", "node-1").unwrap(),
            request: u64::MAX,
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

pub async fn a_full_inbox_that_refuses_goes_on(broker: Broker) {
    let topic = topic();
    let shared = Topic::Shared(topic.clone());
    let (inbox, mut mailbox) = Subscription::new(2, Overflow::Refuse);
    mailbox.keep(attach(&broker, &shared, inbox).await);
    // Across machines a message that was sent may find the inbox full only later, so what counts is
    // what the receiver has: the first two, in order, and then what it has room for again.
    for number in 0..5 {
        broker
            .publish(&shared, message(&topic, "a", number))
            .await
            .unwrap();
    }
    for number in 0..2 {
        assert_eq!(received(&mut mailbox).await.id, number.to_string());
    }
    // What was sent while there was no room may still get in, and take the room of what is sent now.
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
    panic!("it takes nothing any more");
}

pub async fn one_inbox_hears_all_of_its_topics(broker: Broker) {
    let (first, second) = (topic(), topic());
    let (inbox, mut mailbox) = Subscription::new(BACKLOG, Overflow::Refuse);
    let shared = |name: &Name| Topic::Shared(name.clone());
    mailbox.keep(attach(&broker, &shared(&first), inbox.clone()).await);
    let other = attach(&broker, &shared(&second), inbox).await;
    publish(&broker, &first, "a", 1).await;
    assert_eq!(received(&mut mailbox).await.to, first);
    publish(&broker, &second, "a", 2).await;
    assert_eq!(received(&mut mailbox).await.to, second);
    // Leaving one topic leaves the other.
    drop(other);
    for number in 0..100 {
        if publish(&broker, &second, "a", number).await == 0 {
            break;
        }
        assert!(number < 99, "a topic that was left is still heard");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    publish(&broker, &first, "a", 1000).await;
    while received(&mut mailbox).await.id != "1000" {}
}

pub async fn a_nodes_own_topic_is_nobody_elses(broker: Broker) {
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
pub fn topic() -> Name {
    let name = format!("topic-{}", uuid::Uuid::now_v7());
    Name::parse("topic", &name).unwrap()
}

pub async fn subscribe(broker: &Broker, topic: &Name) -> Subscription {
    let topic = Topic::Shared(topic.clone());
    broker.subscribe(&topic, BACKLOG).await.unwrap()
}

async fn attach(broker: &Broker, topic: &Topic, inbox: Inbox) -> Attachment {
    broker.attach(topic, inbox).await.unwrap()
}

pub async fn publish(broker: &Broker, topic: &Name, from: &str, id: usize) -> usize {
    let shared = Topic::Shared(topic.clone());
    let published = broker.publish(&shared, message(topic, from, id)).await;
    published.unwrap().receivers
}

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

pub async fn next(subscription: &mut Subscription) -> Option<Received> {
    let next = tokio::time::timeout(Duration::from_secs(10), subscription.next());
    next.await
        .expect("something is received within ten seconds")
}

pub async fn received(subscription: &mut Subscription) -> Message {
    match next(subscription).await {
        Some(Received::Message(message)) => message,
        other => panic!("a message expected, {other:?} received"),
    }
}
