//! The limits of the gRPC server: each is set low and tripped by a client that wants more, which
//! waits or is told the limit's name, while others are served.

use crate::support::{
    PATIENCE, eventually,
    node::{Node, hostel},
    plugins::{hostile, showcase},
    task, trial, trial_needing,
};
use hostel::{
    DistributedClient,
    plugin::{Sample, sample},
    proto::{
        distributed::{
            Message, RegisterRequest, Task, TaskResponse, TaskStatusRequest,
            distributed_service_client::DistributedServiceClient,
        },
        hostel::v1::ListTasksRequest,
    },
};
use libtest_mimic::Trial;
use std::{
    collections::HashMap,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, transport::Channel};

pub fn trials() -> Vec<Trial> {
    vec![
        trial_needing("limits::max_connections", true, max_connections),
        trial_needing("limits::max_streams_per_connection", true, max_streams),
        trial_needing("limits::max_requests_per_connection", true, max_requests),
        trial_needing("limits::max_connection_age", true, max_connection_age),
        trial_needing("limits::request_timeout", true, request_timeout),
        trial_needing("limits::header_list", true, header_list),
        trial("limits::max_message", max_message),
        trial_needing("limits::max_wait", true, max_wait),
        trial_needing("limits::max_services", true, max_services),
        trial_needing("limits::subscriber_backlog", true, subscriber_backlog),
        trial("limits::max_open_tasks", max_open_tasks),
        trial_needing("limits::open_to_other_machines", true, open_listen),
    ]
}

/// Calls that a free server has answered many times over while another is still waiting.
const CALLS: usize = 50;

/// A node with an echo and a task type that never ends by itself, neither built from source.
async fn node(settings: &str) -> Node {
    let node = Node::prepare(&[], settings);
    let spin = Sample {
        name: "spin",
        task_types: &["spin"],
        handle: sample::SPIN,
        ..Sample::default()
    };
    node.add_wasm("sample.wasm", &Sample::default().wasm().unwrap());
    node.add_wasm("spin.wasm", &spin.wasm().unwrap());
    node.started().await
}

async fn lives(client: &mut DistributedClient) {
    let echoed = client.submit_and_wait(task("sample", "over")).await;
    assert_eq!(echoed.unwrap().status, "completed");
}

/// Shows that `call` waits while `others` are answered; returns it for when it may go on.
async fn waits<T: Send + 'static>(
    call: impl Future<Output = T> + Send + 'static,
    others: &mut DistributedClient,
) -> tokio::task::JoinHandle<T> {
    let call = tokio::spawn(call);
    for _ in 0..CALLS {
        others.list_plugins().await.unwrap();
    }
    assert!(!call.is_finished(), "it did not wait");
    call
}

async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    let ended = tokio::time::timeout(PATIENCE, work).await;
    ended.unwrap_or_else(|_| panic!("never happened: {what}"))
}

async fn max_connections() {
    let node = node("[limits]\nmax_connections = 2").await;
    let (mut first, mut second) = (node.client(), node.client());
    lives(&mut first).await;
    lives(&mut second).await;
    let mut third = node.client();
    let third = waits(async move { third.list_plugins().await }, &mut first).await;
    drop(second);
    let listed = in_time("a place becomes free", third).await;
    assert_eq!(listed.unwrap().unwrap().plugins.len(), 2);
    lives(&mut first).await;
}

fn hello(from: &str) -> Message {
    Message {
        from_node: from.into(),
        ..Default::default()
    }
}

/// A conversation that goes on until this is dropped: one message in, its answer out.
struct Conversation {
    incoming: tonic::Streaming<Message>,
    _outgoing: mpsc::Sender<Message>,
}

async fn conversation(
    mut client: DistributedClient,
    from: &'static str,
) -> Result<Conversation, Status> {
    let (outgoing, messages) = mpsc::channel(1);
    outgoing.send(hello(from)).await.expect("room");
    let mut incoming = client
        .stream_messages(ReceiverStream::new(messages))
        .await?;
    incoming.message().await?.expect("an answer");
    Ok(Conversation {
        incoming,
        _outgoing: outgoing,
    })
}

