//! Bad input over gRPC: everything that a client can get wrong is refused with the code that says
//! so and words that say what to change, nothing is stored, and the node lives.

use crate::support::{
    backend::{Backend, on_both},
    node::Node,
    plugins::showcase,
    task, trial,
};
use hostel::{
    DistributedClient,
    proto::{
        distributed::{Message, RegisterRequest, Task},
        hostel::v1::ListTasksRequest,
    },
};
use libtest_mimic::Trial;
use std::collections::HashMap;
use tonic::{Code, Status};

pub fn trials() -> Vec<Trial> {
    // What a guest makes of its payload is its own affair.
    let payloads = trial("bad_input::payloads_that_do_not_decode", payloads);
    [
        on_both("bad_input::names_and_ids", names_and_ids),
        on_both("bad_input::sizes", sizes),
        on_both("bad_input::messages", messages),
        on_both("bad_input::pages_and_states", pages_and_states),
    ]
    .into_iter()
    .flatten()
    .chain([payloads])
    .collect()
}

/// What the default configuration accepts.
const MAX_PAYLOAD: usize = (4 << 20) - (64 << 10);

fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, words: &str) {
    let status = answer.expect_err(words);
    assert_eq!(status.code(), code, "{words}: {status}");
    assert!(status.message().contains(words), "{words}: {status}");
    // What was sent is not sent back at length, nor as it is.
    assert!(status.message().len() < 600, "{words}: {status}");
    assert!(!status.message().contains(char::is_control), "{status:?}");
}

async fn lives(client: &mut DistributedClient) {
    let echoed = client.submit_and_wait(task("echo", "over")).await.unwrap();
    assert_eq!(echoed.status, "completed");
}

async fn names_and_ids(on: Backend) {
    let node = on.start(&[&showcase("echo")], "").await;
    let mut client = node.client();
    let before = count(&mut client).await;
    let long = "x".repeat(129);
    let huge = "x".repeat(1 << 20);
    for (bad, words) in [
        (" ", "only letters, digits and . _ : - are allowed"),
        ("a b", "only letters"),
        ("a/b", "only letters"),
        ("../../etc/passwd", "only letters"),
        ("a{b}", "only letters"),
        ("{a}", "only letters"),
        ("a\0b", "only letters"),
        ("a\nb", "only letters"),
        ("a\u{1b}[31m", "only letters"),
        ("naïve", "only letters"),
        ("\u{202e}txt", "only letters"),
        ("🦀", "only letters"),
        ("-a", "does not begin with a letter or a digit"),
        (".", "does not begin with a letter or a digit"),
        (&long, "has 129 bytes; at most 128 are allowed"),
        (&huge, "has 1048576 bytes; at most 128 are allowed"),
        ("", "is empty"),
    ] {
        let invalid = Code::InvalidArgument;
        let named = |id: &str, task_type: &str| Task {
            task_id: id.into(),
            ..task(task_type, "x")
        };
        refused(client.submit_task(named("a", bad)).await, invalid, words);
        refused(client.get_task_status(bad).await, invalid, words);
        refused(client.cancel_task(bad).await, invalid, words);
        refused(client.requeue_task(bad).await, invalid, words);
        refused(client.discover(bad).await, invalid, words);
        for (node_id, service_name) in [(bad, "web"), ("a", bad)] {
            let service = RegisterRequest {
                node_id: node_id.into(),
                service_name: service_name.into(),
                ..Default::default()
            };
            refused(client.register(service).await, invalid, words);
        }
        let to = |to: &str, from: &str| Message {
            to_node: to.into(),
            from_node: from.into(),
            ..Default::default()
        };
        refused(client.send_message(to(bad, "a")).await, invalid, words);
        // An empty id asks for one, nobody need say who sends, and no type lists all.
        if !bad.is_empty() {
            refused(client.submit_task(named(bad, "echo")).await, invalid, words);
            refused(client.send_message(to("a", bad)).await, invalid, words);
            let list = ListTasksRequest {
                task_type: bad.into(),
                ..Default::default()
            };
            refused(client.list_tasks(list).await, invalid, words);
        }
    }

    let missing = "no task has the id nobody";
    let not_found = Code::NotFound;
    refused(client.get_task_status("nobody").await, not_found, missing);
    refused(client.cancel_task("nobody").await, not_found, missing);
    refused(client.requeue_task("nobody").await, not_found, missing);
    let nodes = RegisterRequest {
        node_id: "a".into(),
        service_name: "distributed_node".into(),
        ..Default::default()
    };
    let own = "names the nodes themselves";
    refused(client.register(nodes).await, Code::InvalidArgument, own);
    let unknown = client.submit_task(task("nothing", "")).await;
    refused(unknown, Code::FailedPrecondition, "known task types: echo");

    assert_eq!(count(&mut client).await, before, "something was stored");
    lives(&mut client).await;
}

