//! Messages between clients on streams, components, tasks and nodes.

use super::{answer, ask, refusal, request, text};
use crate::support::{
    DEADLINE,
    backend::{Backend, on_both},
    node::Node,
    plugins::{probe, showcase},
    task, trial,
};
use hostel::{DistributedClient, proto::distributed::Message};
use libtest_mimic::Trial;
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Code, Status, Streaming};

pub fn trials() -> Vec<Trial> {
    [
        on_both(
            "components::clients_and_components_share_a_topic",
            clients_and_components_share_a_topic,
        ),
        on_both(
            "components::components_topics_and_nodes_answer_requests",
            components_topics_and_nodes_answer_requests,
        ),
        on_both(
            "components::a_client_cannot_take_a_reserved_id",
            a_client_cannot_take_a_reserved_id,
        ),
        on_both(
            "components::the_rates_plugin_counts_each_event_once",
            the_rates_plugin_counts_each_event_once,
        ),
    ]
    .into_iter()
    .flatten()
    .chain([trial(
        "components::component_log_records_reach_the_node_log",
        component_log_records_reach_the_node_log,
    )])
    .collect()
}

/// A client on a stream that subscribes to its own name and to the topic `room`.
struct Client {
    name: &'static str,
    outgoing: mpsc::Sender<Message>,
    incoming: Streaming<Message>,
}

impl Client {
    async fn join(node: &Node, name: &'static str) -> Self {
        let mut client = DistributedClient::connect(node.address()).await.unwrap();
        let (outgoing, receiver) = mpsc::channel(16);
        let incoming = client
            .stream_messages(ReceiverStream::new(receiver))
            .await
            .unwrap();
        let mut client = Self {
            name,
            outgoing,
            incoming,
        };
        client.send("", "", "").await;
        // The response confirms the subscription.
        let answer = client.incoming.next().await.unwrap().unwrap();
        assert_eq!((&*answer.message_type, &*answer.error), ("response", ""));
        client
    }

    /// Sends a message to a destination.
    async fn send(&mut self, to: &str, message_type: &str, what: &str) {
        let message = Message {
            from_node: self.name.into(),
            to_node: to.into(),
            message_type: message_type.into(),
            message_id: what.into(),
            payload: what.to_owned().into(),
            topics: vec!["room".into()],
            ..Message::default()
        };
        self.outgoing.send(message).await.unwrap();
    }

    /// Returns the sender and the text of the next message that is not a response.
    async fn receive(&mut self) -> Result<(String, String), Status> {
        loop {
            let received = tokio::time::timeout(DEADLINE, self.incoming.next()).await;
            let received = received
                .expect("a message in time")
                .expect("an open stream")?;
            if received.message_type != "response" {
                let text = String::from_utf8(received.payload.to_vec()).unwrap();
                return Ok((received.from_node, text));
            }
            assert_eq!(received.error, "");
        }
    }
}

async fn clients_and_components_share_a_topic(on: Backend) {
    const WORDS: usize = 300;
    let node = on
        .start(&[&probe("1.0.0")], "[limits]\nsubscriber_backlog = 64\n")
        .await;
    let mut ann = Client::join(&node, "ann").await;
    let mut bob = Client::join(&node, "bob").await;
    ann.send("bob", "", "hello bob").await;
    assert_eq!(
        bob.receive().await.unwrap(),
        ("ann".into(), "hello bob".into())
    );
    bob.send("probe", "echo", "is anybody there?").await;
    assert_eq!(
        bob.receive().await.unwrap(),
        ("probe".into(), "is anybody there?".into())
    );
    ann.send("room", "", "to all").await;
    assert_eq!(bob.receive().await.unwrap().1, "to all");
    assert_eq!(
        ann.receive().await.unwrap().1,
        "to all",
        "the sender is a subscriber as well"
    );

    let mut late = Client::join(&node, "late").await;
    let mut slow = Client::join(&node, "slow").await;
    // Large enough that unread messages fill the windows of a connection and then the backlog.
    let rest = "x".repeat(32 << 10);
    for number in 0..WORDS {
        let word = format!("{number} {rest}");
        let from = if number % 2 == 0 { "ann" } else { "bob" };
        let message = Message {
            from_node: from.into(),
            to_node: "room".into(),
            payload: word.clone().into(),
            ..Message::default()
        };
        let response = node.client().send_message(message).await.unwrap();
        assert!(response.success, "{}", response.message);
        for client in [&mut ann, &mut bob, &mut late] {
            let received = client.receive().await.unwrap();
            assert_eq!(
                received,
                (from.into(), word.clone()),
                "{} at {number}",
                client.name
            );
        }
    }
    // The slow client gets the earlier messages in order, and then the reason for the end.
    let mut next = 0;
    let end = loop {
        match slow.receive().await {
            Ok((_, word)) => {
                let (number, _) = word.split_once(' ').expect("a number");
                assert_eq!(number, next.to_string());
                next += 1;
            }
            Err(status) => break status,
        }
    };
    assert!(next < WORDS, "the slow client was not disconnected");
    assert_eq!(end.code(), Code::ResourceExhausted, "{end}");
    ann.send("probe", "echo", "still there").await;
    assert_eq!(ann.receive().await.unwrap().1, "still there");
}

