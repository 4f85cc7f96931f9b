//! Clients that do not read responses, and clients that do not finish requests: their memory is bounded,
//! other clients are served, and their connections are closed.

use super::*;
use bytes::Bytes;
use h2::{SendStream, client::ResponseFuture};
use tonic::codegen::http;

/// The size of a result or payload.
const BYTES: usize = 1 << 20;
const CALLS: usize = 100;
const CONNECTIONS: usize = 3;

/// The memory for tasks, buffers and caches, besides messages in flight.
const ROOM_KIB: u64 = 48 << 10;

const SETTINGS: &str = "[limits]\nmax_unsent_bytes = 8388608\n\
    max_unsent_bytes_per_connection = 2097152\nmax_received_bytes = 8388608\n\
    max_received_bytes_per_connection = 2097152\nstall_timeout_ms = 3000\n";

/// An HTTP/2 connection without the flow control of a gRPC client.
struct Raw {
    send: h2::client::SendRequest<Bytes>,
    address: String,
    ended: tokio::task::JoinHandle<()>,
    /// The responses, which are kept so that no call is cancelled.
    answers: Vec<ResponseFuture>,
    open: Vec<SendStream<Bytes>>,
}

impl Raw {
    /// Connects with a flow-control window of this size for responses.
    async fn connect(node: &Node, window: u32) -> Self {
        let stream = TcpStream::connect(node.address()).await.unwrap();
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(window);
        let (send, connection) = builder.handshake(stream).await.unwrap();
        let ended = tokio::spawn(async move {
            let _ = connection.await;
        });
        Self {
            send,
            address: node.address().to_owned(),
            ended,
            answers: Vec::new(),
            open: Vec::new(),
        }
    }

    async fn call(&mut self, method: &str, body: Bytes, is_whole: bool) {
        let method = format!("distributed.DistributedService/{method}");
        self.call_any(&method, body, is_whole).await;
    }

    /// Calls a method of any service.
    async fn call_any(&mut self, method: &str, body: Bytes, is_whole: bool) {
        let uri = format!("http://{}/{method}", self.address);
        let request = http::Request::post(uri)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let mut send = self.send.clone().ready().await.unwrap();
        let (answer, mut stream) = send.send_request(request, false).unwrap();
        stream.send_data(body, is_whole).unwrap();
        self.answers.push(answer);
        if !is_whole {
            self.open.push(stream);
        }
    }
}

/// Returns a message in gRPC framing.
fn framed(message: &impl prost::Message) -> Vec<u8> {
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(message.encoded_len()).unwrap().to_be_bytes());
    framed.extend_from_slice(&message.encode_to_vec());
    framed
}

pub async fn unread_responses_are_bounded() {
    let node = node(Backend::Embedded, SETTINGS).await;
    let mut client = node.client();
    let big = client
        .submit_and_wait(task("sample", vec![b'x'; BYTES]))
        .await
        .unwrap();
    assert_eq!(big.status, "completed");
    let (before, ask) = (
        node.resident_kib(),
        TaskStatusRequest {
            task_id: big.task_id,
            wait_ms: 0,
        },
    );
    let ask = Bytes::from(framed(&ask));
    // Two connections have a closed window, and one a window of a byte.
    let mut connections = Vec::new();
    for window in [0, 0, 1] {
        let mut connection = Raw::connect(&node, window).await;
        for _ in 0..CALLS {
            connection.call("GetTaskStatus", ask.clone(), true).await;
        }
        connections.push(connection);
    }
    assert_eq!(connections.len(), CONNECTIONS);
    // Other clients get responses of the same size meanwhile.
    let (mut highest, since) = (0, Instant::now());
    while !connections
        .iter()
        .all(|connection| connection.ended.is_finished())
    {
        assert!(
            since.elapsed() < DEADLINE,
            "the connections were never closed"
        );
        let answer = client.submit_and_wait(task("sample", vec![b'y'; BYTES]));
        let answer = in_time("an answer to another client", answer).await;
        assert_eq!(answer.unwrap().status, "completed");
        highest = highest.max(node.resident_kib());
    }
    let (grown, allowed) = (highest.saturating_sub(before), (8 << 10) + ROOM_KIB);
    assert!(
        grown < allowed,
        "{before} KiB before, {highest} KiB with unread responses"
    );
    assert!(
        node.log().contains("limits.stall_timeout_ms"),
        "{}",
        node.log()
    );
    assert_serves(&mut client).await;
}