/// How many tasks there are.
async fn count(client: &mut DistributedClient) -> usize {
    let listed = client.list_tasks(ListTasksRequest::default()).await;
    listed.unwrap().tasks.len()
}

async fn sizes(on: Backend) {
    let node = on.start(&[&showcase("echo")], "").await;
    let mut client = node.client();
    let invalid = Code::InvalidArgument;

    let largest = task("echo", vec![7; MAX_PAYLOAD]);
    let echoed = client.submit_and_wait(largest.clone()).await.unwrap();
    assert_eq!(echoed.result, largest.payload, "{}", echoed.error);
    let words = "4128769 bytes; this node accepts 4128768 (limits.max_payload_bytes)";
    let too_large = task("echo", vec![7; MAX_PAYLOAD + 1]);
    refused(client.submit_task(too_large).await, invalid, words);
    // Beyond what a message may hold, its length is enough.
    let far_too_large = task("echo", vec![7; 5 << 20]);
    let words = "this node accepts 4194304 (limits.max_message_bytes)";
    refused(
        client.submit_task(far_too_large).await,
        Code::ResourceExhausted,
        words,
    );

    let with = |metadata: HashMap<String, String>| Task {
        metadata,
        ..task("echo", "x")
    };
    let entries = |count: usize| (0..count).map(|n| (format!("k{n}"), "v".into())).collect();
    lives(&mut client).await;
    client.submit_task(with(entries(64))).await.unwrap();
    let words = "65 metadata entries; this node accepts 64 (limits.max_metadata_entries)";
    refused(client.submit_task(with(entries(65))).await, invalid, words);
    let value = |bytes: usize| HashMap::from([("k".into(), "v".repeat(bytes - 1))]);
    client.submit_task(with(value(16384))).await.unwrap();
    let words = "16385 bytes; this node accepts 16384 (limits.max_metadata_bytes)";
    refused(client.submit_task(with(value(16385))).await, invalid, words);
    let nameless = HashMap::from([(String::new(), "v".into())]);
    let words = "a metadata key is empty";
    refused(client.submit_task(with(nameless)).await, invalid, words);
    // Any text is good metadata.
    let odd = HashMap::from([("{a}\n\0".into(), "\u{202e}🦀".into())]);
    let ended = client.submit_and_wait(with(odd)).await.unwrap();
    assert_eq!(ended.status, "completed", "{ended:?}");

    let service = |metadata: HashMap<String, String>| RegisterRequest {
        node_id: "a".into(),
        service_name: "web".into(),
        metadata,
        ..Default::default()
    };
    let words = "a service may say";
    let large = HashMap::from([("k".into(), "v".repeat(1 << 20))]);
    refused(client.register(service(large)).await, invalid, words);
    lives(&mut client).await;
}

