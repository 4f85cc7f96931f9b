//! Components that fail: the sender gets an error, a new instance takes over, and other parts are not
//! affected.

use super::{answer, ask, becomes, listed, refusal, request, text};
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
        on_both(
            "components::a_panic_fails_one_message_and_restarts_the_instance",
            a_panic_fails_one_message_and_restarts_the_instance,
        ),
        on_both(
            "components::exceeding_a_limit_ends_one_instance",
            exceeding_a_limit_ends_one_instance,
        ),
        on_both(
            "components::what_is_too_large_is_an_error_and_ends_no_instance",
            what_is_too_large_is_an_error_and_ends_no_instance,
        ),
        on_both(
            "components::a_component_that_cannot_start_is_down",
            a_component_that_cannot_start_is_down,
        ),
        on_both(
            "components::a_failing_start_is_retried",
            a_failing_start_is_retried,
        ),
        on_both(
            "components::a_full_mailbox_rejects_messages",
            a_full_mailbox_rejects_messages,
        ),
    ]
    .into_iter()
    .flatten()
    .chain([
        trial(
            "components::components_beyond_the_limit_are_down",
            components_beyond_the_limit_are_down,
        ),
        trial(
            "components::a_plugin_with_the_id_of_the_node_is_told_what_to_do",
            a_plugin_with_the_id_of_the_node_is_told_what_to_do,
        ),
    ])
    .collect()
}

async fn a_panic_fails_one_message_and_restarts_the_instance(on: Backend) {
    const MESSAGES: u64 = 200;
    let node = on.start(&[&probe("1.0.0")], "").await;
    let mut client = node.client();
    for number in 0..MESSAGES {
        if number % 10 == 3 {
            let response = ask(&mut client, request("panic", "")).await;
            assert!(!response.success);
            assert!(
                response.message.contains("the panic's own words"),
                "{}",
                response.message
            );
            let reply = response.reply.expect("an answer with the error");
            assert_eq!(
                (reply.from_node.as_str(), reply.message_type.as_str()),
                ("probe", "answer")
            );
        } else {
            let response = ask(&mut client, request("echo", number.to_string())).await;
            assert_eq!(text(response), number.to_string());
        }
    }
    let probe = listed(&node).await;
    assert_eq!(probe.state, "running");
    assert_eq!(
        (probe.handled, probe.failed),
        (MESSAGES / 10 * 9, MESSAGES / 10)
    );
    assert_eq!(
        probe.starts,
        MESSAGES / 10 + 1,
        "a new instance after each panic"
    );
    assert_eq!(probe.error, "", "earlier errors are not reported");
}

async fn exceeding_a_limit_ends_one_instance(on: Backend) {
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
        (
            "big",
            "(plugins.sandbox.max_memory_bytes): memory allocation of 104857600 bytes failed",
        ),
    ] {
        assert_eq!(
            answer(&node, "memory", "").await,
            "1",
            "before {misbehaviour}"
        );
        let error = refusal(&node, misbehaviour, "").await;
        assert!(error.contains(words), "{misbehaviour}: {error}");
        // The first failure causes no delay, and the memory is lost.
        assert_eq!(
            answer(&node, "memory", "").await,
            "1",
            "after {misbehaviour}"
        );
        let crash = refusal(&node, "panic", "").await;
        assert!(crash.contains("panic's own words"), "{crash}");
    }
    // An error does not end the instance.
    assert_eq!(answer(&node, "memory", "").await, "1");
    let error = refusal(&node, "error", "").await;
    assert_eq!(error, "permanent: the error's own words");
    let error = refusal(&node, "silent", "").await;
    assert_eq!(error, "probe handled it and gave no answer");
    assert_eq!(answer(&node, "memory", "").await, "2");
    // The number of messages of a call is limited.
    let flood = answer(&node, "flood", "nobody.there").await;
    assert!(
        flood.contains("receives messages for nobody.there"),
        "{flood}"
    );
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