pub async fn unfinished_requests_are_bounded() {
    let node = node(Backend::Embedded, SETTINGS).await;
    let mut client = node.client();
    assert_serves(&mut client).await;
    let before = node.resident_kib();
    let mut whole = framed(&task("sample", vec![b'x'; BYTES]));
    whole.pop();
    let unfinished = Bytes::from(whole);
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut connection = Raw::connect(&node, 1 << 20).await;
        for _ in 0..CALLS {
            connection
                .call("SubmitTask", unfinished.clone(), false)
                .await;
        }
        connections.push(connection);
    }
    let mut highest = 0;
    for _ in 0..10 {
        let answer = client.submit_and_wait(task("sample", vec![b'y'; BYTES]));
        let answer = in_time("an answer to another client", answer).await;
        assert_eq!(answer.unwrap().status, "completed");
        highest = highest.max(node.resident_kib());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // With the room for one more message, and with what is handed over to services, which copy it.
    let allowed = 2 * (8 << 10) + (4 << 10) + ROOM_KIB;
    let grown = highest.saturating_sub(before);
    assert!(
        grown < allowed,
        "{before} KiB before, {highest} KiB with unfinished requests"
    );
    // An unfinished request fails and gives its memory to the next ones.
    let first = connections[0].answers.remove(0);
    let answer = in_time("an end of the first", first).await.unwrap();
    let status = answer.headers().get("grpc-status").unwrap();
    assert_eq!(status.as_bytes(), b"4", "{answer:?}");
}

/// Health checks need no token, so a client without one could use up what they may hold.
pub async fn health_calls_hold_no_memory() {
    const OF_EACH: usize = 4;
    const SETTINGS: &str = "[limits]\nmax_received_bytes = 8388608\nmax_connections = 5\n\
        max_received_bytes_per_connection = 2097152\nstall_timeout_ms = 3600000\n";
    let node = node(Backend::Embedded, SETTINGS).await;
    // The prefix of a message of a MiB, and a little of it.
    let mut half = vec![0, 0, 0x10, 0, 0];
    half.resize(100, 0);
    let half = Bytes::from(half);
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut connection = Raw::connect(&node, 1 << 20).await;
        for method in ["Check", "Watch", "Other"] {
            let method = format!("grpc.health.v1.Health/{method}");
            for _ in 0..OF_EACH {
                connection.call_any(&method, half.clone(), false).await;
            }
        }
        let watch = Bytes::from_static(&[0; 5]);
        let method = "grpc.health.v1.Health/Watch";
        connection.call_any(method, watch, true).await;
        let watched = connection.answers.pop().unwrap();
        let watched = in_time("the answer to a watch", watched).await.unwrap();
        open.push((connection, watched));
    }
    // All that the node may receive is free.
    let mut first = node.client();
    for _ in 0..4 {
        let answer = first.submit_and_wait(task("sample", vec![b'y'; BYTES]));
        let answer = in_time("an answer to another client", answer).await;
        assert_eq!(answer.unwrap().status, "completed");
    }
    // A connection that only watches makes room for a client.
    let mut second = node.client();
    let served = in_time("a place for another client", second.list_plugins()).await;
    served.unwrap();
    assert_serves(&mut first).await;
}

