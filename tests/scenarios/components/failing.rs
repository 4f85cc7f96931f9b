//! A component that fails: its senders are told, a new instance takes over, and nobody else notices.

use super::{answer, ask, becomes, listed, question, refusal, text};
use crate::support::{
    backend::{Backend, on_both},
    eventually,
    node::Node,
    plugins::{probe, showcase},
    task, trial,
};
use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    [
        on_both("components::one_message_in_ten_panics", one_in_ten),
        on_both("components::each_limit_ends_one_instance", each_limit),
        on_both("components::down_from_the_start", down_from_the_start),
        on_both("components::a_start_that_fails_twice", fails_twice),
        on_both("components::a_full_mailbox_refuses", a_full_mailbox_refuses),
    ]
    .into_iter()
    .flatten()
    .chain([trial(
        "components::no_more_than_allowed",
        no_more_than_allowed,
    )])
    .collect()
}

async fn one_in_ten(on: Backend) {
    const MESSAGES: u64 = 200;
    let node = on.start(&[&probe("1.0.0")], "").await;
    let mut client = node.client();
    for number in 0..MESSAGES {
        if number % 10 == 3 {
            let response = ask(&mut client, question("panic", "")).await;
            assert!(!response.success);
            assert!(
                response.message.contains("the panic's own words"),
                "{}",
                response.message
            );
            let reply = response
                .reply
                .expect("an answer that says why there is none");
            assert_eq!(
                (reply.from_node.as_str(), reply.message_type.as_str()),
                ("probe", "answer")
            );
        } else {
            let response = ask(&mut client, question("echo", number.to_string())).await;
            assert_eq!(text(response), number.to_string());
        }
    }
    let probe = listed(&node).await;
    assert_eq!(probe.state, "running");
    assert_eq!(
        (probe.handled, probe.failed),
        (MESSAGES / 10 * 9, MESSAGES / 10)
    );
    assert_eq!(probe.starts, MESSAGES / 10 + 1, "made anew after each");
    assert_eq!(probe.error, "", "what is over is over");
}

async fn each_limit(on: Backend) {
    let settings = "[plugin.probe.component]\nmessage_timeout_ms = 300\n\
        [plugin.probe.limits]\nmax_log_bytes = 100000\n";
    let node = on
        .start(&[&probe("1.0.0"), &showcase("echo")], settings)
        .await;
    for (misbehaviour, words) in [
        ("spin", "timeout of 300 ms"),
        ("sleep", "timeout of 300 ms"),
        ("trap", "unreachable"),
        ("grow", "plugins.sandbox.max_memory_bytes"),
        ("big", "plugins.sandbox.max_memory_bytes"),
    ] {
        assert_eq!(
            answer(&node, "memory", "").await,
            "1",
            "before {misbehaviour}"
        );
        let error = refusal(&node, misbehaviour, "").await;
        assert!(error.contains(words), "{misbehaviour}: {error}");
        // One failure costs nobody time, and what was in memory is gone.
        assert_eq!(
            answer(&node, "memory", "").await,
            "1",
            "after {misbehaviour}"
        );
        let crash = refusal(&node, "panic", "").await;
        assert!(crash.contains("panic's own words"), "{crash}");
    }
    // What is merely wrong ends nothing.
    assert_eq!(answer(&node, "memory", "").await, "1");
    let error = refusal(&node, "error", "").await;
    assert_eq!(error, "permanent: the error's own words");
    let error = refusal(&node, "silent", "").await;
    assert_eq!(error, "probe handled it and gave no answer");
    assert_eq!(answer(&node, "memory", "").await, "2");
    // A call may send so many messages and no more.
    let flood = answer(&node, "flood", "nobody.there").await;
    assert!(flood.contains("nobody listens on nobody.there"), "{flood}");
    let mut client = node.client();
    let done = client.submit_and_wait(task("echo", "x")).await.unwrap();
    assert_eq!(done.status, "completed");
    let flooded = client
        .submit_and_wait(task("probe-flood", "probe.topic"))
        .await
        .unwrap();
    let flooded = String::from_utf8_lossy(&flooded.result).into_owned();
    let (sent, why) = flooded.split_once('\n').expect("a reason");
    assert_eq!(sent, "100");
    assert!(why.contains("plugins.sandbox.max_messages"), "{why}");
}

