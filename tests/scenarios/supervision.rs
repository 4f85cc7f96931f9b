//! Background tasks that fail: health and the log report each at once, and it restarts or ends the node.
//! The nodes run in this process, so that tests can make their tasks panic.

use crate::support::{
    backend::Shared,
    eventually,
    ledger::channel,
    node::binary,
    plugins::{can_build, guest, showcase},
    task, trial, trial_needing,
};
use hostel::{
    Config, DistributedClient, DistributedNode,
    health::{Health, Part},
    plugin::TestGuest,
    proto::distributed::Message,
};
use libtest_mimic::Trial;
use std::{collections::BTreeSet, fs, time::Duration};
use tempfile::TempDir;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

/// Threads of the embedded stores and the plugin host. Their panics are tested in their modules.
const THREADS: [&str; 8] = [
    "epoch-ticker",
    "keyvalue-lists",
    "keyvalue-reader",
    "keyvalue-writer",
    "process-spawner",
    "queue-lists",
    "queue-reader",
    "queue-writer",
];

/// Background tasks whose end ends the node.
const VITAL: [&str; 2] = ["finisher", "grpc-server"];

/// Background tasks that restart after a panic.
const RESTARTING: [&str; 16] = [
    "registration",
    "component",
    "component-manager",
    "credential-watcher",
    "recently-left",
    "dispatcher",
    "end-listener",
    "health-reporter",
    "heartbeat",
    "limit-reader",
    "node-inbox",
    "plugin-loader",
    "change-listener",
    "reaper",
    "schedule-runner",
    "stall-watcher",
];

/// Additional background tasks of a node with shared backends.
const SHARED: [&str; 7] = [
    "etcd-registration",
    "etcd-watcher",
    "redis-event-reader",
    "redis-submitter",
    "redis-subscriber",
    "redis-maintenance",
    "redis-pauses",
];

pub fn trials() -> Vec<Trial> {
    vec![
        trial(
            "supervision::a_panicked_background_task_is_reported_and_restarts",
            || a_panicked_background_task_restarts(None),
        ),
        trial_needing(
            "supervision::a_panicked_background_task_is_reported_and_restarts_on_redis",
            can_build() && Shared::is_installed(),
            || async {
                let shared = Shared::start().await;
                a_panicked_background_task_restarts(Some(&shared)).await;
            },
        ),
        trial(
            "supervision::a_panicked_loader_takes_no_plugin_out_of_service",
            a_panicked_loader_takes_no_plugin_out_of_service,
        ),
        trial(
            "supervision::a_node_without_a_dispatcher_is_not_serving",
            a_node_without_a_dispatcher_is_not_serving,
        ),
        trial(
            "supervision::a_node_ends_with_a_vital_background_task",
            a_node_ends_with_a_vital_background_task,
        ),
    ]
}

/// Starts a node in this process, with a component and a task type.
async fn start(shared: Option<&Shared>) -> (DistributedNode, TempDir) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let plugins = dir.path().join("plugins");
    fs::create_dir(&plugins).expect("the plugins directory");
    fs::copy(showcase("rates"), plugins.join("rates.wasm")).expect("a plugin");
    fs::write(plugins.join("sample.wasm"), guest(&TestGuest::default())).expect("a plugin");
    let data = dir.path().join("data");
    let compiler = binary();
    let settings = shared.map(Shared::settings).unwrap_or_default();
    let text = format!(
        "[node]\nid = \"test\"\nlisten = \"127.0.0.1:0\"\ndata_dir = {data:?}\n\
         [plugins]\ndir = {plugins:?}\ncompiler = {compiler:?}\n{settings}"
    );
    let config = Config::parse(&text, std::iter::empty()).expect("a configuration");
    let mut node = DistributedNode::from_config(&config).await.expect("a node");
    node.start().await.expect("it starts");
    (node, dir)
}

fn client(node: &DistributedNode) -> DistributedClient {
    DistributedClient::connect_lazy(&node.address().to_string()).expect("an address")
}

/// Checks that the node runs a task and its component answers.
async fn assert_works(node: &DistributedNode) {
    let done = client(node)
        .submit_and_wait(task("sample", "payload"))
        .await;
    let done = done.expect("an end");
    assert_eq!(
        (done.status.as_str(), &done.result[..]),
        ("completed", &b"payload"[..])
    );
    let query = Message {
        to_node: "rates".into(),
        payload: "{\"query\":{}}".into(),
        reply_timeout_ms: 60_000,
        ..Message::default()
    };
    eventually("its component answers", async || {
        client(node).send_message(query.clone()).await.ok()?.reply
    })
    .await;
}