pub async fn slow_readers_delay_no_other_answer() {
    const READERS: usize = 10;
    let settings = SETTINGS.replace("stall_timeout_ms = 3000", "stall_timeout_ms = 3600000");
    let node = node(Backend::Embedded, &settings).await;
    let mut client = node.client();
    let big = client
        .submit_and_wait(task("sample", vec![b'x'; BYTES]))
        .await
        .unwrap();
    let ask = TaskStatusRequest {
        task_id: big.task_id.clone(),
        wait_ms: 0,
    };
    let ask = Bytes::from(framed(&ask));
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let mut reader = Raw::connect(&node, 0).await;
        for _ in 0..2 {
            reader.call("GetTaskStatus", ask.clone(), true).await;
        }
        readers.push(reader);
    }
    eventually("the readers hold all memory for answers", || {
        let (mut client, id) = (client.clone(), big.task_id.clone());
        async move {
            let quick = Duration::from_millis(500);
            let answered = tokio::time::timeout(quick, client.get_task_status(&id)).await;
            answered.is_err().then_some(())
        }
    })
    .await;
    in_time("small answers", async {
        assert_serves(&mut client).await;
        client.list_plugins().await.unwrap();
        client.list_nodes().await.unwrap();
        let _conversation = conversation(client.clone(), "me").await.unwrap();
    })
    .await;
    let mut watcher = Raw::connect(&node, 1 << 20).await;
    let check = Bytes::from_static(&[0; 5]);
    watcher
        .call_any("grpc.health.v1.Health/Check", check, true)
        .await;
    let checked = watcher.answers.remove(0);
    let mut checked = in_time("a health check", checked).await.unwrap();
    let answer = in_time("a health check", checked.body_mut().data()).await;
    assert!(answer.unwrap().is_ok());
    assert!(
        readers.iter().all(|reader| !reader.ended.is_finished()),
        "{}",
        node.log()
    );
}

pub async fn unread_small_messages_are_bounded() {
    const STREAMS: usize = 200;
    let node = node(Backend::Embedded, SETTINGS).await;
    let mut client = node.client();
    assert_serves(&mut client).await;
    let before = node.resident_kib();
    // The answer to each has the same payload, and is small.
    let message = Bytes::from(framed(&Message {
        payload: vec![b'x'; 3 << 10].into(),
        ..Message::default()
    }));
    let mut lazy = Raw::connect(&node, 0).await;
    for _ in 0..STREAMS {
        lazy.call("StreamMessages", message.clone(), false).await;
    }
    let (mut highest, since) = (0, Instant::now());
    while !lazy.ended.is_finished() {
        assert!(
            since.elapsed() < DEADLINE,
            "the connection was never closed; {before} KiB before, {highest} KiB with unread messages"
        );
        in_time("an answer to another client", assert_serves(&mut client)).await;
        // One at a time, since messages that come together are answered in one frame, which is large.
        tokio::time::sleep(Duration::from_millis(100)).await;
        for stream in &mut lazy.open {
            let _ = stream.send_data(message.clone(), false);
        }
        highest = highest.max(node.resident_kib());
    }
    let grown = highest.saturating_sub(before);
    assert!(
        grown < 32 << 10,
        "{before} KiB before, {highest} KiB with unread messages"
    );
}

/// A client that sends tasks on many streams and reads neither answers nor ends.
pub async fn unread_ends_are_bounded() {
    const STREAMS: usize = 20;
    let node = node(Backend::Embedded, SETTINGS).await;
    let mut client = node.client();
    assert_serves(&mut client).await;
    let before = node.resident_kib();
    let request = |bytes: usize| {
        Bytes::from(framed(&SubmitManyRequest {
            task: Some(task("sample", vec![b'x'; bytes])),
            results: true,
            ..SubmitManyRequest::default()
        }))
    };
    let (large, small) = (request(BYTES / 4), request(100));
    let mut lazy = Raw::connect(&node, 0).await;
    for _ in 0..STREAMS {
        let method = "hostel.v1.TaskService/SubmitMany";
        lazy.call_any(method, large.clone(), false).await;
    }
    let mut highest = 0;
    // The node takes no task whose answer is not taken, so this ends with the connection at the earliest.
    for _ in 0..40 {
        in_time("an answer to another client", assert_serves(&mut client)).await;
        for stream in &mut lazy.open {
            // What the node does not take waits in this process.
            for message in [&small, &large, &small] {
                let _ = stream.send_data(message.clone(), false);
            }
        }
        highest = highest.max(node.resident_kib());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let grown = highest.saturating_sub(before);
    assert!(
        grown < ROOM_KIB + (16 << 10),
        "{before} KiB before, {highest} KiB with unread ends"
    );
    assert_serves(&mut client).await;
}
