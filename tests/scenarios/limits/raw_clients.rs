//! Raw HTTP/2 clients: calls without a client-side deadline, and hand-written frames.

use super::*;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::codegen::http;

/// Calls the method at `path` with these bytes as its message and returns the gRPC status. The client
/// does not end the call.
async fn call(node: &Node, path: &str, timeout: Option<&str>, message: &[u8]) -> (u8, String) {
    let stream = TcpStream::connect(node.address()).await.unwrap();
    let (send, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut request = http::Request::post(format!("http://{}{path}", node.address()))
        .header("te", "trailers")
        .header("content-type", "application/grpc");
    if let Some(timeout) = timeout {
        request = request.header("grpc-timeout", timeout);
    }
    let mut send = send.ready().await.unwrap();
    let (answer, mut stream) = send.send_request(request.body(()).unwrap(), false).unwrap();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let body = Bytes::from([&[0], &length[..], message].concat());
    stream.send_data(body, true).unwrap();
    let answer = in_time("an answer", answer).await.unwrap();
    let (head, mut body) = answer.into_parts();
    while in_time("the end of the response", body.data())
        .await
        .is_some()
    {}
    let trailers = body.trailers().await.unwrap();
    connection.abort();
    let fields = trailers.unwrap_or(head.headers);
    let field = |name| Some(fields.get(name)?.to_str().unwrap().to_owned());
    let code = field("grpc-status").unwrap().parse().unwrap();
    (code, field("grpc-message").unwrap_or_default())
}

const SERVICE: &str = "/distributed.DistributedService/";

pub async fn calls_end_at_their_deadline() {
    use prost::Message as _;
    let node = node(Backend::Embedded, "").await;
    let id = node.client().submit_task(task("spin", "")).await.unwrap();
    let submission = Task {
        wait_ms: 60_000,
        ..task("spin", "")
    };
    let question = TaskStatusRequest {
        task_id: id.clone(),
        wait_ms: 60_000,
    };
    for (method, message) in [
        ("SubmitTask", submission.encode_to_vec()),
        ("GetTaskStatus", question.encode_to_vec()),
    ] {
        let since = Instant::now();
        let path = format!("{SERVICE}{method}");
        let (code, reason) = call(&node, &path, Some("1S"), &message).await;
        assert_eq!(code, Code::DeadlineExceeded as u8, "{method}: {reason}");
        assert!(since.elapsed() >= Duration::from_millis(900), "{method}");
    }
    // Streams have deadlines as well.
    let path = "/grpc.health.v1.Health/Watch";
    let (code, reason) = call(&node, path, Some("300m"), &[]).await;
    assert_eq!(code, Code::DeadlineExceeded as u8, "{reason}");
    node.client().cancel_task(&id).await.unwrap();
}

pub async fn undecodable_requests_are_invalid_arguments() {
    let node = node(Backend::Embedded, "").await;
    // The id is a string that is missing, or one that is not UTF-8.
    for bad in [&[0x0a, 9][..], &[0x0a, 1, 0xff]] {
        let path = format!("{SERVICE}SubmitTask");
        let (code, reason) = call(&node, &path, None, bad).await;
        assert_eq!(code, Code::InvalidArgument as u8, "{reason}");
    }
    for path in [
        "/hostel.v1.TaskService/Cancel",
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ] {
        let (code, reason) = call(&node, path, None, &[0x0a, 9]).await;
        assert_eq!(code, Code::InvalidArgument as u8, "{path}: {reason}");
    }
    assert_serves(&mut node.client()).await;
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [
        &length[1..],
        &[kind, flags],
        &stream.to_be_bytes()[..],
        payload,
    ]
    .concat()
}

/// Opens a connection and sends only the preface.
async fn with_preface(node: &Node) -> TcpStream {
    let mut stream = TcpStream::connect(node.address()).await.unwrap();
    let preface = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(SETTINGS, 0, 0, &[]),
    ];
    stream.write_all(&preface.concat()).await.unwrap();
    stream
}

