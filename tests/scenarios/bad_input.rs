//! Invalid input over gRPC: each kind is rejected with the right code and a text that states what to
//! change. Nothing is stored, and the node keeps serving.

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
    // How a guest decodes its payload does not depend on the backend.
    let on_guests = trial(
        "bad_input::undecodable_payloads_fail_permanently",
        undecodable_payloads_fail_permanently,
    );
    [
        on_both(
            "bad_input::invalid_names_and_ids_are_rejected",
            invalid_names_and_ids_are_rejected,
        ),
        on_both(
            "bad_input::oversized_input_is_rejected",
            oversized_input_is_rejected,
        ),
        on_both(
            "bad_input::invalid_messages_are_rejected",
            invalid_messages_are_rejected,
        ),
        on_both(
            "bad_input::invalid_page_tokens_and_states_are_rejected",
            invalid_page_tokens_and_states_are_rejected,
        ),
    ]
    .into_iter()
    .flatten()
    .chain([on_guests])
    .collect()
}

/// The default of `limits.max_payload_bytes`.
const MAX_PAYLOAD: usize = (4 << 20) - (64 << 10);

fn assert_rejected<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, words: &str) {
    let status = answer.expect_err(words);
    assert_eq!(status.code(), code, "{words}: {status}");
    assert!(status.message().contains(words), "{words}: {status}");
    // The error quotes only the start of the input, without control characters.
    assert!(status.message().len() < 600, "{words}: {status}");
    assert!(!status.message().contains(char::is_control), "{status:?}");
}

async fn assert_serves(client: &mut DistributedClient) {
    let echoed = client.submit_and_wait(task("echo", "over")).await.unwrap();
    assert_eq!(echoed.status, "completed");
}

async fn invalid_names_and_ids_are_rejected(on: Backend) {
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
        assert_rejected(client.submit_task(named("a", bad)).await, invalid, words);
        assert_rejected(client.get_task_status(bad).await, invalid, words);
        assert_rejected(client.cancel_task(bad).await, invalid, words);
        assert_rejected(client.requeue_task(bad).await, invalid, words);
        assert_rejected(client.discover(bad).await, invalid, words);
        for (node_id, service_name) in [(bad, "web"), ("a", bad)] {
            let service = RegisterRequest {
                node_id: node_id.into(),
                service_name: service_name.into(),
                ..Default::default()
            };
            assert_rejected(client.register(service).await, invalid, words);
        }
        let to = |to: &str, from: &str| Message {
            to_node: to.into(),
            from_node: from.into(),
            ..Default::default()
        };
        assert_rejected(client.send_message(to(bad, "a")).await, invalid, words);
        // Here an empty value is allowed: the node chooses the id, the sender is optional, and all
        // task types are listed.
        if !bad.is_empty() {
            assert_rejected(client.submit_task(named(bad, "echo")).await, invalid, words);
            assert_rejected(client.send_message(to("a", bad)).await, invalid, words);
            let list = ListTasksRequest {
                task_type: bad.into(),
                ..Default::default()
            };
            assert_rejected(client.list_tasks(list).await, invalid, words);
        }
    }

    let missing = "no task has the id nobody";
    let not_found = Code::NotFound;
    assert_rejected(client.get_task_status("nobody").await, not_found, missing);
    assert_rejected(client.cancel_task("nobody").await, not_found, missing);
    assert_rejected(client.requeue_task("nobody").await, not_found, missing);
    let nodes = RegisterRequest {
        node_id: "a".into(),
        service_name: "distributed_node".into(),
        ..Default::default()
    };
    let own = "names the nodes themselves";
    assert_rejected(client.register(nodes).await, Code::InvalidArgument, own);
    let unknown = client.submit_task(task("nothing", "")).await;
    assert_rejected(unknown, Code::FailedPrecondition, "known task types: echo");

    assert_eq!(
        count(&mut client).await,
        before,
        "a rejected task was stored"
    );
    assert_serves(&mut client).await;
}

/// Returns the number of tasks.
async fn count(client: &mut DistributedClient) -> usize {
    let listed = client.list_tasks(ListTasksRequest::default()).await;
    listed.unwrap().tasks.len()
}

