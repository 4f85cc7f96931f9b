//! Limits of connections, streams and calls, and their timeouts.

use super::*;

/// The number of calls after which another call counts as waiting.
const CALLS: usize = 50;

/// Checks that `call` waits while calls of `others` are answered, and returns it.
async fn assert_waits<T: Send + 'static>(
    call: impl Future<Output = T> + Send + 'static,
    others: &mut DistributedClient,
) -> tokio::task::JoinHandle<T> {
    let call = tokio::spawn(call);
    for _ in 0..CALLS {
        others.list_plugins().await.unwrap();
    }
    assert!(!call.is_finished(), "the call did not wait");
    call
}

pub async fn max_connections_is_enforced() {
    let node = node(Backend::Embedded, "[limits]\nmax_connections = 2").await;
    let mut first = node.client();
    assert_serves(&mut first).await;
    // Connections with streams are not idle.
    let _first = conversation(first.clone(), "a").await.unwrap();
    let second = conversation(node.client(), "b").await.unwrap();
    let full = node.client().list_plugins().await.unwrap_err();
    assert_eq!(full.code(), Code::Unavailable, "{full}");
    let words = "all 2 connections that this node accepts are in use (limits.max_connections)";
    assert!(full.message().contains(words), "{full}");
    let out = node.cli(&["plugins", "list"]);
    let errors = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(3), "{errors}");
    assert!(errors.contains(words), "{errors}");
    let refused = node.log().matches("refused a connection").count();
    assert!((1..=2).contains(&refused), "{}", node.log());
    // Other clients are not affected, and a free place is used again.
    assert_serves(&mut first).await;
    drop(second);
    eventually("a place becomes free", async || {
        node.client().list_plugins().await.ok()
    })
    .await;
}

pub async fn max_streams_per_connection_is_enforced() {
    let node = node(
        Backend::Embedded,
        "[limits]\nmax_streams_per_connection = 2",
    )
    .await;
    let (client, mut other) = (node.client(), node.client());
    client.clone().list_plugins().await.unwrap();
    let first = conversation(client.clone(), "a").await.unwrap();
    let second = conversation(client.clone(), "b").await.unwrap();
    let third = assert_waits(conversation(client, "c"), &mut other).await;
    drop(first);
    let third = in_time("a stream becomes free", third).await;
    assert!(third.unwrap().is_ok());
    drop(second);
}

pub async fn max_requests_per_connection_is_enforced() {
    let node = node(
        Backend::Embedded,
        "[limits]\nmax_requests_per_connection = 1",
    )
    .await;
    let (mut client, mut other) = (node.client(), node.client());
    let id = client.submit_task(task("spin", "")).await.unwrap();
    let (mut waiting, waited_for) = (client.clone(), id.clone());
    let first = tokio::spawn(async move { waiting.wait_for_task(&waited_for).await });
    // The place is taken once a further call gets no answer.
    eventually("the long call takes the place", || {
        let mut client = client.clone();
        async move {
            let quick = Duration::from_millis(500);
            let answered = tokio::time::timeout(quick, client.list_plugins()).await;
            answered.is_err().then_some(())
        }
    })
    .await;
    let second = assert_waits(async move { client.list_plugins().await }, &mut other).await;
    other.cancel_task(&id).await.unwrap();
    let second = in_time("the long call ends", second).await;
    assert!(second.unwrap().is_ok());
    assert_eq!(first.await.unwrap().unwrap().status, "cancelled");
}

pub async fn max_connection_age_is_enforced() {
    let settings =
        "[limits]\nmax_connection_age_ms = 1000\n[plugins.sandbox]\nmax_cpu_ms = 3600000";
    let node = node(Backend::Embedded, settings).await;
    let (address, connections) = counting_proxy(node.address()).await;
    let through = DistributedClient::connect_lazy(&address).unwrap();
    let mut client = through.with_retry_timeout(DEADLINE);
    // The age of a connection does not end a long call.
    let spin = client.submit_task(task("spin", "")).await.unwrap();
    let (mut waiting, id) = (node.client(), spin.clone());
    let long = tokio::spawn(async move { waiting.wait_for_task(&id).await });
    // Replaced connections do not fail calls.
    let since = Instant::now();
    while connections.load(Ordering::Relaxed) < 4 {
        assert_serves(&mut client).await;
        assert!(since.elapsed() < DEADLINE, "connections are never replaced");
    }
    assert!(
        since.elapsed() > Duration::from_secs(2),
        "connections are replaced too early"
    );
    assert!(!long.is_finished());
    client.cancel_task(&spin).await.unwrap();
    let ended = in_time("it is cancelled", long).await;
    assert_eq!(ended.unwrap().unwrap().status, "cancelled");
}

/// A client waits longer than its retry time, twice, and loses its connection each time.
pub async fn a_long_wait_uses_no_retry_time() {
    let node = node(Backend::Embedded, "").await;
    let proxy = Proxy::to(node.address()).await;
    let patience = Duration::from_secs(1);
    let client = DistributedClient::connect_lazy(&proxy.address().to_string());
    let mut client = client.unwrap().with_retry_timeout(patience);
    let spin = Task {
        task_id: "waited-for".into(),
        ..task("spin", "")
    };
    let waiting = tokio::spawn(async move { client.submit_and_wait(spin).await });
    for _ in 0..2 {
        tokio::time::sleep(patience * 5 / 2).await;
        proxy.cut();
        tokio::time::sleep(Duration::from_millis(100)).await;
        proxy.restore();
    }
    tokio::time::sleep(patience).await;
    assert!(!waiting.is_finished());
    node.client().cancel_task("waited-for").await.unwrap();
    let ended = in_time("it is cancelled", waiting).await.unwrap();
    assert_eq!(ended.unwrap().status, "cancelled");
}

/// Starts a proxy to `address` that counts its connections.
async fn counting_proxy(address: &str) -> (String, Arc<AtomicUsize>) {
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

pub async fn request_timeout_is_enforced() {
    let node = node(
        Backend::Embedded,
        "[limits]\nrequest_timeout_ms = 300\nmax_wait_ms = 200",
    )
    .await;
    let mut stream = conversation(node.client(), "me").await.unwrap();

    // A request whose message never ends.
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
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    let setting = "limits.request_timeout_ms";
    assert!(status.message().contains(setting), "{status}");

    // The stream is older than the timeout and stays open.
    let mut client = node.client();
    let sent = client.send_message(Message {
        to_node: "me".into(),
        ..hello("you")
    });
    assert_eq!(sent.await.unwrap().receivers, 1);
    let received = in_time("a message", stream.incoming.message())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(received.from_node, "you");
    assert_serves(&mut client).await;
}

pub async fn long_headers_are_rejected() {
    let node = node(Backend::Embedded, "").await;
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
    // The same client can continue.
    let after = client.get_task_status(ask(1)).await.unwrap_err();
    assert_eq!(after.code(), Code::NotFound, "{after}");
}
