//! Services that register and expire, and messages: sending, streaming, one response for each, and slow
//! subscribers.

use crate::support::{
    DEADLINE,
    backend::{Backend, on_both},
    eventually,
    node::Node,
};
use hostel::{
    DistributedClient,
    proto::distributed::{Message, Node as Found, RegisterRequest},
};
use libtest_mimic::Trial;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Code, Status, Streaming};

pub fn trials() -> Vec<Trial> {
    [
        on_both(
            "messages::a_service_expires_unless_renewed",
            a_service_expires_unless_renewed,
        ),
        on_both(
            "messages::a_message_reaches_every_subscriber",
            a_message_reaches_every_subscriber,
        ),
        on_both(
            "messages::each_streamed_message_gets_one_response",
            each_streamed_message_gets_one_response,
        ),
        on_both("messages::a_stream_has_one_sender", a_stream_has_one_sender),
        on_both(
            "messages::slow_subscribers_are_disconnected",
            slow_subscribers_are_disconnected,
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

async fn a_service_expires_unless_renewed(on: Backend) {
    let node = on.start(&[], "").await;
    let mut client = node.client();
    let service = |id: &str, ttl_ms| RegisterRequest {
        node_id: id.into(),
        service_name: "web".into(),
        address: format!("10.0.0.1:{}", id.len()),
        metadata: HashMap::from([("zone".into(), "a".into())]),
        ttl_ms,
    };
    let ttl = client.register(service("lasting", 0)).await.unwrap();
    assert_eq!(ttl, Duration::from_secs(60), "the default");

    // Renewed for three times its TTL, the service is always found.
    let ttl = Duration::from_secs(2);
    let begun = Instant::now();
    while begun.elapsed() < 3 * ttl {
        let renewed = Instant::now();
        assert_eq!(client.register(service("brief", 2000)).await.unwrap(), ttl);
        tokio::time::sleep(Duration::from_millis(200)).await;
        let found = client.discover("web").await.unwrap();
        // On a machine that was too busy to renew in time, the service may have expired.
        if renewed.elapsed() < ttl {
            assert_eq!(ids(&found), ["brief", "lasting"]);
        }
    }
    let changed = RegisterRequest {
        address: "10.0.0.2:1".into(),
        ..service("brief", 2000)
    };
    let since = Instant::now();
    client.register(changed).await.unwrap();
    let found = client.discover("web").await.unwrap();
    let brief = found.iter().find(|node| node.node_id == "brief");
    assert!(brief.is_none_or(|node| node.address == "10.0.0.2:1"));
    eventually("it expires", async || {
        let found = node.client().discover("web").await.unwrap();
        assert!(found.iter().all(|node| node.metadata["zone"] == "a"));
        (ids(&found) == ["lasting"]).then_some(())
    })
    .await;
    assert!(since.elapsed() >= ttl, "it expired too early");

    // Nodes are listed as a service that clients cannot register.
    let nodes = client.discover("distributed_node").await.unwrap();
    assert_eq!(ids(&nodes), ["test"]);
    assert_eq!(nodes[0].address, node.address());
    let false_node = RegisterRequest {
        service_name: "distributed_node".into(),
        ..service("liar", 0)
    };
    let refused = client.register(false_node).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    assert!(client.discover("we").await.unwrap().is_empty());
}

fn ids(found: &[Found]) -> Vec<&str> {
    found.iter().map(|node| node.node_id.as_str()).collect()
}

async fn a_message_reaches_every_subscriber(on: Backend) {
    let node = on.start(&[], "").await;
    let mut client = node.client();
    let undelivered = client.send_message(message("a", "b", "1")).await.unwrap();
    assert!(!undelivered.success);
    assert_eq!(undelivered.receivers, 0);
    assert!(undelivered.message.contains('b'), "{}", undelivered.message);

    let mut first = Conversation::open(&node, "b").await;
    let mut second = Conversation::open(&node, "b").await;
    let sent = Message {
        message_type: "greeting".into(),
        ..message("a", "b", "2")
    };
    let received = client.send_message(sent.clone()).await.unwrap();
    assert!(received.success);
    // Redis counts nodes and not subscribers.
    let receivers = match on {
        Backend::Embedded => 2,
        Backend::Shared => 1,
    };
    assert_eq!(
        (received.receivers, received.message_id.as_str()),
        (receivers, "2")
    );
    assert_eq!(first.next().await.unwrap(), sent);
    assert_eq!(second.next().await.unwrap(), sent);

    // A closed stream is no longer a subscriber.
    drop(first);
    eventually("one subscriber is left", async || {
        let answer = node.client().send_message(message("a", "b", "3")).await;
        (answer.unwrap().receivers == 1).then_some(())
    })
    .await;
    let bad = client.send_message(message("a", "b/c", "4")).await;
    assert_eq!(bad.unwrap_err().code(), Code::InvalidArgument);
}

async fn each_streamed_message_gets_one_response(on: Backend) {
    const EACH: usize = 200;
    let node = on.start(&[], "").await;
    let left = Conversation::open(&node, "left").await;
    let right = Conversation::open(&node, "right").await;
    let exchange = |conversation: Conversation, own: &'static str, other: &'static str| async move {
        let Conversation {
            outgoing,
            mut incoming,
        } = conversation;
        let sending = tokio::spawn(async move {
            for number in 0..EACH {
                let id = format!("{own}-{number}");
                outgoing.send(message(own, other, &id)).await.unwrap();
            }
            outgoing
        });
        let (mut responses, mut deliveries) = (Vec::new(), Vec::new());
        while responses.len() + deliveries.len() < 2 * EACH {
            let received = receive_next(&mut incoming).await.unwrap();
            if received.message_type == "response" {
                assert_eq!(
                    (received.from_node.as_str(), received.error.as_str()),
                    ("test", "")
                );
                assert_eq!(received.payload, received.in_reply_to.as_bytes());
                assert_eq!(received.to_node, own);
                responses.push(received.in_reply_to);
            } else {
                assert_eq!((&*received.from_node, &*received.to_node), (other, own));
                assert_eq!(received.payload, received.message_id.as_bytes());
                deliveries.push(received.message_id);
            }
        }
        // Closing the outgoing side ends the stream, without further messages.
        drop(sending.await.unwrap());
        assert!(incoming.next().await.is_none(), "more than one response");
        let all_of = |who: &str| (0..EACH).map(|n| format!("{who}-{n}")).collect::<Vec<_>>();
        assert_eq!(responses, all_of(own));
        assert_eq!(deliveries, all_of(other));
    };
    let left = tokio::spawn(exchange(left, "left", "right"));
    let right = tokio::spawn(exchange(right, "right", "left"));
    left.await.unwrap();
    right.await.unwrap();
}

async fn a_stream_has_one_sender(on: Backend) {
    let node = on.start(&[], "").await;
    let mut own = Conversation::open(&node, "own").await;
    let mut listener = Conversation::open(&node, "listener").await;

    own.outgoing
        .send(message("another", "listener", "1"))
        .await
        .unwrap();
    let response = own.next().await.unwrap();
    assert_eq!(response.in_reply_to, "1");
    assert_eq!(response.message_type, "response");
    assert!(response.error.contains("own"), "{response:?}");

    own.outgoing
        .send(message("own", "nobody", "2"))
        .await
        .unwrap();
    let response = own.next().await.unwrap();
    assert_eq!(response.in_reply_to, "2");
    assert!(response.error.contains("nobody"), "{response:?}");

    own.outgoing
        .send(message("own", "no/name", "3"))
        .await
        .unwrap();
    let response = own.next().await.unwrap();
    assert_eq!(response.in_reply_to, "3");
    assert!(!response.error.is_empty(), "{response:?}");

    // The errors did not end the stream, and the message of the false sender was not delivered.
    own.outgoing
        .send(message("own", "listener", "4"))
        .await
        .unwrap();
    assert_eq!(own.next().await.unwrap().error, "");
    let received = listener.next().await.unwrap();
    assert_eq!((&*received.message_id, &*received.from_node), ("4", "own"));

    // A stream without a sender can send, and receives only its responses.
    let mut nameless = Conversation::begin(&node).await;
    nameless
        .outgoing
        .send(message("", "listener", "5"))
        .await
        .unwrap();
    let response = nameless.next().await.unwrap();
    assert_eq!((&*response.in_reply_to, &*response.error), ("5", ""));
    assert_eq!(listener.next().await.unwrap().message_id, "5");
    // The node chooses an id, which both sides get.
    nameless
        .outgoing
        .send(message("", "listener", ""))
        .await
        .unwrap();
    let response = nameless.next().await.unwrap();
    assert_ne!(response.in_reply_to, "");
    assert_eq!(
        listener.next().await.unwrap().message_id,
        response.in_reply_to
    );
    drop(nameless.outgoing);
    assert!(nameless.incoming.next().await.is_none());
}

async fn slow_subscribers_are_disconnected(on: Backend) {
    const BACKLOG: u64 = 8;
    let settings = format!("[limits]\nsubscriber_backlog = {BACKLOG}\n");
    let node = on.start(&[], &settings).await;
    let mut slow = Conversation::open(&node, "slow").await;
    let mut quick = Conversation::open(&node, "quick").await;
    let mut sender = node.client();
    let large = |to: &str, number: u64| Message {
        payload: vec![7; 64 << 10].into(),
        ..message("sender", to, &number.to_string())
    };
    // The slow stream is not read: first the windows of the connection fill up, then the backlog.
    let mut sent = 0;
    loop {
        let answer = sender.send_message(large("slow", sent)).await.unwrap();
        if !answer.success {
            break;
        }
        sent += 1;
        assert!(sent < 10_000, "the slow subscriber is not disconnected");
        // Other subscribers are not affected.
        let answer = sender.send_message(large("quick", sent)).await.unwrap();
        assert_eq!(answer.receivers, 1);
        assert_eq!(quick.next().await.unwrap().message_id, sent.to_string());
    }
    println!("messages: disconnected with {sent} messages unread");
    assert!(sent >= BACKLOG);
    // The delivered messages can still be read; the reason for the end follows them.
    let mut received = 0;
    let end = loop {
        match slow.next().await {
            Ok(message) => assert_eq!(message.message_id, received.to_string()),
            Err(status) => break status,
        }
        received += 1;
    };
    assert!(received >= BACKLOG);
    match on {
        Backend::Embedded => assert_eq!(received, sent),
        // Through Redis, the sender learns of the end a little later.
        Backend::Shared => assert!(received <= sent),
    }
    assert_eq!(end.code(), Code::ResourceExhausted, "{end}");
    assert!(end.message().contains("subscriber_backlog"), "{end}");

    let mut again = Conversation::open(&node, "slow").await;
    let answer = sender.send_message(large("slow", 0)).await.unwrap();
    assert_eq!(answer.receivers, 1);
    assert_eq!(again.next().await.unwrap().message_id, "0");
}

/// A stream on its own connection.
struct Conversation {
    outgoing: mpsc::Sender<Message>,
    incoming: Streaming<Message>,
}

impl Conversation {
    /// Opens a stream that subscribes to `own`. A message without a destination only subscribes, and
    /// gets a response.
    async fn open(node: &Node, own: &str) -> Self {
        let mut conversation = Self::begin(node).await;
        let hello = message(own, "", "hello");
        conversation.outgoing.send(hello).await.unwrap();
        let response = conversation.next().await.unwrap();
        assert_eq!(response.message_type, "response");
        assert_eq!(response.to_node, own);
        assert_eq!(response.in_reply_to, "hello");
        assert_eq!(response.error, "");
        conversation
    }

    async fn begin(node: &Node) -> Self {
        let mut client = DistributedClient::connect(node.address()).await.unwrap();
        let (outgoing, receiver) = mpsc::channel(16);
        let incoming = client.stream_messages(ReceiverStream::new(receiver)).await;
        let incoming = incoming.expect("a stream");
        Self { outgoing, incoming }
    }

    async fn next(&mut self) -> Result<Message, Status> {
        receive_next(&mut self.incoming).await
    }
}

async fn receive_next(incoming: &mut Streaming<Message>) -> Result<Message, Status> {
    let next = tokio::time::timeout(DEADLINE, incoming.next()).await;
    next.expect("a message in time").expect("an open stream")
}

/// Returns a message whose payload is its id.
fn message(from: &str, to: &str, id: &str) -> Message {
    Message {
        from_node: from.into(),
        to_node: to.into(),
        payload: id.to_owned().into_bytes().into(),
        message_type: "note".into(),
        message_id: id.into(),
        ..Message::default()
    }
}