async fn max_streams() {
    let node = node("[limits]\nmax_streams_per_connection = 2").await;
    let (client, mut other) = (node.client(), node.client());
    client.clone().list_plugins().await.unwrap();
    let first = conversation(client.clone(), "a").await.unwrap();
    let second = conversation(client.clone(), "b").await.unwrap();
    let third = waits(conversation(client, "c"), &mut other).await;
    drop(first);
    let third = in_time("a stream becomes free", third).await;
    assert!(third.unwrap().is_ok());
    drop(second);
}

async fn max_requests() {
    let node = node("[limits]\nmax_requests_per_connection = 1").await;
    let (mut client, mut other) = (node.client(), node.client());
    let id = client.submit_task(task("spin", "")).await.unwrap();
    let (mut waiting, waited_for) = (client.clone(), id.clone());
    let first = tokio::spawn(async move { waiting.wait_for_task(&waited_for).await });
    // The one place is taken once a call behind it does not come back.
    eventually("the long call is being worked on", || {
        let mut client = client.clone();
        async move {
            let quick = Duration::from_millis(500);
            let answered = tokio::time::timeout(quick, client.list_plugins()).await;
            answered.is_err().then_some(())
        }
    })
    .await;
    let second = waits(async move { client.list_plugins().await }, &mut other).await;
    other.cancel_task(&id).await.unwrap();
    let second = in_time("the long call ends", second).await;
    assert!(second.unwrap().is_ok());
    assert_eq!(first.await.unwrap().unwrap().status, "cancelled");
}

async fn max_connection_age() {
    let settings =
        "[limits]\nmax_connection_age_ms = 1000\n[plugins.sandbox]\nmax_cpu_ms = 3600000";
    let node = node(settings).await;
    let (address, connections) = counted(node.address()).await;
    let through = DistributedClient::connect_lazy(&address).unwrap();
    let mut client = through.with_patience(PATIENCE);
    // A long call is not cut off by its connection's age.
    let spin = client.submit_task(task("spin", "")).await.unwrap();
    let (mut waiting, id) = (node.client(), spin.clone());
    let long = tokio::spawn(async move { waiting.wait_for_task(&id).await });
    // No call fails because connections come and go.
    let since = Instant::now();
    while connections.load(Ordering::Relaxed) < 4 {
        lives(&mut client).await;
        assert!(since.elapsed() < PATIENCE, "connections live for ever");
    }
    assert!(
        since.elapsed() > Duration::from_secs(2),
        "they live too short"
    );
    assert!(!long.is_finished());
    client.cancel_task(&spin).await.unwrap();
    let ended = in_time("it is cancelled", long).await;
    assert_eq!(ended.unwrap().unwrap().status, "cancelled");
}

/// A way to `address` that counts who takes it.
async fn counted(address: &str) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = listener.local_addr().unwrap().to_string();
    let (count, there) = (Arc::new(AtomicUsize::new(0)), address.to_owned());
    let counter = count.clone();
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::Relaxed);
            let mut to = TcpStream::connect(&there).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut from, &mut to).await });
        }
    });
    (here, count)
}

async fn channel(node: &Node) -> Channel {
    let address = format!("http://{}", node.address());
    Channel::from_shared(address)
        .unwrap()
        .connect()
        .await
        .unwrap()
}

async fn request_timeout() {
    let node = node("[limits]\nrequest_timeout_ms = 300\nmax_wait_ms = 200").await;
    let mut talk = conversation(node.client(), "me").await.unwrap();

    // A request that never comes to its end.
    let mut slow = tonic::client::Grpc::new(channel(&node).await);
    slow.ready().await.unwrap();
    let since = Instant::now();
    let path = "/distributed.DistributedService/SubmitTask"
        .parse()
        .unwrap();
    let codec = tonic_prost::ProstCodec::<Task, TaskResponse>::default();
    let never = Request::new(tokio_stream::pending::<Task>());
    let answer = in_time("a timeout", slow.client_streaming(never, path, codec)).await;
    let status = answer.unwrap_err();
    assert!(since.elapsed() >= Duration::from_millis(300), "{status}");
    let timed_out = [Code::Cancelled, Code::DeadlineExceeded];
    assert!(timed_out.contains(&status.code()), "{status}");

    // The conversation is older than that by now, and goes on.
    let mut client = node.client();
    let sent = client.send_message(Message {
        to_node: "me".into(),
        ..hello("you")
    });
    assert_eq!(sent.await.unwrap().receivers, 1);
    let heard = in_time("a message", talk.incoming.message())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(heard.from_node, "you");
    lives(&mut client).await;
}