/// What is within its own limit passes, however small others are, and what exceeds it is an error that
/// names it.
async fn what_is_too_large_is_an_error_and_ends_no_instance(on: Backend) {
    // Results may have the usual size, and then less than a value.
    for (max_result_bytes, too_large) in [(4_128_768, "5120"), (65_536, "100")] {
        let settings = format!("[plugin.probe.limits]\nmax_result_bytes = {max_result_bytes}\n");
        let node = on.start(&[&probe("1.0.0")], &settings).await;
        assert_eq!(answer(&node, "memory", "").await, "1");
        assert_eq!(answer(&node, "store", "1024").await, "stored");
        // The largest payload of a message, and a KiB more.
        assert_eq!(answer(&node, "send", "4032").await, "1");
        for (message_type, kib, setting) in [
            ("return", too_large, "plugins.sandbox.max_result_bytes"),
            ("send", "4033", "limits.max_payload_bytes"),
            ("store", "1025", "keyvalue.max_value_bytes"),
        ] {
            let error = refusal(&node, message_type, kib).await;
            assert!(error.contains(setting), "{message_type}: {error}");
        }
        assert_eq!(answer(&node, "memory", "").await, "2");
        let probe = listed(&node).await;
        assert_eq!((probe.starts, probe.failed), (1, 0));
    }
}

async fn a_component_that_cannot_start_is_down(on: Backend) {
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
    // Tasks of the same plugin run and the node is serving; the component is not.
    let mut client = node.client();
    for task_type in ["echo", "probe-echo"] {
        let done = client.submit_and_wait(task(task_type, "x")).await.unwrap();
        assert_eq!(&*done.result, b"x");
    }
    assert_eq!(health(&node, "").await, "SERVING");
    eventually("gRPC health reports it", async || {
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

async fn a_plugin_with_the_id_of_the_node_is_told_what_to_do() {
    let node = Node::prepare(&[&probe("1.0.0")], "").named("probe");
    let node = node.started().await;
    let error = becomes(&node, "down").await.error;
    let advice = "rename the plugin in its manifest, or set node.id";
    assert!(error.contains(advice), "{error}");
    assert!(node.log().contains(advice), "{}", node.log());
}

/// Returns the gRPC health status of a service.
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

async fn a_failing_start_is_retried(on: Backend) {
    let settings = "[plugin.probe.config]\nstart = \"fail-2\"\n";
    let node = on.start(&[&probe("1.0.0")], settings).await;
    let probe = becomes(&node, "running").await;
    assert_eq!((probe.starts, probe.error.as_str()), (1, ""));
    assert_eq!(answer(&node, "echo", "x").await, "x");
}

async fn a_full_mailbox_rejects_messages(on: Backend) {
    const CAPACITY: u64 = 4;
    let settings = format!(
        "[plugin.probe.component]\nmailbox = {CAPACITY}\nmessage_timeout_ms = 3600000\n\
         [plugin.probe.limits]\nmax_cpu_ms = 3600000\n"
    );
    let node = on.start(&[&probe("1.0.0")], &settings).await;
    let mut client = node.client();
    let without_answer = |message_type: &str| hostel::proto::distributed::Message {
        reply_timeout_ms: 0,
        ..request(message_type, "x")
    };
    assert!(ask(&mut client, without_answer("sleep")).await.success);
    // The component handles that message and sleeps forever.
    eventually("the mailbox is empty", async || {
        (listed(&node).await.waiting == 0).then_some(())
    })
    .await;
    for _ in 0..CAPACITY {
        assert!(ask(&mut client, without_answer("echo")).await.success);
    }
    let refused = ask(&mut client, without_answer("echo")).await;
    assert!(!refused.success);
    assert!(
        refused.message.contains("4 messages wait in it"),
        "{}",
        refused.message
    );
    let on_topic = hostel::proto::distributed::Message {
        to_node: "probe.topic".into(),
        ..without_answer("echo")
    };
    let refused = ask(&mut client, on_topic).await;
    // Redis counts subscribers and does not report full mailboxes.
    let reported = on == Backend::Embedded;
    assert_eq!(refused.success, !reported, "{}", refused.message);
    eventually("both rejections are counted", async || {
        let probe = listed(&node).await;
        assert_eq!(probe.waiting, CAPACITY);
        (probe.refused == 2).then_some(())
    })
    .await;
}

async fn components_beyond_the_limit_are_down() {
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