async fn oversized_input_is_rejected(on: Backend) {
    let node = on.start(&[&showcase("echo")], "").await;
    let mut client = node.client();
    let invalid = Code::InvalidArgument;

    let largest = task("echo", vec![7; MAX_PAYLOAD]);
    let echoed = client.submit_and_wait(largest.clone()).await.unwrap();
    assert_eq!(echoed.result, largest.payload, "{}", echoed.error);
    let words = "4128769 bytes; this node accepts 4128768 (limits.max_payload_bytes)";
    let too_large = task("echo", vec![7; MAX_PAYLOAD + 1]);
    assert_rejected(client.submit_task(too_large).await, invalid, words);
    // A message above the limit is rejected by its length.
    let far_too_large = task("echo", vec![7; 5 << 20]);
    let words = "this node accepts 4194304 (limits.max_message_bytes)";
    assert_rejected(
        client.submit_task(far_too_large).await,
        Code::ResourceExhausted,
        words,
    );

    let with = |metadata: HashMap<String, String>| Task {
        metadata,
        ..task("echo", "x")
    };
    let entries = |count: usize| (0..count).map(|n| (format!("k{n}"), "v".into())).collect();
    assert_serves(&mut client).await;
    client.submit_task(with(entries(64))).await.unwrap();
    let words = "65 entries; this node accepts 64 (limits.max_metadata_entries)";
    assert_rejected(client.submit_task(with(entries(65))).await, invalid, words);
    let value = |bytes: usize| HashMap::from([("k".into(), "v".repeat(bytes - 1))]);
    client.submit_task(with(value(16384))).await.unwrap();
    let words = "16385 bytes; this node accepts 16384 (limits.max_metadata_bytes)";
    assert_rejected(client.submit_task(with(value(16385))).await, invalid, words);
    let nameless = HashMap::from([(String::new(), "v".into())]);
    let words = "a key is empty";
    assert_rejected(client.submit_task(with(nameless)).await, invalid, words);
    // Metadata may contain any text.
    let odd = HashMap::from([("{a}\n\0".into(), "\u{202e}🦀".into())]);
    let ended = client.submit_and_wait(with(odd)).await.unwrap();
    assert_eq!(ended.status, "completed", "{ended:?}");

    let service = |metadata: HashMap<String, String>| RegisterRequest {
        node_id: "a".into(),
        service_name: "web".into(),
        metadata,
        ..Default::default()
    };
    let words = "address and metadata of a service may have 16384 bytes";
    let large = HashMap::from([("k".into(), "v".repeat(1 << 20))]);
    assert_rejected(client.register(service(large)).await, invalid, words);
    assert_serves(&mut client).await;
}

async fn invalid_messages_are_rejected(on: Backend) {
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
    assert_rejected(
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
        assert_rejected(
            client.send_message(long).await,
            Code::InvalidArgument,
            words,
        );
    }
    // A missing receiver is a normal answer.
    let sent = client.send_message(message("nobody", 1)).await.unwrap();
    assert!(!sent.success && sent.message.contains("receives messages for nobody"));

    // A stream answers each invalid message and continues; the largest valid one passes both ways.
    let largest = message("me", MAX_PAYLOAD);
    let other_sender = Message {
        from_node: "you".into(),
        ..message("me", 1)
    };
    let outgoing = [
        message("", 1),
        message("a b", 1),
        too_large,
        other_sender,
        largest.clone(),
    ];
    let stream =
        tokio_stream::StreamExt::chain(tokio_stream::iter(outgoing), tokio_stream::pending());
    let mut incoming = client.stream_messages(stream).await.unwrap();
    let mut responses = Vec::new();
    let mut delivered = Vec::new();
    while responses.len() < 5 || delivered.is_empty() {
        let message = incoming.message().await.unwrap().expect("an open stream");
        match message.message_type.as_str() {
            "response" => responses.push(message),
            _ => delivered.push(message),
        }
    }
    for (response, error) in responses.iter().zip([
        "",
        "only letters, digits",
        words,
        "every message of this stream has to be from \"me\"",
        "",
    ]) {
        assert_eq!(response.error.is_empty(), error.is_empty(), "{response:?}");
        assert!(response.error.contains(error), "{}", response.error);
    }
    assert_eq!(responses[4].payload, largest.payload);
    assert_eq!(delivered[0].payload, largest.payload);

    // An invalid sender ends the stream.
    let nameless = Message {
        from_node: "a b".into(),
        ..Default::default()
    };
    let mut refused_stream = client
        .stream_messages(tokio_stream::iter([nameless]))
        .await
        .unwrap();
    let answer = refused_stream.message().await;
    assert_rejected(answer, Code::InvalidArgument, "from_node \"a b\" has ' '");
    assert_serves(&mut client).await;
}

async fn undecodable_payloads_fail_permanently() {
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

async fn invalid_page_tokens_and_states_are_rejected(on: Backend) {
    let node = on.start(&[&showcase("echo")], "").await;
    let mut client = node.client();
    for _ in 0..3 {
        assert_serves(&mut client).await;
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
        assert_rejected(
            client.list_tasks(list).await,
            invalid,
            "begin with the first page",
        );
    }
    for state in ["done", "Completed", "completed ", "0", "\0"] {
        let list = ListTasksRequest {
            status: state.into(),
            ..Default::default()
        };
        assert_rejected(
            client.list_tasks(list).await,
            invalid,
            "pending, running, completed",
        );
    }

    // A valid token works with another page size, and every task is listed once.
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
