//! Services that register and expire, and messages: sent, streamed, answered each exactly once, and
//! a receiver that is too slow for the others.

use crate::support::{
    PATIENCE,
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
        on_both("messages::a_service_lives_while_it_renews", services),
        on_both("messages::sent_to_who_listens", sent),
        on_both("messages::one_response_for_each", one_response_for_each),
        on_both("messages::a_stream_speaks_for_one", a_stream_speaks_for_one),
        on_both("messages::the_slow_are_cut_off", the_slow_are_cut_off),
    ]
    .into_iter()
    .flatten()
    .collect()
}

async fn services(on: Backend) {
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

    // Renewed for three times its time to live, and there all the while.
    let ttl = Duration::from_secs(2);
    let begun = Instant::now();
    while begun.elapsed() < 3 * ttl {
        let renewed = Instant::now();
        assert_eq!(client.register(service("brief", 2000)).await.unwrap(), ttl);
        tokio::time::sleep(Duration::from_millis(200)).await;
        let found = client.discover("web").await.unwrap();
        // A machine that was too busy to ask in time has proved nothing.
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

    // The nodes themselves, for whom nobody else may speak.
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

async fn sent(on: Backend) {
    let node = on.start(&[], "").await;
    let mut client = node.client();
    let unheard = client.send_message(message("a", "b", "1")).await.unwrap();
    assert!(!unheard.success);
    assert_eq!(unheard.receivers, 0);
    assert!(unheard.message.contains('b'), "{}", unheard.message);

    let mut first = Conversation::open(&node, "b").await;
    let mut second = Conversation::open(&node, "b").await;
    let sent = Message {
        message_type: "greeting".into(),
        ..message("a", "b", "2")
    };
    let heard = client.send_message(sent.clone()).await.unwrap();
    assert!(heard.success);
    // Through Redis they are the nodes that took it.
    let receivers = match on {
        Backend::Embedded => 2,
        Backend::Shared => 1,
    };
    assert_eq!(
        (heard.receivers, heard.message_id.as_str()),
        (receivers, "2")
    );
    assert_eq!(first.next().await.unwrap(), sent);
    assert_eq!(second.next().await.unwrap(), sent);

    // Who hangs up is no receiver any more.
    drop(first);
    eventually("one is left", async || {
        let answer = node.client().send_message(message("a", "b", "3")).await;
        (answer.unwrap().receivers == 1).then_some(())
    })
    .await;
    let bad = client.send_message(message("a", "b/c", "4")).await;
    assert_eq!(bad.unwrap_err().code(), Code::InvalidArgument);
}

async fn one_response_for_each(on: Backend) {
    const EACH: usize = 200;
    let node = on.start(&[], "").await;
    let left = Conversation::open(&node, "left").await;
    let right = Conversation::open(&node, "right").await;
    let talk = |conversation: Conversation, own: &'static str, other: &'static str| async move {
        let Conversation { say, mut hear } = conversation;
        let saying = tokio::spawn(async move {
            for number in 0..EACH {
                let id = format!("{own}-{number}");
                say.send(message(own, other, &id)).await.unwrap();
            }
            say
        });
        let (mut responses, mut deliveries) = (Vec::new(), Vec::new());
        while responses.len() + deliveries.len() < 2 * EACH {
            let heard = hear_next(&mut hear).await.unwrap();
            if heard.message_type == "response" {
                assert_eq!(
                    (heard.from_node.as_str(), heard.error.as_str()),
                    ("test", "")
                );
                assert_eq!(heard.payload, heard.in_reply_to.as_bytes());
                assert_eq!(heard.to_node, own);
                responses.push(heard.in_reply_to);
            } else {
                assert_eq!((&*heard.from_node, &*heard.to_node), (other, own));
                assert_eq!(heard.payload, heard.message_id.as_bytes());
                deliveries.push(heard.message_id);
            }
        }
        // Hanging up ends the stream, and nothing is left in it.
        drop(saying.await.unwrap());
        assert!(hear.next().await.is_none(), "more than one response");
        let all_of = |who: &str| (0..EACH).map(|n| format!("{who}-{n}")).collect::<Vec<_>>();
        assert_eq!(responses, all_of(own));
        assert_eq!(deliveries, all_of(other));
    };
    let left = tokio::spawn(talk(left, "left", "right"));
    let right = tokio::spawn(talk(right, "right", "left"));
    left.await.unwrap();
    right.await.unwrap();
}

async fn a_stream_speaks_for_one(on: Backend) {
    let node = on.start(&[], "").await;
    let mut own = Conversation::open(&node, "own").await;
    let mut ear = Conversation::open(&node, "ear").await;

    own.say.send(message("another", "ear", "1")).await.unwrap();
    let response = own.next().await.unwrap();
    assert_eq!(response.in_reply_to, "1");
    assert_eq!(response.message_type, "response");
    assert!(response.error.contains("own"), "{response:?}");

    own.say.send(message("own", "nobody", "2")).await.unwrap();
    let response = own.next().await.unwrap();
    assert_eq!(response.in_reply_to, "2");
    assert!(response.error.contains("nobody"), "{response:?}");

    own.say.send(message("own", "no/name", "3")).await.unwrap();
    let response = own.next().await.unwrap();
    assert_eq!(response.in_reply_to, "3");
    assert!(!response.error.is_empty(), "{response:?}");

    // Neither refusal ended the stream, and the false one was heard by nobody.
    own.say.send(message("own", "ear", "4")).await.unwrap();
    assert_eq!(own.next().await.unwrap().error, "");
    let heard = ear.next().await.unwrap();
    assert_eq!((&*heard.message_id, &*heard.from_node), ("4", "own"));

    // A stream without a name of its own can speak, and hears only its responses.
    let mut nameless = Conversation::begin(&node).await;
    nameless.say.send(message("", "ear", "5")).await.unwrap();
    let response = nameless.next().await.unwrap();
    assert_eq!((&*response.in_reply_to, &*response.error), ("5", ""));
    assert_eq!(ear.next().await.unwrap().message_id, "5");
    // The node makes an id up, and both hear the same.
    nameless.say.send(message("", "ear", "")).await.unwrap();
    let response = nameless.next().await.unwrap();
    assert_ne!(response.in_reply_to, "");
    assert_eq!(ear.next().await.unwrap().message_id, response.in_reply_to);
    drop(nameless.say);
    assert!(nameless.hear.next().await.is_none());
}

async fn the_slow_are_cut_off(on: Backend) {
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
    // Nobody reads there: the windows of the connection fill up, then the backlog.
    let mut sent = 0;
    loop {
        let answer = sender.send_message(large("slow", sent)).await.unwrap();
        if !answer.success {
            break;
        }
        sent += 1;
        assert!(sent < 10_000, "nobody is cut off");
        // The others do not notice.
        let answer = sender.send_message(large("quick", sent)).await.unwrap();
        assert_eq!(answer.receivers, 1);
        assert_eq!(quick.next().await.unwrap().message_id, sent.to_string());
    }
    println!("messages: cut off with {sent} messages unread");
    assert!(sent >= BACKLOG);
    // What was delivered before is still there; then it is told why nothing follows.
    let mut heard = 0;
    let end = loop {
        match slow.next().await {
            Ok(message) => assert_eq!(message.message_id, heard.to_string()),
            Err(status) => break status,
        }
        heard += 1;
    };
    assert!(heard >= BACKLOG);
    match on {
        Backend::Embedded => assert_eq!(heard, sent),
        // Through Redis a sender learns of the cut a little later.
        Backend::Shared => assert!(heard <= sent),
    }
    assert_eq!(end.code(), Code::ResourceExhausted, "{end}");
    assert!(end.message().contains("subscriber_backlog"), "{end}");

    let mut again = Conversation::open(&node, "slow").await;
    let answer = sender.send_message(large("slow", 0)).await.unwrap();
    assert_eq!(answer.receivers, 1);
    assert_eq!(again.next().await.unwrap().message_id, "0");
}

/// One stream, on a connection of its own.
struct Conversation {
    say: mpsc::Sender<Message>,
    hear: Streaming<Message>,
}

impl Conversation {
    /// Subscribed to `own`: an empty topic only subscribes, and is answered like anything else.
    async fn open(node: &Node, own: &str) -> Self {
        let mut conversation = Self::begin(node).await;
        let hello = message(own, "", "hello");
        conversation.say.send(hello).await.unwrap();
        let response = conversation.next().await.unwrap();
        assert_eq!(response.message_type, "response");
        assert_eq!(response.to_node, own);
        assert_eq!(response.in_reply_to, "hello");
        assert_eq!(response.error, "");
        conversation
    }

    async fn begin(node: &Node) -> Self {
        let mut client = DistributedClient::connect(node.address()).await.unwrap();
        let (say, said) = mpsc::channel(16);
        let hear = client.stream_messages(ReceiverStream::new(said)).await;
        let hear = hear.expect("a stream");
        Self { say, hear }
    }

    async fn next(&mut self) -> Result<Message, Status> {
        hear_next(&mut self.hear).await
    }
}

async fn hear_next(hear: &mut Streaming<Message>) -> Result<Message, Status> {
    let next = tokio::time::timeout(PATIENCE, hear.next()).await;
    next.expect("something is heard")
        .expect("the stream goes on")
}

/// A message whose payload is its id.
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