/// Returns the kind, the flags and the payload of the next frame, or `None` if the connection is closed.
async fn next_frame(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<(u8, u8, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    stream.read_exact(&mut payload).await.ok()?;
    Some((head[3], head[4], payload))
}

/// The client opens far more streams than are allowed at the same time, and cancels each at once, so it
/// never exceeds the limit.
pub async fn cancelled_calls_affect_no_other_call() {
    const CALLS: u32 = 5000;
    let node = node(Backend::Embedded, "").await;
    let mut stream = with_preface(&node).await;
    let (mut read, mut write) = stream.split();
    // The headers POST, http, path, authority and content type, none of them indexed.
    let path = format!("{SERVICE}SubmitTask");
    let field = |index: &[u8], value: &str| {
        let length = [u8::try_from(value.len()).unwrap()];
        [index, &length, value.as_bytes()].concat()
    };
    let head = [
        vec![0x83, 0x86],
        field(&[4], &path),
        field(&[1], "node"),
        field(&[0x0f, 0x10], "application/grpc"),
    ]
    .concat();
    let mut calls = Vec::new();
    for number in 0..CALLS {
        let id = 2 * number + 1;
        calls.extend(frame(HEADERS, 4, id, &head));
        calls.extend(frame(DATA, 0, id, &[0; 5]));
        calls.extend(frame(RESET, 0, id, &8_u32.to_be_bytes()));
    }
    calls.extend(frame(PING, 0, 0, &[7; 8]));
    let send = async { write.write_all(&calls).await };
    let receive = async {
        loop {
            match next_frame(&mut read).await {
                Some((PING, flags, payload)) if flags & ACK != 0 && payload == [7; 8] => return,
                Some((GOAWAY, _, why)) => panic!("{}", String::from_utf8_lossy(&why)),
                Some(_) => {}
                None => panic!("closed"),
            }
        }
    };
    let (sent, ()) = in_time("the end of all calls", async {
        tokio::join!(send, receive)
    })
    .await;
    sent.unwrap();
    assert_serves(&mut node.client()).await;
}

pub async fn idle_connections_are_closed() {
    let node = node(Backend::Embedded, "[limits]\nidle_timeout_ms = 1000").await;
    let mut open_stream = conversation(node.client(), "me").await.unwrap();
    let mut idle = with_preface(&node).await;
    let since = Instant::now();
    // Pings do not keep an idle connection open.
    let mut has_goaway = false;
    let end = async {
        loop {
            idle.write_all(&frame(PING, 0, 0, &[1; 8])).await.ok();
            match next_frame(&mut idle).await {
                Some((GOAWAY, ..)) => has_goaway = true,
                Some(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                None => break,
            }
        }
    };
    in_time("the idle connection ends", end).await;
    assert!(has_goaway);
    assert!(since.elapsed() >= Duration::from_millis(1000));
    // A connection with an open stream is not idle.
    let mut client = node.client();
    let sent = client.send_message(Message {
        to_node: "me".into(),
        ..hello("you")
    });
    assert_eq!(sent.await.unwrap().receivers, 1);
    let received = in_time("a message", open_stream.incoming.message()).await;
    assert_eq!(received.unwrap().unwrap().from_node, "you");
}

pub async fn the_longest_idle_connection_makes_room() {
    const PLACES: usize = 4;
    let settings = format!("[limits]\nmax_connections = {PLACES}");
    let node = node(Backend::Embedded, &settings).await;
    let mut idle = Vec::new();
    for _ in 0..PLACES {
        idle.push(with_preface(&node).await);
    }
    let listed = node.cli(&["plugins", "list"]);
    assert!(listed.status.success(), "{listed:?}");
    // The connection that was idle longest is closed.
    let end = async { while next_frame(&mut idle[0]).await.is_some() {} };
    in_time("the first connection ends", end).await;
}
