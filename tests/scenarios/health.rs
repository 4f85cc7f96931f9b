//! The health of a node: gRPC health, `GetHealth` and `hostel nodes health`.

use crate::support::{
    backend::Shared,
    eventually,
    ledger::channel,
    node::Node,
    servers::{Kind, Server},
    trial_needing,
};
use libtest_mimic::Trial;
use serde_json::Value;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("health::every_part_of_a_healthy_node_is_serving", || {
            crate::support::run(every_part_of_a_healthy_node_is_serving)
        }),
        trial_needing(
            "health::an_unavailable_part_is_reported_with_its_reason",
            Shared::is_installed(),
            an_unavailable_part_is_reported_with_its_reason,
        ),
    ]
}

/// Returns the gRPC health status of a service.
async fn status(node: &Node, service: &str) -> ServingStatus {
    let mut health = HealthClient::new(channel(node.address()));
    let service = service.to_owned();
    let request = HealthCheckRequest { service };
    let answer = health.check(request).await.expect("a known service");
    answer.into_inner().status()
}

async fn becomes(node: &Node, service: &str, expected: ServingStatus) {
    eventually(&format!("{service:?} is {expected:?}"), async || {
        (status(node, service).await == expected).then_some(())
    })
    .await;
}

async fn every_part_of_a_healthy_node_is_serving() {
    let node = Node::start(&[], "").await;
    for service in [
        "",
        "distributed.DistributedService",
        "queue",
        "worker",
        "plugins",
        "discovery",
        "broker",
        "keyvalue",
        "api",
    ] {
        assert_eq!(
            status(&node, service).await,
            ServingStatus::Serving,
            "{service}"
        );
    }
    let shown = node.cli(&["nodes", "health", "--json"]);
    assert!(shown.status.success(), "{shown:?}");
    let shown: Value = serde_json::from_slice(&shown.stdout).expect("JSON");
    assert_eq!(
        (&shown["node"], &shown["serving"]),
        (&"test".into(), &true.into())
    );
    let parts = shown["parts"].as_array().expect("parts");
    assert_eq!(parts.len(), 7);
    assert!(parts.iter().all(|part| part["state"] == "ok"), "{shown}");
}

async fn an_unavailable_part_is_reported_with_its_reason() {
    let redis = Server::start(Kind::Redis).await;
    let broker = format!("[broker]\nkind = \"redis\"\nurl = \"{}\"\n", redis.url());
    let node = Node::start(&[], &broker).await;
    becomes(&node, "broker", ServingStatus::Serving).await;
    let mut redis = redis;
    redis.kill();
    becomes(&node, "broker", ServingStatus::NotServing).await;
    // The node runs tasks without a broker.
    assert_eq!(status(&node, "").await, ServingStatus::Serving);
    let seen = node.client().get_health().await.expect("its health");
    assert!(seen.serving);
    let broker = seen
        .parts
        .iter()
        .find(|part| part.name == "broker")
        .expect("a part");
    assert_eq!((broker.state.as_str(), broker.vital), ("down", false));
    let [fault] = &broker.faults[..] else {
        panic!("{broker:?}");
    };
    assert!(!fault.reason.is_empty() && fault.since_ms > 0, "{fault:?}");
    let shown = node.cli(&["nodes", "health"]);
    assert!(shown.status.success(), "{shown:?}");
    let shown = String::from_utf8_lossy(&shown.stdout);
    assert!(shown.contains(&fault.reason), "{shown}");
    redis.restart().await;
    becomes(&node, "broker", ServingStatus::Serving).await;
}