async fn header_list() {
    let node = node("").await;
    let channel = channel(&node).await;
    let mut client = DistributedServiceClient::new(channel);
    let ask = |header: usize| {
        let mut request = Request::new(TaskStatusRequest {
            task_id: "nobody".into(),
            wait_ms: 0,
        });
        let value = "x".repeat(header).parse().unwrap();
        request.metadata_mut().insert("x-long", value);
        request
    };
    let within = client.get_task_status(ask(8 << 10)).await.unwrap_err();
    assert_eq!(within.code(), Code::NotFound);
    let beyond = client.get_task_status(ask(20 << 10)).await.unwrap_err();
    assert_ne!(beyond.code(), Code::NotFound, "{beyond}");
    // Nobody else notices, and the same client may go on.
    let after = client.get_task_status(ask(1)).await.unwrap_err();
    assert_eq!(after.code(), Code::NotFound, "{after}");
}

async fn max_message() {
    const SETTINGS: &str = "[limits]\nmax_payload_bytes = 65536\nmax_message_bytes = 131072\n\
        [plugins.sandbox]\nmax_result_bytes = 65536\n\
        [plugin.thumbnail.task.thumbnail]\nmax_attempts = 1";
    let node = Node::start(&[&showcase("thumbnail")], SETTINGS).await;
    let mut client = node.client();
    let too_large = client
        .submit_task(task("thumbnail", vec![7; 131_072]))
        .await;
    let too_large = too_large.unwrap_err();
    assert_eq!(too_large.code(), Code::OutOfRange);
    assert!(too_large.message().contains("131072"), "{too_large}");

    // Long errors: together they are more than a message may hold, so pages are shorter.
    const TASKS: usize = 60;
    let mut ids = Vec::new();
    for _ in 0..TASKS {
        let task = Task {
            metadata: HashMap::from([("width".into(), "x".repeat(4000))]),
            ..task("thumbnail", "")
        };
        ids.push(client.submit_task(task).await.unwrap());
    }
    for id in &ids {
        let failed = client.wait_for_task(id).await.unwrap();
        assert_eq!(failed.status, "failed");
        assert!(failed.error.len() > 4000, "{}", failed.error);
    }
    let mut list = ListTasksRequest::default();
    let mut seen = Vec::new();
    let mut pages = 0;
    loop {
        let page = client.list_tasks(list.clone()).await.unwrap();
        seen.extend(page.tasks.into_iter().map(|task| task.task_id));
        pages += 1;
        list.page_token = page.next_page_token;
        if list.page_token.is_empty() {
            break;
        }
    }
    ids.sort();
    seen.sort();
    assert_eq!(seen, ids);
    assert!(pages > 1);
    let listed = node.cli(&["tasks", "list", "--json"]);
    let listed: Vec<serde_json::Value> = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(listed.len(), TASKS);
}

async fn max_wait() {
    let node = node("[limits]\nmax_wait_ms = 300").await;
    let mut client = node.client();
    let id = client.submit_task(task("spin", "")).await.unwrap();
    let mut raw = DistributedServiceClient::new(channel(&node).await);
    for wait_ms in [3_600_000, u64::MAX] {
        let since = Instant::now();
        let request = TaskStatusRequest {
            task_id: id.clone(),
            wait_ms,
        };
        let answer = in_time("an answer", raw.get_task_status(request)).await;
        let status = answer.unwrap().into_inner();
        assert!(matches!(status.status.as_str(), "pending" | "running"));
        assert!(since.elapsed() >= Duration::from_millis(300));
    }
}

async fn max_services() {
    let node = node("[limits]\nmax_services = 2").await;
    let mut client = node.client();
    let service = |name: &str, id: &str, ttl_ms| RegisterRequest {
        node_id: id.into(),
        service_name: name.into(),
        ttl_ms,
        ..Default::default()
    };
    client.register(service("web", "a", 0)).await.unwrap();
    client.register(service("db", "a", 1000)).await.unwrap();
    let full = client.register(service("web", "b", 0)).await.unwrap_err();
    assert_eq!(full.code(), Code::ResourceExhausted);
    assert!(full.message().contains("limits.max_services"), "{full}");
    // Those that are there may renew, and the place of one that is gone is free.
    client.register(service("web", "a", 0)).await.unwrap();
    eventually("the short-lived one makes room", || {
        let mut client = client.clone();
        async move { client.register(service("web", "b", 0)).await.ok() }
    })
    .await;
    assert_eq!(client.discover("web").await.unwrap().len(), 2);
}