/// Waits until a fault of this name is reported or resolved.
async fn wait_for_fault(health: &Health, name: &'static str, is_there: bool) {
    let mut changed = health.changed();
    let seen = changed.wait_for(|faults| faults.keys().any(|(_, kind)| *kind == name) == is_there);
    let seen = tokio::time::timeout(Duration::from_secs(60), seen).await;
    seen.unwrap_or_else(|_| panic!("{name}: a fault is reported: {is_there}"))
        .expect("its health");
}

async fn a_panicked_background_task_restarts(shared: Option<&Shared>) {
    let (node, _dir) = start(shared).await;
    let health = node.health();
    let running: BTreeSet<_> = health.background_names().into_iter().collect();
    let mut expected: BTreeSet<_> = RESTARTING.into_iter().chain(VITAL).collect();
    expected.extend(THREADS);
    if shared.is_some() {
        expected.retain(|name| !name.starts_with("queue-"));
        expected.extend(SHARED);
    }
    assert_eq!(running, expected);
    assert_works(&node).await;
    let (threads, vital) = (BTreeSet::from(THREADS), BTreeSet::from(VITAL));
    let restarting = || {
        running
            .iter()
            .filter(|it| !threads.contains(*it) && !vital.contains(*it))
    };
    for name in restarting() {
        assert!(health.inject_panic(name) > 0, "{name}");
        wait_for_fault(health, name, true).await;
    }
    for name in restarting() {
        wait_for_fault(health, name, false).await;
    }
    assert_works(&node).await;
    let now: BTreeSet<_> = health.background_names().into_iter().collect();
    assert_eq!(now, running);
    node.stop().await.expect("it stops");
    assert!(health.faults().is_empty(), "{:?}", health.faults());
}

async fn a_panicked_loader_takes_no_plugin_out_of_service() {
    let (node, _dir) = start(None).await;
    let mut client = client(&node);
    assert_works(&node).await;
    let component = async |client: &mut DistributedClient| {
        let components = client.list_components().await.expect("components");
        let [component] = &components[..] else {
            panic!("{components:?}");
        };
        (
            component.state.clone(),
            component.starts,
            component.since_ms,
        )
    };
    let before = component(&mut client).await;
    assert_eq!(before.0, "running");
    let health = node.health();
    for _ in 0..3 {
        assert_eq!(health.inject_panic("plugin-loader"), 1);
        wait_for_fault(health, "plugin-loader", true).await;
        while health
            .faults()
            .contains_key(&(Part::Plugins, "plugin-loader"))
        {
            let done = client.submit_and_wait(task("sample", "on")).await;
            assert_eq!(done.expect("an end").status, "completed");
            assert_eq!(component(&mut client).await, before);
        }
    }
    assert_eq!(component(&mut client).await, before);
    node.stop().await.expect("it stops");
}

async fn a_node_without_a_dispatcher_is_not_serving() {
    let (node, _dir) = start(None).await;
    let mut health_client = HealthClient::new(channel(&node.address().to_string()));
    let mut status = async |service: &str| {
        let service = service.to_owned();
        let request = HealthCheckRequest { service };
        let answer = health_client.check(request).await.expect("a known service");
        answer.into_inner().status()
    };
    let all = ["", "distributed.DistributedService", "worker"];
    for service in all {
        assert_eq!(status(service).await, ServingStatus::Serving, "{service}");
    }
    let health = node.health();
    // Repeated, so that it stays down however slow this test is.
    let failing = health.clone();
    let failing = tokio::spawn(async move {
        loop {
            failing.inject_panic("dispatcher");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    wait_for_fault(health, "dispatcher", true).await;
    for service in all {
        while status(service).await == ServingStatus::Serving {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    let seen = client(&node).get_health().await.expect("its health");
    let worker = seen
        .parts
        .iter()
        .find(|part| part.name == Part::Worker.as_str());
    let worker = worker.expect("a part");
    assert!(!seen.serving && worker.state == "down", "{seen:?}");
    assert!(worker.faults[0].reason.contains("panicked"), "{seen:?}");
    failing.abort();
    wait_for_fault(health, "dispatcher", false).await;
    assert_works(&node).await;
    assert_eq!(status("").await, ServingStatus::Serving);
    node.stop().await.expect("it stops");
}

async fn a_node_ends_with_a_vital_background_task() {
    for name in VITAL {
        let (node, _dir) = start(None).await;
        assert_works(&node).await;
        assert_eq!(node.health().inject_panic(name), 1);
        let why = node.failed().await;
        assert!(why.starts_with(name) && why.contains("panicked"), "{why}");
        // The other parts stop in order.
        node.stop().await.expect("it stops");
    }
}