async fn down_from_the_start(on: Backend) {
    let settings = "[plugin.probe.config]\nstart = \"panic\"\n";
    let node = on
        .start(&[&probe("1.0.0"), &showcase("echo")], settings)
        .await;
    let probe = becomes(&node, "down").await;
    assert!(
        probe.error.contains("start panics as configured"),
        "{}",
        probe.error
    );
    let error = refusal(&node, "echo", "x").await;
    assert!(error.contains("probe is down: cannot start"), "{error}");
    // The tasks of the same plugin go on, and the node is healthy; its component is not.
    let mut client = node.client();
    for task_type in ["echo", "probe-echo"] {
        let done = client.submit_and_wait(task(task_type, "x")).await.unwrap();
        assert_eq!(&*done.result, b"x");
    }
    assert_eq!(health(&node, "").await, "SERVING");
    eventually("its health says so", async || {
        (health(&node, "component/probe").await == "NOT_SERVING").then_some(())
    })
    .await;
    let listed = node.cli(&["components", "list"]);
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(
        listed.contains("down") && listed.contains("start panics as configured"),
        "{listed}"
    );
}

/// What gRPC health says of a service.
async fn health(node: &Node, service: &str) -> &'static str {
    use tonic_health::pb::{
        HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
    };
    let address = format!("http://{}", node.address());
    let endpoint = tonic::transport::Endpoint::from_shared(address).expect("an address");
    let mut client = HealthClient::new(endpoint.connect_lazy());
    let request = HealthCheckRequest {
        service: service.into(),
    };
    match client.check(request).await {
        Ok(response) => response.into_inner().status().as_str_name(),
        Err(_) => ServingStatus::ServiceUnknown.as_str_name(),
    }
}

async fn fails_twice(on: Backend) {
    let settings = "[plugin.probe.config]\nstart = \"fail-2\"\n";
    let node = on.start(&[&probe("1.0.0")], settings).await;
    let probe = becomes(&node, "running").await;
    assert_eq!((probe.starts, probe.error.as_str()), (1, ""));
    assert_eq!(answer(&node, "echo", "x").await, "x");
}

async fn a_full_mailbox_refuses(on: Backend) {
    const ROOM: u64 = 4;
    let settings = format!(
        "[plugin.probe.component]\nmailbox = {ROOM}\nmessage_timeout_ms = 3600000\n\
         [plugin.probe.limits]\nmax_cpu_ms = 3600000\n"
    );
    let node = on.start(&[&probe("1.0.0")], &settings).await;
    let mut client = node.client();
    let unwaited = |message_type: &str| hostel::proto::distributed::Message {
        reply_timeout_ms: 0,
        ..question(message_type, "x")
    };
    assert!(ask(&mut client, unwaited("sleep")).await.success);
    // It has taken that one, and sleeps for ever.
    eventually("the mailbox is empty", async || {
        (listed(&node).await.waiting == 0).then_some(())
    })
    .await;
    for _ in 0..ROOM {
        assert!(ask(&mut client, unwaited("echo")).await.success);
    }
    let refused = ask(&mut client, unwaited("echo")).await;
    assert!(!refused.success);
    assert!(
        refused.message.contains("4 messages wait for it"),
        "{}",
        refused.message
    );
    let on_topic = hostel::proto::distributed::Message {
        to_node: "probe.topic".into(),
        ..unwaited("echo")
    };
    let refused = ask(&mut client, on_topic).await;
    // Redis says who listens, and does not wait to see whether they have room.
    let told = on == Backend::Embedded;
    assert_eq!(refused.success, !told, "{}", refused.message);
    eventually("both are counted", async || {
        let probe = listed(&node).await;
        assert_eq!(probe.waiting, ROOM);
        (probe.refused == 2).then_some(())
    })
    .await;
}

async fn no_more_than_allowed() {
    let settings = "[plugins]\nmax_components = 0\n";
    let node = Node::start(&[&probe("1.0.0")], settings).await;
    let probe = becomes(&node, "down").await;
    assert!(
        probe.error.contains("plugins.max_components"),
        "{}",
        probe.error
    );
    let done = node.client().submit_and_wait(task("probe-echo", "x")).await;
    assert_eq!(done.unwrap().status, "completed");
}