async fn components_topics_and_nodes_answer_requests(on: Backend) {
    let node = on.start(&[&probe("1.0.0"), &showcase("rates")], "").await;
    // Requests of a client to a component, to a topic, and to the node.
    assert_eq!(answer(&node, "echo", "x").await, "x");
    let mut client = node.client();
    let on_topic = Message {
        to_node: "probe.topic".into(),
        ..request("echo", "y")
    };
    assert_eq!(text(ask(&mut client, on_topic).await), "y");
    let of_the_node = Message {
        to_node: "test".into(),
        ..request("", "")
    };
    let record: serde_json::Value =
        serde_json::from_str(&text(ask(&mut client, of_the_node).await)).unwrap();
    assert_eq!(record["id"], "test");
    assert_eq!(record["components"], serde_json::json!(["probe", "rates"]));
    // A request of a task, and one of a component to itself, which would never be answered.
    let done = client
        .submit_and_wait(task("probe-ask", "from a task"))
        .await
        .unwrap();
    assert_eq!(&*done.result, b"from a task", "{}", done.error);
    let error = refusal(&node, "ask", "probe\nx").await;
    assert!(error.contains("cannot wait for its own answer"), "{error}");
    // The answer to a published message is not answered.
    let receivers = answer(&node, "publish", "probe.topic\nx").await;
    assert_eq!(receivers, "1");
    let nobody = refusal(&node, "ask", "nobody\nx").await;
    assert!(nobody.contains("receives messages for nobody"), "{nobody}");
    // A request of the command line.
    let sent = node.cli(&[
        "send",
        "probe",
        "--type",
        "echo",
        "--payload",
        "cli",
        "--wait",
    ]);
    assert_eq!(String::from_utf8_lossy(&sent.stdout), "cli");
    let sent = node.cli(&["send", "nobody", "--payload", "x"]);
    assert_eq!(sent.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&sent.stderr).contains("receives messages for nobody"));
    // A request without an answer fails after its timeout.
    let sleeping = Message {
        reply_timeout_ms: 100,
        ..request("sleep", "")
    };
    let late = ask(&mut client, sleeping).await;
    assert!(!late.success);
    assert!(
        late.message.contains("has not answered within 100 ms"),
        "{}",
        late.message
    );
}

async fn a_client_cannot_take_a_reserved_id(on: Backend) {
    let node = on.start(&[&probe("1.0.0")], "").await;
    for id in ["probe", "test"] {
        let mut client = DistributedClient::connect(node.address()).await.unwrap();
        let (outgoing, receiver) = mpsc::channel(1);
        let mut incoming = client
            .stream_messages(ReceiverStream::new(receiver))
            .await
            .unwrap();
        let hello = Message {
            from_node: id.into(),
            ..Message::default()
        };
        outgoing.send(hello).await.unwrap();
        let refused = incoming.next().await.expect("an end").unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().contains("take another name"), "{refused}");
        let as_if = Message {
            from_node: id.into(),
            to_node: "probe".into(),
            ..Message::default()
        };
        let refused = node.client().send_message(as_if).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    }
}

async fn component_log_records_reach_the_node_log() {
    let node = Node::start(&[&probe("1.0.0")], "").await;
    assert_eq!(answer(&node, "log", "").await, "said");
    let log = node.log();
    for words in ["through log", "through tracing", "through println"] {
        let line = log.lines().find(|line| line.contains(words));
        let line = line.unwrap_or_else(|| panic!("{words:?} is not in the log:\n{log}"));
        for field in [
            "plugin=\"probe\"",
            "component=\"probe\"",
            "topic=\"probe\"",
            "version=",
        ] {
            assert!(line.contains(field), "{field} is not in: {line}");
        }
    }
    assert!(log.contains("number=7"), "a field of tracing's:\n{log}");
}

async fn the_rates_plugin_counts_each_event_once(on: Backend) {
    let settings = "[plugin.rates.config]\nsummary_every = \"5\"\n";
    let mut node = on.start(&[&showcase("rates")], settings).await;
    let mut subscriber = DistributedClient::connect(node.address()).await.unwrap();
    let (outgoing, receiver) = mpsc::channel(1);
    let mut incoming = subscriber
        .stream_messages(ReceiverStream::new(receiver))
        .await
        .unwrap();
    let hello = Message {
        from_node: "rates.summary".into(),
        ..Message::default()
    };
    outgoing.send(hello).await.unwrap();
    assert_eq!(
        incoming.next().await.unwrap().unwrap().message_type,
        "response"
    );
    for number in 0..7 {
        let name = if number % 2 == 0 { "login" } else { "logout" };
        let event = task("record-event", format!(r#"{{"name":"{name}"}}"#));
        let done = node.client().submit_and_wait(event).await.unwrap();
        assert_eq!(done.status, "completed", "{}", done.error);
    }
    let summary = incoming.next().await.unwrap().unwrap();
    assert_eq!(summary.message_type, "summary");
    let summary: serde_json::Value = serde_json::from_slice(&summary.payload).unwrap();
    assert_eq!(summary["login"]["count"], 3);
    assert_eq!(summary["logout"]["count"], 2);
    // After a kill, the counts are still on disk.
    node.kill();
    node.restart().await;
    let query = Message {
        to_node: "rates".into(),
        payload: r#"{"query":{}}"#.into(),
        reply_timeout_ms: 30_000,
        ..Message::default()
    };
    let rates = text(ask(&mut node.client(), query).await);
    let rates: serde_json::Value = serde_json::from_str(&rates).unwrap();
    assert_eq!(rates["login"]["count"], 4);
    assert_eq!(rates["logout"]["count"], 3);
}
