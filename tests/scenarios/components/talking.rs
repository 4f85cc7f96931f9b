//! Who talks to whom: clients on streams with each other and with components, components with each
//! other and with tasks, a node about itself.

use super::{answer, ask, question, refusal, text};
use crate::support::{
    PATIENCE,
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
        on_both("components::clients_and_a_component_in_a_room", a_room),
        on_both("components::everybody_can_be_asked", everybody_can_be_asked),
        on_both("components::ids_are_nobody_elses", ids_are_nobody_elses),
        on_both(
            "components::the_showcase_counts_once",
            the_showcase_counts_once,
        ),
    ]
    .into_iter()
    .flatten()
    .chain([trial("components::what_it_says_is_in_the_log", in_the_log)])
    .collect()
}

/// A client on a stream, listening to its own name and to the room.
struct Client {
    name: &'static str,
    say: mpsc::Sender<Message>,
    hear: Streaming<Message>,
}

impl Client {
    async fn joins(node: &Node, name: &'static str) -> Self {
        let mut client = DistributedClient::connect(node.address()).await.unwrap();
        let (say, said) = mpsc::channel(16);
        let hear = client
            .stream_messages(ReceiverStream::new(said))
            .await
            .unwrap();
        let mut client = Self { name, say, hear };
        client.says("", "", "").await;
        // Its answer says that the client is heard from now on.
        let answer = client.hear.next().await.unwrap().unwrap();
        assert_eq!((&*answer.message_type, &*answer.error), ("response", ""));
        client
    }

    /// Sends, and waits for the response that says it was published.
    async fn says(&mut self, to: &str, message_type: &str, what: &str) {
        let message = Message {
            from_node: self.name.into(),
            to_node: to.into(),
            message_type: message_type.into(),
            message_id: what.into(),
            payload: what.to_owned().into(),
            topics: vec!["room".into()],
            ..Message::default()
        };
        self.say.send(message).await.unwrap();
    }

    /// The next that is no response: from whom, and what.
    async fn hears(&mut self) -> Result<(String, String), Status> {
        loop {
            let heard = tokio::time::timeout(PATIENCE, self.hear.next()).await;
            let heard = heard
                .expect("something is heard")
                .expect("an open stream")?;
            if heard.message_type != "response" {
                let text = String::from_utf8(heard.payload.to_vec()).unwrap();
                return Ok((heard.from_node, text));
            }
            assert_eq!(heard.error, "");
        }
    }
}

async fn a_room(on: Backend) {
    const WORDS: usize = 300;
    let node = on
        .start(&[&probe("1.0.0")], "[limits]\nsubscriber_backlog = 64\n")
        .await;
    let mut ann = Client::joins(&node, "ann").await;
    let mut bob = Client::joins(&node, "bob").await;
    ann.says("bob", "", "hello bob").await;
    assert_eq!(
        bob.hears().await.unwrap(),
        ("ann".into(), "hello bob".into())
    );
    bob.says("probe", "echo", "is anybody there?").await;
    assert_eq!(
        bob.hears().await.unwrap(),
        ("probe".into(), "is anybody there?".into())
    );
    ann.says("room", "", "to all").await;
    assert_eq!(bob.hears().await.unwrap().1, "to all");
    assert_eq!(
        ann.hears().await.unwrap().1,
        "to all",
        "she is in the room as well"
    );

    let mut late = Client::joins(&node, "late").await;
    let mut slow = Client::joins(&node, "slow").await;
    // Large enough that what nobody reads fills the windows of its connection, and then the backlog.
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
            let heard = client.hears().await.unwrap();
            assert_eq!(
                heard,
                (from.into(), word.clone()),
                "{} at {number}",
                client.name
            );
        }
    }
    // The slow one has what was there before it was cut off, in order, and is told.
    let mut next = 0;
    let end = loop {
        match slow.hears().await {
            Ok((_, word)) => {
                let (number, _) = word.split_once(' ').expect("a number");
                assert_eq!(number, next.to_string());
                next += 1;
            }
            Err(status) => break status,
        }
    };
    assert!(next < WORDS, "it was not cut off");
    assert_eq!(end.code(), Code::ResourceExhausted, "{end}");
    ann.says("probe", "echo", "still there").await;
    assert_eq!(ann.hears().await.unwrap().1, "still there");
}