async fn messages(on: Backend) {
    let node = on.start(&[&showcase("echo")], "").await;
    let mut client = node.client();
    let message = |to: &str, payload: usize| Message {
        from_node: "me".into(),
        to_node: to.into(),
        payload: vec![7; payload].into(),
        ..Default::default()
    };
    let words = "4128769 bytes; this node accepts 4128768 (limits.max_payload_bytes)";
    let too_large = message("you", MAX_PAYLOAD + 1);
    refused(
        client.send_message(too_large.clone()).await,
        Code::InvalidArgument,
        words,
    );
    let long = |change: fn(&mut Message, String)| {
        let mut long = message("you", 1);
        change(&mut long, "x".repeat(129));
        long
    };
    for (long, words) in [
        (long(|m, x| m.message_id = x), "message_id has 129 bytes"),
        (
            long(|m, x| m.message_type = x),
            "message_type has 129 bytes",
        ),
        (long(|m, x| m.in_reply_to = x), "in_reply_to has 129 bytes"),
    ] {
        refused(
            client.send_message(long).await,
            Code::InvalidArgument,
            words,
        );
    }
    // Nobody there is an answer and no error.
    let sent = client.send_message(message("nobody", 1)).await.unwrap();
    assert!(!sent.success && sent.message.contains("nobody listens on nobody"));

    // A stream answers each bad message and goes on; the largest good one passes both ways.
    let largest = message("me", MAX_PAYLOAD);
    let speaks_for_another = Message {
        from_node: "you".into(),
        ..message("me", 1)
    };
    let outgoing = [
        message("", 1),
        message("a b", 1),
        too_large,
        speaks_for_another,
        largest.clone(),
    ];
    let stream =
        tokio_stream::StreamExt::chain(tokio_stream::iter(outgoing), tokio_stream::pending());
    let mut incoming = client.stream_messages(stream).await.unwrap();
    let mut responses = Vec::new();
    let mut delivered = Vec::new();
    while responses.len() < 5 || delivered.is_empty() {
        let message = incoming.message().await.unwrap().expect("it goes on");
        match message.message_type.as_str() {
            "response" => responses.push(message),
            _ => delivered.push(message),
        }
    }
    for (response, error) in responses.iter().zip([
        "",
        "only letters, digits",
        words,
        "this stream speaks for \"me\"",
        "",
    ]) {
        assert_eq!(response.error.is_empty(), error.is_empty(), "{response:?}");
        assert!(response.error.contains(error), "{}", response.error);
    }
    assert_eq!(responses[4].payload, largest.payload);
    assert_eq!(delivered[0].payload, largest.payload);

    // Who cannot say who speaks has no stream.
    let nameless = Message {
        from_node: "a b".into(),
        ..Default::default()
    };
    let mut refused_stream = client
        .stream_messages(tokio_stream::iter([nameless]))
        .await
        .unwrap();
    let answer = refused_stream.message().await;
    refused(answer, Code::InvalidArgument, "from_node \"a b\" has ' '");
    lives(&mut client).await;
}

async fn payloads() {
    let node = Node::start(&[&showcase("text"), &showcase("thumbnail")], "").await;
    let mut client = node.client();
    let mut half_a_picture = b"\x89PNG\r\n\x1a\n".to_vec();
    half_a_picture.extend(b"\0\0\0\rIHDR\0\0");
    for (task_type, payload, words) in [
        (
            "word-count",
            b"good until h\xffre".to_vec(),
            "byte 0xff at offset 12",
        ),
        ("word-count", b"\xc3".to_vec(), "UTF-8"),
        (
            "thumbnail",
            b"no picture at all".to_vec(),
            "cannot be read as a PNG or JPEG picture",
        ),
        (
            "thumbnail",
            Vec::new(),
            "cannot be read as a PNG or JPEG picture",
        ),
        (
            "thumbnail",
            half_a_picture,
            "cannot be read as a PNG or JPEG picture",
        ),
    ] {
        let ended = client
            .submit_and_wait(task(task_type, payload))
            .await
            .unwrap();
        assert_eq!(ended.status, "failed", "{ended:?}");
        assert_eq!((ended.attempts, ended.finishes), (1, 1), "{ended:?}");
        assert!(ended.error.contains(words), "{ended:?}");
        assert!(ended.result.is_empty());
    }
    let counted = client
        .submit_and_wait(task("word-count", ""))
        .await
        .unwrap();
    assert_eq!(counted.status, "completed", "{counted:?}");
}

async fn pages_and_states(on: Backend) {
    let node = on.start(&[&showcase("echo")], "").await;
    let mut client = node.client();
    for _ in 0..3 {
        lives(&mut client).await;
    }
    let invalid = Code::InvalidArgument;
    for token in [
        "x",
        "-1",
        "99999999999999999999999",
        "1; DROP TABLE task",
        "\u{202e}",
        " ",
    ] {
        let list = ListTasksRequest {
            page_token: token.into(),
            ..Default::default()
        };
        refused(client.list_tasks(list).await, invalid, "page token");
    }
    for state in ["done", "Completed", "completed ", "0", "\0"] {
        let list = ListTasksRequest {
            status: state.into(),
            ..Default::default()
        };
        refused(
            client.list_tasks(list).await,
            invalid,
            "pending, running, completed",
        );
    }

    // A good token works with another size, and every task comes once.
    let mut seen = Vec::new();
    let mut list = ListTasksRequest {
        page_size: 1,
        ..Default::default()
    };
    loop {
        let page = client.list_tasks(list.clone()).await.unwrap();
        seen.extend(page.tasks.into_iter().map(|task| task.task_id));
        if page.next_page_token.is_empty() {
            break;
        }
        list.page_token = page.next_page_token;
        list.page_size = u32::MAX;
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 3);
}
