//! Limits of sizes and counts.

use super::*;

pub async fn max_message_is_enforced(on: Backend) {
    const SETTINGS: &str = "[limits]\nmax_payload_bytes = 65536\nmax_message_bytes = 131072\n\
        [plugins.sandbox]\nmax_result_bytes = 65536\n\
        [plugin.thumbnail.task.thumbnail]\nmax_attempts = 1";
    let node = on.start(&[&showcase("thumbnail")], SETTINGS).await;
    let mut client = node.client();
    let too_large = client
        .submit_task(task("thumbnail", vec![7; 131_072]))
        .await;
    let too_large = too_large.unwrap_err();
    assert_eq!(too_large.code(), Code::ResourceExhausted);
    let words = "accepts 131072 (limits.max_message_bytes)";
    assert!(too_large.message().contains(words), "{too_large}");

    // Together, these long errors exceed a message, so the pages are shorter.
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

pub async fn max_wait_is_enforced(on: Backend) {
    let node = node(on, "[limits]\nmax_wait_ms = 300").await;
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

        // The same limit applies to submissions of new and of existing tasks.
        for existing in [false, true] {
            let since = Instant::now();
            let task = Task {
                task_id: format!("for-{wait_ms}"),
                wait_ms,
                ..task("spin", "")
            };
            let answer = in_time("an answer", raw.submit_task(task)).await;
            let answer = answer.unwrap().into_inner();
            assert!(answer.accepted);
            assert_eq!(answer.existing, existing);
            let status = answer.status.unwrap();
            assert!(matches!(status.status.as_str(), "pending" | "running"));
            assert!(since.elapsed() >= Duration::from_millis(300));
        }
    }
}

pub async fn max_services_is_enforced(on: Backend) {
    let node = node(on, "[limits]\nmax_services = 2").await;
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
    // Registered services can renew, and an expired one frees its place.
    client.register(service("web", "a", 0)).await.unwrap();
    eventually("the expired service frees its place", || {
        let mut client = client.clone();
        async move { client.register(service("web", "b", 0)).await.ok() }
    })
    .await;
    assert_eq!(client.discover("web").await.unwrap().len(), 2);
}

pub async fn subscriber_backlog_is_enforced(on: Backend) {
    let node = node(on, "[limits]\nsubscriber_backlog = 4").await;
    let mut lazy = conversation(node.client(), "lazy").await.unwrap();
    let quick = conversation(node.client(), "quick").await.unwrap();
    let mut client = node.client();
    // Larger than the windows and buffers of a connection.
    let send = |to: &str| Message {
        to_node: to.into(),
        payload: vec![7; 2 << 20].into(),
        ..hello("me")
    };
    let mut handed = 0;
    let since = Instant::now();
    while client.send_message(send("lazy")).await.unwrap().receivers == 1 {
        handed += 1;
        assert!(since.elapsed() < DEADLINE, "{handed} messages waited");
    }
    assert!(handed >= 4, "{handed}");
    // The delivered messages come in order, followed by the reason for the end.
    let mut received = 0;
    let cut_off = loop {
        match in_time("the end", lazy.incoming.message()).await {
            Ok(Some(_)) => received += 1,
            Ok(None) => panic!("the stream ended without a status"),
            Err(status) => break status,
        }
    };
    assert_eq!(cut_off.code(), Code::ResourceExhausted);
    assert!(
        cut_off.message().contains("limits.subscriber_backlog"),
        "{cut_off}"
    );
    assert!(received <= handed, "{received} of {handed}");
    // Other subscribers are not affected.
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

pub async fn max_open_tasks_is_enforced(on: Backend) {
    let settings = "[plugin.hostel-test-guests.task.sleep]\ntimeout_ms = 600000";
    let mut node = on.prepare(&[&hostile()], settings).await;
    node.set_in("queue", "max_open_tasks = 2");
    let node = node.started().await;
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
    // Submitting an open task again does not count.
    client.submit_task(sleep("b")).await.unwrap();
    client.cancel_task("a").await.unwrap();
    assert_eq!(client.wait_for_task("a").await.unwrap().status, "cancelled");
    client.submit_task(sleep("c")).await.unwrap();
    for id in ["b", "c"] {
        client.cancel_task(id).await.unwrap();
    }
}

pub async fn listening_beyond_loopback_needs_insecure() {
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
        let errors = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{listen}: {errors}");
        assert!(errors.contains("insecure = true"), "{listen}: {errors}");
        assert!(
            errors.contains("HOSTEL__NODE__LISTEN"),
            "{listen}: {errors}"
        );
    }
    assert!(!dir.path().join("data").exists());

    // It is allowed by an explicit setting.
    let mut open = Node::prepare(&[], "insecure = true");
    open.set_listen("0.0.0.0:0");
    let open = open.started().await;
    assert!(open.address().starts_with("0.0.0.0:"), "{}", open.address());
}