async fn subscriber_backlog() {
    let node = node("[limits]\nsubscriber_backlog = 4").await;
    let mut lazy = conversation(node.client(), "lazy").await.unwrap();
    let quick = conversation(node.client(), "quick").await.unwrap();
    let mut client = node.client();
    // More than windows and buffers on the way can hold.
    let send = |to: &str| Message {
        to_node: to.into(),
        payload: vec![7; 2 << 20].into(),
        ..hello("me")
    };
    let mut handed = 0;
    let since = Instant::now();
    while client.send_message(send("lazy")).await.unwrap().receivers == 1 {
        handed += 1;
        assert!(since.elapsed() < PATIENCE, "{handed} messages waited");
    }
    assert!(handed >= 4, "{handed}");
    // What was handed over comes, in order of course, and then the reason for the end.
    let mut heard = 0;
    let cut_off = loop {
        match in_time("the end", lazy.incoming.message()).await {
            Ok(Some(_)) => heard += 1,
            Ok(None) => panic!("the stream ended without a word"),
            Err(status) => break status,
        }
    };
    assert_eq!(cut_off.code(), Code::ResourceExhausted);
    assert!(
        cut_off.message().contains("limits.subscriber_backlog"),
        "{cut_off}"
    );
    assert!(heard <= handed, "{heard} of {handed}");
    // Nobody else is cut off.
    let mut quick = quick;
    client
        .send_message(Message {
            payload: "x".into(),
            ..send("quick")
        })
        .await
        .unwrap();
    let message = in_time("a message", quick.incoming.message())
        .await
        .unwrap();
    assert_eq!(message.unwrap().payload, "x".as_bytes());
}

async fn max_open_tasks() {
    let node = Node::start(
        &[&hostile()],
        "[queue]\nkind = \"sqlite\"\nmax_open_tasks = 2\n\
        [plugin.hostel-test-guests.task.sleep]\ntimeout_ms = 600000",
    )
    .await;
    let mut client = node.client();
    let sleep = |id: &str| Task {
        task_id: id.into(),
        ..task("sleep", "")
    };
    client.submit_task(sleep("a")).await.unwrap();
    client.submit_task(sleep("b")).await.unwrap();
    let full = client.submit_task(sleep("c")).await.unwrap_err();
    assert_eq!(full.code(), Code::ResourceExhausted);
    assert!(full.message().contains("queue.max_open_tasks"), "{full}");
    // One that is open already is no further one.
    client.submit_task(sleep("b")).await.unwrap();
    client.cancel_task("a").await.unwrap();
    assert_eq!(client.wait_for_task("a").await.unwrap().status, "cancelled");
    client.submit_task(sleep("c")).await.unwrap();
    for id in ["b", "c"] {
        client.cancel_task(id).await.unwrap();
    }
}

async fn open_listen() {
    let dir = tempfile::tempdir().unwrap();
    let run = |listen: &str| {
        let mut command = hostel();
        command
            .current_dir(dir.path())
            .env("HOSTEL__NODE__LISTEN", listen)
            .env("HOSTEL__NODE__DATA_DIR", dir.path().join("data"))
            .arg("serve");
        command.output().unwrap()
    };
    for listen in [
        "0.0.0.0:0",
        "[::]:0",
        "192.0.2.1:50051",
        "[::ffff:192.0.2.1]:1",
    ] {
        let out = run(listen);
        let told = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{listen}: {told}");
        assert!(told.contains("insecure = true"), "{listen}: {told}");
        assert!(told.contains("HOSTEL__NODE__LISTEN"), "{listen}: {told}");
    }
    assert!(!dir.path().join("data").exists());

    // Spelled out, it is allowed.
    let mut open = Node::prepare(&[], "insecure = true");
    open.listen("0.0.0.0:0");
    let open = open.started().await;
    assert!(open.address().starts_with("0.0.0.0:"), "{}", open.address());
}