async fn everybody_can_be_asked(on: Backend) {
    let node = on.start(&[&probe("1.0.0"), &showcase("rates")], "").await;
    // By a client, of a component, of a topic it listens to, and of the node.
    assert_eq!(answer(&node, "echo", "x").await, "x");
    let mut client = node.client();
    let on_topic = Message {
        to_node: "probe.topic".into(),
        ..question("echo", "y")
    };
    assert_eq!(text(ask(&mut client, on_topic).await), "y");
    let of_the_node = Message {
        to_node: "test".into(),
        ..question("", "")
    };
    let record: serde_json::Value =
        serde_json::from_str(&text(ask(&mut client, of_the_node).await)).unwrap();
    assert_eq!(record["id"], "test");
    assert_eq!(record["components"], serde_json::json!(["probe", "rates"]));
    // By a task, and by a component of itself, which would wait for ever.
    let done = client
        .submit_and_wait(task("probe-ask", "from a task"))
        .await
        .unwrap();
    assert_eq!(&*done.result, b"from a task", "{}", done.error);
    let error = refusal(&node, "ask", "probe\nx").await;
    assert!(error.contains("cannot wait for its own answer"), "{error}");
    // What is published comes back as an answer that is not answered.
    let receivers = answer(&node, "publish", "probe.topic\nx").await;
    assert_eq!(receivers, "1");
    let nobody = refusal(&node, "ask", "nobody\nx").await;
    assert!(nobody.contains("nobody listens on nobody"), "{nobody}");
    // And from the command line.
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
    assert!(String::from_utf8_lossy(&sent.stderr).contains("nobody listens on nobody"));
    // Who waits is told when nobody answers.
    let sleeping = Message {
        reply_timeout_ms: 100,
        ..question("sleep", "")
    };
    let late = ask(&mut client, sleeping).await;
    assert!(!late.success);
    assert!(
        late.message.contains("has not answered within 100 ms"),
        "{}",
        late.message
    );
}

async fn ids_are_nobody_elses(on: Backend) {
    let node = on.start(&[&probe("1.0.0")], "").await;
    for id in ["probe", "test"] {
        let mut client = DistributedClient::connect(node.address()).await.unwrap();
        let (say, said) = mpsc::channel(1);
        let mut hear = client
            .stream_messages(ReceiverStream::new(said))
            .await
            .unwrap();
        let hello = Message {
            from_node: id.into(),
            ..Message::default()
        };
        say.send(hello).await.unwrap();
        let refused = hear.next().await.expect("an end").unwrap_err();
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

async fn in_the_log() {
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

async fn the_showcase_counts_once(on: Backend) {
    let settings = "[plugin.rates.config]\nsummary_every = \"5\"\n";
    let mut node = on.start(&[&showcase("rates")], settings).await;
    let mut ear = DistributedClient::connect(node.address()).await.unwrap();
    let (say, said) = mpsc::channel(1);
    let mut hear = ear
        .stream_messages(ReceiverStream::new(said))
        .await
        .unwrap();
    let hello = Message {
        from_node: "rates.summary".into(),
        ..Message::default()
    };
    say.send(hello).await.unwrap();
    assert_eq!(hear.next().await.unwrap().unwrap().message_type, "response");
    for number in 0..7 {
        let name = if number % 2 == 0 { "login" } else { "logout" };
        let event = task("record-event", format!(r#"{{"name":"{name}"}}"#));
        let done = node.client().submit_and_wait(event).await.unwrap();
        assert_eq!(done.status, "completed", "{}", done.error);
    }
    let summary = hear.next().await.unwrap().unwrap();
    assert_eq!(summary.message_type, "summary");
    let summary: serde_json::Value = serde_json::from_slice(&summary.payload).unwrap();
    assert_eq!(summary["login"]["count"], 3);
    assert_eq!(summary["logout"]["count"], 2);
    // Killed, not stopped: what was counted is on disk.
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
