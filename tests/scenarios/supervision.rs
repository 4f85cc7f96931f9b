//! Background tasks that fail: each is missed at once, in health and in the log, and starts again or
//! ends the node. The nodes live in this process, so that a task of theirs can be made to panic.

use crate::support::{
    backend::Shared,
    eventually,
    ledger::channel,
    plugins::{can_build, guest, showcase},
    task, trial, trial_needing,
};
use hostel::{
    Config, DistributedClient, DistributedNode,
    health::{Health, Part},
    plugin::Sample,
    proto::distributed::Message,
};
use libtest_mimic::Trial;
use std::{collections::BTreeSet, fs, time::Duration};
use tempfile::TempDir;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

/// Threads of the embedded stores and the plugin host; what their panic does is shown where they are.
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

/// Their end is the end of the node.
const VITAL: [&str; 2] = ["finisher", "grpc-server"];

const RESTARTING: [&str; 14] = [
    "announcer",
    "component",
    "component-manager",
    "credential-watcher",
    "departed-nodes",
    "dispatcher",
    "end-listener",
    "health-reporter",
    "heartbeat",
    "node-inbox",
    "plugin-loader",
    "queue-listener",
    "reaper",
    "stall-watcher",
];

/// What a node has besides that shares its queue, its discovery and its broker.
const SHARED: [&str; 6] = [
    "etcd-registration",
    "etcd-watcher",
    "redis-event-reader",
    "redis-submitter",
    "redis-subscriber",
    "redis-maintenance",
];

pub fn trials() -> Vec<Trial> {
    vec![
        trial(
            "supervision::a_background_task_that_panics_is_missed_and_starts_again",
            || a_task_that_panics_starts_again(None),
        ),
        trial_needing(
            "supervision::a_background_task_that_panics_starts_again_on_redis",
            can_build() && Shared::is_here(),
            || async {
                let shared = Shared::start().await;
                a_task_that_panics_starts_again(Some(&shared)).await;
            },
        ),
        trial(
            "supervision::without_a_dispatcher_a_node_does_not_serve",
            without_a_dispatcher_a_node_does_not_serve,
        ),
        trial(
            "supervision::the_end_of_a_vital_task_ends_the_node",
            the_end_of_a_vital_task_ends_the_node,
        ),
    ]
}

/// A node within this process, with a component and a task type.
async fn start(shared: Option<&Shared>) -> (DistributedNode, TempDir) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let plugins = dir.path().join("plugins");
    fs::create_dir(&plugins).expect("the plugins directory");
    fs::copy(showcase("rates"), plugins.join("rates.wasm")).expect("a plugin");
    fs::write(plugins.join("sample.wasm"), guest(&Sample::default())).expect("a plugin");
    let data = dir.path().join("data");
    let compiler = env!("CARGO_BIN_EXE_hostel");
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

/// It runs a task, and its component answers.
async fn works(node: &DistributedNode) {
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

/// Waits for a fault of this name to come, or to go.
async fn fault(health: &Health, name: &'static str, is_there: bool) {
    let mut changed = health.changed();
    let seen = changed.wait_for(|faults| faults.keys().any(|(_, kind)| *kind == name) == is_there);
    let seen = tokio::time::timeout(Duration::from_secs(60), seen).await;
    seen.unwrap_or_else(|_| panic!("{name}: a fault is there: {is_there}"))
        .expect("its health");
}

async fn a_task_that_panics_starts_again(shared: Option<&Shared>) {
    let (node, _dir) = start(shared).await;
    let health = node.health();
    let running: BTreeSet<_> = health.background_names().into_iter().collect();
    let mut expected: BTreeSet<_> = RESTARTING.into_iter().chain(VITAL).collect();
    expected.extend(THREADS);
    if shared.is_some() {
        expected.retain(|name| !name.starts_with("queue-") || *name == "queue-listener");
        expected.extend(SHARED);
    }
    assert_eq!(running, expected);
    works(&node).await;
    let (threads, vital) = (BTreeSet::from(THREADS), BTreeSet::from(VITAL));
    let restarting = || {
        running
            .iter()
            .filter(|it| !threads.contains(*it) && !vital.contains(*it))
    };
    for name in restarting() {
        assert!(health.inject_panic(name) > 0, "{name}");
        fault(health, name, true).await;
    }
    for name in restarting() {
        fault(health, name, false).await;
    }
    works(&node).await;
    let now: BTreeSet<_> = health.background_names().into_iter().collect();
    assert_eq!(now, running);
    node.stop().await.expect("it stops");
    assert!(health.faults().is_empty(), "{:?}", health.faults());
}

async fn without_a_dispatcher_a_node_does_not_serve() {
    let (node, _dir) = start(None).await;
    let mut asked = HealthClient::new(channel(&node.address().to_string()));
    let mut status = async |service: &str| {
        let service = service.to_owned();
        let request = HealthCheckRequest { service };
        let answer = asked.check(request).await.expect("a known service");
        answer.into_inner().status()
    };
    let all = ["", "distributed.DistributedService", "worker"];
    for service in all {
        assert_eq!(status(service).await, ServingStatus::Serving, "{service}");
    }
    let health = node.health();
    // Again and again, so that it is down however slowly this test looks.
    let failing = health.clone();
    let failing = tokio::spawn(async move {
        loop {
            failing.inject_panic("dispatcher");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    fault(health, "dispatcher", true).await;
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
    fault(health, "dispatcher", false).await;
    works(&node).await;
    assert_eq!(status("").await, ServingStatus::Serving);
    node.stop().await.expect("it stops");
}

async fn the_end_of_a_vital_task_ends_the_node() {
    for name in VITAL {
        let (node, _dir) = start(None).await;
        works(&node).await;
        assert_eq!(node.health().inject_panic(name), 1);
        let why = node.failed().await;
        assert!(why.starts_with(name) && why.contains("panicked"), "{why}");
        // What is left of it stops in order.
        node.stop().await.expect("it stops");
    }
}
